"""What a cgroup v2 directory tells of its use: cgroup-v2.rst, "Controllers", and psi.rst.

A value is None where the cgroup lacks the file: the controller is not enabled, or the kernel older.
Sizes are bytes, times microseconds, as in the files.
"""

from __future__ import annotations

import errno as e

from rootless_pyoki.cgroups import tree
from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Counts = dict[str, int]

UNLIMITED = 2**64 - 1  # "max", as Go's callers write it
GONE = (e.ENOENT, e.ENODEV, e.EOPNOTSUPP)  # no such file; the cgroup is removed; psi=0


class Stall(Record):
    """One line of a *.pressure file: time in which tasks waited for the resource."""

    avg10: float  # percent of the last 10 seconds
    avg60: float
    avg300: float
    total: int  # microseconds


class Pressure(Record):
    some: Stall | None = None  # at least one task waited
    full: Stall | None = None  # all of them did; cpu.pressure has had this line since Linux 5.13


class HugePages(Record):
    current: int | None = None
    max: int | None = None  # UNLIMITED: none
    failures: int | None = None  # allocations that the limit refused


class Stats(Record):
    """Members are called as the files are, with _ for the dot."""

    cpu_stat: Counts | None = None  # usage_usec, user_usec, system_usec, nr_throttled ...
    cpu_pressure: Pressure | None = None
    cpuset_cpus_effective: tuple[int, ...] | None = None
    cpuset_mems_effective: tuple[int, ...] | None = None
    memory_current: int | None = None
    memory_max: int | None = None  # UNLIMITED: none; likewise below
    memory_peak: int | None = None  # Linux 5.19
    memory_swap_current: int | None = None
    memory_swap_max: int | None = None
    memory_swap_peak: int | None = None  # Linux 6.5
    memory_stat: Counts | None = None
    memory_events: Counts | None = None  # low, high, max, oom, oom_kill, oom_group_kill
    memory_pressure: Pressure | None = None
    pids_current: int | None = None
    pids_max: int | None = None
    pids_peak: int | None = None  # Linux 6.1
    pids_events: Counts | None = None
    io_stat: dict[str, Counts] | None = None  # "MAJOR:MINOR" -> rbytes, wbytes, rios, wios ...
    io_pressure: Pressure | None = None
    hugetlb: dict[str, HugePages] | None = None  # "2MB" -> their use


def read(path: str) -> Stats:
    """All that can be read; raises SyscallError when there is no such cgroup, HostError."""
    fd = tree.open_cgroup(path)
    try:
        return read_at(fd)
    finally:
        fds.close_quietly(fd)


def read_at(directory: int) -> Stats:
    """The same for an open cgroup: no call for a file that is not there."""
    names = set(_names(directory))
    values: dict[str, Any] = {}
    for name, parse in PARSERS:
        if name in names:
            text = content(directory, name)
            if text is not None:
                values[name.replace(".", "_")] = parse(text)
    sizes = sorted(n[8:-8] for n in names if n.startswith("hugetlb.") and n.endswith(".current"))
    sizes = [size for size in sizes if not size.endswith(".rsvd")]
    if sizes:
        values["hugetlb"] = {size: _huge_pages(directory, names, size) for size in sizes}
    return Stats(**values)


def content(directory: int, name: str) -> bytes | None:
    """A file that the kernel writes in one go; None where there is none."""
    try:
        return fds.read_file(directory, name, record=True)
    except SyscallError as error:
        if error.errno in GONE:
            return None
        raise


def reread(fd: int) -> bytes | None:
    """The same of an open file, from its start; None when its cgroup has been removed.

    This also takes note of what poll(2) reports with POLLPRI, until it changes again.
    """
    try:
        return syscalls.pread(fd, fds.RECORD, 0)
    except SyscallError as error:
        if error.errno in GONE:
            return None
        raise


def counts(text: bytes) -> Counts:
    """A flat keyed file: `name number` on each line."""
    found = {}
    for line in text.decode().splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found


def number(text: bytes) -> int:
    """A single value; `max` is UNLIMITED."""
    value = text.strip()
    return UNLIMITED if value == b"max" else int(value)


def numbers(text: bytes) -> tuple[int, ...]:
    """The list format of cpuset(7): `0-2,7`."""
    found: list[int] = []
    for part in text.decode().strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found += range(int(first), int(last or first) + 1)
    return tuple(found)


def pressure(text: bytes) -> Pressure:
    """psi.rst: `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, then the line `full`."""
    lines: dict[str, Stall] = {}
    for line in text.decode().splitlines():
        kind, *pairs = line.split()
        at = dict(pair.split("=", 1) for pair in pairs)
        lines[kind] = Stall(
            avg10=float(at["avg10"]),
            avg60=float(at["avg60"]),
            avg300=float(at["avg300"]),
            total=int(at["total"]),
        )
    return Pressure(some=lines.get("some"), full=lines.get("full"))


def devices(text: bytes) -> dict[str, Counts]:
    """io.stat: `8:0 rbytes=1 wbytes=2 ...`; a device that did nothing may have a line alone."""
    found: dict[str, Counts] = {}
    for line in text.decode().splitlines():
        device, *pairs = line.split()
        split = [pair.partition("=") for pair in pairs]
        found[device] = {key: int(value) for key, _, value in split if value.isdigit()}
    return found


# In the order of `Stats`.
PARSERS = (
    ("cpu.stat", counts),
    ("cpu.pressure", pressure),
    ("cpuset.cpus.effective", numbers),
    ("cpuset.mems.effective", numbers),
    ("memory.current", number),
    ("memory.max", number),
    ("memory.peak", number),
    ("memory.swap.current", number),
    ("memory.swap.max", number),
    ("memory.swap.peak", number),
    ("memory.stat", counts),
    ("memory.events", counts),
    ("memory.pressure", pressure),
    ("pids.current", number),
    ("pids.max", number),
    ("pids.peak", number),
    ("pids.events", counts),
    ("io.stat", devices),
    ("io.pressure", pressure),
)


def _names(directory: int) -> list[str]:
    fd = syscalls.openat(directory, ".", c.O_RDONLY | c.O_DIRECTORY)
    try:
        return syscalls.listdir(fd)
    finally:
        fds.close_quietly(fd)


def _huge_pages(directory: int, names: set[str], size: str) -> HugePages:
    """As runc, the reservations where the kernel counts them: a page counts before it is touched."""
    prefix = f"hugetlb.{size}"
    kind = f"{prefix}.rsvd" if f"{prefix}.rsvd.current" in names else prefix
    current, limit = content(directory, f"{kind}.current"), content(directory, f"{kind}.max")
    events = content(directory, f"{prefix}.events")
    return HugePages(
        current=None if current is None else number(current),
        max=None if limit is None else number(limit),
        failures=None if events is None else counts(events).get("max"),
    )
