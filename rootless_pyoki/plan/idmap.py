"""The maps of a new user namespace: which ids, and who may write them (user_namespaces(7)).

Three writers are possible. With CAP_SETUID and CAP_SETGID in our own user namespace we write any
map ourselves (real root, and uid 0 of podman's namespace, which newuidmap refuses). Without them
we may write one line that maps our own id alone, for groups only after giving up setgroups(2).
Everything else is for newuidmap and newgidmap, which allow what /etc/subuid and /etc/subgid grant.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel.constants import CAP_SETGID, CAP_SETUID
from rootless_pyoki.plan.plan import IdMap, IdRange
from rootless_pyoki.spec.linux_rules import MOST_EXTENTS
from rootless_pyoki.spec.template import default_mappings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Protocol

    from rootless_pyoki.plan.notes import Notes
    from rootless_pyoki.spec.types import IDMapping

    Granted = Sequence[tuple[int, int]]  # (start, count)
    Ranges = Sequence[IdRange]

    class Facts(Protocol):
        """What is asked of host.facts.Facts; all ids as the caller's user namespace counts."""

        @property
        def euid(self) -> int: ...
        @property
        def egid(self) -> int: ...
        @property
        def capabilities_effective(self) -> int: ...
        @property
        def uid_map(self) -> Ranges: ...
        @property
        def gid_map(self) -> Ranges: ...
        @property
        def user_name(self) -> str: ...
        @property
        def subuids(self) -> Granted: ...
        @property
        def subgids(self) -> Granted: ...
        @property
        def id_helpers(self) -> bool: ...


OVERFLOW_ID = 65534  # /proc/sys/kernel/overflowuid, overflowgid: what an unmapped id looks like


def make(config: Mapping[str, Any], facts: Facts, notes: Notes) -> IdMap:
    """The maps for a new user namespace: the configuration's, else the default ones with a Note.

    Raises SpecError when there is nothing to map, UnsupportedError with the pointer of the entry
    that the caller may not map.
    """
    linux = config.get("linux") or {}
    uids, gids = linux.get("uidMappings"), linux.get("gidMappings")
    privileged = may_write_any(facts)
    if not uids and not gids:
        if privileged:
            raise SpecError(
                "a new user namespace needs uidMappings and gidMappings", pointer="/linux"
            )
        uids, gids = _defaults(linux, facts, notes)
    wanted_uids, wanted_gids = _ranges(uids or ()), _ranges(gids or ())
    if privileged:
        return IdMap(
            uids=_direct(wanted_uids, facts.uid_map, "uid"),
            gids=_direct(wanted_gids, facts.gid_map, "gid"),
            writer="direct",
            deny_setgroups=False,
        )
    if _is_self(wanted_uids, facts.euid) and _is_self(wanted_gids, facts.egid):
        return IdMap(uids=wanted_uids, gids=wanted_gids, writer="direct", deny_setgroups=True)
    user = facts.user_name or str(facts.euid)
    return IdMap(
        uids=_helped(wanted_uids, facts.euid, facts.subuids, "uid", user),
        gids=_helped(wanted_gids, facts.egid, facts.subgids, "gid", user),
        writer="helpers",
        deny_setgroups=False,
    )


def may_write_any(facts: Facts) -> bool:
    """Whether the caller may write whatever its own user namespace maps."""
    both = 1 << CAP_SETUID | 1 << CAP_SETGID
    return facts.capabilities_effective & both == both


def may_set_groups(idmap: IdMap, facts: Facts) -> bool:
    """Whether setgroups(2) will work in the new namespace, as far as its maps decide that.

    newgidmap(1) gives it up when the map has the caller's own group and nothing that was granted.
    """
    if idmap.deny_setgroups:
        return False
    return idmap.writer != "helpers" or any(
        not missing(r.host, r.size, facts.subgids) for r in idmap.gids
    )


def _defaults(
    linux: Mapping[str, Any], facts: Facts, notes: Notes
) -> tuple[list[IDMapping], list[IDMapping]]:
    """Container 0 is the caller, 1 and up are what was granted; one id when nothing was."""
    granted = bool(facts.subuids and facts.subgids)
    full = granted and facts.id_helpers
    asked = any(n["type"] == "user" for n in linux.get("namespaces") or ())
    start = "the user namespace got a default map" if asked else "added a user namespace"
    if full:
        what = "container id 0 is the caller, the others are the caller's subordinate ids"
    elif granted:
        what = "container id 0 is the caller and no other id exists, as newuidmap is not installed"
    else:
        user = facts.user_name or facts.euid
        files = [
            file
            for file, granted in (("/etc/subuid", facts.subuids), ("/etc/subgid", facts.subgids))
            if not granted
        ]
        what = (
            "container id 0 is the caller and no other id exists, "
            f"as {' and '.join(files)} grant {user} nothing"
        )
    pointer = "/linux/uidMappings" if asked else "/linux/namespaces"
    notes.tell(pointer, f"{start}: {what}")
    uids = default_mappings(facts.euid, facts.subuids if full else ())
    gids = default_mappings(facts.egid, facts.subgids if full else ())
    return uids[:MOST_EXTENTS], gids[:MOST_EXTENTS]


def _ranges(mappings: Sequence[IDMapping]) -> tuple[IdRange, ...]:
    return tuple(
        [IdRange(container=m["containerID"], host=m["hostID"], size=m["size"]) for m in mappings]
    )


def _is_self(ranges: Ranges, own: int) -> bool:
    return len(ranges) == 1 and ranges[0].host == own and ranges[0].size == 1


def _direct(wanted: Ranges, parent: Ranges, kind: str) -> tuple[IdRange, ...]:
    """For the kernel each line must lie within one line of the parent's map: merge, then split."""
    for index, r in enumerate(wanted):
        pieces = split(r, parent)
        covered = sum(piece.size for piece in pieces)
        if covered != r.size:
            raise UnsupportedError(
                f"{_ids(kind, r)} are not all mapped in the caller's own user namespace",
                pointer=f"/linux/{kind}Mappings/{index}",
            )
    lines = [piece for r in merge(wanted) for piece in split(r, parent)]
    if len(lines) > MOST_EXTENTS:
        raise UnsupportedError(
            f"the map needs {len(lines)} lines in the caller's user namespace, "
            f"the kernel takes {MOST_EXTENTS}",
            pointer=f"/linux/{kind}Mappings",
        )
    return tuple(lines)


def _helped(
    wanted: Ranges, own: int, granted: Granted, kind: str, user: str
) -> tuple[IdRange, ...]:
    """As newuidmap or newgidmap takes them: granted ranges, and the caller's own id alone."""
    alone: list[IdRange] = []
    others: list[IdRange] = []
    for index, r in enumerate(wanted):
        lacking = missing(r.host, r.size, granted)
        if not lacking:
            others.append(r)
        elif r.host == own and r.size == 1:
            alone.append(r)
        else:
            raise _not_granted(r, lacking, kind, user, index)
    return tuple(sorted([*alone, *merge(others)], key=_by_container))


def _not_granted(
    r: IdRange, lacking: Granted, kind: str, user: str, index: int
) -> UnsupportedError:
    lines = " ".join([f"{user}:{start}:{count}" for start, count in lacking])
    start, count = lacking[0]
    return UnsupportedError(
        f"{_ids(kind, r)} are not granted to {user}: /etc/sub{kind} lacks {lines}",
        pointer=f"/linux/{kind}Mappings/{index}",
        hint=f"as root: usermod --add-sub{kind}s {start}-{start + count - 1} {user}; "
        "or map ids that are granted",
        id="SUBID-NONE",
    )


def _ids(kind: str, r: IdRange) -> str:
    return f"{kind}s {r.host} to {r.host + r.size - 1}"


def _by_container(r: IdRange) -> int:
    return r.container


def merge(ranges: Ranges) -> tuple[IdRange, ...]:
    """Sorted by the container's ids, with neighbours on both sides joined."""
    merged: list[IdRange] = []
    for r in sorted(ranges, key=_by_container):
        if merged:
            last = merged[-1]
            if last.container + last.size == r.container and last.host + last.size == r.host:
                merged[-1] = IdRange(
                    container=last.container, host=last.host, size=last.size + r.size
                )
                continue
        merged.append(r)
    return tuple(merged)


def split(r: IdRange, parent: Ranges) -> list[IdRange]:
    """The parts of a range that the parent's map covers, each within one of its lines.

    parent: the own map of the namespace that r.host counts in.
    """
    pieces = []
    for line in parent:
        low = max(r.host, line.container)
        high = min(r.host + r.size, line.container + line.size)
        if low < high:
            pieces.append(IdRange(container=r.container + low - r.host, host=low, size=high - low))
    return sorted(pieces, key=_by_container)


def missing(start: int, count: int, granted: Granted) -> list[tuple[int, int]]:
    """What of `count` ids from `start` on is not granted, as (start, count).

    granted: sorted and without overlaps, as host.subid makes it.
    """
    lacking = []
    end = start + count
    for low, size in granted:
        if low >= end or start >= end:
            break
        if low > start:
            lacking.append((start, low - start))
        start = max(start, low + size)
    if start < end:
        lacking.append((start, end - start))
    return lacking


def is_mapped(ranges: Ranges, id: int) -> bool:
    """Whether the container's id means somebody outside."""
    return to_host(ranges, id) is not None


def to_host(ranges: Ranges, id: int) -> int | None:
    """The id outside for the container's id; None when it is not mapped."""
    for r in ranges:
        if r.container <= id < r.container + r.size:
            return r.host + id - r.container
    return None


def to_container(ranges: Ranges, id: int) -> int:
    """How the outside id looks inside: the overflow id when it is not mapped."""
    for r in ranges:
        if r.host <= id < r.host + r.size:
            return r.container + id - r.host
    return OVERFLOW_ID
