"""The figures of the campaign: what was tried of each kind, and what held."""

import pytest
from campaign import HELD, LARGE, TRIED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many attempts of each kind there were, and how many held."""
    if LARGE and TRIED:
        terminalreporter.section("faults: tried, held")
        for kind, tried in sorted(TRIED.items()):
            terminalreporter.write_line(f"{kind:44} {tried:6} {HELD[kind]:6}")
        terminalreporter.write_line(f"{'all':44} {TRIED.total():6} {HELD.total():6}")
