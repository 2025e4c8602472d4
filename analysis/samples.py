"""The section of the report that shows what each model writes after the same prompts."""

import re


def samples_section(samples: dict[str, list[dict[str, str]]]) -> str:
    """Return every prompt with each model's continuation (lists of prompt and continuation, by model)."""
    prompts = dict.fromkeys(sample["prompt"] for written in samples.values() for sample in written)
    parts = ["## Samples\n\nContinuations of the same prompts; ↵ is the end of a line, ↵3 that of three."]
    for prompt in prompts:
        lines = [
            f"- {model}: {inline_code(each['continuation'])}"
            for model, written in samples.items()
            for each in written
            if each["prompt"] == prompt
        ]
        parts.append(f"{inline_code(prompt)}\n\n" + "\n".join(lines))
    return "\n\n".join(parts) if prompts else ""


def inline_code(text: str) -> str:
    """Return text as Markdown code on one line, whatever backticks and line ends it holds."""
    fence = "`"
    while fence in text:
        fence += "`"
    line = re.sub(r"\n+", lambda ends: " ↵ " if len(ends[0]) == 1 else f" ↵{len(ends[0])} ", text)
    return f"{fence} {' '.join(line.split())} {fence}"
