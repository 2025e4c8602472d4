"""Fixtures that every test can use; plain helpers are in helpers.py, projects in project.py and stub_project.py."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from xdist import is_xdist_controller

if TYPE_CHECKING:
    import torch

pytest_plugins = ["browser", "project", "stub_project"]

# The same examples on every run, and no limit on their time: a busy machine is no bug.
settings.register_profile("espalier", derandomize=True, deadline=None)
settings.load_profile("espalier")

# The architectures that differ most. Tests of the others are slow, since there are so many.
FAST_FAMILIES = ("llama", "gemma2", "gpt_neox", "mixtral")
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Use one thread, since `make test` runs one worker on each core; what only starts the workers needs no torch."""
    if not is_xdist_controller(session):
        import torch

        torch.set_num_threads(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the environment as it was: a process that imports the evaluation forbids the hub to all that it starts."""
    before = {name: os.environ[name] for name in OFFLINE if name in os.environ}
    try:
        return (yield)
    finally:
        for name in OFFLINE:
            os.environ.pop(name, None)
        os.environ.update(before)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark most architectures slow; put slow files first, the longest before others: no worker ends alone with one."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec and callspec.params.get("family", FAST_FAMILIES[0]) not in FAST_FAMILIES:
            item.add_marker(pytest.mark.slow)
    long = ("test_faults_kills", "test_studies_sweep")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: ("e2e" not in item.path.parts and item.path.stem not in long, item.path not in slow))


@pytest.fixture(scope="session")
def windows() -> torch.Tensor:
    """Calibration windows for `tiny_llama`, shape (4, 16)."""
    import torch

    return torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def undo_torch_setup() -> Generator[None, None, None]:
    """Undo what a stage that ran in the test's process set: its threads, and bfloat16 where the processor has it."""
    yield
    if "stages.common.torch_setup" in sys.modules:
        import torch

        from stages.common import torch_setup

        torch_setup.autocast_device = None
        torch.use_deterministic_algorithms(False)
        torch.set_num_threads(1)


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Leave a report without its figures, which take seconds, where a test reads the text alone."""
    monkeypatch.setattr("studies.compare.draw_all", lambda *arguments: [])
