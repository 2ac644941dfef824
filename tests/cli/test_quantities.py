"""Sizes and signed numbers as they stand on a command line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.cli import quantities
from rootless_pyoki.errors import UsageError

K = 1024


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("4096", 4096),
        ("12b", 12),
        ("12B", 12),
        ("64k", 64 * K),
        ("64K", 64 * K),
        ("64kb", 64 * K),
        ("64kB", 64 * K),
        ("64KiB", 64 * K),
        ("64kib", 64 * K),
        ("512m", 512 * K**2),
        ("512 m", 512 * K**2),
        ("512 MiB", 512 * K**2),
        ("1g", K**3),
        ("1.5g", 3 * K**3 // 2),
        (".5k", 512),
        ("2.k", 2048),
        ("0.0001k", 0),
        ("3t", 3 * K**4),
        ("1p", K**5),
        ("007m", 7 * K**2),
        ("9223372036854775807", 2**63 - 1),
        ("-1", -1),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    """As docker and runc read them: powers of 1024, with b or ib or without, and fractions."""
    assert quantities.size("--memory", text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", ".", "m", "b", "12x", "12kk", "12bk", "12kbi", "12ibk", "12i", "12e", "12kibb"),
        *("-2", "-1m", "+1", "1,5g", "1.2.3", "1_000", "1e3", "0x10", "inf", "nan", "1  m", "1m "),
        *("²", "\u0661", "max", "unlimited", "1" * 60),
    ],
)
def test_what_is_no_size(text: str) -> None:
    """The message names the option and shows what was given."""
    with pytest.raises(UsageError) as caught:
        quantities.size("--memory", text)
    assert caught.value.message.startswith("--memory takes a size such as 512m")
    assert repr(text) in caught.value.message


@pytest.mark.parametrize("text", ["9223372036854775808", "8192p", "8388608t"])
def test_too_large(text: str) -> None:
    """No more than the kernel can count."""
    with pytest.raises(UsageError, match="at most 9223372036854775807 bytes"):
        quantities.size("--memory", text)


@given(st.integers(0, 2**40), st.sampled_from(["", "k", "m", "Kb", "MiB"]))
def test_exact(number: int, suffix: str) -> None:
    """Not rounded by any float."""
    factor = K ** ("kmg".find(suffix[:1].lower()) + 1 if suffix else 0)
    assert quantities.size("", f"{number}{suffix}") == number * factor


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", 0), ("-1", -1), ("50000", 50000), (str(2**63 - 1), 2**63 - 1), ("-0", 0)],
)
def test_integers(text: str, expected: int) -> None:
    """With a sign where it is negative."""
    assert quantities.integer("--cpu-quota", text) == expected


@pytest.mark.parametrize("text", ["", "-", "--1", "+1", "1.0", " 1", "1_0", "1k", "x", str(2**63)])
def test_what_is_no_integer(text: str) -> None:
    """The message names the option."""
    with pytest.raises(UsageError, match=r"^--cpu-quota takes a whole number, not "):
        quantities.integer("--cpu-quota", text)
