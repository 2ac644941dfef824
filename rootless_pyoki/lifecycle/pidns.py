"""The processes of a container that has no cgroup: those of its pid namespace, pid_namespaces(7)."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.container import Container


def processes(found: Container) -> list[int]:
    """Host pids, ascending; only the first process where the pid namespace is shared."""
    if not found.state.pid or not found.alive():
        return []
    if not found.owns_pid_namespace():
        return [found.state.pid]
    proc = procfs.held()
    try:
        wanted = syscalls.readlinkat(proc, f"{found.state.pid}/ns/pid")
        listing = syscalls.openat(proc, ".", c.O_RDONLY | c.O_DIRECTORY)
        names = syscalls.listdir(listing)
        syscalls.close(listing)
        return sorted(int(n) for n in names if n.isdigit() and _namespace(proc, n) == wanted)
    except SyscallError:
        return [found.state.pid]


def anybody_runs(pid: int) -> bool:
    """Is there somebody in the pid namespace of this process, which is exiting, who is not dead?"""
    proc = procfs.held()
    wanted = _namespace(proc, str(pid))
    listing = syscalls.openat(proc, ".", c.O_RDONLY | c.O_DIRECTORY)
    try:
        names = [name for name in syscalls.listdir(listing) if name.isdigit()]
    finally:
        syscalls.close(listing)
    return any(
        procfs.start_time(int(name)) is not None
        for name in names
        if not wanted or _namespace(proc, name) == wanted
    )


def _namespace(proc: int, name: str) -> str:
    try:
        return syscalls.readlinkat(proc, f"{name}/ns/pid")
    except SyscallError:
        return ""  # somebody else's, or gone
