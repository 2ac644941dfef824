"""Durations, as Go's time.ParseDuration reads them."""

from __future__ import annotations

import pytest

from rootless_pyoki.cli import durations
from rootless_pyoki.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("5s", 5),
        ("1m30s", 90),
        ("1.5h", 5400),
        (".5s", 0.5),
        ("5.s", 5),
        ("+3s", 3),
        ("1h1m1s1ms", 3661.001),
        ("250us", 0.00025),
        ("250µs", 0.00025),
        ("250μs", 0.00025),
        ("1ns", 1e-9),
        ("0.0001s", 0.0001),
    ],
)
def test_seconds(text: str, seconds: float) -> None:
    """Numbers with units, one behind the other."""
    assert durations.seconds("--interval", text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "5", "s", "5x", "1s2", "1..5s", ".s", "+-5s", " 5s", "5 s", "²s", "9999999999h", "-"],
)
def test_no_duration(text: str) -> None:
    """A number needs a unit; what is too long for Go is too long for us."""
    with pytest.raises(UsageError, match="--interval takes a duration"):
        durations.seconds("--interval", text)


@pytest.mark.parametrize("text", ["0", "0s", "-5s", "+0", "-1h", "0m0s"])
def test_too_short(text: str) -> None:
    """runc's words for what is not in the future."""
    with pytest.raises(UsageError, match="duration interval must be greater than 0"):
        durations.seconds("--interval", text)
