"""Which process exec is to run: its flags, a process file, the container's own process.

Nothing is made here; what comes out is validated and planned.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError, UsageError
from rootless_pyoki.host import facts
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import json, procfs
from rootless_pyoki.lifecycle import container, foreground
from rootless_pyoki.plan import make
from rootless_pyoki.plan.plan import IdRange
from rootless_pyoki.record import Record
from rootless_pyoki.spec import validate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_pyoki.lifecycle.container import Container
    from rootless_pyoki.plan.plan import Process


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


def decide(request: Request, found: Container) -> Process:
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
