"""exec: one more process in a living container, through the same gate."""

from __future__ import annotations

from rootless_pyoki.apply import console
from rootless_pyoki.cgroups import cgroupfs
from rootless_pyoki.errors import HostError, StateError, SyscallError, UsageError, from_oserror
from rootless_pyoki.host import facts
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, json, procfs, syscalls
from rootless_pyoki.lifecycle import container, foreground, pid_file
from rootless_pyoki.plan import make
from rootless_pyoki.plan.plan import IdRange
from rootless_pyoki.processes import gate, main
from rootless_pyoki.processes.ends import Ends
from rootless_pyoki.processes.join import KINDS, Target
from rootless_pyoki.record import Record
from rootless_pyoki.spec import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_pyoki.lifecycle.container import Container
    from rootless_pyoki.plan.plan import Agent, Process
    from rootless_pyoki.processes.main import Launched


# What a process file that does not speak of it gets from the container's own process.
INHERITED = (
    "user",
    "capabilities",
    "apparmorProfile",
    "selinuxLabel",
    "rlimits",
    "oomScoreAdj",
    "scheduler",
    "ioPriority",
    "execCPUAffinity",
)


class Request(Record):
    """What the command line of exec asks for."""

    id: str
    root: str | None = None
    process_file: str | None = None
    args: list[str]
    cwd: str | None = None
    env: list[str]
    tty: bool = False
    user: str | None = None  # UID or UID:GID
    additional_gids: list[int]
    process_label: str | None = None
    apparmor: str | None = None
    no_new_privs: bool = False
    caps: list[str]
    cgroup: list[str]  # more than one only to be refused
    ignore_paused: bool = False
    detach: bool = False
    pid_file: str | None = None
    console_socket: str | None = None
    pidfd_socket: str | None = None
    preserve_fds: int = 0
    unsupported: str | None = None  # plan/notes.py


def exec_process(request: Request) -> int:
    """The program's exit code, 128 + its signal; 0 when detached."""
    _require_preserved(request.preserve_fds)  # before a descriptor of ours can fill a hole
    found = _load(request)
    process = _decide(request, found)
    cgroup = _choose_cgroup(request, found)
    signals = -1 if request.detach else foreground.block_signals()

    opened = _ends(request, process)
    masters: list[int] = []
    launched = main.launch_joining(
        process, _target(found, process), opened, _calls(request, masters)
    )
    if process.seccomp and process.seccomp.agent:
        _tell_agent(found, process.seccomp.agent, opened, launched.pid)
    for fd in (opened.console, opened.memfd, opened.listener, opened.listener_state):
        fds.close_quietly(fd)
    _set_off(request, cgroup, process, launched)
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


def _decide(request: Request, found: Container) -> Process:
    """The process to run, validated and planned."""
    config: dict[str, Any] = json.loads(found.handle.read_config())
    wanted, pointer = _choose_process(request, config.get("process") or {})
    if _change(wanted, request) or not request.process_file:
        validate.validate_process(wanted, pointer)
    process, notes = make.make_exec_process(
        config,
        wanted,
        facts.gather({"process": wanted}),
        uids=_ranges(found.extras.get("uid_map")),
        gids=_ranges(found.extras.get("gid_map")),
        groups_refused=_groups_refused(found),
        own_user_namespace=bool(found.extras.get("user_namespace")),
        pointer=pointer,
        unsupported=request.unsupported or "",
        seccomp_receiver=container.seccomp_receiver(config),
    )
    container.tell(notes, request.unsupported)
    if process.terminal and request.detach and not request.console_socket:
        raise UsageError("cannot allocate tty if pyoki will detach without setting console socket")
    if request.console_socket and not process.terminal:
        raise UsageError("cannot use console socket if pyoki will not allocate tty")
    if process.terminal and not request.console_socket:
        return foreground.as_our_window(process)
    return process


def _groups_refused(found: Container) -> str:
    """Why setgroups(2) is denied in there, "" if it is not; a joined user namespace is asked anew."""
    refused = str(found.extras.get("groups_refused", ""))
    if refused or found.extras.get("uid_map") or not found.extras.get("user_namespace"):
        return refused
    try:
        allowed = procfs.read(found.state.pid, "setgroups").strip() == b"allow"
    except SyscallError:
        return ""  # it has just ended: found out below
    return "" if allowed else container.GROUPS_REFUSED


def _ranges(stored: Any) -> tuple[IdRange, ...] | None:
    """The map as create wrote it down; None where it is not known."""
    if not stored:
        return None
    return tuple([IdRange(container=a, host=b, size=n) for a, b, n in stored])


def _choose_process(request: Request, base: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """(The process object, the pointer of where it stands): the file's, or the container's own."""
    if request.process_file:
        if request.args:
            raise UsageError("exec takes a command or --process, not both")
        from rootless_pyoki.spec import bundle as bundles

        process = bundles.load_process(request.process_file)
        validate.validate_process(process)
        for name in INHERITED:
            if name in base:
                process.setdefault(name, base[name])
        return process, ""
    if not request.args:
        raise UsageError("exec needs a command, or --process")
    process = {**base, "args": list(request.args), "terminal": False}
    process.pop("consoleSize", None)
    return process, "/process"


def _change(process: dict[str, Any], request: Request) -> bool:
    """Put in what the flags say; whether there was anything that has to be validated.

    A flag that is off leaves what is there: it adds a terminal, or no_new_privs, and takes none away.
    """
    given = {
        "cwd": request.cwd,
        "terminal": request.tty,
        "noNewPrivileges": request.no_new_privs,
        "apparmorProfile": request.apparmor,
        "selinuxLabel": request.process_label,
    }
    changes: dict[str, Any] = {key: value for key, value in given.items() if value}
    if request.env:
        changes["env"] = _add_env(process.get("env") or (), request.env)
    if request.user or request.additional_gids:
        changes["user"] = _change_user(process.get("user") or {"uid": 0, "gid": 0}, request)
    if request.caps:
        changes["capabilities"] = _add_capabilities(process.get("capabilities") or {}, request.caps)
    process.update(changes)
    return bool(changes)


def _change_user(base: dict[str, Any], request: Request) -> dict[str, Any]:
    """--user UID[:GID] as the grammar has checked it; the groups are added to those that are there."""
    user = dict(base)
    if request.user:
        uid, _, gid = request.user.partition(":")
        user["uid"] = int(uid)
        if gid:
            user["gid"] = int(gid)
    if request.additional_gids:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *request.additional_gids]
    return user


def _add_env(base: Sequence[str], added: list[str]) -> list[str]:
    """The last word on a name is the only one: getenv(3) would take the first."""
    last = {entry.partition("=")[0]: at for at, entry in enumerate(added)}
    kept = [entry for entry in base if entry.partition("=")[0] not in last]
    return kept + [entry for at, entry in enumerate(added) if last[entry.partition("=")[0]] == at]


def _add_capabilities(base: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """As runc: to bounding, effective and permitted; never to inheritable (CVE-2022-29162), and so to
    ambient only what is inheritable anyway."""
    added = [
        name if name.startswith("CAP_") else f"CAP_{name}" for name in (n.upper() for n in names)
    ]
    for name in added:
        if name not in c.CAPABILITIES:
            raise UsageError(f"--cap {name}: capabilities(7) has no such name")
    sets = {key: list(value or ()) for key, value in base.items()}
    for key in ("bounding", "effective", "permitted"):
        present = sets.setdefault(key, [])
        present += [name for name in added if name not in present]
    ambient = sets.setdefault("ambient", [])
    inheritable = sets.get("inheritable", ())
    ambient += [name for name in added if name in inheritable and name not in ambient]
    return sets


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


def _choose_cgroup(request: Request, found: Container) -> str:
    """Where the process goes, "" when the container has no cgroup; --cgroup PATH (or ctrl:PATH, as
    for v1) is a cgroup below the container's own, which must exist."""
    path = found.cgroup().path
    if not request.cgroup:
        inner = found.extras.get("delegated_cgroup")
        return f"{path}/{inner}" if path and inner else path
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
    return place


def _set_off(request: Request, cgroup: str, process: Process, launched: Launched) -> None:
    """Cgroup, limits, pid file, GO; the process is killed when one of them fails."""
    interrupt = -1
    if request.ignore_paused and not request.detach:
        interrupt = foreground.interruption()  # a frozen process takes its time
    try:
        if cgroup:
            cgroupfs.attach(cgroup, launched.pid)
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
