"""What the fuzz tests have counted; conftest.py prints it at the end of the run."""

from __future__ import annotations

from collections import Counter

LINES: dict[str, str] = {}


def tell(title: str, text: str) -> None:
    LINES[title] = text


def listing(counts: Counter[str], most: int = 12) -> str:
    """`a 3, b 2`: the most frequent first."""
    return ", ".join(f"{name} {number}" for name, number in counts.most_common(most)) or "none"
