"""Intermediate: enters the namespaces, becomes the container's root, clones init, leaves."""

from __future__ import annotations

from rootless_pyoki.apply import devices, mounts, process, rootfs, staging
from rootless_pyoki.errors import HostError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls
from rootless_pyoki.processes import channel, init, protocol
from rootless_pyoki.processes.ends import door, teller
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rootless_pyoki.plan.plan import Namespace, Plan
    from rootless_pyoki.processes.ends import Ends

# Entered while the user namespace is fresh, while main's helpers run.
EARLY = ("network", "uts", "mount")
# Entered as the container's root, so that mqueue belongs to it; cgroup after main has moved us.
LATE = ("ipc", "cgroup")


def start(plan: Plan, ends: Ends, main: int, init_end: int) -> NoReturn:
    """Run as intermediate until the end. main: our channel; init_end: init's."""
    door(main, "intermediate", lambda: run(plan, ends, main, init_end))


def run(plan: Plan, ends: Ends, main: int, init_end: int) -> None:
    # We are a fork of main: the caller's uid, the caller's namespaces and capabilities. main waits on
    # our channel; it may be killed, then we go with it.
    syscalls.set_name("pyoki:[1:INTER]")
    ends.shed(main, init_end)
    _die_with_main()
    process.set_oom_score_adj(ends.proc, plan.process, teller(main))
    time_offsets = _open_time_offsets(plan, ends)
    if _joins_strangers(plan):
        syscalls.prctl(c.PR_SET_DUMPABLE, 0)

    refused = _join(plan.namespaces)
    helper = mounts.idmap_helper(plan)
    _enter_user_namespace(plan)
    plan = _without_groups(plan)
    channel.send(main, protocol.ENTERED)
    _unshare(plan, EARLY)
    channel.wait_for(main, protocol.SETTLED)
    _join_refused(refused)

    # From here on we are mapped, in our cgroup, and still wear the caller's ids: its groups can reach
    # mount sources that the container's root could not.
    rootfs.cut_propagation(plan.rootfs)
    staging.place = ends.stage
    root = rootfs.attach(plan.rootfs)
    sources = mounts.mount_sources(plan.mounts, helper)
    device_sources = devices.sources(plan.devices, plan.process.lenient, teller(main))

    _become_root(plan)
    _die_with_main()
    _unshare(plan, LATE)
    _enter_time_namespace(plan, ends, time_offsets)
    if plan.hosts_new("pid"):
        syscalls.unshare(c.CLONE_NEWPID)
        pid = syscalls.clone(c.CLONE_PARENT)
        if pid:
            channel.send(main, protocol.INIT, {"pid": pid})
            return
    syscalls.close(main)
    init.start(plan, ends, init_end, root, sources, device_sources)


def _die_with_main() -> None:
    """The signal is forgotten at every change of ids, so it is asked for again."""
    syscalls.prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)


def _joins_strangers(plan: Plan) -> bool:
    """Do processes that we do not trust live where we are going?"""
    return any(n.path and n.kind in ("user", "pid", "mount") for n in plan.namespaces)


def _join(namespaces: tuple[Namespace, ...]) -> list[tuple[Namespace, int]]:
    """Pass 1, with the caller's capabilities; returns what the kernel refused, for pass 3.

    The mount namespace comes last: it changes what paths mean.
    """
    joined = [(n, _open(n)) for n in namespaces if n.path and n.kind != "user"]
    joined.sort(key=lambda pair: pair[0].kind == "mount")
    for namespace, fd in joined:
        if namespace.kind == "mount":
            _spare_our_own(namespace, fd)
    refused = []
    for namespace, fd in joined:
        try:
            syscalls.setns(fd, namespace.flag)
            syscalls.close(fd)
        except SyscallError as error:
            if error.errno != c.EPERM:
                raise _cannot_join(namespace, error) from None
            refused.append((namespace, fd))
    return refused


def _spare_our_own(namespace: Namespace, fd: int) -> None:
    """pivot_root(2) moves everybody in a mount namespace: in ours that would be the whole machine."""
    own = syscalls.fstatat(procfs.held(), "self/ns/mnt")
    if syscalls.fstat(fd).st_ino == own.st_ino:
        raise HostError(
            f"join mount namespace {namespace.path}: it is the caller's own, which would lose its root",
            pointer=f"{namespace.pointer}/path",
        )


def _open(namespace: Namespace) -> int:
    try:
        return syscalls.openat(c.AT_FDCWD, namespace.path, c.O_RDONLY)
    except SyscallError as error:
        raise _cannot_join(namespace, error) from None


def _cannot_join(namespace: Namespace, error: SyscallError) -> Exception:
    hint = ""
    if error.errno == c.EPERM:
        hint = "it must belong to a user namespace that the caller controls"
    elif error.errno == c.EINVAL and namespace.kind == "pid":
        hint = "only the caller's own pid namespace, or one below it, can be joined"
    return from_oserror(
        error,
        f"join {namespace.kind} namespace {namespace.path}",
        pointer=f"{namespace.pointer}/path",
        hint=hint,
    )


def _join_refused(refused: list[tuple[Namespace, int]]) -> None:
    """Pass 3, with the capabilities of the container's user namespace."""
    for namespace, fd in refused:
        try:
            syscalls.setns(fd, namespace.flag)
            syscalls.close(fd)
        except SyscallError as error:
            raise _cannot_join(namespace, error) from None


def _enter_user_namespace(plan: Plan) -> None:
    for namespace in plan.namespaces:
        if namespace.kind != "user":
            continue
        try:
            if namespace.path:
                fd = _open(namespace)
                syscalls.setns(fd, c.CLONE_NEWUSER)
                syscalls.close(fd)
            else:
                # the maps are written from outside: /proc/PID/uid_map must be the caller's
                syscalls.prctl(c.PR_SET_DUMPABLE, 1)
                syscalls.unshare(c.CLONE_NEWUSER)
        except SyscallError as error:
            if namespace.path:
                raise _cannot_join(namespace, error) from None
            raise from_oserror(
                error, "create a user namespace", pointer=namespace.pointer
            ) from None


def _without_groups(plan: Plan) -> Plan:
    """A joined user namespace may deny setgroups; that matters only where groups are asked for."""
    if not plan.joins("user") or plan.process.additional_gids:
        return plan
    if procfs.read("self", "setgroups").strip() == b"allow":
        return plan
    return replace(plan, process=replace(plan.process, set_groups=False))


def _unshare(plan: Plan, kinds: tuple[str, ...]) -> None:
    """One unshare for all new namespaces of these kinds."""
    flags = 0
    pointers = []
    for namespace in plan.namespaces:
        if namespace.kind in kinds and not namespace.path:
            flags |= namespace.flag
            pointers.append(namespace.pointer)
    if not flags:
        return
    try:
        syscalls.unshare(flags)
    except SyscallError as error:
        hint = ""
        if error.errno == c.ENOSPC:
            hint = "a limit of user.max_*_namespaces (sysctl) is reached"
        raise from_oserror(error, "create namespaces", pointer=pointers[0], hint=hint) from None


def _open_time_offsets(plan: Plan, ends: Ends) -> int:
    """-1 where no new time namespace is asked for."""
    if not plan.hosts_new("time"):
        return -1
    from rootless_pyoki.apply import clocks

    return clocks.open_offsets(ends.proc)


def _enter_time_namespace(plan: Plan, ends: Ends, offsets: int) -> None:
    """As the container's root, which owns the namespace and may set its clocks."""
    if offsets < 0:
        return
    from rootless_pyoki.apply import clocks

    namespace = next(n for n in plan.namespaces if n.kind == "time")
    clocks.enter(ends.proc, namespace, plan.time_offsets, offsets)


def _become_root(plan: Plan) -> None:
    """uid and gid 0 of the container; the process's own ids where 0 is not mapped."""
    uid, gid = plan.working_ids()
    try:
        if plan.process.set_groups:
            syscalls.setgroups([])
        syscalls.setresgid(gid, gid, gid)
        syscalls.setresuid(uid, uid, uid)
    except SyscallError as error:
        raise from_oserror(error, "take the container's ids", pointer="/process/user") from None
    if not _joins_strangers(plan):
        # a change of ids makes a process undumpable; main and the hooks still need /proc/PID
        syscalls.prctl(c.PR_SET_DUMPABLE, 1)
