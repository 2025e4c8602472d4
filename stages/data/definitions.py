"""lm-eval's tasks and groups: from names to definitions, by lm-eval's own rules. No function runs.

A group's settings for its tasks, and the expansion of groups and tags, are those of lm-eval's TaskFactory.
"""

import difflib
import functools
import logging
from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from stages.common.errors import UserError

MOST_NAMES = 5  # near names in a message


@dataclass
class Definition:
    """One task as lm-eval would build it."""

    task_name: str
    file: Path | None  # its task file; None for one that is written inside a group
    config: dict[str, Any]  # all of it, its functions as References
    overrides: dict[str, Any]  # the part that a group sets


@dataclass
class GroupDefinition:
    """A group: the names of its tasks, those of the groups directly in it, and lm-eval's own keys of it."""

    tasks: list[str]
    groups: list[str]
    config: dict[str, Any]


@dataclass
class Expanded:
    """The tasks and groups that a list of names expands to, in its order."""

    tasks: dict[str, Definition]
    groups: dict[str, GroupDefinition]


@functools.cache
def index(folder: str | None) -> Any:
    """Return lm-eval's TaskManager of its own task files and those in `folder`, which takes some seconds."""
    from lm_eval.tasks import TaskManager

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=folder)


def expand(names: Iterable[str], folder: str | None) -> Expanded:
    """Return the tasks and groups that `names` stand for; UserError for a name that lm-eval does not know."""
    manager = index(folder)
    found = Expanded({}, {})
    for name in names:
        if name not in manager.task_index:
            near = difflib.get_close_matches(name, manager.all_tasks, MOST_NAMES)
            hint = f"similar names: {', '.join(near)}" if near else "`lm-eval ls tasks` lists the names"
            raise UserError(f"data.tasks = {name!r} is not a task, group or tag of lm-eval; {hint}")
        made = built(manager, name)
        for item in made if isinstance(made, list) else [made]:
            add(item, found)
    return found


def built(manager: Any, name: str) -> Any:
    """Return lm-eval's Group of Definitions, a Definition, or for a tag a list of them."""
    from lm_eval.tasks import _factory

    from stages.common.task_files import definition

    class Definitions(_factory.TaskFactory):
        """lm-eval's factory, except that it makes a Definition of a task."""

        def _load_full_config(self, entry: Any, overrides: dict[str, Any] | None = None) -> dict[str, Any]:
            return deepcopy(definition(entry.yaml_path)) | (overrides or {})

        def _build_task(self, entry: Any, overrides: dict[str, Any] | None) -> Any:
            config = self._load_full_config(entry, overrides)
            return Definition(config["task"], entry.yaml_path, plain(config), plain(overrides or {}))

    def inline(config: dict[str, Any]) -> Definition:
        return Definition(config["task"], None, plain(config), {})

    try:
        with mock.patch.object(_factory, "ConfigurableTask", inline):
            return Definitions().build(manager.task_index[name], registry=dict(manager.task_index))
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"data.tasks = {name!r}: lm-eval cannot read it ({type(error).__name__}: {reason})") from None


def plain(config: dict[str, Any]) -> dict[str, Any]:
    """Return a task's config without the keys that say where it belongs."""
    return {key: value for key, value in config.items() if key not in ("tag", "group", "task_list")}


def add(item: Any, found: Expanded) -> None:
    """Add a Definition, or a group with all below it; UserError for one task with two different definitions."""
    if isinstance(item, Definition):
        known = found.tasks.setdefault(item.task_name, item)
        if known.config != item.config:
            raise UserError(
                f"data.tasks: {item.task_name} is in two groups that configure it differently; list only one of them"
            )
        return
    for child in item:
        add(child, found)
    below = [child.name for child in item if not isinstance(child, Definition)]
    config = {key: value for key, value in (item.to_dict() or {}).items() if key != "task"}
    found.groups[item.name] = GroupDefinition(list(dict.fromkeys(leaves(item))), below, config)


def leaves(group: Any) -> Iterator[str]:
    """Yield the names of all tasks below a group."""
    for child in group:
        if isinstance(child, Definition):
            yield child.task_name
        else:
            yield from leaves(child)
