"""The tasks and groups in data/tasks: which are evaluated, and which of their numbers represent them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from stages.common.errors import UserError
from stages.common.task_files import local, read_task

FUNCTIONS = "functions"  # the folder of the user's own Python functions


@dataclass(frozen=True)
class Tasks:
    """What is evaluated: the configs of the tasks, and the group files by the groups' names."""

    configs: list[dict[str, Any]]
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def shown(self) -> list[str]:
        """Return the names whose numbers are compared: tasks in no group, and groups with a number.

        A group without one is replaced by its direct members.
        """
        below = {name for group in self.groups.values() for name in (*group["tasks"], *group["groups"])}
        names = [*(config["task"] for config in self.configs), *self.groups]
        found: list[str] = []
        left = [name for name in names if name not in below]
        while left:
            group = self.groups.get(name := left.pop(0))
            if group is None or group.get("aggregate_metric_list"):
                found.append(name)
            else:
                inner = [each for each in group["groups"] if each in self.groups]
                within = {task for each in inner for task in self.groups[each]["tasks"]}
                left = [*(task for task in group["tasks"] if task not in within), *inner, *left]
        return list(dict.fromkeys(found))


def read_tasks(folder: Path, chosen: Literal["all"] | list[str], cache: Path, functions: bool = False) -> Tasks:
    """Return the chosen tasks, and groups with all of their tasks; their datasets will be cached in `cache`.

    `functions` says whether the user's own Python functions may run. Raises UserError if they may not and there are
    any, and for a name that is unknown.
    """
    if (folder / FUNCTIONS).is_dir() and not functions:
        raise UserError(f"{folder / FUNCTIONS} holds Python functions; set data.task_functions: true to run them")
    files = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    groups = {name: group for name in files if (group := read_group(files[name])) is not None}
    names = list(files) if chosen == "all" else list(dict.fromkeys(chosen))
    for name in names:
        if name not in files:
            raise UserError(
                f"evaluate.tasks = {name!r} is not a known task; expected one of: {', '.join(['all', *files])}"
            )
    wanted = dict.fromkeys(names)
    for name in names:
        if name in groups:
            wanted |= dict.fromkeys([*groups[name]["tasks"], *groups_below(name, groups)])
    configs = [local(read_task(files[name]), cache) for name in wanted if name not in groups]
    return Tasks(configs, {name: groups[name] for name in wanted if name in groups})


def read_group(file: Path) -> dict[str, Any] | None:
    """Return the content of a group's file, None for a task's."""
    text = file.read_text(encoding="utf-8")
    return yaml.safe_load(text) if text.startswith("group:") else None


def groups_below(name: str, groups: dict[str, dict[str, Any]]) -> list[str]:
    """Return the names of all groups in group `name` that have a file."""
    direct = [each for each in groups[name]["groups"] if each in groups]
    return [*direct, *(below for each in direct for below in groups_below(each, groups))]
