"""When the kernel's OOM killer ends a container before its program runs: the limit is told, not the
signal. cgroup-v2.rst, "Memory Interface Files".
"""

from __future__ import annotations

from rootless_pyoki.cgroups import stats, tree
from rootless_pyoki.errors import ChildError, HostError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.errors import KilledError

    Limits = tuple[tuple[str, str, str], ...]  # (file, value, JSON pointer) each

POINTER = "/linux/resources/memory/limit"
BELOW = "limit below what the container already uses"
HINT = "give the container more memory"


class Guard:
    """While limits are written to the cgroup of a process that waits. A memory limit that is too
    small kills it, and systemd removes the scope that is empty then: its counters are held open.
    """

    def __init__(self, cgroup: str, limits: Limits) -> None:
        self.limit, self.pointer = "", POINTER
        for name, value, pointer in limits:
            if name == "memory.max":
                self.limit, self.pointer = value, pointer
        self.events = -1
        try:
            self.events = syscalls.openat(c.AT_FDCWD, f"{cgroup}/memory.events", c.O_RDONLY)
        except SyscallError:
            pass  # no such cgroup, no controller: writing the limits will tell

    def require(self, pid: int) -> None:
        """HostError when they have killed it. To be called once."""
        if self.events < 0:
            return
        text = stats.reread(self.events)
        fds.close_quietly(self.events)
        if text is not None:
            words = _words(self.limit) if stats.counts(text).get("oom_kill") else ""
        else:
            gone = procfs.start_time(pid) is None  # it is our child: at least its zombie is there
            words = _words(self.limit).replace("killed", "killed, it seems", 1) if gone else ""
        if words:
            raise HostError(f"{BELOW}: {words}", pointer=self.pointer, hint=HINT)


def explain(cgroup: str, error: KilledError, limit: str = "") -> ChildError:
    """The error itself, or the one that says that it was the OOM killer.

    limit: the memory.max that was asked for: systemd may have removed the cgroup already.
    """
    try:
        directory = tree.open_cgroup(cgroup) if cgroup else -1
    except (SyscallError, HostError):
        directory = -1
    if directory < 0:
        if not cgroup or not limit.isdigit():
            return error
        words = _words(limit).replace("killed", "it seems", 1)
        return ChildError(f"{error.message}: {words}", pointer=POINTER, hint=HINT)
    try:
        events = stats.content(directory, "memory.events")
        allowed = stats.content(directory, "memory.max")
    finally:
        syscalls.close(directory)
    if not events or not stats.counts(events).get("oom_kill"):
        return error
    words = _words((allowed or b"max").decode().strip())
    return ChildError(f"{error.message}: {words}", pointer=POINTER, hint=HINT)


def _words(limit: str) -> str:
    if limit == "max":
        return "killed by the kernel's OOM killer, for the limit of a cgroup above"
    return f"killed by the kernel's OOM killer; memory.max is {limit} bytes"
