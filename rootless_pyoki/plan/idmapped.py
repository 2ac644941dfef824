"""Idmapped mounts: options idmap and ridmap, uidMappings and gidMappings of single mounts.

config.md "Mounts" and "Linux mount options"; mount_setattr(2) "ID-mapped mounts". In a mapping,
containerID is an id as the filesystem has it, hostID what it is shown as, counted where the runtime
is called. crun's spelling `idmap=uids=0-1-10#10-11-10;gids=0-1-10` says the same in an option; with
`@` before the numbers the second one is an id of the container.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.idmap import merge, split
from rootless_pyoki.plan.mount_options import IDMAPS
from rootless_pyoki.plan.plan import IdRange, MountIdmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from rootless_pyoki.plan.mounts import Surroundings
    from rootless_pyoki.plan.notes import Notes

    Ranges = tuple[IdRange, ...]


def make(
    entry: dict[str, Any],
    special: list[tuple[int, str]],
    *,
    bind: bool,
    remount: bool,
    pointer: str,
    around: Surroundings,
    notes: Notes,
) -> MountIdmap | None:
    """The mapping of a mount, None when neither mappings nor an option ask for one.

    special: (index, text) of its options that are no flags. bind: the filesystem is the host's.
    Raises SpecError for what says nothing or two things, UnsupportedError for what the kernel refuses.
    """
    index, option = _option(special, pointer)
    given = bool(entry.get("uidMappings"))
    if not option and not given:
        return None
    at = f"{pointer}/options/{index}" if option else f"{pointer}/uidMappings"
    if remount:
        raise UnsupportedError(
            "a mount that is attached already cannot be idmapped any more, mount_setattr(2)",
            pointer=at,
        )
    if bind and not around.privileged:
        _refuse_bind(entry, at)
    if around.uids is None or around.gids is None:
        raise UnsupportedError(
            "idmapped mount: the maps of a joined user namespace are not known beforehand",
            pointer=at,
            hint="map the source before, or let the container have a user namespace of its own",
        )
    word, _, text = option.partition("=")
    if text and given:
        raise SpecError("both the option and uidMappings give a mapping", pointer=at)
    if given and not option and bind:
        notes.tell(at, "neither idmap nor ridmap among the options: taken as idmap")
    uids, gids = _mappings(entry, text, at, around)
    if not uids and "user" not in around.new:
        raise SpecError(
            f"{option} without uidMappings and gidMappings, and the container has no user namespace "
            "whose mapping it could take",
            pointer=at,
        )
    inside = "user" in around.new and not bind
    return MountIdmap(
        uids=_ranges(uids, around.uids, around.caller_uids, "uid", inside, at, given, pointer),
        gids=_ranges(gids, around.gids, around.caller_gids, "gid", inside, at, given, pointer),
        recursive=word == "ridmap",
        pointer=at,
    )


def _option(special: list[tuple[int, str]], pointer: str) -> tuple[int, str]:
    """(index, text) of the one idmap option, (-1, "") without; the last holds."""
    found = (-1, "")
    for index, text in special:
        word, equals, value = text.partition("=")
        if word in IDMAPS:
            if equals and not value:
                raise SpecError(f"{text} gives no mapping", pointer=f"{pointer}/options/{index}")
            found = (index, text)
    return found


def _refuse_bind(entry: dict[str, Any], at: str) -> NoReturn:
    raise UnsupportedError(
        f"idmapped bind of {entry.get('source', '')}: mount_setattr(2) with MOUNT_ATTR_IDMAP wants "
        "CAP_SYS_ADMIN in the user namespace that mounted the filesystem, which the caller has not: "
        "operation not permitted (EPERM)",
        pointer=at,
        errno=c.EPERM,
        hint="map the ids of the whole container with /linux/uidMappings, or change the owner of the "
        "source once (podman unshare chown); a new tmpfs can be idmapped",
        id="IDMAP-HOST",
    )


def _mappings(
    entry: dict[str, Any], text: str, at: str, around: Surroundings
) -> tuple[list[IdRange], list[IdRange]]:
    if not text:
        return _given(entry.get("uidMappings")), _given(entry.get("gidMappings"))
    found: dict[str, list[IdRange]] = {}
    for part in text.split(";"):
        key, _, value = part.partition("=")
        ids = {"uids": around.uids, "gids": around.gids}.get(key)
        if ids is None or key in found:
            raise SpecError(f"{part}: wants uids=A-B-SIZE#... and gids=A-B-SIZE#...", pointer=at)
        found[key] = _parse(value, ids, at)
    if len(found) != 2:
        raise SpecError("both uids and gids must be mapped", pointer=at)
    return found["uids"], found["gids"]


def _given(mappings: list[dict[str, int]] | None) -> list[IdRange]:
    return [
        IdRange(container=m["containerID"], host=m["hostID"], size=m["size"])
        for m in mappings or ()
    ]


def _parse(text: str, ids: Ranges, at: str) -> list[IdRange]:
    """`0-1-10#20-30-5`; with @ the second number is an id of the container."""
    relative = text[:1] == "@"
    ranges = []
    for piece in text.lstrip("@").split("#"):
        words = piece.split("-")
        if len(words) != 3 or not all(word.isdecimal() for word in words) or not int(words[2]):
            raise SpecError(f"{piece!r} is not FROM-TO-SIZE", pointer=at)
        one = IdRange(container=int(words[0]), host=int(words[1]), size=int(words[2]))
        ranges += _outside(one, ids, at) if relative else [one]
    return ranges


def _outside(r: IdRange, ids: Ranges, at: str) -> list[IdRange]:
    """A range whose host ids are the container's, with those of the host."""
    found = []
    for line in ids:
        low, high = max(r.host, line.container), min(r.host + r.size, line.container + line.size)
        if low < high:
            start, host = r.container + low - r.host, line.host + low - line.container
            found.append(IdRange(container=start, host=host, size=high - low))
    if sum(one.size for one in found) != r.size:
        raise SpecError(f"ids from {r.host} on are not all mapped in the container", pointer=at)
    return found


def _inside(r: IdRange, ids: Ranges) -> list[IdRange]:
    """A range whose host ids are the host's, with those of the container."""
    turned = [IdRange(container=line.host, host=line.container, size=line.size) for line in ids]
    return [
        IdRange(container=piece.container, host=_turn(turned, piece.host), size=piece.size)
        for piece in split(r, tuple(turned))
    ]


def _turn(turned: list[IdRange], id: int) -> int:
    line = next(one for one in turned if one.container <= id < one.container + one.size)
    return line.host + id - line.container


def _ranges(
    wanted: list[IdRange],
    ids: Ranges,
    caller: Ranges,
    kind: str,
    inside: bool,
    at: str,
    given: bool,
    pointer: str,
) -> Ranges:
    """As the kernel takes them, each line within one of the parent namespace's.

    ids: the container's map; caller: the one of the caller's own namespace; inside: count in the
    container's namespace. Nothing wanted means the container's own mapping.
    """
    if not wanted:
        if not inside:
            return ids
        return tuple([IdRange(container=r.container, host=r.container, size=r.size) for r in ids])
    lines: list[IdRange] = []
    for index, r in enumerate(wanted):
        pieces = _inside(r, ids) if inside else split(r, caller)
        if sum(piece.size for piece in pieces) != r.size:
            whose = "the container's" if inside else "the caller's"
            raise UnsupportedError(
                f"idmapped mount: {kind}s {r.host} to {r.host + r.size - 1} are not all mapped in "
                f"{whose} user namespace",
                pointer=f"{pointer}/{kind}Mappings/{index}/hostID" if given else at,
                hint="hostID is an id outside, of those in hostID of /linux/"
                f"{kind}Mappings; what is not mapped there would belong to nobody"
                if inside
                else "",
            )
    for r in merge(wanted):
        lines += _inside(r, ids) if inside else split(r, caller)
    return tuple(lines)
