"""Cgroup files as properties of a systemd unit."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.cgroups import unit_properties

INFINITY = 2**64 - 1
DISK = "/dev/block/8:0"


def of(*entries: tuple[str, str]) -> list[tuple[str, str, Any]]:
    """All of them, those for the start first."""
    at_start, later = unit_properties.of(tuple((name, value, "/p") for name, value in entries))
    return at_start + later


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("memory.max", "1048576", [("MemoryMax", "t", 1048576)]),
        ("memory.max", "64M", [("MemoryMax", "t", 64 << 20)]),
        ("memory.max", "max", [("MemoryMax", "t", INFINITY)]),
        ("memory.high", "9223372036854775807", [("MemoryHigh", "t", INFINITY)]),
        ("memory.low", "0", [("MemoryLow", "t", 0)]),
        ("memory.min", "5", [("MemoryMin", "t", 5)]),
        ("memory.swap.max", "0", [("MemorySwapMax", "t", 0)]),
        ("memory.zswap.max", "max", [("MemoryZSwapMax", "t", INFINITY)]),
        ("pids.max", "max", [("TasksMax", "t", INFINITY)]),
        ("pids.max", "0", [("TasksMax", "t", 1)]),
        ("cpu.weight", "100", [("CPUWeight", "t", 100)]),
        ("cpu.idle", "1", [("CPUWeight", "t", 0)]),
        ("cpu.max", "50000 100000",
         [("CPUQuotaPerSecUSec", "t", 500000), ("CPUQuotaPeriodUSec", "t", 100000)]),
        ("cpu.max", "1 3", [("CPUQuotaPerSecUSec", "t", 340000), ("CPUQuotaPeriodUSec", "t", 3)]),
        ("cpu.max", "50000", [("CPUQuotaPerSecUSec", "t", 500000)]),
        ("cpu.max", "max 5000", [("CPUQuotaPerSecUSec", "t", INFINITY), ("CPUQuotaPeriodUSec", "t", 5000)]),
        ("cpuset.cpus", "0-3,9", [("AllowedCPUs", "ay", b"\x0f\x02")]),
        ("cpuset.mems", "0", [("AllowedMemoryNodes", "ay", b"\1")]),
        ("io.weight", "50", [("IOWeight", "t", 50)]),
        ("io.weight", "default 50", [("IOWeight", "t", 50)]),
        ("io.weight", "8:0 70", [("IODeviceWeight", "a(st)", [(DISK, 70)])]),
        ("memory.oom.group", "1", [("OOMPolicy", "s", "kill")]),
        ("memory.oom.group", "0", [("OOMPolicy", "s", "continue")]),
    ],
)  # fmt: skip
def test_a_file_with_a_property(name: str, value: str, wanted: list[tuple[str, str, Any]]) -> None:
    """Value for value, in systemd's units; "no limit" is the largest number."""
    assert of((name, value)) == wanted


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu.max.burst", "5"),
        ("cpu.idle", "0"),
        ("hugetlb.2MB.max", "0"),
        ("cgroup.max.depth", "3"),
        ("memory.max", "0"),  # systemd takes none below 1
        ("memory.max", "lots"),
        ("memory.max", "0x1000"),
        ("pids.max", "-1"),
        ("pids.max", "٣"),
        ("cpu.weight", "10001"),
        ("cpu.weight", "max"),
        ("cpu.max", "0 100000"),
        ("cpu.max", ""),
        ("cpu.max", "1 2 3"),
        ("cpuset.cpus", "all"),
        ("cpuset.cpus", "3-1"),
        ("cpuset.cpus", "0-99999999999"),
        ("cpuset.cpus", ""),
        ("io.weight", "0"),
        ("io.weight", "sda 50"),
        ("io.max", "8:0"),
        ("io.max", "sda rbps=5"),
        ("io.max", ""),
        ("memory.oom.group", "2"),
    ],
)
def test_what_stays_a_file(name: str, value: str) -> None:
    """What systemd has no word for, or would refuse: the kernel judges it."""
    properties = [entry for entry in of((name, value)) if entry[0] != "CPUQuotaPeriodUSec"]
    assert properties == []


def test_which_come_later() -> None:
    """Limits of memory and tasks wait until nothing of the runtime lives in the cgroup any more."""
    files = [("memory.max", "5"), ("cpu.weight", "5"), ("pids.max", "5"), ("memory.low", "5")]
    at_start, later = unit_properties.of(tuple((*entry, "") for entry in files))
    assert [entry[0] for entry in at_start] == ["CPUWeight"]
    assert [entry[0] for entry in later] == ["MemoryMax", "TasksMax", "MemoryLow"]


def test_the_last_value_wins() -> None:
    """unified comes after the fields that mean the same."""
    assert of(("pids.max", "5"), ("pids.max", "7")) == [("TasksMax", "t", 7)]
    assert of(("cpu.idle", "1"), ("cpu.idle", "0"), ("cpu.weight", "9")) == [("CPUWeight", "t", 9)]
    assert of(("cpu.weight", "9"), ("cpu.idle", "1")) == [("CPUWeight", "t", 0)]


def test_lines_of_devices_are_collected() -> None:
    """One property for each kind of limit, with all devices; a device's last value wins."""
    assert of(
        ("io.max", "8:0 rbps=5 wiops=max"), ("io.max", "8:16 rbps=7"), ("io.max", "8:0 rbps=6")
    ) == [
        ("IOReadBandwidthMax", "a(st)", [(DISK, 6), ("/dev/block/8:16", 7)]),
        ("IOWriteIOPSMax", "a(st)", [(DISK, INFINITY)]),
    ]
