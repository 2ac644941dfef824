"""update: other limits for a container that lives; config-linux.md, "Control groups"."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import changes, manager
from rootless_pyoki.errors import PyokiError, StateError, UnsupportedError
from rootless_pyoki.kernel import fds, json
from rootless_pyoki.lifecycle import container
from rootless_pyoki.plan import updates
from rootless_pyoki.plan.notes import Notes
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.plan.resources import DEFAULT_PERIOD, POINTER
from rootless_pyoki.record import Record, replace
from rootless_pyoki.spec import bundle as bundles
from rootless_pyoki.spec import validate
from rootless_pyoki.spec.fields import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.lifecycle.container import Container
    from rootless_pyoki.plan.plan import Resources

    Tree = dict[str, Any]

EXTRA = "updated_resources"  # in the state: all that was changed since create


class Request(Record):
    """What the command line of update asks for; sizes in bytes, -1 for no limit, times in µs."""

    id: str
    root: str | None = None
    unsupported: str | None = None  # plan/notes.py
    resources: str | None = None  # a file with a LinuxResources object, "-" for stdin
    memory: int | None = None
    memory_reservation: int | None = None
    memory_swap: int | None = None
    kernel_memory: int | None = None
    kernel_memory_tcp: int | None = None
    cpu_period: int | None = None
    cpu_quota: int | None = None
    cpu_shares: int | None = None
    cpu_burst: int | None = None
    cpu_idle: int | None = None
    cpu_rt_period: int | None = None
    cpu_rt_runtime: int | None = None
    cpuset_cpus: str | None = None
    cpuset_mems: str | None = None
    blkio_weight: int | None = None
    pids_limit: int | None = None
    l3_cache_schema: str | None = None
    mem_bw_schema: str | None = None


# field of Request → where it stands in LinuxResources
_MEMBERS = {
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "kernel_memory": ("memory", "kernel"),
    "kernel_memory_tcp": ("memory", "kernelTCP"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_shares": ("cpu", "shares"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_idle": ("cpu", "idle"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "blkio_weight": ("blockIO", "weight"),
    "pids_limit": ("pids", "limit"),
}
# What 0 means on the command line: the kernel's default, where 0 itself cannot be.
_DEFAULTS = {"cpu_period": DEFAULT_PERIOD, "cpu_quota": -1}


def update(request: Request) -> None:
    """Change the limits that are given and no others; all of them or, when one fails, none.

    Raises UsageError, SpecError, StateError, UnsupportedError, HostError; pointers are those of the
    LinuxResources object, also where it was made of options.
    """
    notes = Notes(request.unsupported or "")
    given = updates.said(_asked(request, notes))
    found = container.load(request.root, request.id, lock=True)
    try:
        status = found.status()
        if status == "stopped":
            raise StateError(f"container {found.id}: container not running")
        if status == "creating":
            raise StateError(f"cannot update container {found.id}: it is {status}")
        if given:
            _change(found, given, notes)
        container.tell(notes, request.unsupported)
        if given or notes:
            _remember(found, given, notes)
    finally:
        found.handle.unlock()


def _asked(request: Request, notes: Notes) -> Tree:
    """The LinuxResources object of the file, else of the options; validated."""
    given: Tree = {}
    options = [key for key in (*_MEMBERS, *updates.SCHEMATA) if getattr(request, key) is not None]
    if request.resources:
        if options:
            names = ", ".join(f"--{key.replace('_', '-')}" for key in options)
            log.debug(f"--resources is given: {names} not looked at")
        given = _read(request.resources)
    else:
        for key in options:
            value = getattr(request, key)
            if key in updates.SCHEMATA:
                if value:
                    updates.refuse_schema(key, notes)
            else:
                section, member = _MEMBERS[key]
                given.setdefault(section, {})[member] = value or _DEFAULTS.get(key, value)
    validate.validate_resources(given)
    return given


def _read(file: str) -> Tree:
    if file != "-":
        return bundles.load_object(file)
    return bundles.parse(fds.read_all(0), "stdin")


def _change(found: Container, given: Tree, notes: Notes) -> None:
    cgroup = found.cgroup()
    config = json.loads(found.handle.read_config())
    known = (config.get("linux") or {}).get("resources") or {}
    known = updates.merge(known, _so_far(found))
    if cgroup.path:
        wanted = _plan(cgroup, given, known, notes)
        if wanted.files:
            changes.apply(cgroup, wanted, _leaving_out(notes) if notes.lenient else None)
        return
    wanted = updates.make(given, known, {}, notes)
    if cgroup.unit:  # it cannot be seen from here, and systemd can do it all the same
        manager.apply(cgroup, wanted.files)
        return
    for file, _, pointer in wanted.files:
        notes.refuse(
            pointer,
            f"{file} needs a cgroup, and container {found.id} has none"
            + (f": {cgroup.reason}" if cgroup.reason else ""),
            hint="run it where a cgroup v2 subtree is delegated to the user",
        )


def _so_far(found: Container) -> Tree:
    """What earlier updates have changed."""
    kept: Tree = found.extras.get(EXTRA) or {}
    return kept


def _plan(cgroup: Cgroup, given: Tree, known: Tree, notes: Notes) -> Resources:
    """The files to write, for all of which the cgroup has the controller."""
    before = list(notes)
    missing: list[str] = []
    while True:
        notes[:] = before
        current = changes.read(cgroup.path, updates.CURRENT)
        wanted = updates.make(given, known, current, notes)
        files = tuple([entry for entry in wanted.files if _controller(entry[0]) not in missing])
        try:
            if not changes.require(cgroup, files):
                return replace(wanted, files=files)
        except UnsupportedError as error:
            if not notes.lenient:
                raise
            missing += [_controller(name) for name, _, at in files if at == error.pointer]
            leave_out = _leaving_out(before)
            for name, _, pointer in files:
                if _controller(name) in missing:
                    leave_out(UnsupportedError(error.message, pointer=pointer))


def _controller(file: str) -> str:
    return file.partition(".")[0]


def _leaving_out(notes: list[Note]) -> Callable[[PyokiError], None]:
    """A function that notes a limit that cannot be set."""

    def leave_out(error: PyokiError) -> None:
        notes.append(Note(pointer=error.pointer, text=f"not applied: {error.message}"))

    return leave_out


def _remember(found: Container, given: Tree, notes: Notes) -> None:
    """For `state --verbose`, and for the next update. Notes are of config.json: they get its pointers."""
    told = [
        note
        if note.pointer.startswith("/linux/")
        else replace(note, pointer=f"{POINTER}{note.pointer}")
        for note in notes
    ]
    left_out = {note.pointer.removeprefix(POINTER) for note in told}
    changed = {POINTER + pointer for pointer in _pointers(given)} | {note.pointer for note in told}
    kept = [note for note in found.state.notes if note.pointer not in changed]
    extras = {**found.extras, EXTRA: updates.merge(_so_far(found), _without(given, left_out))}
    found.handle.write(replace(found.state, notes=(*kept, *told), extras=extras))


def _without(given: Tree, left_out: set[str]) -> Tree:
    """What was applied of it."""
    applied: Tree = {}
    for key, value in given.items():
        if isinstance(value, dict):
            value = {m: v for m, v in value.items() if join("", key, m) not in left_out}
        if value:
            applied[key] = value
    return applied


def _pointers(given: Tree) -> list[str]:
    """`/memory/limit` and so on."""
    return [
        join("", key, member)
        for key, value in given.items()
        if isinstance(value, dict)
        for member in value
    ]
