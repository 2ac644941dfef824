"""/mounts: options parsed into attributes, flags and data (config-linux.md "Linux mount options").

mount(8), mount_setattr(2). `ro` and its like are attributes of the mount, `sync` and its like flags
of the filesystem, and what no table knows is handed to the filesystem as data.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.plan import Mount, Note, holds
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.plan import IdRange

# option -> (attributes to set, attributes to clear)
ATTRIBUTES = {
    "ro": (c.MOUNT_ATTR_RDONLY, 0),
    "rw": (0, c.MOUNT_ATTR_RDONLY),
    "nosuid": (c.MOUNT_ATTR_NOSUID, 0),
    "suid": (0, c.MOUNT_ATTR_NOSUID),
    "nodev": (c.MOUNT_ATTR_NODEV, 0),
    "dev": (0, c.MOUNT_ATTR_NODEV),
    "noexec": (c.MOUNT_ATTR_NOEXEC, 0),
    "exec": (0, c.MOUNT_ATTR_NOEXEC),
    "nodiratime": (c.MOUNT_ATTR_NODIRATIME, 0),
    "diratime": (0, c.MOUNT_ATTR_NODIRATIME),
    "nosymfollow": (c.MOUNT_ATTR_NOSYMFOLLOW, 0),
    "symfollow": (0, c.MOUNT_ATTR_NOSYMFOLLOW),
    # one of three values, not bits: the whole field is cleared to set one
    "relatime": (c.MOUNT_ATTR_RELATIME, c.MOUNT_ATTR__ATIME),
    "noatime": (c.MOUNT_ATTR_NOATIME, c.MOUNT_ATTR__ATIME),
    "strictatime": (c.MOUNT_ATTR_STRICTATIME, c.MOUNT_ATTR__ATIME),
}
# option -> what it undoes; the kernel's default, relatime, comes instead (mount(8))
ATIME_UNDONE = {
    "atime": c.MOUNT_ATTR_NOATIME,
    "nostrictatime": c.MOUNT_ATTR_STRICTATIME,
    "norelatime": c.MOUNT_ATTR_RELATIME,
}
RECURSIVE_ATTRIBUTES = {f"r{option}": pair for option, pair in ATTRIBUTES.items()}
RECURSIVE_ATIME_UNDONE = {f"r{option}": value for option, value in ATIME_UNDONE.items()}

# option -> (MS_* flags of the filesystem to set, to clear)
SUPERBLOCK = {
    "sync": (c.MS_SYNCHRONOUS, 0),
    "async": (0, c.MS_SYNCHRONOUS),
    "dirsync": (c.MS_DIRSYNC, 0),
    "lazytime": (c.MS_LAZYTIME, 0),
    "nolazytime": (0, c.MS_LAZYTIME),
    "iversion": (c.MS_I_VERSION, 0),
    "noiversion": (0, c.MS_I_VERSION),
    "silent": (c.MS_SILENT, 0),
    "loud": (0, c.MS_SILENT),
    "mand": (c.MS_MANDLOCK, 0),
    "nomand": (0, c.MS_MANDLOCK),
    "acl": (c.MS_POSIXACL, 0),
    "noacl": (0, c.MS_POSIXACL),
}

PROPAGATION = {
    "private": c.MS_PRIVATE,
    "shared": c.MS_SHARED,
    "slave": c.MS_SLAVE,
    "unbindable": c.MS_UNBINDABLE,
    "rprivate": c.MS_PRIVATE | c.MS_REC,
    "rshared": c.MS_SHARED | c.MS_REC,
    "rslave": c.MS_SLAVE | c.MS_REC,
    "runbindable": c.MS_UNBINDABLE | c.MS_REC,
}

_LOCAL, _WHOLE_TREE = 0, 1
# one lookup an option: -> (what it changes, ...)
_TABLE: dict[str, tuple[str, int, int]] = {"defaults": ("nothing", 0, 0)}
_TABLE.update((name, ("attribute", a, b)) for name, (a, b) in ATTRIBUTES.items())
_TABLE.update((name, ("recursive", a, b)) for name, (a, b) in RECURSIVE_ATTRIBUTES.items())
_TABLE.update((name, ("atime", value, _LOCAL)) for name, value in ATIME_UNDONE.items())
_TABLE.update((name, ("atime", v, _WHOLE_TREE)) for name, v in RECURSIVE_ATIME_UNDONE.items())
_TABLE.update((name, ("superblock", a, b)) for name, (a, b) in SUPERBLOCK.items())
_TABLE.update((name, ("propagation", value, 0)) for name, value in PROPAGATION.items())
_TABLE.update(
    {
        "bind": ("bind", 0, 0),
        "rbind": ("bind", 1, 0),
        "remount": ("remount", 0, 0),
        "tmpcopyup": ("copy_up", 0, 0),
    }
)

OPTIONS = tuple(_TABLE)  # every option that is understood here, for `features`
ALL_TREE_SAFE = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC


class Options:
    """What the options of one mount come to; a plain working object, filled by parse()."""

    __slots__ = (
        "attributes",
        "bind",
        "copy_up",
        "data",
        "propagation",
        "recursive",
        "remount",
        "superblock",
    )

    def __init__(self) -> None:
        self.attributes = [[0, 0], [0, 0]]  # [set, clear] for the mount, for its whole tree
        self.superblock = 0
        self.propagation = 0
        self.bind = self.recursive = self.remount = self.copy_up = False
        self.data: list[tuple[int, str]] = []  # (index of the option, text)


def parse(options: list[str]) -> Options:
    """The last word of contradicting options holds, as in mount(8)."""
    out = Options()
    for index, option in enumerate(options):
        what, first, second = _TABLE.get(option, ("data", 0, 0))
        if what == "data":
            out.data.append((index, option))
        elif what == "attribute" or what == "recursive":
            pair = out.attributes[what == "recursive"]
            pair[0] = pair[0] & ~second | first
            pair[1] = pair[1] & ~first | second
        elif what == "propagation":
            out.propagation = first
        elif what == "bind":
            out.bind = True
            out.recursive = out.recursive or first == 1
        elif what == "superblock":
            out.superblock = out.superblock & ~second | first
        elif what == "atime":
            _undo_atime(out.attributes[second], first)
        elif what == "remount":
            out.remount = True
        elif what == "copy_up":
            out.copy_up = True
    return out


def _undo_atime(pair: list[int], undone: int) -> None:
    """`atime` after `strictatime` changes nothing; after `noatime`, or alone, it means relatime."""
    chosen = bool(pair[1] & c.MOUNT_ATTR__ATIME)
    if chosen and pair[0] & c.MOUNT_ATTR__ATIME != undone:
        return
    pair[0] &= ~c.MOUNT_ATTR__ATIME
    if undone == c.MOUNT_ATTR_RELATIME:
        pair[1] &= ~c.MOUNT_ATTR__ATIME
    else:
        pair[1] |= c.MOUNT_ATTR__ATIME


class Surroundings:
    """What a mount's meaning depends on beside its own entry."""

    __slots__ = ("bundle", "gids", "new_ipc", "new_network", "new_user", "uids")

    def __init__(
        self,
        *,
        bundle: str,
        new_user: bool,
        new_network: bool,
        new_ipc: bool,
        uids: tuple[IdRange, ...] | None,
        gids: tuple[IdRange, ...] | None,
    ) -> None:
        """uids, gids: the container's maps, None when they are not known (a joined namespace)."""
        self.bundle = bundle
        self.new_user = new_user
        self.new_network = new_network
        self.new_ipc = new_ipc
        self.uids = uids
        self.gids = gids


def make(config: dict[str, Any], around: Surroundings, notes: list[Note]) -> tuple[Mount, ...]:
    """All of /mounts, in order.

    Raises SpecError for what cannot be, UnsupportedError for idmapped mounts.
    """
    entries = config.get("mounts") or ()
    return tuple(
        _make_one(entry, f"/mounts/{index}", around, notes) for index, entry in enumerate(entries)
    )


def _make_one(
    entry: dict[str, Any], pointer: str, around: Surroundings, notes: list[Note]
) -> Mount:
    destination = entry["destination"]
    if destination[:1] != "/":
        notes.append(
            Note(pointer=f"{pointer}/destination", text=f"{destination} is taken as /{destination}")
        )
        destination = f"/{destination}"
    for key in ("uidMappings", "gidMappings"):
        if entry.get(key):
            raise UnsupportedError(
                f"idmapped mount of {destination}: mappings of single mounts are not supported",
                pointer=f"{pointer}/{key}",
                hint="map the ids of the whole container with /linux/uidMappings instead",
            )
    options = parse(entry.get("options") or [])
    kind = entry.get("type") or ""
    source = entry.get("source") or ""
    if options.bind or kind == "bind":
        _check_bind(options, source, destination, pointer)
        kind = "bind"
        if source and source[0] != "/":
            source = f"{around.bundle}/{source}"
    elif not kind and not options.remount:
        raise SpecError(
            f"mount on {destination} has neither a type nor option bind", pointer=f"{pointer}/type"
        )
    if options.remount and options.data:
        index, text = options.data[0]
        raise UnsupportedError(
            f"remount of {destination}: {text} would change the filesystem itself",
            pointer=f"{pointer}/options/{index}",
        )
    mount = Mount(
        destination=destination,
        kind="cgroup2" if kind == "cgroup" else kind,
        source=source or kind,
        recursive=options.recursive,
        attr_set=options.attributes[0][0],
        attr_clear=options.attributes[0][1],
        recursive_set=options.attributes[1][0],
        recursive_clear=options.attributes[1][1],
        propagation=options.propagation,
        superblock_flags=options.superblock,
        data=_data(kind, options, pointer, around, notes),
        copy_up=options.copy_up,
        remount=options.remount,
        fallback=_FALLBACKS.get(kind, ""),
        pointer=pointer,
    )
    if mount.fallback and not options.remount:
        return _host_instead(mount, around, notes)
    return mount


def _check_bind(options: Options, source: str, destination: str, pointer: str) -> None:
    if not source and not options.remount:
        raise SpecError(f"bind mount on {destination} has no source", pointer=f"{pointer}/source")
    for index, text in options.data:
        at = f"{pointer}/options/{index}"
        if text.partition("=")[0] in ("idmap", "ridmap"):
            raise UnsupportedError(
                f"bind mount on {destination}: option {text} is not supported", pointer=at
            )
        raise SpecError(f"bind mount on {destination}: unknown option {text}", pointer=at)


_FALLBACKS = {
    "sysfs": "/sys",
    "mqueue": "/dev/mqueue",
    "cgroup": "/sys/fs/cgroup",
    "cgroup2": "/sys/fs/cgroup",
}


def _host_instead(mount: Mount, around: Surroundings, notes: list[Note]) -> Mount:
    """The host's /sys or /dev/mqueue, where it is known that the kernel will refuse a new one.

    A filesystem that shows a namespace may be mounted only by whom that namespace belongs to.
    """
    if not around.new_user:
        return mount
    if mount.kind == "sysfs" and not around.new_network:
        why = "sysfs needs a new network namespace beside the new user namespace"
        # the host's tree holds what the container may not write to, cgroups among it
        lasting = c.MOUNT_ATTR_RDONLY | mount.attr_set & ALL_TREE_SAFE
    elif mount.kind == "mqueue" and not around.new_ipc:
        why = "mqueue needs a new ipc namespace beside the new user namespace"
        lasting = 0
    else:
        return mount
    readonly = " read-only" if lasting & c.MOUNT_ATTR_RDONLY else ""
    notes.append(
        Note(pointer=mount.pointer, text=f"{why}: the host's {mount.fallback} is bound{readonly}")
    )
    return replace(
        mount,
        kind="bind",
        source=mount.fallback,
        recursive=True,
        recursive_set=mount.recursive_set | lasting,
        attr_set=mount.attr_set | lasting & c.MOUNT_ATTR_RDONLY,
        attr_clear=mount.attr_clear & ~lasting,
        recursive_clear=mount.recursive_clear & ~lasting,
        superblock_flags=0,
        data=(),
        fallback="",
    )


def _data(
    kind: str, options: Options, pointer: str, around: Surroundings, notes: list[Note]
) -> tuple[str, ...]:
    """Options for the filesystem, with the ids that it names checked against the maps."""
    if kind not in ("devpts", "tmpfs"):
        for index, text in options.data:
            if text.partition("=")[0] in ("idmap", "ridmap"):
                raise UnsupportedError(
                    f"idmapped {kind} mount: option {text} is not supported",
                    pointer=f"{pointer}/options/{index}",
                )
        return tuple([text for _, text in options.data])
    kept = []
    for index, text in options.data:
        key, _, value = text.partition("=")
        ids = around.uids if key == "uid" else around.gids if key == "gid" else None
        if ids is not None and value.isdecimal() and not holds(ids, int(value)):
            at = f"{pointer}/options/{index}"
            if kind == "tmpfs":
                raise SpecError(f"{key} {value} is not mapped", pointer=at)
            notes.append(Note(pointer=at, text=f"{text} left out: {key} {value} is not mapped"))
            continue
        kept.append(text)
    return tuple(kept)
