"""A container's cgroup, whoever manages it: every verb speaks to this file.

What is needed is imported when it is called: `state` asks for `frozen` only, which lies here.
"""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.cgroups.systemd_scope import Start
    from rootless_pyoki.errors import PyokiError

    Files = tuple[tuple[str, str, str], ...]
    Properties = tuple[tuple[str, str, object], ...]


class Cgroup(Record):
    manager: str  # "systemd", "cgroupfs", "none" (cannot have one), "disabled" (wants none)
    path: str = ""  # absolute directory in the cgroup2 mount; "" for none, disabled, and unknown
    mount: str = ""  # where that mount is
    made: str = ""  # the topmost directory that `create` made; "" when all of them existed
    reason: str = ""  # why there is none
    # of systemd's:
    unit: str = ""  # NAME.scope
    slice: str = ""
    bus: str = ""  # address at which the manager answered
    mark: str = ""  # the end of the unit's description, which tells that it is ours
    inode: int = 0  # of the directory, which tells that it is still the one of ours; 0: not known

    def particulars(self) -> dict[str, object]:
        """What the state remembers of a unit beside its name."""
        return {"cgroup_slice": self.slice, "cgroup_bus": self.bus, "cgroup_inode": self.inode}


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


def scope(chosen: Cgroup, id: str, files: Files, properties: Properties) -> Start:
    """The making of the unit that was chosen, see systemd_scope.Start."""
    from rootless_pyoki.cgroups import systemd_scope

    return systemd_scope.Start(chosen, id, files, properties)


def mark(creator_pid: int, creator_start_time: int) -> str:
    """What the description of a unit ends with."""
    return f"(pyoki {creator_pid}-{creator_start_time})"


def restore(manager: str, path: str, reason: str = "") -> Cgroup:
    """The cgroup that the state remembers."""
    return Cgroup(manager=manager, path=path, reason=reason)


def attach(cgroup: Cgroup, pid: int, below: str = "") -> None:
    """Move a process in, or into a cgroup below; nothing happens without a cgroup. Raises HostError."""
    if must_ask(cgroup):
        from rootless_pyoki.cgroups import systemd_user

        systemd_user.attach(cgroup, pid, below)
    elif cgroup.path:
        from rootless_pyoki.cgroups import cgroupfs

        cgroupfs.attach(f"{cgroup.path}/{below}" if below else cgroup.path, pid)


def must_ask(cgroup: Cgroup) -> bool:
    """Whether only systemd can move a process in: we live outside of what is delegated to the user.

    It moves those of our own uid only.
    """
    if not cgroup.unit:
        return False
    from rootless_pyoki.cgroups import choice

    return not choice.may_move(cgroup.path)


def apply(
    cgroup: Cgroup,
    files: tuple[tuple[str, str, str], ...],
    *,
    optional: tuple[str, ...] = (),
    bfq_weight: int = 0,
    leave_out: Callable[[PyokiError], None] | None = None,
    fresh: bool = False,
) -> None:
    """Write the limits, (file, value, JSON pointer) each, see limits.apply.

    systemd is told first, so that it does not undo them; fresh: of what a unit can start with it
    knows already. Raises PyokiError with the pointer.
    """
    if not files:
        return
    if cgroup.unit:
        from rootless_pyoki.cgroups import systemd_user

        systemd_user.set_properties(cgroup, files, started=fresh)
    if cgroup.path:
        from rootless_pyoki.cgroups import limits

        limits.apply(
            cgroup.path,
            files,
            optional=optional,
            bfq_weight=bfq_weight,
            leave_out=leave_out,
            compare=bool(cgroup.unit),
        )


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
    if cgroup.path and is_ours(cgroup):
        from rootless_pyoki.cgroups import cgroupfs

        cgroupfs.kill(cgroup.path)


def processes(cgroup: Cgroup) -> list[int]:
    """Everybody in it and below, [] when it is gone."""
    if not cgroup.path:
        return []
    from rootless_pyoki.cgroups import cgroupfs

    return cgroupfs.processes(cgroup.path)


def is_ours(cgroup: Cgroup) -> bool:
    """Whether the directory is the one that the container got: a scope ends by itself, and then
    another may have its name. Where no unit is, nobody else removes it."""
    if not cgroup.inode:
        return True
    try:
        return syscalls.fstatat(c.AT_FDCWD, cgroup.path).st_ino == cgroup.inode
    except SyscallError:
        return False


def remove(cgroup: Cgroup) -> None:
    """Remove it, with the parents that `create` made while they are empty. Raises HostError.

    systemd removes a scope's when it is empty, and has to be asked only where it does not. Never is it
    removed before: the unit would stay, as nobody could tell systemd that it is empty.
    """
    from rootless_pyoki.cgroups import tree

    if not cgroup.unit:
        if cgroup.path:
            tree.remove(cgroup.path, top=cgroup.made)
    elif not cgroup.path or (is_ours(cgroup) and not tree.await_removal(cgroup.path)):
        from rootless_pyoki import log
        from rootless_pyoki.cgroups import systemd_user

        try:
            systemd_user.end(cgroup)
        except HostError as error:  # without systemd its unit cannot be ended; all else can
            log.warning(f"{cgroup.unit} may be left: {error.message}")
        if cgroup.path and is_ours(cgroup):
            tree.remove(cgroup.path)
