"""org.systemd.property.NAME: GVariant text to a property's name, D-Bus signature and value."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless_pyoki.errors import SpecError
from rootless_pyoki.plan import gvariant, unit_annotations
from tests.plan import plans

PREFIX = "org.systemd.property."


@pytest.mark.parametrize(
    ("text", "signature", "value"),
    [
        ("true", "b", True),
        ("false", "b", False),
        ("5", "i", 5),
        ("-7", "i", -7),
        ("0x10", "i", 16),
        ("010", "i", 8),
        ("uint64 5", "t", 5),
        ("uint64 18446744073709551615", "t", 2**64 - 1),
        ("int64 -5", "x", -5),
        ("byte 255", "y", 255),
        ("uint16 5", "q", 5),
        ("1.5", "d", 1.5),
        ("1e3", "d", 1000.0),
        ("double 2", "d", 2.0),
        ("'x'", "s", "x"),
        ('"it\'s"', "s", "it's"),
        (r"'a\n\'\u00e9\\'", "s", "a\n'é\\"),
        ("objectpath '/a'", "o", "/a"),
        ("['a', 'b']", "as", ["a", "b"]),
        ("[1, 2]", "ai", [1, 2]),
        ("[uint32 1, 2]", "au", [1, 2]),
        ("[1, 2.5]", "ad", [1.0, 2.5]),
        ("@as []", "as", []),
        ("@at [1]", "at", [1]),
        ("[byte 1, 2]", "ay", b"\1\2"),
        (r"b'a\001\x'", "ay", b"a\x01x\0"),
        ("[('/dev/null', uint64 5)]", "a(st)", [("/dev/null", 5)]),
        ("@a(st) [('/dev/null', 5), ('/a', 6)]", "a(st)", [("/dev/null", 5), ("/a", 6)]),
        ("(1,)", "(i)", (1,)),
        ("<uint32 5>", "v", ("u", 5)),
        (" [ 'a' ,\t'b' ] ", "as", ["a", "b"]),
    ],
)
def test_values(text: str, signature: str, value: object) -> None:
    """Each as D-Bus has it; an int32 where nothing else is written."""
    assert gvariant.value_of(text) == (signature, value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "missing"),
        ("maybe", "not known"),
        ("nothing", "not known"),
        ("{'a': 1}", "missing"),
        ("5 6", "too much"),
        ("'x", "closing"),
        ("[1,]", "missing"),
        ("[]", "needs its type"),
        ("[1, 'x']", "one type"),
        ("[[1], ['x']]", "one type"),
        ("()", "no empty structure"),
        ("@() ()", "not a type"),
        ("@mi 5", "not a type"),
        ("@ai ['x']", "not of type"),
        ("@(ii) (1,)", "fewer"),
        ("@(i) (1, 2)", "more"),
        ("@s uint64 5", "wanted"),
        ("2147483648", "uint64 2147483648"),
        ("uint64 -1", "out of range"),
        ("byte 256", "out of range"),
        ("1_000", "out of range"),
        ("0x", "whole number"),
        (r"'\ud800'", "not a character"),
        (r"'\u00'", "not a character"),
        (r"'\u0000'", "not a character"),
        ("b'é€'", "127"),
        ("[" * 50, "too deeply"),
    ],
)
def test_what_is_no_value(text: str, why: str) -> None:
    """The reason says where, or what to write instead."""
    with pytest.raises(gvariant.BadValue, match=why):
        gvariant.value_of(text)


@settings(deadline=None)
@given(st.text(alphabet="[]()<>@'\"b, 0159.xeintu64asy\\{}", max_size=24))
def test_no_text_leads_to_anything_else(text: str) -> None:
    """A value, or BadValue: never another exception."""
    try:
        signature, _ = gvariant.value_of(text)
    except gvariant.BadValue:
        return
    assert signature


def parse(**values: str) -> list[tuple[str, str, Any]]:
    return list(unit_annotations.parse({PREFIX + key: value for key, value in values.items()}))


def test_seconds() -> None:
    """NAMESec is NAMEUSec on the bus, in microseconds; whatever number it was, it is a uint64."""
    assert parse(TimeoutStopSec="5", RuntimeMaxSec="1.5", JobTimeoutSec="uint64 7") == [
        ("TimeoutStopUSec", "t", 5000000),
        ("RuntimeMaxUSec", "t", 1500000),
        ("JobTimeoutUSec", "t", 7000000),
    ]
    assert parse(CPUQuotaPerSecUSec="uint64 5")[0][0] == "CPUQuotaPerSecUSec"
    for bad in ("'5'", "-1", "true", "inf", "nan", "uint64 18446744073709551615"):
        with pytest.raises(SpecError):
            parse(TimeoutStopSec=bad)


@pytest.mark.parametrize(
    "name", ["PIDs", "Delegate", "Slice", "X", "", "Kill-Signal", "Kélvin", "a.b"]
)
def test_names_that_cannot_be(name: str) -> None:
    """What is no name, and what the runtime itself has to say, is an error at the annotation."""
    with pytest.raises(SpecError) as caught:
        parse(**{name: "true"})
    assert caught.value.pointer == f"/annotations/{PREFIX}{name}"


def test_in_a_plan() -> None:
    """They are the plan's, in their order; an empty one asks for nothing."""
    planned = plans.make(
        plans.config(
            annotations={
                f"{PREFIX}CollectMode": "'inactive-or-failed'",
                f"{PREFIX}Empty": "",
                f"{PREFIX}KillSignal": "10",
                "run.oci.systemd.subgroup": "/a//b/",
            }
        )
    )
    assert planned.unit_properties == (
        ("CollectMode", "s", "inactive-or-failed"),
        ("KillSignal", "i", 10),
    )
    assert planned.subgroup == "a/b" and not planned.notes


@pytest.mark.parametrize(
    ("key", "value"),
    [(f"{PREFIX}KillSignal", "SIGTERM"), ("run.oci.systemd.subgroup", "../x")],
)
def test_a_bad_one_is_an_error(key: str, value: str) -> None:
    """Whoever manages the cgroup in the end."""
    with pytest.raises(SpecError) as caught:
        plans.make(plans.config(annotations={key: value}), unsupported="ignore")
    assert caught.value.pointer == f"/annotations/{key}"
