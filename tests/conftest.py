"""Fixtures that every test can use; plain helpers are in helpers.py, projects in project.py and stub_project.py."""

import pytest
import torch
from hypothesis import settings

pytest_plugins = ["browser", "project", "stub_project"]

# The same examples on every run, and no limit on their time: a busy machine is no bug.
settings.register_profile("espalier", derandomize=True, deadline=None)
settings.load_profile("espalier")

torch.set_num_threads(1)  # `make test` runs one worker on each core

# The architectures that differ most. Tests of the others are slow, since there are so many.
FAST_FAMILIES = ("llama", "gemma2", "gpt_neox", "mixtral")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark most architectures slow; put the longest files first, so that no worker ends alone with one of them."""
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec and callspec.params.get("family", FAST_FAMILIES[0]) not in FAST_FAMILIES:
            item.add_marker(pytest.mark.slow)
    long = ("test_faults_kills", "test_studies_sweep")
    items.sort(key=lambda item: "e2e" not in item.path.parts and item.path.stem not in long)


@pytest.fixture(scope="session")
def windows() -> torch.Tensor:
    """Calibration windows for `tiny_llama`, shape (4, 16)."""
    return torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Leave a report without its figures, which take seconds, where a test reads the text alone."""
    monkeypatch.setattr("studies.compare.draw_all", lambda *arguments: [])
