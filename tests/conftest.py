"""Fixtures that every test can use; plain helpers are in helpers.py, projects in project.py and stub_project.py."""

import pytest
import torch
from hypothesis import settings

pytest_plugins = ["browser", "project", "stub_project"]

# The same examples on every run, and no limit on their time: a busy machine is no bug.
settings.register_profile("espalier", derandomize=True, deadline=None)
settings.load_profile("espalier")

torch.set_num_threads(1)  # `make test` runs one worker on each core


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, so that no worker is left alone with one of them at the end."""
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
