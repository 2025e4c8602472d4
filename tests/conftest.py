"""Fixtures that every test can use; plain helpers are in helpers.py, the end-to-end project in project.py."""

import pytest
import torch

pytest_plugins = ["project"]


@pytest.fixture(scope="session")
def windows() -> torch.Tensor:
    """Calibration windows for `tiny_llama`, shape (4, 16)."""
    return torch.randint(0, 64, (4, 16), generator=torch.Generator().manual_seed(1))
