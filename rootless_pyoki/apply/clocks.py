"""A new time namespace and the offsets of its clocks, time_namespaces(7)."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Namespace, TimeOffset


def open_offsets(proc: int) -> int:
    """The file that takes the offsets of a namespace which we shall make.

    Opened early: once we are undumpable it is not ours any more. Who opened it must have CAP_SYS_TIME
    over the namespace; the caller has, as the owner of the user namespace around it.
    """
    return procfs.open_beneath(proc, "self/timens_offsets", c.O_WRONLY)


def enter(proc: int, namespace: Namespace, wanted: tuple[TimeOffset, ...], offsets: int) -> None:
    """Make the namespace, set its clocks, and be in it; offsets: from open_offsets(), closed here.

    unshare(2) puts our children there and, since Linux 6.1, what we execve. We go there ourselves: the
    gate may be what becomes of this very process, and clones threads (EINVAL while the two differ).
    """
    try:
        syscalls.unshare(c.CLONE_NEWTIME)
    except SyscallError as error:
        hint = ""
        if error.errno == c.ENOSPC:
            hint = "the limit user.max_time_namespaces (sysctl) is reached"
        raise from_oserror(
            error, "create a time namespace", pointer=namespace.pointer, hint=hint
        ) from None
    for offset in wanted:
        _set(offset, offsets)
    syscalls.close(offsets)
    try:
        fd = syscalls.openat(proc, "self/ns/time_for_children", c.O_RDONLY)
        syscalls.setns(fd, c.CLONE_NEWTIME)
        syscalls.close(fd)
    except SyscallError as error:
        raise from_oserror(
            error, "enter the new time namespace", pointer=namespace.pointer
        ) from None


def _set(offset: TimeOffset, offsets: int) -> None:
    line = f"{offset.clock} {offset.secs} {offset.nanosecs}\n"
    try:
        syscalls.write(offsets, line.encode())
    except SyscallError as error:
        error.filename = "/proc/self/timens_offsets"
        hint = ""
        if error.errno == c.ERANGE:
            hint = "the clock would stand before 0 or beyond some 146 years in the container"
        elif error.errno == c.EPERM:
            hint = "it takes CAP_SYS_TIME in the user namespace that owns the time namespace"
        raise from_oserror(
            error,
            f"set the {offset.clock} clock off by {offset.secs} s",
            pointer=offset.pointer,
            hint=hint,
        ) from None
