"""events: what a container uses, every so often, and what happens to it, at once.

    {"type":"stats","id":ID,"data":{...}}   every interval; event_stats.py
    {"type":"oom","id":ID}                  the OOM killer has killed somebody in it
and, only when asked for, since runc has no such types:
    {"type":"oom_kill"|"max"|"high"|"pids_max","id":ID,"data":{"count":N}}
                                            how often it has happened by now, descendants included
    {"type":"freeze"|"thaw","id":ID}
    {"type":"exit","id":ID,"data":{...}}    the container has ended; exit_record.py

The kernel raises POLLPRI on the files of a cgroup that count events whenever one has changed, at
most every 10 ms: nothing is polled in between.
"""

from __future__ import annotations

from rootless_pyoki.cgroups import stats, tree
from rootless_pyoki.errors import HostError, StateError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.lifecycle import container, event_stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from rootless_pyoki.lifecycle.container import Container

    Event = dict[str, object]

# File -> its counter -> the type of the event
COUNTERS = {
    "memory.events": {"oom_kill": "oom_kill", "max": "max", "high": "high"},
    "pids.events": {"max": "pids_max"},
}
LONGEST = 1 << 30  # milliseconds that poll(2) is told at once


def events(
    *,
    root: str | None,
    id: str,
    interval: float,
    once: bool = False,
    all: bool = False,
    reader: int = -1,
) -> Iterator[Event]:
    """One event after the other, until the container ends.

    interval: seconds between two stats; once: one stats event, now, and no more; all: the types of
    our own too; reader: a descriptor, stop when nobody reads there any more.
    Raises StateError for a container that has ended, HostError for one without a cgroup.
    """
    found = container.load(root, id)
    if found.status() == "stopped":
        raise _not_running(id)
    if not found.state.cgroup_path:
        reason = found.cgroup().reason
        raise HostError(
            f"container {id} has no cgroup, and so nothing is measured"
            + (f" ({reason})" if reason else ""),
            hint="run it where a cgroup v2 subtree is delegated to the user",
        )
    pidfd = directory = -1
    try:
        try:
            pidfd = found.pidfd()
            directory = tree.open_cgroup(found.state.cgroup_path)
        except StateError:
            raise _not_running(id) from None
        except SyscallError as error:
            if not found.alive():
                raise _not_running(id) from None
            raise from_oserror(error, f"measure container {id}") from None
        if once:
            yield _stats(id, directory)
            return
        yield from _follow(id, pidfd, directory, interval, all, reader)
        if all and syscalls.poll([(pidfd, c.POLLIN)], 0):
            yield _event(id, "exit", _end(root, found))
    finally:
        fds.close_quietly(directory)
        fds.close_quietly(pidfd)


def _follow(
    id: str, pidfd: int, directory: int, interval: float, all: bool, reader: int
) -> Iterator[Event]:
    """Until the process has ended, or the reader has left."""
    watch = Watch(id, directory, all)
    deadline = syscalls.monotonic() + interval
    while True:
        left = deadline - syscalls.monotonic()
        entries = [(pidfd, c.POLLIN), *watch.interests()]
        if reader >= 0:
            entries.append((reader, 0))  # POLLERR comes unasked
        ready = dict(syscalls.poll(entries, min(max(0, int(left * 1000) + 1), LONGEST)))
        if reader in ready:
            return
        yield from watch.changes()
        if pidfd in ready:
            return
        if syscalls.monotonic() >= deadline:
            try:
                yield _stats(id, directory)
            except StateError:
                pass  # its cgroup goes as it ends: the pidfd will say so
            deadline = max(deadline + interval, syscalls.monotonic())


class Watch:
    """The files that count what happens in a cgroup."""

    def __init__(self, id: str, directory: int, all: bool) -> None:
        self.id = id
        self.all = all
        self.files: dict[int, str] = {}  # descriptor -> name
        self.seen: dict[str, dict[str, int]] = {}
        # cgroup.events in any case: it says when the cgroup is empty, and systemd removes it then,
        # while the kernel may still keep back what it has to say of memory.events.
        for name in ("memory.events", "cgroup.events", *(("pids.events",) if all else ())):
            try:
                fd = syscalls.openat(directory, name, c.O_RDONLY)
            except SyscallError:
                continue  # the controller is not enabled here
            self.files[fd] = name
            self.seen[name] = stats.counts(stats.reread(fd) or b"")

    def interests(self) -> list[tuple[int, int]]:
        return [(fd, c.POLLPRI) for fd in self.files]

    def changes(self) -> Iterator[Event]:
        """What has come since it was asked last."""
        for fd, name in list(self.files.items()):
            text = stats.reread(fd)
            if text is None:
                del self.files[fd]  # the cgroup is gone; poll would report it for ever
                fds.close_quietly(fd)
                continue
            before, now = self.seen[name], stats.counts(text)
            self.seen[name] = now
            if name == "cgroup.events":
                if self.all and now["frozen"] != before["frozen"]:
                    yield _event(self.id, "freeze" if now["frozen"] else "thaw")
            else:
                yield from self._risen(COUNTERS[name], before, now)

    def _risen(
        self, types: dict[str, str], before: dict[str, int], now: dict[str, int]
    ) -> Iterator[Event]:
        for counter, type in types.items():
            count = now.get(counter, 0)
            if count <= before.get(counter, 0):
                continue
            if type == "oom_kill":
                yield _event(self.id, "oom")
            if self.all:
                yield _event(self.id, type, {"count": count})


def _stats(id: str, directory: int) -> Event:
    try:
        return _event(id, "stats", event_stats.data(stats.read_at(directory)))
    except SyscallError as error:
        if error.errno in stats.GONE:
            raise _not_running(id) from None
        raise


def _event(id: str, type: str, data: dict[str, object] | None = None) -> Event:
    event: Event = {"type": type, "id": id}
    if data is not None:
        event["data"] = data
    return event


def _end(root: str | None, found: Container) -> dict[str, object]:
    """As the state tells it by now; else what the cgroup still does."""
    try:
        found = container.load(root, found.id)
    except StateError:
        pass  # deleted already
    return found.exit_record()


def _not_running(id: str) -> StateError:
    return StateError(f"container with id {id} is not running")
