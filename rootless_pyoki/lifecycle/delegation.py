"""Cgroups below the container's own: run.oci.delegate-cgroup, run.oci.systemd.subgroup.

The one that run.oci.delegate-cgroup names belongs to the container.
The limits stay above it; below it the container's root may make cgroups and pass controllers on, as a
manager inside wants to (cgroup-v2.rst, "Delegation"). Where that root is the caller and the cgroup
mount is writable, the files above are its own too.
"""

from __future__ import annotations

from rootless_pyoki.cgroups import cgroupfs, limits, tree
from rootless_pyoki.errors import HostError, SyscallError, UnsupportedError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.plan import idmap
from rootless_pyoki.plan.annotations import SUBGROUP, UNIT_PROPERTY
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.spec.fields import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.plan.plan import Plan

POINTER = "/annotations/run.oci.delegate-cgroup"
_NO_UNIT = "no unit of systemd is made for the container"


def without_unit(
    cgroup: Cgroup, plan: Plan, unsupported: str, note: Callable[[Note], None]
) -> None:
    """Annotations for systemd's unit where there is none: noted, or UnsupportedError if strict."""
    if cgroup.manager == "systemd":
        return
    reason = f"{_NO_UNIT}: {cgroup.reason}" if cgroup.reason else _NO_UNIT
    for key, value in plan.annotations.items():
        if value and (key == SUBGROUP or key.startswith(UNIT_PROPERTY)):
            pointer = join("/annotations", key)
            if unsupported == "error":
                raise UnsupportedError(f"cannot be applied: {reason}", pointer=pointer)
            note(Note(pointer=pointer, text=f"not applied: {reason}"))


def enter_subgroup(cgroup: Cgroup, plan: Plan, pid: int) -> None:
    """Make the container's cgroup below the unit's, which keeps the limits, and move the process
    there: before it gets its cgroup namespace, whose root that will be."""
    path = f"{cgroup.path}/{plan.subgroup}"
    try:
        _enter(cgroup, plan.subgroup, pid)
    except SyscallError as error:
        pointer = join("/annotations", SUBGROUP)
        raise from_oserror(error, f"make cgroup {path}", pointer=pointer) from None


def inner(cgroup: Cgroup, plan: Plan) -> str:
    """Below the unit's or container's cgroup: where its processes live; "" for right in it."""
    subgroup = plan.subgroup if cgroup.manager == "systemd" else ""
    return "/".join([part for part in (subgroup, plan.delegate_cgroup) if part])


def require(cgroup: Cgroup, plan: Plan, note: Callable[[Note], None]) -> None:
    """UnsupportedError, or a note where the user is lenient, when there is nothing to delegate."""
    if cgroup.path:
        return
    reason = f"the container has no cgroup that it could be given: {cgroup.reason}"
    if not plan.process.lenient:
        raise UnsupportedError(reason, pointer=POINTER)
    note(Note(pointer=POINTER, text=f"not applied: {reason}"))


def delegate(cgroup: Cgroup, plan: Plan, pid: int) -> None:
    """Make it, move the container's first process there, and give it away with its controllers."""
    below = inner(cgroup, plan)
    path = f"{cgroup.path}/{below}"
    try:
        _enter(cgroup, below, pid)
        _give(path, *_root_of(plan))
    except SyscallError as error:
        hint = "it can be given to ids of the caller's own only" if error.errno == c.EPERM else ""
        raise from_oserror(error, f"delegate cgroup {path}", pointer=POINTER, hint=hint) from None
    except HostError as error:
        error.pointer = error.pointer or POINTER
        raise


def _enter(cgroup: Cgroup, below: str, pid: int) -> None:
    """Make the cgroup, move the process there, and let it have the controllers."""
    path = f"{cgroup.path}/{below}"
    tree.create(path, cgroup.mount)
    cgroupfs.attach(path, pid)
    for directory in _above(cgroup.path, below):
        _pass_controllers_on(directory)


def _give(path: str, uid: int, gid: int) -> None:
    try:
        tree.delegate(path, uid, gid)
    except SyscallError as error:
        if error.errno != c.EPERM or gid == syscalls.getegid():
            raise
        from rootless_pyoki.lifecycle import ownership

        ownership.give_to_group(path, gid)


def _above(path: str, below: str) -> list[str]:
    """The container's cgroup and the directories from there to the delegated one, without it."""
    found = [path]
    for name in below.split("/")[:-1]:
        found.append(f"{found[-1]}/{name}")
    return found


def _pass_controllers_on(directory: str) -> None:
    """All that this cgroup has; one that cannot be (a threaded or a busy one) stays behind."""
    fd = tree.open_cgroup(directory)
    try:
        for name in limits.controllers(directory):
            try:
                tree.write(fd, "cgroup.subtree_control", f"+{name}")
            except SyscallError as error:
                if error.errno not in (c.EBUSY, c.EINVAL, c.ENOENT, c.EOPNOTSUPP):
                    raise
    finally:
        fds.close_quietly(fd)


def _root_of(plan: Plan) -> tuple[int, int]:
    """The container's root as we see it; our own ids where the user namespace is not of our making."""
    if plan.idmap is None:
        return syscalls.geteuid(), syscalls.getegid()
    uid, gid = plan.working_ids()
    outside = idmap.to_host(plan.idmap.uids, uid), idmap.to_host(plan.idmap.gids, gid)
    assert outside[0] is not None and outside[1] is not None  # the plan is made of mapped ids
    return outside[0], outside[1]
