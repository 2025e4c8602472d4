"""The tokenizer of a GGUF file, as transformers reads it."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stages.common.errors import UserError
from stages.models.gguf_file import count, metadata
from stages.models.gguf_header import Header

MODELS = ("gpt2", "llama")  # byte-level BPE, SentencePiece's BPE
SMOLLM = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)


def read_tokenizer(header: Header, link: Path, file: Path) -> PreTrainedTokenizerFast:
    """Return the tokenizer of `link`, which is the GGUF `file` alone in a folder; UserError, naming it, if it has none.

    A byte-level tokenizer whose way of cutting text is not known here is refused: it would encode text otherwise than
    the model has learned.
    """
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kind, pre = metadata(header, "tokenizer.ggml.model", file), str(header.metadata.get("tokenizer.ggml.pre"))
    if kind not in MODELS:
        raise UserError(
            f"{file}: tokenizer.ggml.model = {kind!r} is not supported; expected one of: {', '.join(MODELS)}"
        )
    known = {"gpt-2", "smollm", *GGUF_PRE_TOKENIZER_SPLITS}
    if kind == "gpt2" and pre not in known:
        raise UserError(f"{file}: tokenizer.ggml.pre = {pre!r}; expected one of: {', '.join(sorted(known))}")
    try:
        read = PreTrainedTokenizerFast.from_pretrained(link.parent, gguf_file=link.name, local_files_only=True)
    except Exception as error:  # whatever transformers stumbles over in a damaged vocabulary
        raise UserError(f"{file}: its tokenizer cannot be read ({' '.join(str(error).split())})") from None
    own = own_tokens(read.backend_tokenizer, header.lengths["tokenizer.ggml.tokens"])
    if kind == "llama":
        cut_as_sentencepiece(own, header.metadata.get("tokenizer.ggml.add_space_prefix", True))
    elif pre == "smollm":  # which transformers does not know
        own.pre_tokenizer = SMOLLM
    special = {name: getattr(read, name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=own,
        model_max_length=count(header, "context_length", file),
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in special.items() if token is not None},
    )
    tokenizer.chat_template = read.chat_template
    return tokenizer


def own_tokens(tokenizer: Tokenizer, count: int) -> Tokenizer:
    """Return `tokenizer` with the file's `count` tokens alone.

    transformers adds GPT-2's unknown token to those of a file that lacks it.
    """
    description = json.loads(tokenizer.to_str())
    description["added_tokens"] = [token for token in description["added_tokens"] if token["id"] < count]
    return Tokenizer.from_str(json.dumps(description))


def cut_as_sentencepiece(tokenizer: Tokenizer, prefixed: bool) -> None:
    """Let `tokenizer` write blanks as SentencePiece does, one in front of the text if `prefixed`.

    transformers joins a blank that begins the text with the one that it puts in front.
    """
    prefix, strip = ([normalizers.Prepend("▁")], [decoders.Strip(" ", 1, 0)]) if prefixed else ([], [])
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
