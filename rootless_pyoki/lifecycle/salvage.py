"""delete --force of a container whose state cannot be read: what can still be found of it is ended."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import here, manager
from rootless_pyoki.cgroups.manager import Cgroup
from rootless_pyoki.errors import PyokiError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, json, procfs, syscalls
from rootless_pyoki.lifecycle import container
from rootless_pyoki.state import root as state_root
from rootless_pyoki.state import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.state.store import Handle


def clear(root: str | None, id: str) -> None:
    """Kill its processes, remove its cgroup and its directory."""
    place = state_root.open_root(state_root.choose_root(root), create=False)
    handle = store.open_container(place, id)
    syscalls.close(place)
    handle.lock()
    try:
        raw = fds.read_file(handle.fd, "state.json")
    except SyscallError:
        raw = b""
    pids = set(_holders(handle)) | set(_remembered(raw))
    cgroup = Cgroup(manager="cgroupfs", path=_cgroup(raw, id, pids), **_unit(raw))
    manager.kill(cgroup)
    for pid in pids:
        _end(pid)
    try:
        manager.remove(cgroup)
    except (PyokiError, SyscallError) as error:
        log.warning(f"delete {id}: {error}")
    store.remove(handle)


def _member(raw: bytes, name: str) -> object:
    """The value of a member, by its name alone: what stands around it may be damaged."""
    _, found, rest = raw.partition(b'"%s":' % name.encode())
    rest = rest.lstrip()
    end = (
        rest.find(b'"', 1) + 1 if rest[:1] == b'"' else len(rest) - len(rest.lstrip(b"0123456789"))
    )
    try:
        return json.loads(rest[:end]) if found else None
    except ValueError:
        return None


def _unit(raw: bytes) -> dict[str, Any]:
    """systemd's, with what its description ends with."""
    unit, bus = _member(raw, "cgroupScope"), _member(raw, "cgroup_bus")
    pid, start_time = _member(raw, "creatorPid"), _member(raw, "creatorStartTime")
    if not (isinstance(unit, str) and type(pid) is int and type(start_time) is int) or not unit:
        return {}
    mark = manager.mark(pid, start_time)
    return {"unit": unit, "mark": mark, "bus": bus if isinstance(bus, str) else ""}


def _remembered(raw: bytes) -> list[int]:
    """The first process, if the file still proves that it is the one."""
    pid = _member(raw, "pid")
    if type(pid) is not int or pid <= 1:
        return []
    if _member(raw, "bootId") != procfs.boot_id():
        return []
    return [pid] if procfs.start_time(pid) == _member(raw, "startTime") else []


def _holders(handle: Handle) -> list[int]:
    """Processes that have gate.lock open: a gate that waits."""
    try:
        lock = syscalls.fstatat(handle.fd, "gate.lock", c.AT_SYMLINK_NOFOLLOW)
    except SyscallError:
        return []
    proc = procfs.held()
    directory = syscalls.openat(proc, ".", c.O_RDONLY | c.O_DIRECTORY)
    pids = [int(name) for name in syscalls.listdir(directory) if name.isdigit()]
    syscalls.close(directory)
    own = syscalls.getpid()
    return [p for p in pids if p != own and _holds(proc, p, (lock.st_dev, lock.st_ino))]


def _holds(proc: int, pid: int, file: tuple[int, int]) -> bool:
    try:
        directory = syscalls.openat(proc, f"{pid}/fd", c.O_RDONLY | c.O_DIRECTORY)
    except SyscallError:
        return False  # somebody else's, or gone
    try:
        for name in syscalls.listdir(directory):
            try:
                seen = syscalls.fstatat(directory, name)
            except SyscallError:
                continue
            if (seen.st_dev, seen.st_ino) == file:
                return True
    except SyscallError:
        pass
    finally:
        syscalls.close(directory)
    return False


def _cgroup(raw: bytes, id: str, pids: set[int]) -> str:
    """As remembered, else where a process of it lives, if that bears the container's name; or ""."""
    path = _member(raw, "cgroupPath")
    if isinstance(path, str) and path[:1] == "/":
        return path
    for pid in pids:
        for line in procfs.read(pid, "cgroup").decode("utf-8", "surrogateescape").splitlines():
            if line.startswith("0::/") and id in line.rpartition("/")[2]:
                return f"{here.find_mount()}{line[3:]}"
    return ""


def _end(pid: int) -> None:
    try:
        pidfd = syscalls.pidfd_open(pid)
        syscalls.pidfd_send_signal(pidfd, c.SIGKILL)
        container.await_end(pidfd, pid)
        syscalls.close(pidfd)
    except SyscallError as error:
        if error.errno != c.ESRCH:
            raise
