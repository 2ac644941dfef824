"""/proc through a held descriptor, verified once, so that nothing mounted over it fools us."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.kernel.constants import (
    AT_FDCWD,
    ENOENT,
    ENOSYS,
    EPERM,
    ESRCH,
    EXDEV,
    O_DIRECTORY,
    O_NOFOLLOW,
    O_PATH,
    O_RDONLY,
    O_WRONLY,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
)

_ROOT_INODE = 1
_PF_EXITING = 4  # linux/sched.h, in stat field 9
_INITIAL_USER_NAMESPACE = 0xEFFFFFFD  # PROC_USER_INIT_INO of linux/proc_ns.h
_held = -1
_boot_id = ""


def open_proc(path: str = "/proc", dirfd: int = AT_FDCWD) -> int:
    """An O_PATH fd of a procfs root; raises SyscallError EXDEV when something else is there."""
    fd = syscalls.openat(dirfd, path, O_PATH | O_DIRECTORY | O_NOFOLLOW)
    if syscalls.fstatfs(fd).type != PROC_SUPER_MAGIC or syscalls.fstat(fd).st_ino != _ROOT_INODE:
        syscalls.close(fd)
        raise SyscallError(EXDEV, "not the root of a procfs", "openat", path)
    return fd


def held() -> int:
    """The host's /proc, opened when first asked for; kept across forks."""
    global _held
    if _held < 0:
        _held = open_proc()
    return _held


def open_beneath(proc_fd: int, path: str, flags: int) -> int:
    """Open what lies in this procfs; `self` is followed, other links are not.

    Raises SyscallError: EXDEV when something is mounted over the file (over /proc/sys a procfs may
    be: engines make it read-only so), ELOOP for links.
    """
    beneath = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS
    try:
        return syscalls.openat2(proc_fd, path, flags | O_NOFOLLOW, 0, beneath | RESOLVE_NO_XDEV)
    except SyscallError as error:
        if error.errno == EXDEV and path.startswith("sys/"):
            fd = syscalls.openat2(proc_fd, path, flags | O_NOFOLLOW, 0, beneath)
        elif error.errno in (ENOSYS, EPERM):
            fd = _walk(proc_fd, path, flags)
        else:
            raise
    if syscalls.fstatfs(fd).type != PROC_SUPER_MAGIC:
        syscalls.close(fd)
        raise SyscallError(EXDEV, "not a file of procfs", "openat", path)
    return fd


def _walk(proc_fd: int, path: str, flags: int) -> int:
    """Component by component, no link but `self` and `thread-self`, for kernels without openat2."""
    first, _, rest = path.partition("/")
    if first in ("self", "thread-self"):
        path = f"{syscalls.readlinkat(proc_fd, first)}/{rest}"
    *directories, name = [part for part in path.split("/") if part]
    at = syscalls.dup(proc_fd)
    try:
        for part in directories:
            if part == "..":
                raise SyscallError(EXDEV, "leads out of procfs", "openat", path)
            below = syscalls.openat(at, part, O_PATH | O_DIRECTORY | O_NOFOLLOW)
            syscalls.close(at)
            at = below
        return syscalls.openat(at, name, flags | O_NOFOLLOW)
    finally:
        syscalls.close(at)


def read(pid: int | str, name: str) -> bytes:
    """The content of /proc/PID/NAME; pid may be "self"."""
    return read_path(held(), f"{pid}/{name}")


def read_path(proc_fd: int, path: str, *, record: bool = False) -> bytes:
    """The content of a file below this procfs. record: it is one for fds.read_record."""
    fd = open_beneath(proc_fd, path, O_RDONLY)
    try:
        return fds.read_record(fd) if record else fds.read_all(fd)
    except SyscallError as error:
        error.filename = f"/proc/{path}"
        raise
    finally:
        syscalls.close(fd)


def write(proc_fd: int, path: str, data: bytes) -> None:
    """One write(2), as these files want it; raises SyscallError naming the file."""
    fd = open_beneath(proc_fd, path, O_WRONLY)
    try:
        syscalls.write(fd, data)
    except SyscallError as error:
        error.filename = f"/proc/{path}"
        raise
    finally:
        syscalls.close(fd)


def start_time(pid: int) -> int | None:
    """When the process started, in clock ticks since boot (proc(5), stat field 22).

    None when there is no such process any more, or only its zombie, or when it is on its way there:
    the first process of a pid namespace waits in exit until the last of it has been waited for.
    """
    try:
        stat = read_path(held(), f"{pid}/stat", record=True)
    except SyscallError as error:
        if error.errno in (ENOENT, ESRCH):
            return None
        raise
    # the name, field 2, may hold blanks and brackets; field 3 comes after the last ")"
    fields = stat[stat.rindex(b")") + 2 :].split()
    ended = fields[0] in (b"Z", b"X") or int(fields[6]) & _PF_EXITING
    return None if ended else int(fields[19])


def in_initial_user_namespace() -> bool:
    """Is this the machine's own user namespace, and not a container's?"""
    return syscalls.fstatat(held(), "self/ns/user").st_ino == _INITIAL_USER_NAMESPACE


def boot_id() -> str:
    """random(4): a UUID that changes with each boot; so it is read once."""
    global _boot_id
    if not _boot_id:
        text = read_path(held(), "sys/kernel/random/boot_id", record=True)
        _boot_id = text.decode("ascii").strip()
    return _boot_id
