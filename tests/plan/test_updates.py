"""New limits seen together with those that are there."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.errors import SpecError, StateError, UnsupportedError
from rootless_pyoki.plan import updates
from rootless_pyoki.plan.notes import Notes

Tree = dict[str, Any]


def files(
    given: Tree, known: Tree | None = None, current: dict[str, str] | None = None
) -> list[tuple[str, str, str]]:
    return list(updates.make(updates.said(given), known or {}, current or {}, Notes()).files)


@pytest.mark.parametrize(
    ("cpu", "current", "expected"),
    [
        ({"quota": 20000}, "max 50000", ("20000 50000", "/cpu/quota")),
        ({"quota": -1}, "20000 50000", ("max 50000", "/cpu/quota")),
        ({"period": 50000}, "20000 100000", ("20000 50000", "/cpu/period")),
        ({"period": 50000}, "max 100000", ("max 50000", "/cpu/period")),
        ({"quota": 1000, "period": 2000}, "max 100000", ("1000 2000", "/cpu/quota")),
        ({"quota": 1000}, "", ("1000 100000", "/cpu/quota")),
        ({"quota": 0, "period": 3000}, "9000 100000", ("9000 3000", "/cpu/period")),
    ],
)
def test_quota_and_period(cpu: Tree, current: str, expected: tuple[str, str]) -> None:
    """What is not given is kept; the pointer is of what is given."""
    now = {"cpu.max": f"{current}\n", "cpu.max.burst": "0\n"} if current else {}
    assert files({"cpu": cpu}, current=now) == [("cpu.max", *expected)]


def test_burst_and_quota() -> None:
    """Judged together, whichever comes later; only what is given is written."""
    now = {"cpu.max": "20000 100000\n", "cpu.max.burst": "5000\n"}
    assert files({"cpu": {"burst": 20000}}, current=now) == [
        ("cpu.max.burst", "20000", "/cpu/burst")
    ]
    for wrong in ({"burst": 20001}, {"quota": 4999}):
        with pytest.raises(SpecError, match="are more than the quota of") as caught:
            files({"cpu": wrong}, current=now)
        assert caught.value.pointer == "/cpu/burst"
    assert files({"cpu": {"quota": 4000, "burst": 0}}, current=now) == [
        ("cpu.max", "4000 100000", "/cpu/quota"),
        ("cpu.max.burst", "0", "/cpu/burst"),
    ]
    assert files({"cpu": {"quota": -1}}, current=now) == [("cpu.max", "max 100000", "/cpu/quota")]


MAX = {"memory.max": "1000\n"}


@pytest.mark.parametrize(
    ("memory", "known", "current", "expected"),
    [
        ({"limit": 500}, {}, MAX, {"memory.max": "500"}),
        ({"limit": 500}, {"swap": -1}, MAX, {"memory.max": "500"}),
        ({"limit": 500}, {"swap": 3000}, MAX, {"memory.max": "500", "memory.swap.max": "2500"}),
        ({"limit": 3000}, {"swap": 3000}, MAX, {"memory.max": "3000", "memory.swap.max": "0"}),
        ({"limit": -1}, {"swap": 3000}, MAX, {"memory.max": "max", "memory.swap.max": "max"}),
        ({"swap": 3000}, {}, MAX, {"memory.swap.max": "2000"}),
        ({"swap": -1}, {}, MAX, {"memory.swap.max": "max"}),
        ({"limit": 0, "swap": 3000}, {"limit": 7}, MAX, {"memory.swap.max": "2000"}),
        ({"swap": 3000}, {}, {}, {"memory.swap.max": "0"}),  # refused for its controller
        (
            {"limit": 500, "swap": 600},
            {"swap": 3000},
            MAX,
            {"memory.max": "500", "memory.swap.max": "100"},
        ),
        ({"reservation": 5}, {"limit": 9, "swap": 9}, MAX, {"memory.low": "5"}),
        ({"limit": 0}, {}, MAX, {}),
    ],
)
def test_memory_and_swap(
    memory: Tree, known: Tree, current: dict[str, str], expected: dict[str, str]
) -> None:
    """The sum is kept where only the limit is given, the limit where only the sum is."""
    made = files({"memory": memory}, {"memory": known}, current)
    assert {file: value for file, value, _ in made} == expected


def test_memory_above_its_sum() -> None:
    """The error says which one to give as well."""
    with pytest.raises(SpecError) as caught:
        files({"memory": {"limit": 4000}}, {"memory": {"swap": 3000}}, MAX)
    assert caught.value.pointer == "/memory/limit" and "--memory-swap" in caught.value.hint
    with pytest.raises(SpecError) as caught:
        files({"memory": {"swap": 500}}, {}, MAX)
    assert caught.value.pointer == "/memory/swap"
    with pytest.raises(SpecError, match="needs a memory limit"):
        files({"memory": {"swap": 500}}, {}, {"memory.max": "max\n"})


@pytest.mark.parametrize(
    ("given", "known"), [({"checkBeforeUpdate": True}, {}), ({}, {"checkBeforeUpdate": True})]
)
def test_check_before_update(given: Tree, known: Tree) -> None:
    """A limit below what is used is refused, where this update or the configuration asks for it."""
    now = {"memory.current": "5000\n"}
    with pytest.raises(StateError, match="4999 bytes is less than the 5000") as caught:
        files({"memory": {"limit": 4999, **given}}, {"memory": known}, now)
    assert caught.value.pointer == "/memory/limit"
    for limit in (5000, -1):
        assert files({"memory": {"limit": limit, **given}}, {"memory": known}, now)
    relaxed = {"limit": 4999, "checkBeforeUpdate": False}
    assert files({"memory": relaxed}, {"memory": known}, now)
    assert files({"memory": {"limit": 4999, **given}}, {"memory": known}, {})


def test_idle_and_shares() -> None:
    """A cgroup that was idle has forgotten its weight: it comes back with its place."""
    known = {"cpu": {"shares": 2048}}
    idle = {"cpu.idle": "1\n"}
    assert ("cpu.idle", "0", "/cpu/idle") in files({"cpu": {"idle": 0}}, known, idle)
    assert [file for file, _, _ in files({"cpu": {"idle": 0}}, known, idle)] == [
        "cpu.weight",
        "cpu.idle",
    ]
    assert ("cpu.weight", "100", "/cpu/shares") in files({"cpu": {"idle": 0}}, {}, idle)
    for given, now in (({"idle": 0}, {"cpu.idle": "0\n"}), ({"idle": 1}, idle), ({"idle": 1}, {})):
        assert [file for file, _, _ in files({"cpu": given}, known, now)] == ["cpu.idle"]


def test_unified_is_not_lost() -> None:
    """What is left out is a partner by its pointer, not a file of its name."""
    given = {"memory": {"swap": 3000}, "unified": {"memory.max": "2000"}}
    assert ("memory.max", "2000", "/unified/memory.max") in files(given, {}, MAX)


def test_policy() -> None:
    """What cgroup v2 lacks is noted or refused as at create."""
    notes = Notes()
    updates.make({"memory": {"kernel": 5}}, {}, {}, notes)
    assert [note.pointer for note in notes] == ["/memory/kernel"]
    with pytest.raises(UnsupportedError):
        updates.make({"memory": {"kernel": 5}}, {}, {}, Notes("error"))
    with pytest.raises(UnsupportedError):
        files({"cpu": {"realtimePeriod": 5}})


def test_merge() -> None:
    """Members are replaced, entries of lists by what they are about; devices are not kept."""
    before = {
        "memory": {"limit": 1, "swap": 2},
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4}],
    }
    given = {
        "memory": {"limit": 3},
        "pids": {"limit": 4},
        "blockIO": {
            "throttleReadBpsDevice": [
                {"major": 8, "minor": 16, "rate": 2},
                {"major": 8, "minor": 0, "rate": 3},
            ]
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 8}],
        "devices": [{"allow": False}],
    }
    copy = repr(before)
    assert updates.merge(before, given) == {
        "memory": {"limit": 3, "swap": 2},
        "pids": {"limit": 4},
        "blockIO": {
            "throttleReadBpsDevice": [
                {"major": 8, "minor": 0, "rate": 3},
                {"major": 8, "minor": 16, "rate": 2},
            ]
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 8}],
    }
    assert repr(before) == copy
    assert updates.merge(before, {"memory": {"limit": -1}})["memory"] == {"limit": -1, "swap": -1}
