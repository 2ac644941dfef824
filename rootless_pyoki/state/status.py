"""What a container does now (runtime.md, "State"): what was noted, and what the kernel says."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.state.container_state import creator_alive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.state.store import ContainerState, Handle


def status(
    handle: Handle, state: ContainerState, *, frozen: Callable[[], bool] | None = None
) -> str:
    """ "creating", "created", "running", "paused" or "stopped".

    frozen: whether the container's cgroup is; asked only of a container that lives.
    """
    if state.phase == "creating":
        return "creating" if creator_alive(state) or alive(state) else "stopped"
    if not alive(state):
        return "stopped"
    if frozen is not None and frozen():
        return "paused"  # also what was not started yet: `start` would wait for ever
    return "created" if waiting(handle) else "running"


def alive(state: ContainerState) -> bool:
    """Whether the container's first process lives: same pid, same start, same boot, no zombie."""
    return (
        state.pid > 0
        and procfs.start_time(state.pid) == state.start_time
        and procfs.boot_id() == state.boot_id
    )


GATE = b"pyoki:[2:GATE]"  # as native/gate.c calls itself
_PATIENCE = 500  # milliseconds until the name must have changed
DIED_WAITING = "start: the waiting process was killed before it became the program"


def died_waiting(pid: int) -> bool:
    """Whether a gate that was told to go died instead of becoming the program.

    Its connection ends either way. But execve gives the process another name, and a zombie keeps the
    one it had. False also for a process that is gone: who waited for it knows how it ended.
    """
    pidfd = -1
    try:
        for _ in range(_PATIENCE):
            stat = procfs.read_path(procfs.held(), f"{pid}/stat", record=True)
            name, _, rest = stat.partition(b"(")[2].rpartition(b") ")
            if name != GATE or rest[0] in b"ZX":
                return name == GATE
            # execve closes descriptors a moment before it gives the name, death long before the end
            pidfd = syscalls.pidfd_open(pid) if pidfd < 0 else pidfd
            syscalls.poll([(pidfd, c.POLLIN)], 1)
        return False  # a program that has taken this name
    except SyscallError as error:
        if error.errno in (c.ENOENT, c.ESRCH):
            return False
        raise
    finally:
        fds.close_quietly(pidfd)


def waiting(handle: Handle) -> bool:
    """Whether the gate still holds gate.lock, that is, `start` has not led to the program yet."""
    try:
        fd = syscalls.openat(handle.fd, "gate.lock", c.O_RDONLY | c.O_NOFOLLOW)
    except SyscallError as error:
        if error.errno == c.ENOENT:
            return False
        raise
    try:
        syscalls.flock(fd, c.LOCK_SH | c.LOCK_NB)
    except SyscallError as error:
        if error.errno == c.EWOULDBLOCK:
            return True
        raise
    finally:
        syscalls.close(fd)
    return False
