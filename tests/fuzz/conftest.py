"""The figures of the fuzz tests, told at the end of every run."""

from __future__ import annotations

from typing import Any

from tests.fuzz import figures


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not figures.LINES:
        return
    terminalreporter.section("fuzz")
    for title, text in figures.LINES.items():
        terminalreporter.write_line(f"{title}: {text}")
