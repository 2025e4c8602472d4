"""The questions that models answer differently, with their texts."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import pandas as pd
import yaml

from analysis.outcomes import side_by_side
from analysis.results import TaskLoader

BUDGET = 1_200_000  # characters of questions on a page, shared by the tasks
LONGEST = 1_500  # characters of one text; the rest is cut


def flipped(questions: dict[str, pd.DataFrame], folder: Path) -> dict[str, dict[str, Any]]:
    """Return, per task, the questions that not all models answer alike, as many as a page has room for.

    `questions` are the models' rows of questions.parquet, `folder` holds the tasks. Each question: its number, who is
    right by model, its prompt, its choices and which is right; `left_out` is how many more there are.
    """
    if len(questions) < 2:
        return {}
    frames = {model: frame.dropna(subset="acc") for model, frame in questions.items()}
    table = side_by_side(frames, ["task", "question"], "acc").astype(int)
    differing = table[table.nunique(axis=1) > 1]
    tasks = sorted({str(task) for task in differing.index.get_level_values("task")})
    return {task: chosen(differing.loc[task], folder / f"{task}.yaml", BUDGET // len(tasks)) for task in tasks}


def chosen(right: pd.DataFrame, file: Path, room: int) -> dict[str, Any]:
    """Return the questions of one task whose texts fit into `room` characters; `right` has a row for each."""
    texts = Texts(file)
    shown: list[dict[str, Any]] = []
    for number, row in right.iterrows():
        text = texts.of(int(str(number)))
        room -= len(text["prompt"]) + sum(map(len, text["choices"]))
        if room < 0:
            break
        shown.append({"number": number, "right": {model: int(value) for model, value in row.items()}, **text})
    return {"questions": shown, "left_out": len(right) - len(shown)}


class Texts:
    """The texts of a task's questions, by the templates in its file where there are some, else by its columns.

    lm-eval's own functions are not run for that: such a question is shown as its document's fields.
    """

    def __init__(self, file: Path):
        self.config = yaml.load(file.read_text(encoding="utf-8"), Loader=TaskLoader) if file.is_file() else {}
        files = (self.config.get("dataset_kwargs") or {}).get("data_files") or {}
        split = self.config.get("test_split") or self.config.get("validation_split")
        path = files.get(split) if split else next((files[key] for key in ("test", "validation") if key in files), None)
        self.documents = pd.read_parquet(path) if path and Path(path).is_file() else pd.DataFrame()
        self.environment = jinja2.sandbox.SandboxedEnvironment(undefined=jinja2.StrictUndefined)

    def of(self, number: int) -> dict[str, Any]:
        """Return prompt, choices and the right one's index (None where it is not known) of a question."""
        if number >= len(self.documents):
            return {"prompt": "", "choices": [], "answer": None}
        document = {str(key): listed(value) for key, value in self.documents.iloc[number].items()}
        text, choices, target = (self.filled(f"doc_to_{part}", document) for part in ("text", "choice", "target"))
        if not isinstance(choices, list):
            return {"prompt": cut("\n".join(fields(document))), "choices": [], "answer": None}
        # A task whose prompts are the choices names the right one in doc_to_text, and what all end with as the target.
        several = isinstance(text, int)
        prompt = f"… {target}" if several else str(text or "")
        answer = text if several else choices.index(target) if target in choices else target
        answer = int(answer) if str(answer).isdigit() and int(answer) < len(choices) else None
        return {"prompt": cut(prompt), "choices": [cut(str(each)) for each in choices], "answer": answer}

    def filled(self, key: str, document: dict[str, Any]) -> Any:
        """Return what a key of the task stands for in a document: a column, or a filled template; None if neither."""
        value = self.config.get(key)
        if not isinstance(value, str):
            return value
        if value in document:
            return document[value]
        try:
            return self.environment.from_string(value).render(document)
        except Exception:  # a template may do anything; the document's fields are shown instead
            return None


def listed(value: Any) -> Any:
    """Return an array of a Parquet cell as a list, a NumPy number as Python's."""
    return value.tolist() if hasattr(value, "tolist") else value


def fields(document: dict[str, Any]) -> Iterator[str]:
    """Yield a document's fields as lines."""
    for key, value in document.items():
        yield f"{key}: {'; '.join(map(str, value)) if isinstance(value, list) else value}"


def cut(text: str) -> str:
    """Return a text, cut where it is too long for a page."""
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
