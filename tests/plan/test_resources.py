"""/linux/resources as cgroup v2 files."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.plan import resources
from rootless_pyoki.plan.notes import Notes
from tests.plan import plans

AT = "/linux/resources"


def files(asked: dict[str, Any]) -> list[tuple[str, str, str]]:
    plan = plans.make(plans.config(linux={"resources": asked}))
    return [
        (file, value, pointer.removeprefix(AT)) for file, value, pointer in plan.resources.files
    ]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"memory": {"limit": 4096}}, [("memory.max", "4096", "/memory/limit")]),
        ({"memory": {"limit": 0}}, []),
        ({"memory": {"reservation": 1}}, [("memory.low", "1", "/memory/reservation")]),
        (
            {"memory": {"limit": 100, "swap": 150}},
            [("memory.max", "100", "/memory/limit"), ("memory.swap.max", "50", "/memory/swap")],
        ),
        (
            {"memory": {"limit": 100, "swap": 100}},
            [("memory.max", "100", "/memory/limit"), ("memory.swap.max", "0", "/memory/swap")],
        ),
        ({"memory": {"swap": -1}}, [("memory.swap.max", "max", "/memory/swap")]),
        (
            {"memory": {"limit": -1}},
            [("memory.max", "max", "/memory/limit"), ("memory.swap.max", "max", "/memory/swap")],
        ),
        ({"pids": {"limit": 7}}, [("pids.max", "7", "/pids/limit")]),
        ({"pids": {"limit": -1}}, [("pids.max", "max", "/pids/limit")]),
        ({"cpu": {"shares": 1024}}, [("cpu.weight", "100", "/cpu/shares")]),
        ({"cpu": {"quota": 5000}}, [("cpu.max", "5000 100000", "/cpu/quota")]),
        ({"cpu": {"quota": -1, "period": 20000}}, [("cpu.max", "max 20000", "/cpu/quota")]),
        ({"cpu": {"period": 20000}}, [("cpu.max", "max 20000", "/cpu/period")]),
        (
            {"cpu": {"burst": 5, "quota": 10, "period": 50}},
            [("cpu.max", "10 50", "/cpu/quota"), ("cpu.max.burst", "5", "/cpu/burst")],
        ),
        (
            {"cpu": {"idle": 1, "shares": 2}},
            [("cpu.weight", "1", "/cpu/shares"), ("cpu.idle", "1", "/cpu/idle")],
        ),
        (
            {"cpu": {"cpus": "0-1", "mems": "0"}},
            [("cpuset.cpus", "0-1", "/cpu/cpus"), ("cpuset.mems", "0", "/cpu/mems")],
        ),
        ({"blockIO": {"weight": 10}}, [("io.weight", "1", "/blockIO/weight")]),
        ({"blockIO": {"weight": 1000}}, [("io.weight", "10000", "/blockIO/weight")]),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 50}]}},
            [("io.bfq.weight", "8:0 50", "/blockIO/weightDevice/0/weight")],
        ),
        (
            {"rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 9}}},
            [("rdma.max", "mlx5_1 hca_handle=3 hca_object=9", "/rdma/mlx5_1")],
        ),
        (
            {"unified": {"memory.high": "5", "io.max": "8:0 rbps=1\n8:16 rbps=2\n"}},
            [
                ("memory.high", "5", "/unified/memory.high"),
                ("io.max", "8:0 rbps=1", "/unified/io.max"),
                ("io.max", "8:16 rbps=2", "/unified/io.max"),
            ],
        ),
        ({"memory": {}, "cpu": {}, "pids": {}, "blockIO": {}, "devices": []}, []),
    ],
)
def test_files(asked: dict[str, Any], expected: list[tuple[str, str, str]]) -> None:
    """Name, text and origin of each file, in the order of writing."""
    assert files(asked) == expected


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ("throttleReadBpsDevice", "rbps"),
        ("throttleWriteBpsDevice", "wbps"),
        ("throttleReadIOPSDevice", "riops"),
        ("throttleWriteIOPSDevice", "wiops"),
    ],
)
def test_throttles(field: str, word: str) -> None:
    """One line a device; a rate of 0 lifts the limit."""
    entries = [{"major": 8, "minor": 0, "rate": 1000}, {"major": 8, "minor": 16, "rate": 0}]
    assert files({"blockIO": {field: entries}}) == [
        ("io.max", f"8:0 {word}=1000", f"/blockIO/{field}/0"),
        ("io.max", f"8:16 {word}=max", f"/blockIO/{field}/1"),
    ]


def test_huge_pages() -> None:
    """Reservations are limited too, where the kernel has a file for that."""
    asked = {"hugepageLimits": [{"pageSize": "2MB", "limit": 10}]}
    planned = plans.make(plans.config(linux={"resources": asked})).resources
    assert [entry[:2] for entry in planned.files] == [
        ("hugetlb.2MB.max", "10"),
        ("hugetlb.2MB.rsvd.max", "10"),
    ]
    assert planned.optional == ("hugetlb.2MB.rsvd.max",)


def test_bfq_weight() -> None:
    """The weight as given is kept for the file that takes it so."""
    asked = {"blockIO": {"weight": 250}}
    assert plans.make(plans.config(linux={"resources": asked})).resources.bfq_weight == 250


@pytest.mark.parametrize(("shares", "weight"), [(1, 1), (2, 1), (1024, 100), (262144, 10000)])
def test_cpu_weight_fix_points(shares: int, weight: int) -> None:
    """Smallest, default and largest of one are those of the other."""
    assert resources.cpu_weight(shares) == weight


@given(st.integers(2, 262144))
def test_cpu_weight_is_the_formula(shares: int) -> None:
    """The same number as with the C library's log2 and pow."""
    logarithm = math.log2(shares)
    exact = 10 ** ((logarithm**2 + 125 * logarithm) / 612 - 7 / 34)
    assert resources.cpu_weight(shares) in (math.ceil(exact - 1e-9), math.ceil(exact))


@given(st.integers(2, 262143))
def test_cpu_weight_grows_with_shares(shares: int) -> None:
    """More shares never weigh less."""
    assert 1 <= resources.cpu_weight(shares) <= resources.cpu_weight(shares + 1) <= 10000


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"memory": {"swap": 10}}, "/memory/swap"),
        ({"memory": {"limit": -1, "swap": 10}}, "/memory/swap"),
        ({"memory": {"limit": 10, "swap": 9}}, "/memory/swap"),
        ({"blockIO": {"weight": 9}}, "/blockIO/weight"),
        ({"unified": {"memory": "1"}}, "/unified/memory"),
    ],
)
def test_what_cannot_be(asked: dict[str, Any], pointer: str) -> None:
    """Refused with the pointer of the field."""
    with pytest.raises(SpecError) as caught:
        files(asked)
    assert caught.value.pointer == AT + pointer


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"cpu": {"realtimeRuntime": 5}}, "/cpu/realtimeRuntime"),
        ({"cpu": {"realtimePeriod": 5}}, "/cpu/realtimePeriod"),
        ({"blockIO": {"leafWeight": 50}}, "/blockIO/leafWeight"),
        (
            {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 50}]}},
            "/blockIO/weightDevice/0/leafWeight",
        ),
        ({"unified": {"cgroup.procs": "1"}}, "/unified/cgroup.procs"),
        ({"unified": {"cgroup.subtree_control": "+pids"}}, "/unified/cgroup.subtree_control"),
    ],
)
def test_what_version_2_cannot(asked: dict[str, Any], pointer: str) -> None:
    """Refused where leaving it out would change what the container may do."""
    with pytest.raises(UnsupportedError) as caught:
        files(asked)
    assert caught.value.pointer == AT + pointer


@pytest.mark.parametrize(
    ("asked", "pointers"),
    [
        ({"memory": {"kernel": 5, "kernelTCP": 5}}, ["/memory/kernel", "/memory/kernelTCP"]),
        ({"memory": {"swappiness": 5}}, ["/memory/swappiness"]),
        ({"memory": {"disableOOMKiller": True}}, ["/memory/disableOOMKiller"]),
        ({"memory": {"disableOOMKiller": False, "useHierarchy": True}}, []),
        ({"network": {"classID": 5}}, ["/network/classID"]),
        ({"network": {"priorities": [{"name": "eth0", "priority": 1}]}}, ["/network/priorities"]),
        ({"devices": [{"allow": False, "access": "rwm"}] * 3}, ["/devices"]),
    ],
)
def test_what_is_noted(asked: dict[str, Any], pointers: list[str]) -> None:
    """What version 2 has not and peers pass over is told, once a field."""
    notes = Notes()
    assert resources.make(asked, notes).files == ()
    assert [note.pointer for note in notes] == [AT + pointer for pointer in pointers]
