"""Write a tokenizer into a GGUF file: byte-level BPE (GPT-2, Llama 3, Qwen) or SentencePiece's BPE (Llama 2, Mistral).

Both are read from the `tokenizer.json` that every fast tokenizer holds. llama.cpp knows how text is cut before BPE only
by name, so a pattern that has none there is refused.
"""

import json
from typing import Any

from transformers import PreTrainedTokenizerBase

from stages.common.errors import UserError

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
PATTERNS = {GPT2: "gpt-2", LLAMA3: "llama-bpe", LLAMA3.replace("{1,3}", ""): "qwen2"}
SPACE = "▁"  # SentencePiece's blank
UNMERGED = -1e9  # the score of a piece that no merge makes: the last resort


def write_tokenizer(writer: Any, tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    """Write the tokens in the order of their ids, up to `vocab_size`, and how text becomes them.

    Raises UserError for a tokenizer that llama.cpp has no counterpart of.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError("the tokenizer has no tokenizer.json, which GGUF is written from; export safetensors")
    description = json.loads(backend.to_str())
    bpe = description["model"]
    if bpe["type"] != "BPE":
        raise UserError(f"tokenizer.json: a model of type {bpe['type']} cannot be written as GGUF; allowed: BPE")
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
    write_special_tokens(writer, tokenizer)


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
        "tokenizer.json: llama.cpp is not known to cut text as this pre_tokenizer does: "
        f"{json.dumps(description['pre_tokenizer'])}; allowed: those of GPT-2, SmolLM, Llama 3 and Qwen2"
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
                f"tokenizer.json: {json.dumps(step)} cannot be written as GGUF; allowed: SentencePiece's own"
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
            f"model.embed_tokens.weight has {vocab_size} rows, and the tokenizer knows the id {max(names)}; "
            "GGUF wants a row for each"
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
            kind = TokenType.UNKNOWN if text == description["model"]["unk_token"] else kind
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


def write_special_tokens(writer: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write which tokens begin, end and pad a text, whether they are added to one, and the chat template."""
    for name in ("bos", "eos", "unk", "pad"):
        number = getattr(tokenizer, f"{name}_token_id")
        if number is not None:
            getattr(writer, f"add_{name}_token_id")(number)
    empty = tokenizer("")["input_ids"]
    writer.add_add_bos_token(empty[:1] == [tokenizer.bos_token_id])
    writer.add_add_eos_token(len(empty) > 1 and empty[-1] == tokenizer.eos_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
