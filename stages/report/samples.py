"""The section of the report that shows what each model writes after the same prompts."""


def samples_section(samples: dict[str, list[dict[str, str]]]) -> str:
    """Return every prompt with each model's continuation (lists of prompt and continuation, by model)."""
    prompts = dict.fromkeys(sample["prompt"] for written in samples.values() for sample in written)
    parts = ["## Samples"]
    for prompt in prompts:
        parts.append(f"Prompt: {inline_code(prompt)}")
        for model, written in samples.items():
            parts += [f"{model}:\n\n{fenced(each['continuation'])}" for each in written if each["prompt"] == prompt]
    return "\n\n".join(parts) if prompts else ""


def inline_code(text: str) -> str:
    """Return text as code on one line, whatever backticks it holds."""
    fence = "`" * (longest_run(text, "`") + 1)
    return f"{fence} {' '.join(text.split())} {fence}"


def fenced(text: str) -> str:
    """Return text as a code block, whatever tildes it holds."""
    fence = "~" * max(3, longest_run(text, "~") + 1)
    return f"{fence}text\n{text}\n{fence}"


def longest_run(text: str, character: str) -> int:
    """Return the length of the longest run of `character`."""
    length = 0
    while character * (length + 1) in text:
        length += 1
    return length
