"""What a container does now (runtime.md, "State"): what was noted, and what the kernel says."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls
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
