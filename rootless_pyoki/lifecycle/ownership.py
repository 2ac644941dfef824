"""Who owns a container's cgroup: config-linux.md "Cgroup ownership", user_namespaces(7).

Only loaded for a container whose processes may change their cgroup and have another uid than the
caller, or whose cgroups are not the caller's to remove.

An unprivileged caller cannot give a file to a subordinate uid. Root of a user namespace can, when it
maps both: a helper gets such a namespace for one task. As the owner the caller would lose the way in
that exec and delete need, so it stays that, and the container's group gets the right to write:
a subordinate gid is nobody else's.
"""

from __future__ import annotations

from rootless_pyoki.apply import idmap
from rootless_pyoki.cgroups import tree
from rootless_pyoki.errors import HostError, PyokiError, SyscallError
from rootless_pyoki.host.id_range import IdRange
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.plan.idmap import to_host
from rootless_pyoki.plan.plan import IdMap, Note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.plan.plan import Plan

WRITABLE = 0o020  # for the group
_REFUSED = (c.EPERM, c.EACCES)


def give(path: str, plan: Plan, pointer: str, note: Callable[[Note], None]) -> None:
    """Let process.user write to the container's cgroup, the directory `path`; told where it cannot."""
    uid, gid = _user_of(plan)
    try:
        tree.delegate(path, uid, gid)
        return
    except SyscallError as error:
        if error.errno not in _REFUSED:
            raise
    try:
        if gid == syscalls.getegid():
            raise HostError(f"group {gid} is the caller's own")
        give_to_group(path, gid)
    except (SyscallError, PyokiError) as error:
        note(Note(pointer=pointer, text=f"the cgroup stays the caller's, as seen inside: {error}"))


def _user_of(plan: Plan) -> tuple[int, int]:
    """process.user as we see it."""
    uid, gid = plan.process.uid, plan.process.gid
    if plan.idmap is None:
        return uid, gid
    outside = to_host(plan.idmap.uids, uid), to_host(plan.idmap.gids, gid)
    assert outside[0] is not None and outside[1] is not None  # the plan is made of mapped ids
    return outside[0], outside[1]


def give_to_group(path: str, gid: int) -> None:
    """Let the members of a subordinate group change this cgroup. Raises SyscallError, HostError."""
    fd = tree.open_cgroup(path)
    try:
        names = tree.delegated_files()
        found = [name for name in names if syscalls.faccessat(fd, name, c.F_OK)]

        def task() -> None:
            syscalls.fchown(fd, -1, 1)
            for name in found:
                syscalls.fchownat(fd, name, -1, 1, c.AT_SYMLINK_NOFOLLOW)

        as_owner((), (IdRange(container=0, host=gid, size=1),), task)
        # only now: the group that it had may be shared with other users
        for name in found:
            mode = syscalls.fstatat(fd, name, c.AT_SYMLINK_NOFOLLOW).st_mode
            syscalls.fchmodat(fd, name, mode & 0o777 | WRITABLE)
        syscalls.fchmod(fd, syscalls.fstat(fd).st_mode & 0o777 | WRITABLE)
    finally:
        fds.close_quietly(fd)


def remove(cgroup: Cgroup, extras: dict[str, Any]) -> None:
    """Remove the cgroup where the container's users made cgroups below that are theirs alone.

    extras: of the container's state. Raises HostError.
    """
    uids, gids = _ranges(extras.get("uid_map")), _ranges(extras.get("gid_map"))
    as_owner(uids, gids, lambda: tree.remove(cgroup.path, top=cgroup.made))


def _ranges(stored: list[list[int]] | None) -> tuple[IdRange, ...]:
    return tuple([IdRange(container=n, host=host, size=size) for n, host, size in stored or ()])


def as_owner(
    uids: tuple[IdRange, ...], gids: tuple[IdRange, ...], task: Callable[[], None]
) -> None:
    """Do the task in a process that owns what the caller owns, and what these ids own.

    It is root of a user namespace where 0 is the caller and 1, 2, ... are the ids of the ranges.
    Raises HostError when the ids cannot be had, and when the task fails.
    """
    ours, theirs = syscalls.socketpair(c.SOCK_SEQPACKET)
    proc = procfs.held()
    pid = syscalls.clone(c.CLONE_NEWUSER)
    if not pid:
        syscalls.close(ours)
        _serve(theirs, task)
    syscalls.close(theirs)
    try:
        syscalls.recv(ours, 1)
        maps = IdMap(
            uids=_with_caller(uids, syscalls.geteuid()),
            gids=_with_caller(gids, syscalls.getegid()),
            writer="helpers",
            deny_setgroups=False,
        )
        idmap.write_maps(proc, pid, maps)
        syscalls.send(ours, b"go")
        said = syscalls.recv(ours, 4096).decode("utf-8", "replace")
    finally:
        syscalls.close(ours)
        syscalls.waitpid(pid)
    if said != "done":
        number, _, words = said.partition(" ")
        raise HostError(
            words or "the helper was killed", errno=int(number) if number.isdigit() else 0
        )


def _with_caller(ranges: tuple[IdRange, ...], own: int) -> tuple[IdRange, ...]:
    """The caller as 0, then all others: an id can be mapped once."""
    made = [IdRange(container=0, host=own, size=1)]
    free = 1
    for part in ranges:
        ends = ((part.host, own), (own + 1, part.host + part.size))
        if not part.host <= own < part.host + part.size:
            ends = ((part.host, part.host + part.size),) * 2
        for first, end in dict.fromkeys(ends):
            if end > first:
                made.append(IdRange(container=free, host=first, size=end - first))
                free += end - first
    return tuple(made)


def _serve(socket: int, task: Callable[[], None]) -> NoReturn:
    # We are a fork of main in a user namespace of our own: as soon as it is mapped, uid 0 with every
    # capability over the caller's ids and those of the ranges. main waits for our answer.
    try:
        syscalls.prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)
        syscalls.prctl(c.PR_SET_DUMPABLE, 1)  # else our maps could not be written
        syscalls.set_name("pyoki:[OWNER]")
        syscalls.send(socket, b"?")
        if syscalls.recv(socket, 2):
            try:
                task()
                answer = "done"
            except (OSError, PyokiError) as error:
                answer = f"{getattr(error, 'errno', 0) or 0} {error}"
            syscalls.send(socket, answer.encode("utf-8", "replace")[:4096])
    finally:
        syscalls.exit_now(0)
