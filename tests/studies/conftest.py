"""Fixtures of the tests of studies."""

import pytest


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Leave a report without its figures, which take seconds, where a test reads the text alone."""
    monkeypatch.setattr("studies.compare.draw_all", lambda *arguments: [])
