"""Durations as callers write them: Go's time.ParseDuration, 500ms, 5s, 1m30s, 1.5h."""

from __future__ import annotations

from rootless_pyoki.errors import UsageError

SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600}
LONGEST = 2**63 / 1e9  # seconds: an int64 of nanoseconds
_DIGITS = "0123456789."


def seconds(name: str, text: str) -> float:
    """Raises UsageError for what is no duration, or none greater than 0; name: the option's."""
    total, rest = 0.0, text.removeprefix("-").removeprefix("+")
    if rest == "0":
        raise _too_short(name)
    while rest:
        unit = rest.lstrip(_DIGITS)
        number = rest[: len(rest) - len(unit)]
        rest = unit.lstrip("nuµμsmh")
        unit = unit[: len(unit) - len(rest)]
        if unit not in SECONDS:  # one behind the other, as in "1m30s", is cut by the digits between
            raise _wrong(name, text)
        if not number.replace(".", "", 1).isdigit():
            raise _wrong(name, text)
        total += float(number) * SECONDS[unit]
    if not text or text[-1] in "+-" or total > LONGEST:
        raise _wrong(name, text)
    if total <= 0 or text[0] == "-":
        raise _too_short(name)
    return total


def _wrong(name: str, text: str) -> UsageError:
    return UsageError(f"{name} takes a duration such as 500ms, 5s or 1m30s, not {text!r}")


def _too_short(name: str) -> UsageError:
    return UsageError(f"duration {name.lstrip('-')} must be greater than 0")
