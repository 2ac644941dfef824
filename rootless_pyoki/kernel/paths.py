"""Paths of the container, looked up beneath its root: descriptors in, descriptors out.

openat2(2) with RESOLVE_IN_ROOT does it in the kernel. Where it is missing (before Linux 5.6) or
refused (a seccomp filter around us), and where missing parts are to be made, _Walk does the same
component by component: it opens each with O_NOFOLLOW, reads links itself, and goes back for ".." to
a descriptor it came by, never by asking the kernel for "..". Magic links (/proc/self/root,
/proc/self/fd/N) are refused, since they lead anywhere.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.kernel.constants import (
    AAFS_MAGIC,
    EAGAIN,
    EEXIST,
    EINVAL,
    EISDIR,
    ELOOP,
    ENOENT,
    ENOSYS,
    ENOTDIR,
    EPERM,
    O_DIRECTORY,
    O_NOFOLLOW,
    O_PATH,
    PROC_SUPER_MAGIC,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    S_IFREG,
    ST_NOSYMFOLLOW,
)

MAX_LINKS = 40  # MAXSYMLINKS of linux/namei.h
_PROC_ROOT_INODE = 1
_RETRIES = 64

force_walk = False  # True: never openat2


def resolve(root_fd: int, path: str, flags: int = O_PATH) -> int:
    """Open what `path` means inside the root; O_CREAT is not for here.

    Raises SyscallError: ENOENT, ENOTDIR, ELOOP (too many links, or a magic one), EACCES ...
    """
    if not force_walk:
        fd = _openat2(root_fd, path, flags)
        if fd >= 0:
            return fd
    walk = _Walk(root_fd, path)
    try:
        return walk.open(flags)
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
    walk = _Walk(root_fd, path, make=S_IFDIR, mode=mode)
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
        walk = _Walk(root_fd, path, make=S_IFREG, mode=mode)
        try:
            fd = walk.open(O_PATH)
        finally:
            walk.close()
    if _kind(syscalls.fstat(fd).st_mode) == S_IFDIR:
        syscalls.close(fd)
        raise _error(EISDIR, path)
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
        raise _error(EINVAL, path)
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


def _openat2(root_fd: int, path: str, flags: int) -> int:
    """The fd, or -1 when this kernel, or a filter around us, has no openat2 for us."""
    for _ in range(_RETRIES):
        try:
            return syscalls.openat2(
                root_fd, path, flags, 0, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
            )
        except SyscallError as error:
            if error.errno == EAGAIN:  # somebody renames or mounts while we look up ".."
                continue
            if error.errno in (ENOSYS, EPERM):
                return -1
            raise
    return -1


class _Walk:
    """One lookup in progress: the directories behind us and the names before us."""

    def __init__(self, root_fd: int, path: str, make: int = 0, mode: int = 0) -> None:
        """make: S_IFDIR or S_IFREG, what to make where the last name is missing; 0: nothing."""
        if not path:
            raise _error(ENOENT, path)
        self.path = path
        self.make = make
        self.mode = mode
        self.links = 0
        self.root = root_fd
        self.behind: list[int] = []  # O_PATH fds below the root, ours; [-1] is where we are
        self.ahead = _names(path)  # reversed: the next one is the last

    def open(self, flags: int) -> int:
        """Go all the way; the fd is the caller's."""
        while self.ahead:
            name = self.ahead.pop()
            if name in ("", "."):
                self.enter_same()
            elif name == "..":
                self.enter_same()
                if self.behind:
                    syscalls.close(self.behind.pop())
            elif self.ahead:
                self.step(name)
            else:
                fd = self.last(name, flags)
                if fd >= 0:
                    return fd
        return self.call(self.at(), ".", flags & ~O_NOFOLLOW)

    def close(self) -> None:
        while self.behind:
            syscalls.close(self.behind.pop())

    def at(self) -> int:
        return self.behind[-1] if self.behind else self.root

    def enter_same(self) -> None:
        """The kernel wants search permission on a directory even for "." and ".."."""
        syscalls.close(self.call(self.at(), ".", O_PATH | O_DIRECTORY))

    def step(self, name: str) -> None:
        """Through a name that is not the last one."""
        fd = self.lookup(name, S_IFDIR if self.make else 0)
        kind = _kind(syscalls.fstat(fd).st_mode)
        if kind == S_IFDIR:
            self.behind.append(fd)
            return
        try:
            if kind != S_IFLNK:
                raise _error(ENOTDIR, self.path)
            self.follow(fd)
        finally:
            syscalls.close(fd)

    def last(self, name: str, flags: int) -> int:
        """The fd asked for, or -1 when a link has put more names before us."""
        fd = self.lookup(name, self.make)
        try:
            kind = _kind(syscalls.fstat(fd).st_mode)
            if kind == S_IFLNK and not flags & O_NOFOLLOW:
                self.follow(fd)
                return -1
            if flags & O_DIRECTORY and kind != S_IFDIR:
                raise _error(ENOTDIR, self.path)
            if flags & O_PATH:
                found, fd = fd, -1
                return found
            return self.call(self.at(), name, flags | O_NOFOLLOW)
        finally:
            if fd >= 0:
                syscalls.close(fd)

    def lookup(self, name: str, make: int) -> int:
        """An O_PATH fd of the name itself, made first where it is missing and may be."""
        for _ in range(_RETRIES):
            try:
                return self.call(self.at(), name, O_PATH | O_NOFOLLOW)
            except SyscallError as error:
                if error.errno != ENOENT or not make:
                    raise
            try:
                if make == S_IFDIR:
                    mode = self.mode if self.make == S_IFDIR else 0o755
                    syscalls.mkdirat(self.at(), name, mode)
                else:
                    syscalls.mknodat(self.at(), name, make | self.mode)
            except SyscallError as error:
                if error.errno != EEXIST:  # else somebody was faster
                    error.filename = self.path
                    raise
        raise _error(EAGAIN, self.path)

    def follow(self, link: int) -> None:
        """Put the link's target before us, seen from inside the root."""
        self.links += 1
        filesystem = syscalls.fstatfs(link)
        if (
            self.links > MAX_LINKS
            or filesystem.flags & ST_NOSYMFOLLOW
            or filesystem.type == AAFS_MAGIC
            or (filesystem.type == PROC_SUPER_MAGIC and not self.at_proc_root())
        ):
            raise _error(ELOOP, self.path)
        target = syscalls.readlinkat(link, "")
        if target.startswith("/"):
            self.close()
        self.ahead += _names(target)

    def at_proc_root(self) -> bool:
        """Links in the root of a procfs (self, mounts, net) are plain; below, any may be magic."""
        return syscalls.fstat(self.at()).st_ino == _PROC_ROOT_INODE

    def call(self, dirfd: int, name: str, flags: int) -> int:
        try:
            return syscalls.openat(dirfd, name, flags)
        except SyscallError as error:
            error.filename = self.path
            raise


def _names(path: str) -> list[str]:
    """Components, last one first; a slash at the end becomes a "." (it wants a directory)."""
    names = [name for name in path.split("/") if name]
    if path.endswith("/"):
        names.append(".")
    names.reverse()
    return names


def _kind(mode: int) -> int:
    return mode & S_IFMT


def _says(dirfd: int, name: str, target: str) -> bool:
    try:
        return syscalls.readlinkat(dirfd, name) == target
    except SyscallError:
        return False


def _error(number: int, path: str) -> SyscallError:
    return SyscallError(number, syscalls.strerror(number), "openat", path)
