"""Files and descriptors. Every fd returned is close-on-exec."""

from __future__ import annotations

import posix
import sys

from rootless_pyoki.kernel._call import check, decode, encode, failed, lib, retry

_AT_SYMLINK_NOFOLLOW = 0x100
_AT_REMOVEDIR = 0x200
_AT_EMPTY_PATH = 0x1000
_F_SETFD, _F_GETFL, _F_SETFL = 2, 3, 4
_F_DUPFD_CLOEXEC, _F_ADD_SEALS, _F_GET_SEALS = 1030, 1033, 1034

_ID = 0xFFFFFFFF  # so that -1 becomes (uid_t)-1

makedev = posix.makedev
major = posix.major
minor = posix.minor


def page_size() -> int:
    """sysconf(3) _SC_PAGESIZE: bytes of a page of memory."""
    return posix.sysconf("SC_PAGESIZE")


def openat(dirfd: int, path: str, flags: int, mode: int = 0) -> int:
    """openat(2), O_CLOEXEC added."""
    try:
        return posix.open(encode(path, "openat"), flags, mode, dir_fd=dirfd)
    except OSError as error:
        raise failed(error, "openat", path) from None


def openat2(dirfd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), Linux 5.6; O_CLOEXEC added, resolve: RESOLVE_*."""
    raw = encode(path, "openat2")
    return check(
        lib.pk_openat2(dirfd, raw, flags | posix.O_CLOEXEC, mode, resolve), "openat2", path
    )


def close(fd: int) -> None:
    """close(2)."""
    try:
        posix.close(fd)
    except OSError as error:
        raise failed(error, "close", f"fd {fd}") from None


def read(fd: int, size: int) -> bytes:
    """read(2), EINTR retried; b"" at the end."""
    try:
        return posix.read(fd, size)
    except OSError as error:
        raise failed(error, "read", f"fd {fd}") from None


def pread(fd: int, size: int, offset: int) -> bytes:
    """pread(2), EINTR retried."""
    try:
        return posix.pread(fd, size, offset)
    except OSError as error:
        raise failed(error, "pread", f"fd {fd}") from None


def write(fd: int, data: bytes) -> int:
    """write(2), EINTR retried: how much was written."""
    try:
        return posix.write(fd, data)
    except OSError as error:
        raise failed(error, "write", f"fd {fd}") from None


def lseek(fd: int, offset: int, whence: int = 0) -> int:
    """lseek(2)."""
    try:
        return posix.lseek(fd, offset, whence)
    except OSError as error:
        raise failed(error, "lseek", f"fd {fd}") from None


def ftruncate(fd: int, size: int) -> None:
    """ftruncate(2)."""
    try:
        posix.ftruncate(fd, size)
    except OSError as error:
        raise failed(error, "ftruncate", f"fd {fd}") from None


def fsync(fd: int) -> None:
    """fsync(2)."""
    try:
        posix.fsync(fd)
    except OSError as error:
        raise failed(error, "fsync", f"fd {fd}") from None


def fstat(fd: int) -> posix.stat_result:
    """fstat(2)."""
    try:
        return posix.fstat(fd)
    except OSError as error:
        raise failed(error, "fstat", f"fd {fd}") from None


def fstatat(dirfd: int, path: str, flags: int = 0) -> posix.stat_result:
    """fstatat(2); flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (then path is "")."""
    if not path and flags & _AT_EMPTY_PATH:
        return fstat(dirfd)
    follow = not flags & _AT_SYMLINK_NOFOLLOW
    try:
        return posix.stat(encode(path, "fstatat"), dir_fd=dirfd, follow_symlinks=follow)
    except OSError as error:
        raise failed(error, "fstatat", path) from None


def mkdirat(dirfd: int, path: str, mode: int) -> None:
    """mkdirat(2); the mode goes through the umask."""
    try:
        posix.mkdir(encode(path, "mkdirat"), mode, dir_fd=dirfd)
    except OSError as error:
        raise failed(error, "mkdirat", path) from None


def unlinkat(dirfd: int, path: str, flags: int = 0) -> None:
    """unlinkat(2); flags: AT_REMOVEDIR."""
    remove = posix.rmdir if flags & _AT_REMOVEDIR else posix.unlink
    try:
        remove(encode(path, "unlinkat"), dir_fd=dirfd)
    except OSError as error:
        raise failed(error, "unlinkat", path) from None


def symlinkat(target: str, dirfd: int, path: str) -> None:
    """symlinkat(2): path will say target."""
    try:
        posix.symlink(encode(target, "symlinkat"), encode(path, "symlinkat"), dir_fd=dirfd)
    except OSError as error:
        raise failed(error, "symlinkat", path) from None


def mknodat(dirfd: int, path: str, mode: int, dev: int = 0) -> None:
    """mknodat(2): mode with S_IF*; the permission bits go through the umask."""
    try:
        posix.mknod(encode(path, "mknodat"), mode, dev, dir_fd=dirfd)
    except OSError as error:
        raise failed(error, "mknodat", path) from None


def renameat(old_dirfd: int, old: str, new_dirfd: int, new: str) -> None:
    """renameat(2)."""
    source, target = encode(old, "renameat"), encode(new, "renameat")
    try:
        posix.rename(source, target, src_dir_fd=old_dirfd, dst_dir_fd=new_dirfd)
    except OSError as error:
        raise failed(error, "renameat", new) from None


def readlinkat(dirfd: int, path: str) -> str:
    """readlinkat(2); an empty path reads the O_PATH|O_NOFOLLOW fd of a link itself."""
    try:
        return decode(posix.readlink(encode(path, "readlinkat"), dir_fd=dirfd))
    except OSError as error:
        raise failed(error, "readlinkat", path or f"fd {dirfd}") from None


def listdir(fd: int) -> list[str]:
    """getdents64(2) of a readable directory fd: the names, without "." and ".."."""
    try:
        names = posix.listdir(fd)
    except OSError as error:
        raise failed(error, "getdents64", f"fd {fd}") from None
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return names
    return [decode(name.encode(encoding, sys.getfilesystemencodeerrors())) for name in names]


def fchmod(fd: int, mode: int) -> None:
    """fchmod(2); not for O_PATH fds."""
    try:
        posix.fchmod(fd, mode)
    except OSError as error:
        raise failed(error, "fchmod", f"fd {fd}") from None


def fchmodat(dirfd: int, path: str, mode: int) -> None:
    """fchmodat(2); follows symbolic links."""
    try:
        posix.chmod(encode(path, "fchmodat"), mode, dir_fd=dirfd)
    except OSError as error:
        raise failed(error, "fchmodat", path) from None


def fchown(fd: int, uid: int, gid: int) -> None:
    """fchown(2); -1 leaves an id alone; not for O_PATH fds."""
    try:
        posix.fchown(fd, uid, gid)
    except OSError as error:
        raise failed(error, "fchown", f"fd {fd}") from None


def fchownat(dirfd: int, path: str, uid: int, gid: int, flags: int = 0) -> None:
    """fchownat(2); flags: AT_SYMLINK_NOFOLLOW, AT_EMPTY_PATH (path "", O_PATH fds will do)."""
    raw = encode(path, "fchownat")
    check(
        lib.pk_fchownat(dirfd, raw, uid & _ID, gid & _ID, flags), "fchownat", path or f"fd {dirfd}"
    )


def faccessat(dirfd: int, path: str, mode: int) -> bool:
    """faccessat(2) with the real ids: may we? mode: F_OK or R_OK | W_OK | X_OK."""
    return posix.access(encode(path, "faccessat"), mode, dir_fd=dirfd)


def fchdir(fd: int) -> None:
    """fchdir(2)."""
    try:
        posix.fchdir(fd)
    except OSError as error:
        raise failed(error, "fchdir", f"fd {fd}") from None


def chdir(path: str) -> None:
    """chdir(2)."""
    try:
        posix.chdir(encode(path, "chdir"))
    except OSError as error:
        raise failed(error, "chdir", path) from None


def getcwd() -> str:
    """getcwd(2)."""
    try:
        return decode(posix.getcwdb())
    except OSError as error:
        raise failed(error, "getcwd") from None


def dup(fd: int, minimum: int = 0) -> int:
    """fcntl(F_DUPFD_CLOEXEC): the lowest free number that is not below `minimum`."""
    return check(lib.pk_fcntl(fd, _F_DUPFD_CLOEXEC, minimum), "fcntl", f"fd {fd}")


def dup2(old: int, new: int, cloexec: bool = True) -> int:
    """dup3(2), where old may equal new: then only the flag is set."""
    if old == new:
        set_cloexec(old, cloexec)
        return new
    try:
        return posix.dup2(old, new, not cloexec)
    except OSError as error:
        raise failed(error, "dup3", f"fd {old}") from None


def set_cloexec(fd: int, cloexec: bool) -> None:
    """fcntl(F_SETFD)."""
    check(lib.pk_fcntl(fd, _F_SETFD, int(cloexec)), "fcntl", f"fd {fd}")


def set_nonblock(fd: int, nonblock: bool) -> None:
    """fcntl(F_SETFL, O_NONBLOCK): of the open file, so shared with every duplicate."""
    flags = check(lib.pk_fcntl(fd, _F_GETFL, 0), "fcntl", f"fd {fd}")
    flags = flags | posix.O_NONBLOCK if nonblock else flags & ~posix.O_NONBLOCK
    check(lib.pk_fcntl(fd, _F_SETFL, flags), "fcntl", f"fd {fd}")


def flock(fd: int, operation: int) -> None:
    """flock(2), EINTR retried; LOCK_NB on a held lock raises SyscallError EWOULDBLOCK."""
    check(retry(lib.pk_flock, fd, operation), "flock", f"fd {fd}")


def memfd_create(name: str, flags: int) -> int:
    """memfd_create(2), MFD_CLOEXEC added."""
    try:
        raw = encode(name, "memfd_create")
        return posix.memfd_create(raw, flags | posix.MFD_CLOEXEC)  # type: ignore[arg-type]
    except OSError as error:
        raise failed(error, "memfd_create", name) from None


def add_seals(fd: int, seals: int) -> None:
    """fcntl(F_ADD_SEALS)."""
    check(lib.pk_fcntl(fd, _F_ADD_SEALS, seals), "fcntl", f"fd {fd}")


def get_seals(fd: int) -> int:
    """fcntl(F_GET_SEALS)."""
    return check(lib.pk_fcntl(fd, _F_GET_SEALS, 0), "fcntl", f"fd {fd}")


def pipe() -> tuple[int, int]:
    """pipe2(2): (read end, write end)."""
    try:
        return posix.pipe2(posix.O_CLOEXEC)
    except OSError as error:
        raise failed(error, "pipe2") from None


def close_range(first: int, last: int, flags: int = 0) -> None:
    """close_range(2), Linux 5.9 (CLOSE_RANGE_CLOEXEC: 5.11); last may be 0xffffffff."""
    check(lib.pk_close_range(first, last, flags), "close_range", f"fd {first}")
