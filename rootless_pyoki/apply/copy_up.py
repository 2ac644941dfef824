"""tmpcopyup: give a new tmpfs the contents of the directory that it will cover."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls

CHUNK = 1 << 20


def copy(source: int, target: int) -> None:
    """Copy what is in directory fd `source` (O_PATH) into directory fd `target`, by fds only.

    Modes and owners are kept, but for owners that are not mapped; device nodes, sockets and fifos are
    left out (nobody may make them here).
    """
    reader = syscalls.openat(source, ".", c.O_RDONLY | c.O_DIRECTORY)
    try:
        for name in syscalls.listdir(reader):
            _copy_entry(reader, target, name)
    finally:
        syscalls.close(reader)


def _copy_entry(source: int, target: int, name: str) -> None:
    seen = syscalls.fstatat(source, name, c.AT_SYMLINK_NOFOLLOW)
    kind = seen.st_mode & c.S_IFMT
    if kind == c.S_IFLNK:
        syscalls.symlinkat(syscalls.readlinkat(source, name), target, name)
        made = syscalls.openat(target, name, c.O_PATH | c.O_NOFOLLOW)
        _give(made, seen.st_uid, seen.st_gid)
        syscalls.close(made)
        return
    if kind == c.S_IFDIR:
        syscalls.mkdirat(target, name, 0o700)
        inner = syscalls.openat(source, name, c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW)
        made = syscalls.openat(target, name, c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW)
        copy(inner, made)
    elif kind == c.S_IFREG:
        # whoever else has this directory may put a fifo there now: do not wait for a writer
        inner = syscalls.openat(source, name, c.O_RDONLY | c.O_NOFOLLOW | c.O_NONBLOCK)
        if syscalls.fstat(inner).st_mode & c.S_IFMT != c.S_IFREG:
            syscalls.close(inner)
            return
        made = syscalls.openat(target, name, c.O_WRONLY | c.O_CREAT | c.O_EXCL, 0o600)
        while data := syscalls.read(inner, CHUNK):
            while data:
                data = data[syscalls.write(made, data) :]
    else:
        return
    _give(made, seen.st_uid, seen.st_gid)
    syscalls.fchmod(made, seen.st_mode & 0o7777)
    syscalls.close(inner)
    syscalls.close(made)


def _give(made: int, uid: int, gid: int) -> None:
    """Whose owner is not mapped gets none (EINVAL): the copy stays ours."""
    try:
        syscalls.fchownat(made, "", uid, gid, c.AT_EMPTY_PATH)
    except SyscallError as error:
        if error.errno != c.EINVAL:
            raise
