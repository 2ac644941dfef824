"""A cgroup's figures as `events` prints them: runc's members and units, which callers parse.

Times are nanoseconds and sizes bytes; no limit is 2**64 - 1, for pids 0. Swap is counted together
with memory, as cgroup v1 did. A member whose figure the cgroup does not have is left out, and so the
caller's zero; so are percpu, the v1 flags of cpuset, intel_rdt: cgroup v2 has none of them.
"""

from __future__ import annotations

from rootless_pyoki.cgroups.stats import UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.cgroups.stats import Counts, Pressure, Stats

    View = dict[str, object]

# io.stat's key -> the list that cgroup v1 had for it, the operation
IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def data(found: Stats) -> View:
    """The `data` of a "stats" event."""
    return {
        "cpu": _cpu(found),
        "cpuset": _known(
            cpus=_listed(found.cpuset_cpus_effective), mems=_listed(found.cpuset_mems_effective)
        ),
        "memory": _memory(found),
        "pids": _known(
            current=found.pids_current, limit=0 if found.pids_max == UNLIMITED else found.pids_max
        ),
        "blkio": _blkio(found),
        "hugetlb": {
            size: _known(usage=pages.current, failcnt=pages.failures)
            for size, pages in (found.hugetlb or {}).items()
        },
        "intel_rdt": {},
        "network_interfaces": [],
    }


def _known(**members: object) -> View:
    return {name: value for name, value in members.items() if value is not None}


def _listed(numbers: tuple[int, ...] | None) -> list[int] | None:
    return None if numbers is None else list(numbers)


def _cpu(found: Stats) -> View:
    spent = found.cpu_stat or {}
    return _known(
        usage=_nanoseconds(spent, total="usage_usec", kernel="system_usec", user="user_usec"),
        throttling=_known(
            periods=spent.get("nr_periods"),
            throttledPeriods=spent.get("nr_throttled"),
            **_nanoseconds(spent, throttledTime="throttled_usec"),
        ),
        psi=_psi(found.cpu_pressure),
    )


def _nanoseconds(spent: Counts, **members: str) -> View:
    return {name: spent[key] * 1000 for name, key in members.items() if key in spent}


def _memory(found: Stats) -> View:
    raw = found.memory_stat
    if raw is None or found.memory_current is None:
        return _known(psi=_psi(found.memory_pressure))
    return _known(
        cache=raw.get("file"),
        usage=_known(
            limit=found.memory_max,
            usage=found.memory_current,
            max=found.memory_peak,
            failcnt=(found.memory_events or {}).get("max"),
        ),
        swap=_swap(found),
        kernel=_known(limit=UNLIMITED, usage=raw.get("kernel"), failcnt=0),
        kernelTCP=_known(limit=UNLIMITED, usage=raw.get("sock"), failcnt=0),
        raw=raw,
        psi=_psi(found.memory_pressure),
    )


def _swap(found: Stats) -> View | None:
    if found.memory_swap_current is None or found.memory_current is None:
        return None
    limits = (found.memory_max, found.memory_swap_max)
    limit = UNLIMITED
    if UNLIMITED not in limits:
        limit = sum(part or 0 for part in limits)
    return {
        "limit": limit,
        "usage": found.memory_current + found.memory_swap_current,
        "failcnt": 0,
    }


def _blkio(found: Stats) -> View:
    lists: dict[str, list[View]] = {}
    for device, counts in sorted((found.io_stat or {}).items()):
        major, _, minor = device.partition(":")
        for key, (name, operation) in IO.items():
            if key in counts:
                entry = {"major": int(major), "minor": int(minor), "op": operation}
                lists.setdefault(name, []).append({**entry, "value": counts[key]})
    return _known(**lists, psi=_psi(found.io_pressure))


def _psi(pressure: Pressure | None) -> View | None:
    """Percent of the last 10, 60 and 300 seconds, and all of the time in microseconds."""
    if pressure is None:
        return None
    view: View = {}
    for name, line in (("some", pressure.some), ("full", pressure.full)):
        if line is not None:
            view[name] = {field: getattr(line, field) for field in line._fields}
    return view
