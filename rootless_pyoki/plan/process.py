"""/process, or a process file of `exec`: ids, capabilities, limits (config.md "Process").

The object has been validated: its types are right, its args and cwd are there.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel.constants import CAPABILITIES, RLIMITS
from rootless_pyoki.plan.idmap import is_mapped
from rootless_pyoki.plan.plan import Capabilities, Process, Rlimit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_pyoki.host.facts import Facts
    from rootless_pyoki.plan.notes import Notes
    from rootless_pyoki.plan.plan import IdRange, Label, Scheduling, Seccomp

DEFAULT_UMASK = 0o022  # as runc and crun: the caller's own never shows
INFINITY = 2**64 - 1
KEEP_GROUPS = "run.oci.keep_original_groups"  # annotation of podman --group-add keep-groups
_NO_CAPABILITIES = Capabilities(bounding=0, effective=0, inheritable=0, permitted=0, ambient=0)


def keeps_groups(annotations: dict[str, str]) -> bool:
    """Does the annotation ask for the caller's groups? Any value but 0 does, as with crun."""
    return annotations.get(KEEP_GROUPS, "") not in ("", "0")


class Credentials:
    """What ids, groups and capabilities the process may have."""

    __slots__ = ("gids", "groups_refused", "held", "keep_groups", "uids")

    def __init__(
        self,
        *,
        uids: tuple[IdRange, ...] | None,
        gids: tuple[IdRange, ...] | None,
        groups_refused: str,
        held: int,
        keep_groups: bool = False,
    ) -> None:
        """uids, gids: the container's maps, None when they are not known (a joined namespace);
        groups_refused: "" when setgroups(2) is allowed, else why not; held: mask of the
        capabilities there are to give; keep_groups: leave the caller's supplementary groups.
        """
        self.uids = uids
        self.gids = gids
        self.groups_refused = groups_refused
        self.held = held
        self.keep_groups = keep_groups


def make(
    process: dict[str, Any],
    facts: Facts,
    credentials: Credentials,
    *,
    pointer: str,
    linux: dict[str, Any],
    joins: bool = False,
    seccomp: Seccomp | None,
    notes: Notes,
) -> Process:
    """linux: /linux of the container; joins: it is exec's process, not the container's first.

    Raises SpecError (an id that is not mapped) and UnsupportedError.
    """
    user = process.get("user") or {}
    uid, gid = user.get("uid") or 0, user.get("gid") or 0
    for name, number, ids in (("uid", uid, credentials.uids), ("gid", gid, credentials.gids)):
        if ids is not None and not is_mapped(ids, number):
            raise _not_mapped(name, number, f"{pointer}/user/{name}")
    umask = user.get("umask")
    console = (process.get("consoleSize") or {}) if process.get("terminal") else {}
    return Process(
        args=tuple(process["args"]),
        env=tuple(process.get("env") or ()),
        cwd=process["cwd"],
        uid=uid,
        gid=gid,
        additional_gids=_additional_gids(user, credentials, pointer, notes),
        set_groups=not credentials.groups_refused and not credentials.keep_groups,
        umask=DEFAULT_UMASK if umask is None else umask,
        terminal=bool(process.get("terminal")),
        console_rows=console.get("height", 0),
        console_columns=console.get("width", 0),
        capabilities=capabilities(process, credentials.held, f"{pointer}/capabilities", notes),
        rlimits=_rlimits(process.get("rlimits") or (), facts, f"{pointer}/rlimits", notes),
        no_new_privileges=bool(process.get("noNewPrivileges")),
        oom_score_adj=process.get("oomScoreAdj"),
        lenient=notes.lenient,
        seccomp=seccomp,
        label=_label(process, facts, pointer),
        pointer=pointer,
        scheduling=_scheduling(process, linux, facts, pointer, joins, notes),
    )


def _scheduling(
    process: dict[str, Any],
    linux: dict[str, Any],
    facts: Facts,
    pointer: str,
    joins: bool,
    notes: Notes,
) -> Scheduling | None:
    if not (
        process.get("scheduler")
        or process.get("ioPriority")
        or process.get("execCPUAffinity")
        or linux.get("memoryPolicy")
        or linux.get("personality")
    ):
        return None
    from rootless_pyoki.plan import scheduling  # few ask for any of them

    return scheduling.make(process, linux, facts, pointer=pointer, joins=joins, notes=notes)


def _label(process: dict[str, Any], facts: Facts, pointer: str) -> Label | None:
    if not process.get("apparmorProfile") and not process.get("selinuxLabel"):
        return None
    from rootless_pyoki.plan import labels

    return labels.make(process, facts, pointer)


def _not_mapped(name: str, number: int, pointer: str) -> SpecError:
    return SpecError(
        f"{name} {number} is not mapped",
        pointer=pointer,
        hint=f"map it with /linux/{name}Mappings, or grant more ids in /etc/sub{name}",
    )


def _additional_gids(
    user: dict[str, Any], credentials: Credentials, pointer: str, notes: Notes
) -> tuple[int, ...]:
    gids = user.get("additionalGids") or ()
    if not gids or credentials.keep_groups:
        return ()
    if credentials.groups_refused:
        notes.refuse(
            f"{pointer}/user/additionalGids",
            f"supplementary groups cannot be set: {credentials.groups_refused}",
            hint="a range in /etc/subgid and newgidmap allow it",
        )
        return ()
    if credentials.gids is not None:
        for index, gid in enumerate(gids):
            if not is_mapped(credentials.gids, gid):
                raise _not_mapped("gid", gid, f"{pointer}/user/additionalGids/{index}")
    return tuple(gids)


def capabilities(process: dict[str, Any], held: int, pointer: str, notes: Notes) -> Capabilities:
    """The five sets as masks; no object means none.

    config.md, "Linux Process": names that no kernel knows, and what is not held, are left out with
    a warning.
    """
    sets = process.get("capabilities")
    if not sets:
        return _NO_CAPABILITIES
    unknown: list[str] = []
    masks = {
        name: _mask(sets.get(name) or (), unknown)
        for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    missing = 0
    for name, mask in masks.items():
        missing |= mask & ~held
        masks[name] = mask & held
    if unknown:
        notes.warn(pointer, f"{', '.join(dict.fromkeys(unknown))} left out: no such capability")
    if missing:
        notes.warn(pointer, f"{_names(missing)} left out: not held by the caller")
    lost = masks["effective"] & ~masks["permitted"]
    if lost:
        masks["effective"] &= masks["permitted"]
        notes.warn(f"{pointer}/effective", f"{_names(lost)} left out: not permitted")
    lost = masks["ambient"] & ~(masks["permitted"] & masks["inheritable"])
    if lost:
        masks["ambient"] &= ~lost
        notes.warn(
            f"{pointer}/ambient", f"{_names(lost)} left out: not both permitted and inheritable"
        )
    return Capabilities(**masks)


def _mask(names: Sequence[str], unknown: list[str]) -> int:
    mask = 0
    for name in names:
        if name in CAPABILITIES:
            mask |= 1 << CAPABILITIES[name]
        else:
            unknown.append(name)
    return mask


def _names(mask: int) -> str:
    return ", ".join(name for name, number in CAPABILITIES.items() if mask >> number & 1)


def _rlimits(
    entries: Sequence[dict[str, Any]], facts: Facts, pointer: str, notes: Notes
) -> tuple[Rlimit, ...]:
    """A hard limit above the caller's is an error; where the user is lenient the caller's is taken."""
    limits: list[Rlimit] = []
    for index, entry in enumerate(entries):
        at = f"{pointer}/{index}"
        name, soft, hard = entry["type"], entry["soft"], entry["hard"]
        resource = RLIMITS[name]
        current = facts.hard_limits.get(resource)
        if current is not None and hard > current and not facts.may_raise_limits:
            text = f"{name}: hard limit {_limit(hard)} is above the caller's {_limit(current)}"
            if not notes.lenient:
                raise UnsupportedError(
                    text,
                    pointer=f"{at}/hard",
                    hint="only CAP_SYS_RESOURCE on the host raises hard limits: raise the caller's "
                    "(limits.conf(5), systemd's LimitNOFILE= and its like) or ask for less",
                )
            hard, asked = current, soft
            soft = min(soft, hard)
            softly = f", the soft limit too, not {_limit(asked)}" if soft < asked else ""
            notes.tell(f"{at}/hard", f"{text}, which is taken{softly}")
        limits.append(Rlimit(resource=resource, name=name, soft=soft, hard=hard, pointer=at))
    return tuple(limits)


def _limit(value: int) -> str:
    return "unlimited" if value == INFINITY else str(value)
