"""exec: one more process in a living container, through the same gate."""

from __future__ import annotations

from rootless_pyoki.apply import console
from rootless_pyoki.cgroups import cgroupfs
from rootless_pyoki.errors import SpecError, StateError, SyscallError, UsageError, from_oserror
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
    from typing import Any

    from rootless_pyoki.lifecycle.container import Container
    from rootless_pyoki.plan.plan import Process
    from rootless_pyoki.processes.main import Launched


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
    cgroup: str | None = None
    ignore_paused: bool = False
    detach: bool = False
    pid_file: str | None = None
    console_socket: str | None = None
    pidfd_socket: str | None = None
    preserve_fds: int = 0
    unsupported: str | None = None  # plan/notes.py


def exec_process(request: Request) -> int:
    """The program's exit code, 128 + its signal; 0 when detached."""
    fds.require_open(3, request.preserve_fds)  # before a descriptor of ours can fill a hole
    found = _load(request)
    process = _decide(request, found)
    signals = -1 if request.detach else foreground.block_signals()

    opened = _ends(request)
    masters: list[int] = []
    launched = main.launch_joining(
        process, _target(found, process), opened, _calls(request, masters)
    )
    for fd in (opened.console, opened.memfd):
        fds.close_quietly(fd)
    _set_off(request, found, process, launched)
    if request.detach:
        return 0
    return foreground.attend(launched.pid, signals, masters[0] if masters else -1)


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
    if request.process_file:
        wanted, pointer = _read_process(request.process_file), ""
    elif request.args:
        wanted, pointer = _from_command_line(request, config.get("process") or {}), "/process"
    else:
        raise UsageError("exec needs a command, or --process")
    if request.tty:
        wanted["terminal"] = True
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


def _read_process(path: str) -> dict[str, Any]:
    try:
        fd = syscalls.openat(c.AT_FDCWD, path, c.O_RDONLY | c.O_CLOEXEC)
        text = fds.read_all(fd)
        syscalls.close(fd)
    except SyscallError as error:
        raise from_oserror(error, "read the process file") from None
    try:
        process = json.loads(text)
    except ValueError as error:
        raise SpecError(f"{path} is not JSON: {error}") from None
    if not isinstance(process, dict):
        raise SpecError(f"{path} must hold an object")
    return process


def _from_command_line(request: Request, base: dict[str, Any]) -> dict[str, Any]:
    """The container's own process with what the flags change; capabilities are added, never inherited."""
    process = dict(base)
    process["args"] = list(request.args)
    process["terminal"] = request.tty
    process.pop("consoleSize", None)
    process["env"] = [*(base.get("env") or ()), *request.env]
    if request.cwd:
        process["cwd"] = request.cwd
    user = dict(base.get("user") or {"uid": 0, "gid": 0})
    if request.user:
        uid, _, gid = request.user.partition(":")
        user["uid"] = int(uid)
        if gid:
            user["gid"] = int(gid)
    if request.additional_gids:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *request.additional_gids]
    process["user"] = user
    if request.no_new_privs:
        process["noNewPrivileges"] = True
    if request.apparmor:
        process["apparmorProfile"] = request.apparmor
    if request.process_label:
        process["selinuxLabel"] = request.process_label
    if request.caps:
        process["capabilities"] = _add_capabilities(base.get("capabilities") or {}, request.caps)
    return process


def _add_capabilities(base: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """As runc: to bounding, effective and permitted; to ambient where it can be; never to inheritable
    alone (CVE-2022-29162)."""
    added = [
        name if name.startswith("CAP_") else f"CAP_{name}" for name in (n.upper() for n in names)
    ]
    sets = {key: list(value or ()) for key, value in base.items()}
    for key in ("bounding", "effective", "permitted"):
        present = sets.setdefault(key, [])
        present += [name for name in added if name not in present]
    return sets


def _ends(request: Request) -> Ends:
    return Ends(
        proc=procfs.held(),
        memfd=gate.make_memfd(),
        mode=gate.EXEC,
        preserve=request.preserve_fds,
        console=console.connect(request.console_socket) if request.console_socket else -1,
    )


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


def _cgroup_below(path: str, wanted: str) -> str:
    """--cgroup PATH (or ctrl:PATH, as for v1): a cgroup below the container's own."""
    below = wanted.partition(":")[2] if ":" in wanted else wanted
    parts = [part for part in below.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UsageError(f"--cgroup {wanted}: leads out of the container's cgroup")
    return "/".join([path, *parts])


def _set_off(request: Request, found: Container, process: Process, launched: Launched) -> None:
    """Cgroup, limits, pid file, GO; the process is killed when one of them fails."""
    try:
        cgroup = found.cgroup()
        if cgroup.path:
            cgroupfs.attach(_cgroup_below(cgroup.path, request.cgroup or ""), launched.pid)
        elif request.cgroup:
            raise UsageError(f"--cgroup: container {found.id} has no cgroup")
        main.limit(launched, process)
        pid_file.write(request.pid_file, launched.pid)
        pid_file.send_pidfd(request.pidfd_socket, launched.pid)
        main.go(launched)
    except BaseException:
        try:
            syscalls.kill(launched.pid, c.SIGKILL)
            syscalls.waitpid(launched.pid, 0)
        except SyscallError:
            pass
        raise
