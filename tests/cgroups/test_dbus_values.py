"""D-Bus values: our bytes and jeepney's are the same, and what is broken is refused."""

from __future__ import annotations

import math
import sys
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jeepney.low_level import Endianness, parse_signature

from rootless_pyoki.cgroups import dbus_values
from rootless_pyoki.errors import HostError

Order = Literal["little", "big"]
ORDERS: dict[Order, Endianness] = {"little": Endianness.little, "big": Endianness.big}

RANGES = {
    "y": (0, 2**8 - 1),
    "n": (-(2**15), 2**15 - 1),
    "q": (0, 2**16 - 1),
    "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1),
    "x": (-(2**63), 2**63 - 1),
    "t": (0, 2**64 - 1),
}
TEXT = st.text("aZ_/ \t\n\x7f\xe4\u20ac\U0001f4a9", max_size=12)
PATHS = st.lists(st.text("azAZ09_", min_size=1, max_size=6), max_size=4).map(
    lambda names: "/" + "/".join(names)
)
BASIC = st.sampled_from("ybnqiuxtdsog")
KINDS = st.recursive(
    BASIC | st.just("v"),
    lambda inner: (
        inner.map(lambda kind: f"a{kind}")
        | st.lists(inner, min_size=1, max_size=4).map(lambda kinds: f"({''.join(kinds)})")
        | st.tuples(BASIC, inner).map(lambda pair: f"a{{{pair[0]}{pair[1]}}}")
    ),
    max_leaves=6,
)


def values_of(kind: str, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of one complete type; variants in variants end somewhere."""
    letter = kind[0]
    if letter in RANGES:
        return st.integers(*RANGES[letter])
    if letter == "v":
        kinds = KINDS if depth < 2 else BASIC
        return kinds.flatmap(lambda inner: st.tuples(st.just(inner), values_of(inner, depth + 1)))
    if kind == "ay":
        return st.binary(max_size=9)
    if kind.startswith("a{"):
        return st.dictionaries(values_of(kind[2]), values_of(kind[3:-1], depth), max_size=3)
    if letter == "a":
        return st.lists(values_of(kind[1:], depth), max_size=3)
    if letter == "(":
        return st.tuples(*[values_of(one, depth) for one in dbus_values.split(kind[1:-1])])
    plain: dict[str, st.SearchStrategy[Any]] = {
        "b": st.booleans(),
        "d": st.floats(allow_nan=False),
        "s": TEXT,
        "o": PATHS,
        "g": st.lists(KINDS, max_size=3).map("".join),
    }
    return plain[letter]


TYPED = KINDS.flatmap(lambda kind: st.tuples(st.just(kind), values_of(kind)))


def read(signature: str, raw: bytes, order: Order = sys.byteorder) -> tuple[Any, ...]:
    reader = dbus_values.Reader(raw, order)
    found = tuple([reader.value(kind, 0) for kind in dbus_values.split(signature)])
    assert reader.at == len(raw)
    return found


@settings(max_examples=50, deadline=None)
@given(st.lists(TYPED, max_size=4))
def test_what_we_write_is_what_jeepney_writes_and_reads(typed: list[tuple[str, Any]]) -> None:
    """Any values of any types: the same bytes, and jeepney reads the values back from ours."""
    signature = "".join([kind for kind, _ in typed])
    values = tuple([value for _, value in typed])
    ours = dbus_values.marshal(signature, values)
    oracle = parse_signature(list(f"({signature})")) if signature else None
    if oracle is None:
        assert ours == b""
        return
    native = ORDERS[sys.byteorder]
    assert ours == oracle.serialise(values, 0, native)
    assert oracle.parse_data(ours, 0, native)[0] == values


@settings(max_examples=50, deadline=None)
@given(TYPED, st.sampled_from(["little", "big"]))
def test_what_jeepney_writes_is_what_we_read(typed: tuple[str, Any], order: Order) -> None:
    """In both byte orders."""
    kind, value = typed
    raw = parse_signature(list(kind)).serialise(value, 0, ORDERS[order])
    assert read(kind, raw, order) == (value,)


def test_an_index_of_a_descriptor_is_a_number() -> None:
    """h is four bytes; jeepney takes only open descriptors for it."""
    assert read("yh", dbus_values.marshal("yh", (1, 7))) == (1, 7)
    assert len(dbus_values.marshal("yh", (1, 7))) == 8


def test_not_a_number_goes_through() -> None:
    """NaN differs from itself, which is why the other tests leave it out."""
    (found,) = read("d", dbus_values.marshal("d", (math.nan,)))
    assert math.isnan(found)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=120), KINDS, st.sampled_from(["little", "big"]))
def test_any_bytes_are_values_or_an_error(raw: bytes, kind: str, order: Order) -> None:
    """Nothing but HostError comes of garbage."""
    reader = dbus_values.Reader(raw, order)
    try:
        reader.value(kind, 0)
    except HostError:
        return
    assert reader.at <= len(raw)


@settings(max_examples=100, deadline=None)
@given(
    KINDS,
    st.recursive(
        st.none() | st.integers() | st.text("a/\0\xe4\udc80", max_size=5) | st.binary(max_size=5)
        | st.booleans() | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
        | st.dictionaries(st.text("ab", max_size=3), inner, max_size=2),
        max_leaves=5,
    ),
)  # fmt: skip
def test_any_value_is_written_or_an_error(kind: str, value: object) -> None:
    """What does not fit its type is refused; what is written can be read."""
    try:
        raw = dbus_values.marshal(kind, (value,))
    except HostError:
        return
    read(kind, raw)


@settings(max_examples=200, deadline=None)
@given(st.text("ybnqiuxtdsoghva(){}z\N{SNOWMAN}", max_size=40))
def test_signatures_are_split_or_refused(signature: str) -> None:
    """The parts make up the whole, and each of them is one complete type."""
    try:
        kinds = dbus_values.split(signature)
    except HostError:
        return
    assert "".join(kinds) == signature
    assert all(dbus_values.split(kind) == (kind,) for kind in kinds)


@pytest.mark.parametrize(
    "signature",
    ["a", "(", ")", "()", "(s", "a{}", "a{s}", "a{vs}", "a{ss", "a{sss}", "{ss}", "z", "s" * 256,
     "a" * 33 + "s", "(" * 33 + "s" + ")" * 33],
)  # fmt: skip
def test_signatures_that_are_none(signature: str) -> None:
    """Not complete, an empty struct, a dict entry that is none, too long, too deep."""
    with pytest.raises(HostError, match="signature"):
        dbus_values.split(signature)


@pytest.mark.parametrize("signature", ["a" * 32 + "s", "(" * 32 + "s" + ")" * 32, "s" * 255])
def test_signatures_at_the_limit(signature: str) -> None:
    """32 arrays in each other, 32 structs, 255 bytes."""
    assert "".join(dbus_values.split(signature)) == signature


@pytest.mark.parametrize(
    ("signature", "value"),
    [("y", 256), ("y", -1), ("u", -1), ("i", 2**31), ("t", 2**64), ("y", "1"), ("s", 1), ("s", b"a"),
     ("s", "a\0b"), ("s", "\udc80"), ("b", 1), ("b", None), ("d", "1"), ("o", ""), ("o", "a"),
     ("o", "//"), ("o", "/a/"), ("o", "/ä"), ("g", "z"), ("ay", 5), ("ay", [256]), ("as", 5),
     ("a{sv}", ["a"]), ("(ss)", ("a",)), ("(ss)", ("a", "b", "c")), ("v", "s"), ("v", ("ss", "a")),
     ("v", ("", "a")), ("v", ("s", 1))],
)  # fmt: skip
def test_values_that_do_not_fit(signature: str, value: object) -> None:
    """Out of range, of another kind, with a NUL, or no path: refused."""
    with pytest.raises(HostError) as caught:
        dbus_values.marshal(signature, (value,))
    assert caught.value.errno
    assert "\n" not in caught.value.message


def test_as_many_values_as_types() -> None:
    """A value too few is refused."""
    with pytest.raises(HostError, match="1 values for the signature 'ss'"):
        dbus_values.marshal("ss", ("a",))


def test_variants_in_variants_end_somewhere() -> None:
    """64 levels are written and read, more are not: neither way runs out of stack."""
    value: Any = ("y", 1)
    for _ in range(60):
        value = ("v", value)
    raw = dbus_values.marshal("v", (value,))
    assert read("v", raw) == (value,)
    for _ in range(5000):
        value = ("v", value)
    with pytest.raises(HostError, match="too deep"):
        dbus_values.marshal("v", (value,))
    with pytest.raises(HostError, match="too deep"):
        read("v", b"\1v\0" * 5000 + b"\1y\0\1")


@pytest.mark.parametrize(
    ("signature", "raw"),
    [("b", b"\2\0\0\0"), ("s", b"\1\0\0\0ab"), ("s", b"\2\0\0\0a\0\0"), ("s", b"\1\0\0\0\xff\0"),
     ("s", b"\xff\xff\xff\xffa\0"), ("yu", b"\1\1\0\0\1\0\0\0"), ("o", b"\1\0\0\0a\0"),
     ("g", b"\1z\0"), ("v", b"\2ss\0"), ("v", b"\0\0"), ("au", b"\2\0\0\0\1\0\0\0"),
     ("ay", b"\0\0\0\4"), ("ay", b"\1\0\0\5y"), ("u", b"\1\0\0")],
)  # fmt: skip
def test_bytes_that_are_no_values(signature: str, raw: bytes) -> None:
    """A boolean of 2, a string without end, padding with something in it, an array beyond the end."""
    with pytest.raises(HostError, match="D-Bus"):
        read(signature, raw, "little")
