"""Descriptors: whole files, and which numbers are open."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.kernel.constants import (
    AT_FDCWD,
    CLOSE_RANGE_CLOEXEC,
    EINVAL,
    ENOSYS,
    EPERM,
    O_DIRECTORY,
    O_PATH,
    O_RDONLY,
)

CHUNK = 1 << 16
RECORD = 1 << 14  # more than the files hold that read_record is for


def close_quietly(fd: int) -> None:
    """Close, and do not care; negative numbers are nobody's."""
    if fd >= 0:
        try:
            syscalls.close(fd)
        except SyscallError:
            pass


def read_all(fd: int) -> bytes:
    """From the current offset to the end."""
    chunks = []
    while chunk := syscalls.read(fd, CHUNK):
        chunks.append(chunk)
    return b"".join(chunks)


def read_record(fd: int) -> bytes:
    """From the current offset to the end, which a short read tells: one call instead of two.

    For regular files (read(3p): fewer bytes than asked for are the last ones), and for those of
    procfs, sysctl and cgroupfs that the kernel writes in one go: stat, boot_id, cgroup.events. Not
    for files of many records (mountinfo, uid_map, cgroup.procs): a read of these stops where the
    next record did not fit into the kernel's buffer.
    """
    chunks = [syscalls.read(fd, RECORD)]
    while len(chunks[-1]) == RECORD:
        chunks.append(syscalls.read(fd, RECORD))
    return b"".join(chunks)


def read_file(dirfd: int, path: str, *, record: bool = False, flags: int = 0) -> bytes:
    """The whole file; raises SyscallError naming the path. record: it is one for read_record."""
    fd = syscalls.openat(dirfd, path, O_RDONLY | flags)
    try:
        return read_record(fd) if record else read_all(fd)
    except SyscallError as error:
        error.filename = path
        raise
    finally:
        syscalls.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """All of it, however many calls that takes."""
    written = syscalls.write(fd, data)
    while written < len(data):
        written += syscalls.write(fd, data[written:])


def open_dir(path: str, dirfd: int = AT_FDCWD) -> int:
    """An O_PATH fd of a directory of the host; symbolic links are followed."""
    return syscalls.openat(dirfd, path, O_PATH | O_DIRECTORY)


def fd_path(fd: int) -> str:
    """A path that means this very file, for calls that know paths only; needs /proc."""
    return f"/proc/self/fd/{fd}"


def connect(socket: int, path: str) -> None:
    """connect(2) to an AF_UNIX socket of the host, however long its path; needs /proc."""
    try:
        place = syscalls.openat(AT_FDCWD, path, O_PATH)
        try:
            syscalls.connect(socket, fd_path(place))
        finally:
            syscalls.close(place)
    except SyscallError as error:
        error.filename = path
        raise


def cloexec_from(first: int) -> None:
    """Every open fd >= first becomes close-on-exec."""
    try:
        syscalls.close_range(first, 0xFFFFFFFF, CLOSE_RANGE_CLOEXEC)
    except SyscallError as error:
        # before Linux 5.9 and 5.11; a seccomp filter that does not know the call says EPERM
        if error.errno not in (ENOSYS, EINVAL, EPERM):
            raise
        for fd in open_fds():
            if fd >= first:
                syscalls.set_cloexec(fd, True)


def close_all_but(kept: list[int], first: int) -> None:
    """Close every fd >= first that is not kept."""
    kept = sorted(fd for fd in kept if fd >= first)
    try:
        for fd in kept:
            if first < fd:
                syscalls.close_range(first, fd - 1, 0)
            first = fd + 1
        syscalls.close_range(first, 0xFFFFFFFF, 0)
    except SyscallError as error:
        if error.errno not in (ENOSYS, EPERM):  # before Linux 5.9, or a filter around us
            raise
        for fd in open_fds():
            if fd >= first and fd not in kept:
                syscalls.close(fd)


def open_fds() -> list[int]:
    """The numbers of our open fds, ascending, from /proc/self/fd."""
    directory = syscalls.openat(AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY)
    try:
        numbers = sorted(map(int, syscalls.listdir(directory)))
    finally:
        syscalls.close(directory)
    return [fd for fd in numbers if _is_open(fd)]  # the listing's own are gone by now


def _is_open(fd: int) -> bool:
    try:
        syscalls.fstat(fd)
    except SyscallError:
        return False
    return True


def require_open(first: int, count: int) -> None:
    """Raise SyscallError EBADF naming the first fd of first ... first+count-1 that is not open."""
    for fd in range(first, first + count):
        syscalls.fstat(fd)
