"""What is remembered of one container, and its form in state.json.

The form has a number. Older forms are brought up to date when read; a newer one is refused, as
guessing at it could lose what a newer program wrote. Members that this program does not know are
kept and written back.
"""

from __future__ import annotations

import time

from rootless_pyoki.errors import StateError
from rootless_pyoki.kernel import json, procfs, syscalls, users
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Protocol

    class Told(Protocol):
        """A plan's Note or a StateNote."""

        @property
        def pointer(self) -> str: ...
        @property
        def text(self) -> str: ...

    Migration = Callable[[dict[str, Any]], None]

FORMAT = 1
MIGRATIONS: dict[int, Migration] = {}  # form N -> what makes form N+1 of it, in place


class StateNote(Record):
    """Something that was changed or not applied when the container was made."""

    pointer: str  # JSON pointer into config.json
    text: str


class ContainerState(Record):
    id: str
    oci_version: str  # of the bundle's config.json
    phase: str  # "creating" or "created": what was reached, not what is now (status.py)
    pid: int  # of the container's first process as we see it; 0 before there is one
    start_time: int  # its start in clock ticks since boot (proc(5), stat field 22)
    boot_id: str  # random(4): pids mean nothing after a reboot
    bundle: str  # absolute
    rootfs: str  # absolute
    created: str  # RFC 3339 with nanoseconds, UTC
    annotations: dict[str, str]
    owner: str  # login name of who created it, else the uid in decimal
    owner_uid: int  # effective uid, as the creator saw it
    creator_pid: int
    creator_start_time: int
    cgroup_manager: str = "none"
    cgroup_path: str = ""
    cgroup_scope: str = ""  # systemd unit
    terminal: bool = False
    notes: Sequence[Told] = ()
    exit: dict[str, object] | None = None  # lifecycle/exit_record.py; None: not recorded
    extras: dict[str, object]  # whatever else is to be remembered
    unknown: dict[str, object]  # members of state.json that a newer program wrote


# (member of state.json, field, type)
_MEMBERS: tuple[tuple[str, str, type], ...] = (
    ("id", "id", str),
    ("ociVersion", "oci_version", str),
    ("phase", "phase", str),
    ("pid", "pid", int),
    ("startTime", "start_time", int),
    ("bootId", "boot_id", str),
    ("bundle", "bundle", str),
    ("rootfs", "rootfs", str),
    ("created", "created", str),
    ("annotations", "annotations", dict),
    ("owner", "owner", str),
    ("ownerUid", "owner_uid", int),
    ("creatorPid", "creator_pid", int),
    ("creatorStartTime", "creator_start_time", int),
    ("cgroupManager", "cgroup_manager", str),
    ("cgroupPath", "cgroup_path", str),
    ("cgroupScope", "cgroup_scope", str),
    ("terminal", "terminal", bool),
    ("exit", "exit", dict),
    ("extras", "extras", dict),
)
_KNOWN = {"format", "notes", *(member for member, _, _ in _MEMBERS)}


def new_state(
    *,
    id: str,
    bundle: str,
    rootfs: str,
    oci_version: str = "1.0.0",
    annotations: dict[str, str] | None = None,
    cgroup_manager: str = "none",
    cgroup_path: str = "",
    cgroup_scope: str = "",
    terminal: bool = False,
    notes: Sequence[Told] = (),
    extras: dict[str, object] | None = None,
) -> ContainerState:
    """The state of a container that this process begins to make, now."""
    pid, uid = syscalls.getpid(), syscalls.geteuid()
    return ContainerState(
        id=id,
        oci_version=oci_version,
        phase="creating",
        pid=0,
        start_time=0,
        boot_id=procfs.boot_id(),
        bundle=bundle,
        rootfs=rootfs,
        created=timestamp(time.time_ns()),
        annotations=annotations or {},
        owner=users.user_name(uid) or str(uid),
        owner_uid=uid,
        creator_pid=pid,
        creator_start_time=procfs.start_time(pid) or 0,
        cgroup_manager=cgroup_manager,
        cgroup_path=cgroup_path,
        cgroup_scope=cgroup_scope,
        terminal=terminal,
        notes=notes,
        extras=extras or {},
        unknown={},
    )


def sweepable(state: ContainerState) -> bool:
    """Whether this was left by a create that died before it was done. Ask only under the lock."""
    return state.phase == "creating" and not creator_alive(state)


def creator_alive(state: ContainerState) -> bool:
    """Whether the process that is making the container lives; its pid may be another's by now."""
    return (
        procfs.start_time(state.creator_pid) == state.creator_start_time
        and procfs.boot_id() == state.boot_id
    )


def timestamp(nanoseconds: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC: 2026-11-23T19:44:00.000000001Z."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    year, month, day, hour, minute, second = time.gmtime(seconds)[:6]
    date = f"{year:04}-{month:02}-{day:02}"
    return f"{date}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z"


def encode(state: ContainerState) -> bytes:
    """The content of state.json."""
    members: dict[str, object] = {"format": FORMAT}
    for member, field, _ in _MEMBERS:
        value = getattr(state, field)
        if value is not None:
            members[member] = value
    members["notes"] = [{"pointer": note.pointer, "text": note.text} for note in state.notes]
    members.update({key: value for key, value in state.unknown.items() if key not in _KNOWN})
    return json.dumps(members)


def decode(
    raw: bytes,
    id: str,
    *,
    current: int = FORMAT,
    migrations: Mapping[int, Migration] = MIGRATIONS,
) -> ContainerState:
    """Raises StateError naming the container when the content is damaged or of a newer form.

    current, migrations: the form to bring it to, and how (replaceable for tests).
    """
    try:
        members = json.loads(raw)
    except ValueError as error:
        raise _damaged(id, str(error)) from None
    if type(members) is not dict or type(members.get("format")) is not int:
        raise _damaged(id, "it has no format number")
    found = members["format"]
    if found > current:
        raise StateError(
            f"the state of container {id} has format {found}, this pyoki knows up to {current}",
            hint="a newer pyoki made this container: use that one",
        )
    for number in range(found, current):
        if number not in migrations:
            raise _damaged(id, f"format {found} was never in use")
        migrations[number](members)
    return _from_members(members, id)


def _from_members(members: dict[str, Any], id: str) -> ContainerState:
    values: dict[str, Any] = {}
    for member, field, kind in _MEMBERS:
        if member not in members and hasattr(ContainerState, field):
            continue  # the default
        value = members.get(member)
        if type(value) is not kind:
            raise _damaged(id, f"{member} is missing or of the wrong type")
        values[field] = value
    try:
        values["notes"] = tuple(
            [StateNote(pointer=n["pointer"], text=n["text"]) for n in members.get("notes", ())]
        )
    except (TypeError, KeyError):
        raise _damaged(id, "notes are of the wrong type") from None
    values["unknown"] = {key: value for key, value in members.items() if key not in _KNOWN}
    return ContainerState(**values)


def _damaged(id: str, reason: str) -> StateError:
    return StateError(
        f"the state of container {id} is damaged: {reason}",
        hint="delete --force removes the container",
    )
