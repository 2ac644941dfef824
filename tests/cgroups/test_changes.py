"""The order of new limits, and the way back."""

from __future__ import annotations

import pytest

from rootless_pyoki.cgroups import changes

GB = 1 << 30


def order(new: dict[str, str], before: dict[str, str]) -> list[str]:
    files = tuple((name, value, "") for name, value in new.items())
    return [name for name, _, _ in changes.in_order(files, before)]


@pytest.mark.parametrize(
    ("new", "before", "first"),
    [
        ("1", "2", "memory.swap.max"),
        ("2", "1", "memory.max"),
        ("max", "1", "memory.max"),
        ("1", "max", "memory.swap.max"),
        (str(GB), f"{2 * GB}\n", "memory.swap.max"),
    ],
)
def test_memory(new: str, before: str, first: str) -> None:
    """Memory that shrinks finds its swap ready; memory that grows comes first."""
    for swap in ("0", "max"):
        files = {"memory.max": new, "memory.swap.max": swap, "pids.max": "3"}
        got = order(files, {"memory.max": before, "memory.swap.max": "5"})
        assert got[0] == first and sorted(got) == sorted(files)


@pytest.mark.parametrize(
    ("quota", "before", "first"),
    [
        ("1000 100000", "2000 100000", "cpu.max.burst"),
        ("2000 100000", "1000 100000", "cpu.max"),
        ("max 100000", "1000 100000", "cpu.max"),
        ("1000 100000", "max 100000", "cpu.max.burst"),
    ],
)
def test_burst(quota: str, before: str, first: str) -> None:
    """At no moment is the burst larger than the quota."""
    got = order({"cpu.max": quota, "cpu.max.burst": "7"}, {"cpu.max": before})
    assert got[0] == first


def test_idle() -> None:
    """An idle cgroup gets no weight: it wakes up first, and goes to sleep last."""
    assert order({"cpu.weight": "5", "cpu.idle": "0"}, {}) == ["cpu.idle", "cpu.weight"]
    assert order({"cpu.weight": "5", "cpu.idle": "1"}, {}) == ["cpu.weight", "cpu.idle"]


IO = "8:0 rbps=1024 wbps=max riops=max wiops=120\n8:16 rbps=2 wbps=2 riops=2 wiops=2\n"
WEIGHTS = "default 100\n8:16 50\n"


@pytest.mark.parametrize(
    ("name", "value", "content", "expected"),
    [
        ("memory.max", "1", "max\n", "max"),
        ("pids.max", "1", "7\n", "7"),
        ("cpu.max", "5 6", "max 100000\n", "max 100000"),
        ("cpu.max", "max 5", "max 100000\n", "max 100000"),
        ("cpuset.cpus", "0", "\n", "\n"),
        ("cpuset.cpus", "0", "0-1\n", "0-1"),
        ("io.max", "8:0 rbps=5", IO, "8:0 rbps=1024 wbps=max riops=max wiops=120"),
        ("io.max", "9:9 rbps=5", IO, "9:9 rbps=max wbps=max riops=max wiops=max"),
        ("io.max", "9:9 rbps=5", "", "9:9 rbps=max wbps=max riops=max wiops=max"),
        ("io.weight", "200", WEIGHTS, "default 100"),
        ("io.weight", "default 200", WEIGHTS, "default 100"),
        ("io.weight", "8:16 200", WEIGHTS, "8:16 50"),
        ("io.weight", "8:0 200", WEIGHTS, "8:0 default"),
        ("rdma.max", "mlx5_0 hca_handle=2", "mlx5_0 hca_handle=max hca_object=3\n",
         "mlx5_0 hca_handle=max hca_object=3"),
    ],
)  # fmt: skip
def test_earlier(name: str, value: str, content: str, expected: str) -> None:
    """What is written undoes what `value` did, and touches no other device."""
    assert changes.earlier(name, value, content) == expected
