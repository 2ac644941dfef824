"""Amounts on the command line, in the forms that runc's callers know."""

from __future__ import annotations

from rootless_pyoki.errors import UsageError

_LONGEST = 2**63 - 1
_PREFIXES = "kmgtp"  # each 1024 times the one before


def size(name: str, text: str) -> int:
    """Bytes: `512m`, `1.5g`, `2GiB`, `64 kb`, `4096`, `0b`; -1 is "no limit".

    A letter of k m g t p, in either case, with or without b or ib, counts in powers of 1024.
    """
    if text == "-1":
        return -1
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    suffix = text[len(number) :].lower()
    power = _PREFIXES.find(suffix[0]) + 1 if suffix else 0
    known = suffix in ("", "b") or (power and suffix[1:] in ("", "b", "ib"))
    amount = _decimal(number.removesuffix(" "), 1 << 10 * power) if known else None
    if amount is None:
        raise UsageError(f"{name} takes a size such as 512m or 1.5g, or -1, not {text!r}")
    if amount > _LONGEST:
        raise UsageError(f"{name} takes at most {_LONGEST} bytes, not {text!r}")
    return amount


def _decimal(text: str, unit: int) -> int | None:
    """So many units in whole ones, rounded down: `1.5`, `.5`, `2.`; None when it is no number."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 40:
        return None
    scale: int = 10 ** len(fraction)
    return int(digits) * unit // scale


def integer(name: str, text: str) -> int:
    """A whole number with or without a minus, of 64 bits."""
    digits = text.removeprefix("-")
    if digits.isascii() and digits.isdigit() and len(digits) < 20:
        number = int(text)
        if -_LONGEST <= number <= _LONGEST:
            return number
    raise UsageError(f"{name} takes a whole number, not {text!r}")
