"""kill, pause, resume: runtime.md "Kill"; signals go through a pidfd that is checked against the state."""

from __future__ import annotations

from rootless_pyoki.cgroups import manager
from rootless_pyoki.errors import HostError, StateError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.lifecycle import container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.lifecycle.container import Container


def kill(*, root: str | None, id: str, signal: int, all: bool = False, regex: bool = False) -> None:
    """Send `signal` to the container's first process, or to every one of them.

    regex: to every container whose id matches; those that have stopped are passed over.
    """
    if not regex:
        _kill_one(container.load(root, id), signal, all)
        return
    for each in container.matching(root, id):
        try:
            _kill_one(container.load(root, each), signal, all)
        except StateError:
            continue


def _kill_one(found: Container, signal: int, all: bool) -> None:
    if found.status() == "stopped":
        if not all:
            raise StateError(f"container {found.id}: container not running")
        _kill_rest(found, signal)
    elif all:
        signal_all(found, signal)
    else:
        signal_init(found, signal)


def signal_init(found: Container, signal: int) -> None:
    """To the first process; StateError when it has just ended."""
    pidfd = found.pidfd()
    try:
        syscalls.pidfd_send_signal(pidfd, signal)
    except SyscallError as error:
        if error.errno == c.ESRCH:
            raise StateError(f"container {found.id}: container not running") from None
        raise from_oserror(error, f"send signal {signal}") from None
    finally:
        fds.close_quietly(pidfd)


def signal_all(found: Container, signal: int) -> None:
    """To every process: by the cgroup, else by the pid namespace."""
    cgroup = found.cgroup()
    if cgroup.path:
        if signal == c.SIGKILL:
            manager.kill(cgroup)
        else:
            _signal_each(manager.processes(cgroup), signal)
        return
    if signal == c.SIGKILL and found.owns_pid_namespace():
        signal_init(found, signal)  # the kernel ends a pid namespace with its first process
        return
    from rootless_pyoki.lifecycle import pidns

    _signal_each(pidns.processes(found), signal)


def _kill_rest(found: Container, signal: int) -> None:
    """A stopped container may have left processes in its cgroup (a shared pid namespace)."""
    if signal == c.SIGKILL:
        manager.kill(found.cgroup())  # all at once: nobody can fork meanwhile
    else:
        _signal_each(manager.processes(found.cgroup()), signal)


def _signal_each(pids: list[int], signal: int) -> None:
    for pid in pids:
        try:
            pidfd = syscalls.pidfd_open(pid)
        except SyscallError:
            continue  # it has ended
        try:
            syscalls.pidfd_send_signal(pidfd, signal)
        except SyscallError as error:
            if error.errno != c.ESRCH:
                raise from_oserror(error, f"send signal {signal} to process {pid}") from None
        finally:
            fds.close_quietly(pidfd)


def pause(*, root: str | None, id: str) -> None:
    """Freeze the container's cgroup."""
    found = container.load(root, id)
    status = found.status()
    if status not in ("running", "created"):
        raise StateError(f"cannot pause container {found.id}: it is {status}")
    manager.freeze(_freezer(found, "pause"))


def resume(*, root: str | None, id: str) -> None:
    """Thaw it."""
    found = container.load(root, id)
    status = found.status()
    if status != "paused":
        raise StateError(f"cannot resume container {found.id}: it is {status}")
    manager.thaw(_freezer(found, "resume"))


def _freezer(found: Container, verb: str) -> Cgroup:
    """The cgroup to freeze; HostError where there is none: never SIGSTOP, which could be seen and undone."""
    cgroup = found.cgroup()
    if not cgroup.path:
        raise HostError(
            f"cannot {verb} container {found.id}: "
            + ("it has no freezer" if cgroup.unit else "it has no cgroup, and so no freezer")
            + (f" ({cgroup.reason})" if cgroup.reason else ""),
            hint="run it where a cgroup v2 subtree is delegated to the user",
        )
    return cgroup
