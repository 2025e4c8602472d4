"""Write a tokenizer into a GGUF file: byte-level BPE (GPT-2, Llama 3, Qwen) or SentencePiece's BPE (Llama 2, Mistral).

Both come from the `tokenizer.json` of a fast tokenizer. llama.cpp identifies pre-tokenizers by name, so one without
a name there is refused.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from stages.common.errors import UserError
from stages.common.text import around

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
PATTERNS = {GPT2: "gpt-2", LLAMA3: "llama-bpe", LLAMA3.replace("{1,3}", ""): "qwen2"}
SPACE = "▁"  # SentencePiece's blank
UNMERGED = -1e9  # the score of a piece that no merge makes: the last resort


def write_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, vocab_size: int, ends: Sequence[int] = ()) -> None:
    """Write the tokens in the order of their ids, up to `vocab_size`, and how text becomes them.

    `ends`: the tokens that end what the model generates, by its generation config. Raises UserError for a tokenizer
    that llama.cpp has no counterpart of.
    """
    description = describe(tokenizer)
    bpe = description["model"]
    if bpe["type"] != "BPE":
        raise UserError(f"tokenizer.json: a model of type {bpe['type']} cannot be written as GGUF; expected BPE")
    byte_level = any(step["type"] == "ByteLevel" for step in steps(description["pre_tokenizer"]))
    if byte_level:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(pre_tokenizer_name(description))
        writer.add_token_merges([" ".join(merge) for merge in bpe["merges"]])
    elif bpe["byte_fallback"]:
        writer.add_tokenizer_model("llama")
        writer.add_add_space_prefix(has_space_prefix(description))
    else:
        raise UserError(
            "tokenizer.json: BPE of neither bytes nor SentencePiece (byte_fallback) cannot be written as GGUF"
        )
    write_tokens(writer, tokenizer, description, vocab_size, byte_level)
    write_special_tokens(writer, tokenizer, ends)


def describe(tokenizer: PreTrainedTokenizerBase) -> dict:
    """Return the content of the tokenizer's tokenizer.json; UserError where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError("the tokenizer has no tokenizer.json, which GGUF is written from; export safetensors")
    return json.loads(backend.to_str())


def comparable_parts(tokenizer: PreTrainedTokenizerBase, line: str) -> list[str]:
    """Return the parts of a text that llama.cpp can encode as the tokenizer does: mostly the whole text.

    Of a SentencePiece tokenizer, llama.cpp puts a blank before a text and after each added token in it. Added tokens
    differ in that here, and LlamaTokenizer of transformers 5 (a Metaspace step) puts none before a text that begins
    with one.
    """
    description = describe(tokenizer)
    parts = steps(description["normalizer"]) + steps(description["pre_tokenizer"])
    kinds = {step["type"] for step in parts}
    if "ByteLevel" in kinds:
        return [line]
    added = "|".join(re.escape(token["content"]) for token in description["added_tokens"])
    split = re.split(added, line) if added else [line]
    return [part for part in (part.lstrip(" ") if "Metaspace" in kinds else part for part in split) if part]


def steps(part: dict | None) -> list[dict]:
    """Return the steps of a normalizer or pre-tokenizer, which may be none, one or a sequence."""
    if part is None:
        return []
    if part["type"] == "Sequence":
        return part.get("pretokenizers", part.get("normalizers", []))
    return [part]


def pre_tokenizer_name(description: dict) -> str:
    """Return llama.cpp's name for how a byte-level tokenizer cuts text before BPE."""
    *before, last = steps(description["pre_tokenizer"])
    normalizers = [step["type"] for step in steps(description["normalizer"])]
    kinds = [step["type"] for step in before]
    if last["type"] == "ByteLevel" and not last["add_prefix_space"] and set(normalizers) <= {"NFC"}:
        if not before and last["use_regex"]:
            return "gpt-2"
        if kinds == ["Digits"] and before[0]["individual_digits"] and last["use_regex"]:
            return "smollm"
        if kinds == ["Split"] and before[0]["behavior"] == "Isolated" and not last["use_regex"]:
            pattern = before[0]["pattern"].get("Regex")
            if pattern in PATTERNS:
                return PATTERNS[pattern]
    raise UserError(
        "tokenizer.json: llama.cpp has no counterpart of this pre_tokenizer: "
        f"{json.dumps(description['pre_tokenizer'])}; expected that of GPT-2, SmolLM, Llama 3 or Qwen2"
    )


def has_space_prefix(description: dict) -> bool:
    """Return whether a SentencePiece tokenizer puts a blank before the text; UserError if it does anything more."""
    prefixed = False
    for step in steps(description["normalizer"]) + steps(description["pre_tokenizer"]):
        if step["type"] == "Prepend" and step["prepend"] == SPACE:
            prefixed = True
        elif step["type"] == "Metaspace" and step["replacement"] == SPACE and not step.get("split"):
            prefixed |= step.get("prepend_scheme", "always") != "never"
        elif not (step["type"] == "Replace" and step["content"] == SPACE and step["pattern"] == {"String": " "}):
            raise UserError(
                f"tokenizer.json: {json.dumps(step)} cannot be written as GGUF; expected a step that SentencePiece has"
            )
    return prefixed


def write_tokens(
    writer: Any, tokenizer: PreTrainedTokenizerBase, description: dict, vocab_size: int, byte_level: bool
) -> None:
    """Write token texts and types, and for SentencePiece the scores: a piece that merges earlier has a higher one."""
    from gguf import TokenType

    names = {number: text for text, number in tokenizer.get_vocab().items()}
    if max(names) >= vocab_size:
        raise UserError(
            f"the embeddings have {vocab_size} rows, and the tokenizer has the id {max(names)}; "
            "GGUF needs a row for each id"
        )
    added = {token["id"]: token for token in description["added_tokens"]}
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(description["model"]["merges"]):
        ranks.setdefault(left + right, rank)
    texts, types, scores = [], [], []
    for number in range(vocab_size):
        text = names.get(number, f"[PAD{number}]")
        if number not in names:
            kind = TokenType.UNUSED
        elif number in added:
            kind = TokenType.CONTROL if added[number]["special"] else TokenType.USER_DEFINED
            unknown = description["model"]["unk_token"] or (None if byte_level else tokenizer.unk_token)
            kind = TokenType.UNKNOWN if text == unknown else kind
        elif not byte_level and len(text) == 6 and text.startswith("<0x"):
            kind = TokenType.BYTE
        else:
            kind = TokenType.NORMAL
        texts.append(text)
        types.append(kind)
        scores.append(float(-ranks[text]) if text in ranks else UNMERGED)
    writer.add_token_list(texts)
    writer.add_token_types(types)
    if not byte_level:
        writer.add_token_scores(scores)


def write_special_tokens(writer: Any, tokenizer: PreTrainedTokenizerBase, ends: Sequence[int]) -> None:
    """Write which tokens begin, end and pad a text, which are added to one, which end an answer, the chat template.

    Raises UserError where the tokenizer adds others than its BOS before a text and its EOS after it.
    """
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    before, after = around(tokenizer)
    for added, name in ((before, "bos"), (after, "eos")):
        if added not in ([], [getattr(tokenizer, f"{name}_token_id")]):
            raise UserError(
                f"the tokenizer adds the tokens {tokenizer.convert_ids_to_tokens(added)} to a text, and llama.cpp adds "
                f"at most one {name.upper()}; export safetensors instead"
            )
    writer.add_add_bos_token(bool(before))
    writer.add_add_eos_token(bool(after))
    # Generation ends at each of these, as at the EOS; llama.cpp knows further ones by their usual texts.
    if tokenizer.eos_token_id is None and ends:
        writer.add_eos_token_id(ends[0])
        ends = ends[1:]
    further = [token for token in ends if token != tokenizer.eos_token_id]
    for token, write in zip(further, (writer.add_eot_token_id, writer.add_eom_token_id), strict=False):
        write(token)
    template = tokenizer.chat_template
    if isinstance(template, dict):  # by name
        template = template.get("default")
    if isinstance(template, str):
        writer.add_chat_template(template)
