"""A container's cgroup, whoever manages it: every verb speaks to this file.

What is needed is imported when it is called: `state` asks for `frozen` only, which lies here.
"""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.record import Record


class Cgroup(Record):
    manager: str  # "cgroupfs", "none" (cannot have one), "disabled" (does not want one)
    path: str = ""  # absolute directory in the cgroup2 mount; "" for none and disabled
    mount: str = ""  # where that mount is
    made: str = ""  # the topmost directory that `create` made; "" when all of them existed
    reason: str = ""  # why there is none


def choose(
    requested: str,
    *,
    systemd_cgroup: bool,
    cgroups_path: str,
    id: str,
    wants_limits: tuple[tuple[str, str], ...],
) -> Cgroup:
    """Where the container's cgroup will be, see choice.choose; nothing is made yet."""
    from rootless_pyoki.cgroups import choice

    return choice.choose(
        requested,
        systemd_cgroup=systemd_cgroup,
        cgroups_path=cgroups_path,
        id=id,
        wants_limits=wants_limits,
    )


def create(chosen: Cgroup, wants_limits: tuple[tuple[str, str], ...]) -> Cgroup:
    """Make it, with the controllers for the limits, see choice.create."""
    from rootless_pyoki.cgroups import choice

    return choice.create(chosen, wants_limits)


def restore(manager: str, path: str, reason: str = "") -> Cgroup:
    """The cgroup that the state remembers."""
    return Cgroup(manager=manager, path=path, reason=reason)


def attach(cgroup: Cgroup, pid: int) -> None:
    """Move a process in; nothing happens without a cgroup. Raises HostError."""
    if cgroup.path:
        from rootless_pyoki.cgroups import cgroupfs

        cgroupfs.attach(cgroup.path, pid)


def apply(cgroup: Cgroup, files: tuple[tuple[str, str, str], ...]) -> None:
    """Write the limits, (file, value, JSON pointer) each. Raises PyokiError with the pointer."""
    if cgroup.path and files:
        from rootless_pyoki.cgroups import limits

        limits.apply(cgroup.path, files)


def delegate(cgroup: Cgroup, uid: int, gid: int) -> None:
    """Let the container's root, seen from here, make cgroups below its own; SyscallError."""
    if cgroup.path:
        from rootless_pyoki.cgroups import tree

        tree.delegate(cgroup.path, uid, gid)


def freeze(cgroup: Cgroup) -> None:
    """Stop everything in it; it must exist. Raises HostError, SyscallError."""
    from rootless_pyoki.cgroups import cgroupfs

    cgroupfs.freeze(cgroup.path)


def thaw(cgroup: Cgroup) -> None:
    """Let everything in it go on."""
    from rootless_pyoki.cgroups import cgroupfs

    cgroupfs.thaw(cgroup.path)


def frozen(cgroup: Cgroup) -> bool:
    """Whether it stands still; False without a cgroup, and when it is gone."""
    if not cgroup.path:
        return False
    fd = -1
    try:
        fd = syscalls.openat(c.AT_FDCWD, f"{cgroup.path}/cgroup.events", c.O_RDONLY | c.O_NOFOLLOW)
        if syscalls.fstatfs(fd).type != c.CGROUP2_SUPER_MAGIC:
            raise HostError(f"open cgroup {cgroup.path}: not in a cgroup v2 filesystem")
        return b"frozen 1" in fds.read_record(fd)
    except SyscallError as error:
        if error.errno in (c.ENOENT, c.ENODEV, c.ENOTDIR):
            return False
        raise
    finally:
        fds.close_quietly(fd)


def kill(cgroup: Cgroup) -> None:
    """SIGKILL to everything in it; fine without a cgroup, and when it is gone."""
    if cgroup.path:
        from rootless_pyoki.cgroups import cgroupfs

        cgroupfs.kill(cgroup.path)


def processes(cgroup: Cgroup) -> list[int]:
    """Everybody in it and below, [] when it is gone."""
    if not cgroup.path:
        return []
    from rootless_pyoki.cgroups import cgroupfs

    return cgroupfs.processes(cgroup.path)


def remove(cgroup: Cgroup) -> None:
    """Remove it, with the parents that `create` made while they are empty. Raises HostError."""
    if cgroup.path:
        from rootless_pyoki.cgroups import tree

        tree.remove(cgroup.path, top=cgroup.made)
