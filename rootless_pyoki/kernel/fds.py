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


def read_file(dirfd: int, path: str) -> bytes:
    """The whole file; raises SyscallError naming the path."""
    fd = syscalls.openat(dirfd, path, O_RDONLY)
    try:
        return read_all(fd)
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
