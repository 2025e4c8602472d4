"""The tokenizer of a GGUF file, as transformers reads it."""

from pathlib import Path

from tokenizers import pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stages.common.errors import UserError
from stages.common.gguf_file import metadata
from stages.common.gguf_header import Header

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

    kind, pre = metadata(header, "tokenizer.ggml.model", file), header.metadata.get("tokenizer.ggml.pre")
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
    if pre == "smollm":  # which transformers does not know
        read.backend_tokenizer.pre_tokenizer = SMOLLM
    special = {name: getattr(read, name) for name in ("bos_token", "eos_token", "unk_token", "pad_token")}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=read.backend_tokenizer,
        model_max_length=metadata(header, f"{metadata(header, 'general.architecture', file)}.context_length", file),
        clean_up_tokenization_spaces=False,
        **{name: token for name, token in special.items() if token is not None},
    )
    tokenizer.chat_template = read.chat_template
    return tokenizer
