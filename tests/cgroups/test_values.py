"""Does a cgroup file say what it is to say? Texts that differ may mean the same."""

from __future__ import annotations

import pytest

from rootless_pyoki.cgroups.values import differs

IO_MAX = "8:0 rbps=5 wbps=max riops=max wiops=7\n8:16 rbps=1 wbps=1 riops=1 wiops=1\n"


@pytest.mark.parametrize(
    ("name", "wanted", "present"),
    [
        ("pids.max", "5", "5\n"),
        ("pids.max", "max", "max\n"),
        ("memory.max", "5000", "4096\n"),  # whole pages
        ("memory.max", "4K", "4096\n"),
        ("memory.max", "9223372036854775807", "max\n"),
        ("memory.swap.max", "18446744073709551615", "max"),
        ("hugetlb.2MB.max", "3000000", "2097152"),
        ("hugetlb.1GB.rsvd.max", "1073741825", "1073741824"),
        ("cpu.max", "max 100000", "max 100000\n"),
        ("cpu.max", "5000", "5000 20000\n"),  # the period stays
        ("cpu.weight", "050", "50"),
        ("cpuset.cpus", "0,1,2-3", "0-3\n"),
        ("cpuset.mems", "0,", "0"),
        ("io.weight", "50", "default 50\n8:0 70\n"),
        ("io.weight", "8:0 70", "default 50\n8:0 70\n"),
        ("io.bfq.weight", "50", "50\n"),
        ("io.max", "8:0 rbps=5", IO_MAX),
        ("io.max", "8:0 wiops=7 wbps=max", IO_MAX),
        ("io.max", "8:32 rbps=max", IO_MAX),
        ("rdma.max", "mlx5 hca_handle=2", "mlx5 hca_handle=2 hca_object=max\n"),
        ("misc.max", "res_a 5", "res_a 5\nres_b max\n"),
    ],
)
def test_the_same(name: str, wanted: str, present: str) -> None:
    """Nothing has to be written."""
    assert not differs(name, wanted, present)


@pytest.mark.parametrize(
    ("name", "wanted", "present"),
    [
        ("pids.max", "5", "6"),
        ("pids.max", "0", "1"),
        ("pids.max", "max", "5"),
        ("memory.max", "8192", "4096"),
        ("memory.max", "max", "4096"),
        ("memory.max", "lots", "max"),
        ("memory.reclaim", "1M", ""),
        ("hugetlb.2MB.max", "4194304", "2097152"),
        ("cpu.max", "5000 10000", "5000 20000"),
        ("cpu.max", "33333 50000", "33500 50000"),
        ("cpuset.cpus", "0-2", "0-3"),
        ("cpuset.cpus", "0-2", ""),
        ("cpuset.cpus", "nonsense", "nonsens"),
        ("io.weight", "50", "default 100"),
        ("io.weight", "8:0 50", "default 50"),
        ("io.max", "8:0 rbps=6", IO_MAX),
        ("io.max", "8:32 rbps=5", IO_MAX),
        ("io.max", "8:0", IO_MAX),
        ("io.latency", "8:0 target=5", ""),
        ("misc.max", "res_c 5", "res_a 5"),
        ("some.file", "a", "b"),
    ],
)
def test_another(name: str, wanted: str, present: str) -> None:
    """It has to be written; so has what cannot be compared."""
    assert differs(name, wanted, present)


def test_larger_pages() -> None:
    """The kernel rounds to its own pages."""
    assert not differs("memory.max", "100000", "65536", page=65536)
    assert differs("memory.max", "100000", "65536", page=4096)
