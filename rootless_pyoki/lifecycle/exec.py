"""exec: one more process in a living container, through the same gate."""

from __future__ import annotations

from rootless_pyoki.apply import console
from rootless_pyoki.cgroups import manager
from rootless_pyoki.errors import HostError, StateError, SyscallError, UsageError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.lifecycle import container, foreground, pid_file
from rootless_pyoki.lifecycle.exec_request import Request, decide
from rootless_pyoki.processes import gate, main
from rootless_pyoki.processes.ends import Ends
from rootless_pyoki.processes.join import KINDS, Target
from rootless_pyoki.record import replace

__all__ = ["Request", "exec_process"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.lifecycle.container import Container
    from rootless_pyoki.plan.plan import Agent, Process
    from rootless_pyoki.processes.main import Launched


def exec_process(request: Request) -> int:
    """The program's exit code, 128 + its signal; 0 when detached."""
    _require_preserved(request.preserve_fds)  # before a descriptor of ours can fill a hole
    found = _load(request)
    process = decide(request, found)
    cgroup, below = found.cgroup(), _choose_cgroup(request, found)
    # Once it has the container's ids systemd refuses to move it: asked by somebody outside of the
    # user's slice, it moves processes of that one's uid only. So it is moved before that, and Python
    # runs in the container's cgroup until the gate replaces it.
    settles = manager.must_ask(cgroup) and not _keeps_our_uid(found)
    signals = -1 if request.detach else foreground.block_signals()

    opened = _ends(request, process)
    masters: list[int] = []
    target = _target(found, process)
    calls = _calls(request, masters)
    if settles:
        calls = replace(calls, settle=lambda pid: manager.attach(cgroup, pid, below))
        target = replace(target, settles=True)
    launched = main.launch_joining(process, target, opened, calls)
    if process.seccomp and process.seccomp.agent:
        _tell_agent(found, process.seccomp.agent, opened, launched.pid)
    for fd in (opened.console, opened.memfd, opened.listener, opened.listener_state):
        fds.close_quietly(fd)
    _set_off(request, None if settles else cgroup, below, process, launched)
    if request.detach:
        return 0
    return foreground.attend(launched.pid, signals, masters[0] if masters else -1)


def _require_preserved(count: int) -> None:
    try:
        fds.require_open(3, count)
    except SyscallError as error:
        raise from_oserror(error, f"preserve {count} fds from 3 on") from None


def _load(request: Request) -> Container:
    found = container.load(request.root, request.id)
    status = found.status()
    if status in ("stopped", "creating"):
        raise StateError(
            f"cannot exec in container {found.id}: container not running: it is {status}"
        )
    if status == "paused" and not request.ignore_paused:
        raise StateError(
            f"cannot exec in container {found.id}: it is paused",
            hint="use --ignore-paused to override",
        )
    return found


def _ends(request: Request, process: Process) -> Ends:
    listener = listener_state = -1
    seccomp = process.seccomp
    if seccomp and seccomp.agent:
        from rootless_pyoki.lifecycle import seccomp_listener

        listener, listener_state = seccomp_listener.connect(seccomp.agent, seccomp.flags)
    return Ends(
        proc=procfs.held(),
        memfd=gate.make_memfd(),
        mode=gate.EXEC,
        preserve=request.preserve_fds,
        console=console.connect(request.console_socket) if request.console_socket else -1,
        listener=listener,
        listener_state=listener_state,
    )


def _tell_agent(found: Container, agent: Agent, opened: Ends, pid: int) -> None:
    from rootless_pyoki.lifecycle import seccomp_listener

    seccomp_listener.tell(opened.listener_state, agent, pid, found.hook_state(found.status()))


def _target(found: Container, process: Process) -> Target:
    """Which namespaces are not our own; the pidfd is proven to be the container's."""
    pidfd = found.pidfd()
    flags = 0
    proc = procfs.held()
    try:
        for name, flag in KINDS:
            if _namespace(proc, "self", name) != _namespace(proc, str(found.state.pid), name):
                flags |= flag
    except SyscallError as error:
        raise from_oserror(error, f"look at the namespaces of container {found.id}") from None
    uid, gid = found.extras.get("working_ids", (0, 0))
    return Target(
        pidfd=pidfd,
        pid=found.state.pid,
        flags=flags,
        uid=uid,
        gid=gid,
        set_groups=process.set_groups,
        keyring=found.id if found.extras.get("keyring") else "",
    )


def _namespace(proc: int, pid: str, name: str) -> str:
    try:
        return syscalls.readlinkat(proc, f"{pid}/ns/{name}")
    except SyscallError as error:
        if error.errno == c.ENOENT and name in ("time", "cgroup"):
            return ""  # a kernel without them
        raise


def _calls(request: Request, masters: list[int]) -> main.Calls:
    return main.Calls(
        cgroup=lambda: -1,  # after READY: none of our Python runs in there
        settle=_nothing,
        cloned=_nothing,
        runtime_hooks=_nothing,
        note=lambda note: container.tell((note,), request.unsupported),
        console=masters.append,
    )


def _nothing(pid: int) -> None:
    """exec records nothing: its process is the caller's to wait for."""


def _keeps_our_uid(found: Container) -> bool:
    """Is the container's root, as which the gate waits, the uid that we have?"""
    uid = int(found.extras.get("working_ids", (0, 0))[0])
    ranges = found.extras.get("uid_map") or ()
    if not ranges and found.extras.get("user_namespace"):
        return False  # it was joined, or made by somebody else: nobody has told us
    for inside, outside, size in ranges:
        if inside <= uid < inside + size:
            uid = outside + uid - inside
            break
    return uid == syscalls.geteuid()


def _choose_cgroup(request: Request, found: Container) -> str:
    """Where the process goes below the container's cgroup, "" for right there; --cgroup PATH (or
    ctrl:PATH, as for v1) is a cgroup there which must exist."""
    path = found.cgroup().path
    if not request.cgroup:
        return str(found.extras.get("delegated_cgroup") or "")
    wanted = request.cgroup[0]
    if len(request.cgroup) > 1:
        raise UsageError("--cgroup can be given once: cgroup v2 has one tree for all controllers")
    if not path:
        raise UsageError(f"--cgroup {wanted}: container {found.id} has no cgroup")
    controller, colon, below = wanted.rpartition(":")
    if colon and not controller:
        raise UsageError(f"--cgroup {wanted}: no controller before the colon")
    parts = [part for part in below.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"--cgroup {wanted}: leads out of the container's cgroup")
    place = "/".join([path, *parts])
    if not syscalls.faccessat(c.AT_FDCWD, place, c.F_OK):
        raise HostError(f"--cgroup {wanted}: no such file or directory: {place}", errno=c.ENOENT)
    return "/".join(parts)


def _set_off(
    request: Request, cgroup: Cgroup | None, below: str, process: Process, launched: Launched
) -> None:
    """Cgroup, unless it is there, limits, pid file, GO; the process is killed when one of them fails."""
    interrupt = -1
    if request.ignore_paused and not request.detach:
        interrupt = foreground.interruption()  # a frozen process takes its time
    try:
        if cgroup:
            manager.attach(cgroup, launched.pid, below)
        main.limit(launched, process)
        pid_file.write(request.pid_file, launched.pid)
        pid_file.send_pidfd(request.pidfd_socket, launched.pid)
        main.go(launched, interrupt=interrupt)
        fds.close_quietly(interrupt)
    except BaseException:
        try:
            syscalls.kill(launched.pid, c.SIGKILL)
            syscalls.waitpid(launched.pid, 0)
        except SyscallError:
            pass
        raise
