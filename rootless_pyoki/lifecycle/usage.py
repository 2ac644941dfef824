"""What containers use at this moment, and at what rate: two samples make a row of `top`."""

from __future__ import annotations

from rootless_pyoki.cgroups import stats
from rootless_pyoki.errors import NotFoundError, StateError, SyscallError
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.lifecycle import container
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rootless_pyoki.cgroups.stats import Pressure, Stats


class Sample(Record):
    id: str
    status: str
    at: float  # monotonic seconds
    stats: Stats | None  # None: it has no cgroup, or has ended


class Row(Record):
    """None: not known, since the controller is not there or there is no earlier sample."""

    id: str
    status: str
    cpu: float | None = None  # percent of one CPU
    memory: int | None = None  # bytes
    memory_limit: int | None = None  # None also where there is no limit
    memory_peak: int | None = None
    pids: int | None = None
    pids_limit: int | None = None
    io_read: float | None = None  # bytes a second
    io_write: float | None = None
    cpu_pressure: float | None = None  # percent of the last 10 seconds, "some"
    memory_pressure: float | None = None
    io_pressure: float | None = None
    oom_kills: int | None = None  # processes that the OOM killer has killed


def sample(root: str | None, ids: Iterable[str] = ()) -> list[Sample]:
    """Of these containers, or of all below the root, by id; NotFoundError for one that is named."""
    named = list(ids)
    found = []
    for id in named or container.ids(root):
        try:
            found.append(_sample(container.load(root, id)))
        except StateError as error:
            if named and isinstance(error, NotFoundError):
                raise
    return found


def _sample(found: container.Container) -> Sample:
    status = found.status()
    measured = None
    if status != "stopped" and found.state.cgroup_path:
        try:
            measured = stats.read(found.state.cgroup_path)
        except SyscallError:
            pass  # it goes at this moment
    return Sample(id=found.id, status=status, at=syscalls.monotonic(), stats=measured)


def rows(before: Iterable[Sample], now: Iterable[Sample]) -> list[Row]:
    """A row for each sample of now; its rates are those since the sample before."""
    earlier = {one.id: one for one in before}
    return [_row(earlier.get(one.id), one) for one in now]


def _row(before: Sample | None, now: Sample) -> Row:
    use = now.stats
    if use is None:
        return Row(id=now.id, status=now.status)
    past = before.stats if before else None
    seconds = now.at - before.at if before else 0.0
    cpu = _rate(_cpu(past), _cpu(use), seconds)
    return Row(
        id=now.id,
        status=now.status,
        cpu=None if cpu is None else cpu / 10_000,  # microseconds a second
        memory=use.memory_current,
        memory_limit=_limit(use.memory_max),
        memory_peak=use.memory_peak,
        pids=use.pids_current,
        pids_limit=_limit(use.pids_max),
        io_read=_rate(_io(past, "rbytes"), _io(use, "rbytes"), seconds),
        io_write=_rate(_io(past, "wbytes"), _io(use, "wbytes"), seconds),
        cpu_pressure=_some(use.cpu_pressure),
        memory_pressure=_some(use.memory_pressure),
        io_pressure=_some(use.io_pressure),
        oom_kills=None if use.memory_events is None else use.memory_events.get("oom_kill"),
    )


def _cpu(use: Stats | None) -> int | None:
    return None if use is None or use.cpu_stat is None else use.cpu_stat.get("usage_usec")


def _io(use: Stats | None, key: str) -> int | None:
    """Of all devices together."""
    if use is None or use.io_stat is None:
        return None
    return sum(device.get(key, 0) for device in use.io_stat.values())


def _rate(past: int | None, now: int | None, seconds: float) -> float | None:
    """A second; None also for a counter that went back: another container has got the id."""
    if past is None or now is None or now < past or seconds <= 0:
        return None
    return (now - past) / seconds


def _limit(value: int | None) -> int | None:
    return None if value == stats.UNLIMITED else value


def _some(pressure: Pressure | None) -> float | None:
    return pressure.some.avg10 if pressure and pressure.some else None
