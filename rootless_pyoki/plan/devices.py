"""/linux/devices and the nodes every container has (config-linux.md "Default Devices").

A user namespace may not make device nodes, but it may bind the host's (user_namespaces(7)).
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.idmap import is_mapped
from rootless_pyoki.plan.plan import Device

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.notes import Notes
    from rootless_pyoki.plan.plan import IdRange, Mount

DEFAULTS = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
# character devices that lie at the same place on every host (Documentation/admin-guide/devices.txt)
HOST_PATHS = {(major, minor): path for path, major, minor in DEFAULTS}
HOST_PATHS[1, 11] = "/dev/kmsg"
HOST_PATHS[10, 200] = "/dev/net/tun"
HOST_PATHS[10, 229] = "/dev/fuse"

_TYPES = {"c": c.S_IFCHR, "u": c.S_IFCHR, "b": c.S_IFBLK, "p": c.S_IFIFO}


def make(
    config: dict[str, Any],
    mounts: tuple[Mount, ...],
    *,
    mknod: bool,
    uids: tuple[IdRange, ...] | None,
    gids: tuple[IdRange, ...] | None,
    notes: Notes,
) -> tuple[Device, ...]:
    """The default nodes, then those of the configuration, which replace defaults of their path.

    mknod: whether we may make nodes; they are bound from the host otherwise.
    uids, gids: the container's maps, None if not known.
    Where the configuration binds something to /dev or to a default node's path, that stays.
    """
    entries = (config.get("linux") or {}).get("devices") or ()
    asked = [
        _make_one(entry, f"/linux/devices/{index}", mknod, uids, gids, notes)
        for index, entry in enumerate(entries)
    ]
    taken = {device.path for device in asked}
    for mount in mounts:
        destination = mount.destination.rstrip("/")
        if mount.kind == "bind":
            if destination == "/dev":
                return tuple(asked)
            taken.add(destination)
    kind = "mknod" if mknod else "bind"
    defaults = [
        Device(
            path=path,
            kind=kind,
            source=path,
            mode=c.S_IFCHR | 0o666,
            major=major,
            minor=minor,
            uid=0,
            gid=0,
            pointer="",
        )
        for path, major, minor in DEFAULTS
        if path not in taken
    ]
    return (*defaults, *asked)


def _make_one(
    entry: dict[str, Any],
    pointer: str,
    mknod: bool,
    uids: tuple[IdRange, ...] | None,
    gids: tuple[IdRange, ...] | None,
    notes: Notes,
) -> Device:
    path, letter = entry["path"], entry["type"]
    major, minor = entry.get("major", 0), entry.get("minor", 0)
    uid, gid = entry.get("uid") or 0, entry.get("gid") or 0
    kind, source = "mknod", ""
    if letter == "p":
        kind, major, minor = "fifo", 0, 0
    elif not mknod:
        kind = "bind"
        source = (HOST_PATHS.get((major, minor)) if letter != "b" else None) or path
        given = [name for name in ("fileMode", "uid", "gid") if entry.get(name) is not None]
        if given:
            notes.tell(
                pointer, f"{path} is the host's {source}: {', '.join(given)} cannot be changed"
            )
    if kind != "bind":
        for name, number, ids in (("uid", uid, uids), ("gid", gid, gids)):
            if ids is not None and not is_mapped(ids, number):
                raise SpecError(f"{name} {number} is not mapped", pointer=f"{pointer}/{name}")
    mode = entry.get("fileMode")
    return Device(
        path=path,
        kind=kind,
        source=source,
        mode=_TYPES[letter] | (0o666 if mode is None else mode & 0o7777),
        major=major,
        minor=minor,
        uid=uid,
        gid=gid,
        pointer=pointer,
    )
