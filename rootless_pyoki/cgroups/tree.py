"""Cgroup directories: made, walked, watched, given away and removed; cgroups(7), cgroup-v2.rst.

A directory is opened once and checked to lie in a cgroup2 filesystem; everything else happens
relative to that descriptor. Waiting is done by poll(2) for POLLPRI on cgroup.events, which the
kernel raises whenever that file changes.
"""

from __future__ import annotations

import errno as e
import time

from rootless_pyoki.errors import HostError, StateError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def create(path: str, mount: str) -> str:
    """Make the cgroup and the parents that it lacks, below the mount point `mount`.

    Returns the topmost directory that was made ("" when all of them existed), for `remove`.
    A cgroup that exists is taken over only when nothing lives in it: whoever owns a container's
    cgroup may kill everything there. Raises SyscallError, StateError.
    """
    top = ""
    done = mount
    fd = open_cgroup(mount)
    try:
        for name in path[len(mount) :].strip("/").split("/"):
            done = f"{done}/{name}"
            try:
                syscalls.mkdirat(fd, name, 0o755)
                top = top or done
            except SyscallError as error:
                if error.errno != e.EEXIST:
                    raise SyscallError(
                        error.errno or 0, error.strerror or "", "mkdir", done
                    ) from None
            below = syscalls.openat(fd, name, c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW)
            fds.close_quietly(fd)
            fd = below
        if "populated 1" in events(fd):
            raise StateError(f"create cgroup {path}: it exists and holds processes")
    except BaseException:
        _remove_upwards(done, top)
        raise
    finally:
        fds.close_quietly(fd)
    return top


def remove(path: str, *, top: str = "", timeout: float = 5.0) -> None:
    """Remove the cgroup with all below it, then its parents up to `top` while they are empty.

    Whatever still dies in there is waited for. Fine when it is gone. Raises HostError when somebody
    lives there after `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    fd = enter(c.AT_FDCWD, path)
    if fd >= 0:
        _remove_below(fd, path, deadline)
        _remove_directory(c.AT_FDCWD, path, path, deadline)
    if top and path != top:
        _remove_upwards(path.rpartition("/")[0], top)


def await_removal(path: str, *, timeout: float = 5.0, patience: float = 0.5) -> bool:
    """Wait until somebody else has removed the cgroup, as systemd does with a scope's when it is empty.

    False when it is still there `patience` seconds after its last process. Raises HostError when
    somebody lives there after `timeout` seconds.
    """
    fd = enter(c.AT_FDCWD, path)
    if fd < 0:
        return True
    try:
        if not await_event(fd, "populated 0", timeout):
            raise HostError(f"remove cgroup {path}: it is still in use", errno=e.EBUSY)
    finally:
        fds.close_quietly(fd)
    deadline, step = time.monotonic() + patience, 1
    while syscalls.faccessat(c.AT_FDCWD, path, c.F_OK):
        if time.monotonic() > deadline:
            return False
        syscalls.poll((), step)  # that a file of cgroupfs is gone wakes nobody
        step = min(2 * step, 10)
    return True


def _remove_below(fd: int, path: str, deadline: float) -> None:
    """Remove the cgroups below, deepest first; takes `fd` over."""
    names: list[str] = []  # the way from the cgroup to where `fd` is
    pending: list[list[str]] = []
    try:
        if syscalls.fstatfs(fd).type != c.CGROUP2_SUPER_MAGIC:
            raise HostError(f"remove cgroup {path}: not in a cgroup v2 filesystem")
        pending.append(children(fd))
        while pending[0] or names:
            if pending[-1]:
                name = pending[-1].pop()
                below = enter(fd, name)
                if below < 0:
                    continue
                names.append(name)
                pending.append(children(below))
                fds.close_quietly(fd)
                fd = below
            else:
                above = syscalls.openat(fd, "..", c.O_RDONLY | c.O_DIRECTORY)
                fds.close_quietly(fd)
                fd = above
                pending.pop()
                _remove_directory(fd, names.pop(), path, deadline)
    finally:
        fds.close_quietly(fd)


def _remove_directory(directory: int, name: str, path: str, deadline: float) -> None:
    """rmdir, waiting for what still dies inside."""
    while True:
        try:
            return syscalls.unlinkat(directory, name, c.AT_REMOVEDIR)
        except SyscallError as error:
            if error.errno == e.ENOENT:
                return
            if error.errno != e.EBUSY:
                raise
        fd = enter(directory, name)
        if fd < 0:
            return
        try:
            left = deadline - time.monotonic()
            empty = left > 0 and await_event(fd, "populated 0", left)
            if not empty or children(fd):
                raise HostError(f"remove cgroup {path}: it is still in use", errno=e.EBUSY)
        finally:
            fds.close_quietly(fd)


def _remove_upwards(path: str, top: str) -> None:
    """rmdir `path` and its parents up to `top`, as far as they are empty."""
    while top and (path == top or path.startswith(top + "/")):
        try:
            syscalls.unlinkat(c.AT_FDCWD, path, c.AT_REMOVEDIR)
        except SyscallError as error:
            if error.errno != e.ENOENT:
                return  # somebody else's, or in use by somebody else
        path = path.rpartition("/")[0]


def delegate(path: str, uid: int, gid: int) -> None:
    """Give the cgroup to the container's root: the directory and the files meant for that.

    uid and gid as seen from here; sysfs names the files (/sys/kernel/cgroup/delegate).
    Raises SyscallError (EPERM without CAP_CHOWN over these ids).
    """
    names = delegated_files()
    fd = open_cgroup(path)
    try:
        status = syscalls.fstat(fd)
        if (status.st_uid, status.st_gid) != (uid, gid):
            syscalls.fchown(fd, uid, gid)
        for name in names:
            try:
                syscalls.fchownat(fd, name, uid, gid, c.AT_SYMLINK_NOFOLLOW)
            except SyscallError as error:
                if error.errno != e.ENOENT:
                    raise
    finally:
        fds.close_quietly(fd)


def delegated_files() -> list[str]:
    """The files of a cgroup that are given away with it, cgroups(7); before Linux 4.15 nothing tells."""
    try:
        return fds.read_file(c.AT_FDCWD, "/sys/kernel/cgroup/delegate").decode().split()
    except SyscallError:
        return ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]


def open_cgroup(path: str) -> int:
    """A directory descriptor; raises SyscallError, HostError if it is no cgroup v2."""
    fd = syscalls.openat(c.AT_FDCWD, path, c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW)
    try:
        if syscalls.fstatfs(fd).type != c.CGROUP2_SUPER_MAGIC:
            raise HostError(f"open cgroup {path}: not in a cgroup v2 filesystem")
    except BaseException:
        fds.close_quietly(fd)
        raise
    return fd


def write(directory: int, name: str, value: str) -> None:
    """One write(2) of the whole value, as the cgroup files want it. Raises SyscallError."""
    fd = syscalls.openat(directory, name, c.O_WRONLY)
    try:
        syscalls.write(fd, value.encode())
    finally:
        fds.close_quietly(fd)


def walk(fd: int) -> Iterator[int]:
    """The cgroup and all below it, one descriptor open however deep they lie; takes `fd` over."""
    pending: list[list[str]] = []  # what is left to visit, for each level on the way down
    entered = True
    try:
        while True:
            if entered:
                yield fd
                pending.append(children(fd))
            if pending[-1]:
                below = enter(fd, pending[-1].pop())
                entered = below >= 0
            else:
                pending.pop()
                if not pending:
                    return
                below, entered = enter(fd, ".."), False
                if below < 0:
                    return  # the whole tree is being removed
            if below >= 0:
                fds.close_quietly(fd)
                fd = below
    finally:
        fds.close_quietly(fd)


def enter(fd: int, name: str) -> int:
    """A descriptor of the directory `name`, -1 when it has gone meanwhile."""
    try:
        return syscalls.openat(fd, name, c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW)
    except SyscallError as error:
        if error.errno in (e.ENOENT, e.ENODEV):
            return -1
        raise


def children(fd: int) -> list[str]:
    """Names of the cgroups right below."""
    if syscalls.fstat(fd).st_nlink == 2:  # kernfs counts subdirectories: most cgroups have none
        return []
    names = []
    for name in syscalls.listdir(fd):
        try:
            if syscalls.fstatat(fd, name, c.AT_SYMLINK_NOFOLLOW).st_mode & c.S_IFMT == c.S_IFDIR:
                names.append(name)
        except SyscallError as error:
            if error.errno not in (e.ENOENT, e.ENODEV):
                raise
    return names


def events(fd: int) -> str:
    """cgroup.events: a "populated 0|1" and a "frozen 0|1" line; "" when it is being removed."""
    try:
        return fds.read_file(fd, "cgroup.events").decode()
    except SyscallError as error:
        if error.errno in (e.ENODEV, e.ENOENT):
            return ""
        raise


def await_event(fd: int, line: str, timeout: float) -> bool:
    """Wait until cgroup.events of this cgroup has the line, or the cgroup is removed."""
    deadline = time.monotonic() + timeout
    try:
        events = syscalls.openat(fd, "cgroup.events", c.O_RDONLY)
    except SyscallError as error:
        if error.errno in (e.ENODEV, e.ENOENT):
            return True
        raise
    try:
        while True:
            try:
                if line in syscalls.pread(events, 256, 0).decode():
                    return True
            except SyscallError as error:
                if error.errno == e.ENODEV:
                    return True
                raise
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            syscalls.poll([(events, c.POLLPRI)], int(left * 1000) + 1)
    finally:
        fds.close_quietly(events)
