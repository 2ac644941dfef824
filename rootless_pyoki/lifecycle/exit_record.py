"""How a container ended, and what it had used by then: the `exit` of its state.

    code       exit code of the program; 128 + the signal that killed it
    signal     the number of that signal, 0 when the program ended by itself
    oomKilled  whether the kernel's OOM killer has killed a process of the container
    memoryPeak bytes: the most memory that the container has used
    cpuUsage   microseconds of CPU time that its processes have spent
    at         when the program ended, RFC 3339, UTC

What cannot be known is "unknown". A foreground `run` knows all that the cgroup's controllers tell;
without a cgroup the CPU time is the program's own with that of the children it waited for. Where
somebody else was the parent, only the cgroup tells, as long as it exists.
"""

from __future__ import annotations

import time

from rootless_pyoki.cgroups import stats, tree
from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.state.container_state import timestamp

TYPE_CHECKING = False
if TYPE_CHECKING:
    ExitRecord = dict[str, object]

UNKNOWN = "unknown"
OOM_KILLED = "the kernel's OOM killer has killed a process of it"
# File -> the member that it tells; the verdict first, should the cgroup go while they are read.
FILES = {"memory.events": "oomKilled", "memory.peak": "memoryPeak", "cpu.stat": "cpuUsage"}
WATCHED = ("cgroup.events", "memory.events")  # the kernel says when these have changed: POLLPRI


def empty() -> ExitRecord:
    return dict.fromkeys(("code", "signal", "oomKilled", "memoryPeak", "cpuUsage", "at"), UNKNOWN)


def observe(cgroup: str) -> ExitRecord:
    """What the cgroup of a stopped container still tells; cgroup: its directory, or ""."""
    record = empty()
    directory = _open(cgroup)
    if directory >= 0:
        for name in FILES:
            _take(record, name, stats.content(directory, name))
        syscalls.close(directory)
    return record


class Witness:
    """Holds the cgroup's files open from before the program starts, and reads them the moment it ends.

    systemd removes a scope that is empty, and learns of that before SIGCHLD comes: the first process
    of a pid namespace counts as gone from its cgroup while the kernel still clears the namespace.
    Hence cgroup.events is watched too: the last figures are read when nobody is left.
    """

    def __init__(self, cgroup: str) -> None:
        """cgroup: the container's directory, "" when it has none."""
        self.record = empty()
        self.files: dict[str, int] = {}  # name -> descriptor
        self.empty = False  # the cgroup was, when the figures were read last
        self.at_limit = False  # its memory was, when the peak was read: more it cannot become
        directory = _open(cgroup)
        if directory < 0:
            return
        for name in (*WATCHED, *FILES):
            try:
                self.files[name] = syscalls.openat(directory, name, c.O_RDONLY)
            except SyscallError:
                pass  # the controller is not enabled, or the kernel has no such file yet
        syscalls.close(directory)
        self.look()  # poll reports whatever has not been read yet

    def interests(self) -> list[tuple[int, int]]:
        return [(self.files[name], c.POLLPRI) for name in WATCHED if name in self.files]

    def watches(self, fd: int) -> bool:
        return any(self.files.get(name) == fd for name in WATCHED)

    def look(self) -> None:
        """Note what can be read now."""
        if self.empty:
            return
        events = self._read("cgroup.events")
        texts = {name: self._read(name) for name in FILES if name in self.files}
        read = [_take(self.record, name, text) for name, text in texts.items()]
        memory = texts.get("memory.events")
        if memory and stats.counts(memory).get("oom") and texts.get("memory.peak"):
            self.at_limit = True
        self.empty = events is not None and b"populated 0" in events and all(read)

    def _read(self, name: str) -> bytes | None:
        if name not in self.files:
            return None
        text = stats.reread(self.files[name])
        if text is None:  # its cgroup is gone, and poll would report that for ever
            fds.close_quietly(self.files.pop(name))
        return text

    def ended(self, status: int, times: tuple[int, int]) -> None:
        """wait4(2) has returned the program: its status, and its time in microseconds.

        What was read while others still ran, and cannot be read any more, is not how it ended.
        """
        signal = status & 0x7F
        self.record["signal"] = signal
        self.record["code"] = 128 + signal if signal else status >> 8
        self.record["at"] = timestamp(time.time_ns())
        for name, member in FILES.items():
            known = self.record[member] is True or (member == "memoryPeak" and self.at_limit)
            if not self.empty and name not in self.files and not known:
                self.record[member] = UNKNOWN
        if self.record["cpuUsage"] == UNKNOWN:
            self.record["cpuUsage"] = sum(times)

    def close(self) -> None:
        for fd in self.files.values():
            fds.close_quietly(fd)
        self.files = {}


def describe(record: ExitRecord) -> str:
    """For the log."""
    return ", ".join(f"{name} {value}" for name, value in record.items())


def _take(record: ExitRecord, name: str, text: bytes | None) -> bool:
    """Whether there was something to note."""
    if text is None:
        return False
    value: object
    if name == "memory.peak":
        value = stats.number(text)
    elif name == "cpu.stat":
        value = stats.counts(text)["usage_usec"]
    else:
        value = stats.counts(text).get("oom_kill", 0) > 0
    record[FILES[name]] = value
    return True


def _open(cgroup: str) -> int:
    """-1 when there is none."""
    if not cgroup:
        return -1
    try:
        return tree.open_cgroup(cgroup)
    except (SyscallError, HostError):
        return -1
