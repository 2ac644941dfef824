"""exec's way in: one Python process joins the container's namespaces and becomes a gate there.

It stays outside the pid namespace (setns changes only where children go): the gate's own clone enters.
"""

from __future__ import annotations

from rootless_pyoki.apply import console
from rootless_pyoki.apply import process as settings
from rootless_pyoki.errors import SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.processes import channel, init, protocol
from rootless_pyoki.processes.ends import door, teller
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rootless_pyoki.plan.plan import Process
    from rootless_pyoki.processes.ends import Ends

# The order of the passes: what may need the caller's capabilities, the user namespace, the rest.
KINDS = (
    ("user", c.CLONE_NEWUSER),
    ("ipc", c.CLONE_NEWIPC),
    ("uts", c.CLONE_NEWUTS),
    ("net", c.CLONE_NEWNET),
    ("cgroup", c.CLONE_NEWCGROUP),
    ("time", c.CLONE_NEWTIME),
    ("pid", c.CLONE_NEWPID),
    ("mnt", c.CLONE_NEWNS),
)


class Target(Record):
    pidfd: int  # of the container's init
    pid: int
    flags: int  # CLONE_NEW* of the namespaces in which the container differs from us
    uid: int  # the ids that stand for the container's root, in its user namespace
    gid: int
    set_groups: bool
    settles: bool = False  # main moves it to the container's cgroup while it has the caller's ids
    keyring: str = ""  # the container whose session keyring it gets; "": the caller's own stays


def start(process: Process, target: Target, ends: Ends, main: int) -> NoReturn:
    door(main, "exec", lambda: run(process, target, ends, main))


def run(process: Process, target: Target, ends: Ends, main: int) -> None:
    # We are a fork of main: the caller's ids and namespaces. The container's processes may watch us as
    # soon as we are in their user namespace: undumpable first, and nothing of the host in our fds.
    syscalls.set_name("pyoki:[EXEC]")
    ends.shed(main, target.pidfd)
    syscalls.prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)
    settings.set_oom_score_adj(ends.proc, process, teller(main))
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
    if target.settles:
        channel.send(main, protocol.ENTERED)
        channel.wait_for(main, protocol.SETTLED)

    _join(target, ends.proc)
    root = syscalls.openat(c.AT_FDCWD, "/", c.O_PATH | c.O_DIRECTORY)
    _take_ids(target)
    syscalls.prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)
    if target.keyring:
        settings.join_session_keyring(target.keyring, made=True)
    if process.terminal:
        master, slave = console.open_pair(root, ends.proc)
        if process.console_rows or process.console_columns:
            syscalls.set_window(slave, process.console_rows, process.console_columns)
        init.send_master(ends, main, master)
        console.become_stdio(slave)
    syscalls.umask(process.umask)
    init.become_gate(process, ends, main, root, fork=bool(target.flags & c.CLONE_NEWPID))


def _join(target: Target, proc: int) -> None:
    """All at once through the pidfd (since 5.8), else one namespace after the other."""
    try:
        syscalls.setns(target.pidfd, target.flags)
        return
    except SyscallError as error:
        if error.errno not in (c.EINVAL, c.EPERM):
            raise from_oserror(error, "join the container's namespaces") from None
    opened = [
        (name, flag, syscalls.openat(proc, f"{target.pid}/ns/{name}", c.O_RDONLY))
        for name, flag in KINDS
        if target.flags & flag
    ]
    # as the caller what belongs to the caller, then the user namespace, then the rest
    waiting = [entry for entry in opened if entry[0] != "user"]
    waiting = _try_join(waiting, last=False)
    for name, flag, fd in opened:
        if name == "user":
            _setns(name, flag, fd)
    _try_join(waiting, last=True)


def _try_join(waiting: list[tuple[str, int, int]], *, last: bool) -> list[tuple[str, int, int]]:
    refused = []
    for name, flag, fd in waiting:
        try:
            syscalls.setns(fd, flag)
        except SyscallError as error:
            if last or error.errno != c.EPERM:
                raise from_oserror(error, f"join the container's {name} namespace") from None
            refused.append((name, flag, fd))
    return refused


def _setns(name: str, flag: int, fd: int) -> None:
    try:
        syscalls.setns(fd, flag)
    except SyscallError as error:
        raise from_oserror(error, f"join the container's {name} namespace") from None


def _take_ids(target: Target) -> None:
    """The container's root, so that the gate holds what it needs to change to the process's ids."""
    try:
        if target.set_groups:
            syscalls.setgroups([])
        syscalls.setresgid(target.gid, target.gid, target.gid)
        syscalls.setresuid(target.uid, target.uid, target.uid)
    except SyscallError as error:
        raise from_oserror(error, "take the container's ids") from None
