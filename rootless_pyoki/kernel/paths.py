"""Paths of the container, looked up beneath its root: descriptors in, descriptors out.

openat2(2) with RESOLVE_IN_ROOT does it in the kernel. Where it is missing (before Linux 5.6) or
refused (a seccomp filter around us), and where missing parts are to be made, walk.py does the same
component by component. Magic links (/proc/self/root, /proc/self/fd/N) are refused, since they lead
anywhere.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.kernel.constants import (
    EAGAIN,
    EEXIST,
    EINVAL,
    EISDIR,
    ENOENT,
    ENOSYS,
    ENOTDIR,
    EPERM,
    O_DIRECTORY,
    O_PATH,
    RESOLVE_BENEATH,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    S_IFDIR,
    S_IFREG,
)
from rootless_pyoki.kernel.walk import RETRIES, Walk, failure, kind_of

force_walk = False  # True: never openat2


def resolve(root_fd: int, path: str, flags: int = O_PATH) -> int:
    """Open what `path` means inside the root; O_CREAT is not for here.

    Raises SyscallError: ENOENT, ENOTDIR, ELOOP (too many links, or a magic one), EACCES ...
    """
    if not force_walk:
        fd = _openat2(root_fd, path, flags)
        if fd >= 0:
            return fd
    walk = Walk(root_fd, path)
    try:
        return walk.open(flags)
    finally:
        walk.close()


def resolve_beneath(fd: int, path: str) -> int:
    """An O_PATH fd; raises SyscallError EXDEV where ".." or a link leads out of the directory `fd`."""
    if not force_walk:
        found = _openat2(fd, path, O_PATH, RESOLVE_BENEATH)
        if found >= 0:
            return found
    walk = Walk(fd, path, beneath=True)
    try:
        return walk.open(O_PATH)
    finally:
        walk.close()


def make_directory(root_fd: int, path: str, mode: int = 0o755) -> int:
    """An O_PATH fd of the directory; whatever is missing on the way is made (mode: less the umask).

    Links are followed inside the root, and where they dangle their target is made.
    """
    try:
        return resolve(root_fd, path, O_PATH | O_DIRECTORY)
    except SyscallError as error:
        if error.errno != ENOENT:
            raise
    walk = Walk(root_fd, path, make=S_IFDIR, mode=mode)
    try:
        return walk.open(O_PATH | O_DIRECTORY)
    finally:
        walk.close()


def make_file(root_fd: int, path: str, mode: int = 0o644) -> int:
    """An O_PATH fd of the file, which may be of any type but a directory (EISDIR).

    Where there is none an empty regular file is made, missing directories before it with mode 0755.
    """
    try:
        fd = resolve(root_fd, path, O_PATH)
    except SyscallError as error:
        if error.errno != ENOENT:
            raise
        walk = Walk(root_fd, path, make=S_IFREG, mode=mode)
        try:
            fd = walk.open(O_PATH)
        finally:
            walk.close()
    if kind_of(syscalls.fstat(fd).st_mode) == S_IFDIR:
        syscalls.close(fd)
        raise failure(EISDIR, path)
    return fd


def make_symlink(root_fd: int, path: str, target: str) -> None:
    """Make `path` say `target`, missing directories before it; one that says so already is fine.

    Raises SyscallError EEXIST when something else is there.
    """
    fd, name = parent(root_fd, path)
    try:
        try:
            syscalls.symlinkat(target, fd, name)
        except SyscallError as error:
            if error.errno != EEXIST or not _says(fd, name, target):
                raise
    finally:
        syscalls.close(fd)


def parent(root_fd: int, path: str, create: bool = True) -> tuple[int, str]:
    """(O_PATH fd of the directory, last name); the last name is not looked at.

    Raises SyscallError EINVAL when there is no last name: "/", "a/..".
    """
    directory, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise failure(EINVAL, path)
    directory = directory or "/"
    if create:
        return make_directory(root_fd, directory), name
    return resolve(root_fd, directory, O_PATH | O_DIRECTORY), name


def exists(root_fd: int, path: str) -> bool:
    """Does `path` lead anywhere? Raises SyscallError for all but ENOENT and ENOTDIR."""
    try:
        syscalls.close(resolve(root_fd, path))
    except SyscallError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return False
        raise
    return True


def _openat2(root_fd: int, path: str, flags: int, scope: int = RESOLVE_IN_ROOT) -> int:
    """The fd, or -1 when this kernel, or a filter around us, has no openat2 for us."""
    for _ in range(RETRIES):
        try:
            return syscalls.openat2(root_fd, path, flags, 0, scope | RESOLVE_NO_MAGICLINKS)
        except SyscallError as error:
            if error.errno == EAGAIN:  # somebody renames or mounts while we look up ".."
                continue
            if error.errno in (ENOSYS, EPERM):
                return -1
            raise
    return -1


def _says(dirfd: int, name: str, target: str) -> bool:
    try:
        return syscalls.readlinkat(dirfd, name) == target
    except SyscallError:
        return False
