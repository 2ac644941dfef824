"""Cgroup v2 through its files: what is done to the processes in a cgroup.

cgroup-v2.rst, "Core Files". Every function takes the absolute path of the cgroup's directory.
Making and removing cgroups (tree.py) and their limits (limits.py) can be reached from here as well.
"""

from __future__ import annotations

import errno as e

from rootless_pyoki.cgroups import tree
from rootless_pyoki.cgroups.limits import apply, controllers, enable
from rootless_pyoki.cgroups.tree import create, delegate, remove
from rootless_pyoki.errors import HostError, SyscallError, describe_errno
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls

__all__ = [
    "apply",
    "attach",
    "controllers",
    "create",
    "delegate",
    "enable",
    "freeze",
    "kill",
    "processes",
    "remove",
    "thaw",
    "wait_empty",
]

EXEC_CHILD = "pyoki-exec"  # where exec goes when the container's cgroup has become an inner one


def attach(path: str, pid: int) -> None:
    """Move a process into the cgroup, or into a child of it when only leaves may hold processes.

    Raises HostError.
    """
    fd = tree.open_cgroup(path)
    try:
        try:
            tree.write(fd, "cgroup.procs", str(pid))
        except SyscallError as error:
            if error.errno != e.EBUSY:
                raise
            # Something in the container has enabled controllers for its own children
            # (cgroup-v2.rst, "No Internal Process Constraint").
            try:
                syscalls.mkdirat(fd, EXEC_CHILD, 0o755)
            except SyscallError as exists:
                if exists.errno != e.EEXIST:
                    raise
            tree.write(fd, f"{EXEC_CHILD}/cgroup.procs", str(pid))
    except SyscallError as error:
        raise HostError(
            f"move process {pid} into cgroup {path}: "
            f"{describe_errno(error.errno or 0, error.strerror or '')}",
            errno=error.errno or 0,
        ) from None
    finally:
        fds.close_quietly(fd)


def freeze(path: str, timeout: float = 10.0) -> None:
    """Stop everything in the cgroup, and return when all of it stands still."""
    _set_frozen(path, True, timeout)


def thaw(path: str, timeout: float = 10.0) -> None:
    """Let everything in the cgroup go on."""
    _set_frozen(path, False, timeout)


def _set_frozen(path: str, frozen: bool, timeout: float) -> None:
    fd = tree.open_cgroup(path)
    try:
        tree.write(fd, "cgroup.freeze", "1" if frozen else "0")
        # "frozen 1" can be missed for an empty cgroup only in that it never was frozen: the kernel
        # reports an empty cgroup with cgroup.freeze 1 as frozen too.
        if not tree.await_event(fd, f"frozen {int(frozen)}", timeout):
            verb = "freeze" if frozen else "thaw"
            message = f"{verb} cgroup {path}: not done after {timeout:g} s"
            raise HostError(message, errno=e.ETIMEDOUT)
    finally:
        fds.close_quietly(fd)


def kill(path: str) -> None:
    """SIGKILL to everything in the cgroup and below; fine when it is gone."""
    try:
        fd = tree.open_cgroup(path)
    except SyscallError as error:
        if error.errno == e.ENOENT:
            return
        raise
    try:
        try:
            tree.write(fd, "cgroup.kill", "1")  # Linux 5.14
            return
        except SyscallError as error:
            if error.errno not in (e.ENOENT, e.ENODEV, e.EROFS):
                raise
            if error.errno == e.ENODEV or not syscalls.faccessat(fd, "cgroup.procs", c.F_OK):
                return  # removed meanwhile: systemd does that as soon as a scope is empty
        kill_each(path)
    finally:
        fds.close_quietly(fd)


def kill_each(path: str) -> None:
    """What cgroup.kill does, for kernels without it; frozen, so that nobody forks meanwhile.

    Again and again where the files can be read only: systemd may have made the cgroup for us.
    """
    rounds = 1
    try:
        freeze(path, timeout=1.0)
    except HostError:
        pass  # something is stuck in the kernel; what stands still can be killed all the same
    except SyscallError as error:
        if error.errno != e.EROFS:
            raise
        rounds = 100
    while rounds and (pids := processes(path)):
        _kill(pids)
        rounds -= 1
    try:
        thaw(path, timeout=0.0)  # the dead need not thaw, and a cgroup above may be frozen as well
    except (HostError, SyscallError):
        pass


def _kill(pids: list[int]) -> None:
    for pid in pids:
        try:
            pidfd = syscalls.pidfd_open(pid)
        except SyscallError:
            continue
        try:
            syscalls.pidfd_send_signal(pidfd, c.SIGKILL)
        except SyscallError as error:
            if error.errno != e.ESRCH:
                raise
        finally:
            fds.close_quietly(pidfd)


def processes(path: str) -> list[int]:
    """Process ids in the cgroup and below, as this pid namespace sees them; [] when gone."""
    pids: list[int] = []
    fd = tree.enter(c.AT_FDCWD, path)
    if fd < 0:
        return pids
    for directory in tree.walk(fd):
        try:
            text = fds.read_file(directory, "cgroup.procs")
        except SyscallError as error:
            if error.errno in (e.ENODEV, e.ENOENT, e.EOPNOTSUPP):  # removed; a threaded subtree
                continue
            raise
        # 0 stands for a process that this pid namespace cannot see.
        pids.extend(int(word) for word in text.split() if word != b"0")
    return pids


def wait_empty(path: str, timeout: float) -> bool:
    """Wait until nothing lives in the cgroup or below, or it is gone; False after `timeout` s."""
    fd = tree.enter(c.AT_FDCWD, path)
    if fd < 0:
        return True
    try:
        return tree.await_event(fd, "populated 0", timeout)
    finally:
        fds.close_quietly(fd)
