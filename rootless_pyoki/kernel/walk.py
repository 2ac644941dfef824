"""One lookup beneath a root, component by component: for kernels without openat2(2), and to make what
is missing on the way.

Each component is opened with O_NOFOLLOW; links are read here, and ".." goes back to a descriptor that
we came by, never by asking the kernel for "..".
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.kernel.constants import (
    AAFS_MAGIC,
    EAGAIN,
    EEXIST,
    ELOOP,
    ENOENT,
    ENOTDIR,
    EXDEV,
    O_DIRECTORY,
    O_NOFOLLOW,
    O_PATH,
    PROC_SUPER_MAGIC,
    S_IFDIR,
    S_IFLNK,
    S_IFMT,
    ST_NOSYMFOLLOW,
)

MAX_LINKS = 40  # MAXSYMLINKS of linux/namei.h
RETRIES = 64
_PROC_ROOT_INODE = 1


class Walk:
    """One lookup in progress: the directories behind us and the names before us."""

    def __init__(
        self, root_fd: int, path: str, make: int = 0, mode: int = 0, *, beneath: bool = False
    ) -> None:
        """make: S_IFDIR or S_IFREG, what to make where the last name is missing; 0: nothing.

        beneath: what leads out of the root is an error, EXDEV, instead of being taken as inside.
        """
        if not path:
            raise failure(ENOENT, path)
        self.path = path
        self.make = make
        self.mode = mode
        self.beneath = beneath
        self.links = 0
        self.root = root_fd
        self.behind: list[int] = []  # O_PATH fds below the root, ours; [-1] is where we are
        self.ahead = names_of(path)  # reversed: the next one is the last

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
                elif self.beneath:
                    raise failure(EXDEV, self.path)
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
        kind = kind_of(syscalls.fstat(fd).st_mode)
        if kind == S_IFDIR:
            self.behind.append(fd)
            return
        try:
            if kind != S_IFLNK:
                raise failure(ENOTDIR, self.path)
            self.follow(fd)
        finally:
            syscalls.close(fd)

    def last(self, name: str, flags: int) -> int:
        """The fd asked for, or -1 when a link has put more names before us."""
        fd = self.lookup(name, self.make)
        try:
            kind = kind_of(syscalls.fstat(fd).st_mode)
            if kind == S_IFLNK and not flags & O_NOFOLLOW:
                self.follow(fd)
                return -1
            if flags & O_DIRECTORY and kind != S_IFDIR:
                raise failure(ENOTDIR, self.path)
            if flags & O_PATH:
                found, fd = fd, -1
                return found
            return self.call(self.at(), name, flags | O_NOFOLLOW)
        finally:
            if fd >= 0:
                syscalls.close(fd)

    def lookup(self, name: str, make: int) -> int:
        """An O_PATH fd of the name itself, made first where it is missing and may be."""
        for _ in range(RETRIES):
            try:
                return self.call(self.at(), name, O_PATH | O_NOFOLLOW)
            except SyscallError as failed:
                if failed.errno != ENOENT or not make:
                    raise
            try:
                if make == S_IFDIR:
                    mode = self.mode if self.make == S_IFDIR else 0o755
                    syscalls.mkdirat(self.at(), name, mode)
                else:
                    syscalls.mknodat(self.at(), name, make | self.mode)
            except SyscallError as failed:
                if failed.errno != EEXIST:  # else somebody was faster
                    failed.filename = self.path
                    raise
        raise failure(EAGAIN, self.path)

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
            raise failure(ELOOP, self.path)
        target = syscalls.readlinkat(link, "")
        if target.startswith("/"):
            if self.beneath:
                raise failure(EXDEV, self.path)
            self.close()
        self.ahead += names_of(target)

    def at_proc_root(self) -> bool:
        """Links in the root of a procfs (self, mounts, net) are plain; below, any may be magic."""
        return syscalls.fstat(self.at()).st_ino == _PROC_ROOT_INODE

    def call(self, dirfd: int, name: str, flags: int) -> int:
        try:
            return syscalls.openat(dirfd, name, flags)
        except SyscallError as failed:
            failed.filename = self.path
            raise


def names_of(path: str) -> list[str]:
    """Components, last one first; a slash at the end becomes a "." (it wants a directory)."""
    names = [name for name in path.split("/") if name]
    if path.endswith("/"):
        names.append(".")
    names.reverse()
    return names


def kind_of(mode: int) -> int:
    return mode & S_IFMT


def failure(number: int, path: str) -> SyscallError:
    return SyscallError(number, syscalls.strerror(number), "openat", path)
