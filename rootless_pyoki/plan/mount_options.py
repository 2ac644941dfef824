"""The words of a mount's `options` (config-linux.md "Linux mount options", mount(8)).

`ro` and its like are attributes of the mount (mount_setattr(2)), `sync` and its like flags of the
filesystem (mount(2)), and what no table knows is data for the filesystem.
"""

from __future__ import annotations

from rootless_pyoki.kernel import constants as c

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
# crun's own: about links at either end of a bind; the last two are about ids
SYMLINKS = ("copy-symlink", "src-nofollow", "dest-nofollow")
IDMAPS = ("idmap", "ridmap")
_TABLE.update((name, ("special", 0, 0)) for name in SYMLINKS + IDMAPS)

OPTIONS = tuple(_TABLE)  # every option that is understood here, for `features`


class Options:
    """What the options of one mount come to; a plain working object, filled by parse()."""

    __slots__ = (
        "attributes",
        "bind",
        "copy_up",
        "data",
        "flag_at",
        "propagation",
        "recursive",
        "remount",
        "special",
        "superblock",
    )

    def __init__(self) -> None:
        self.attributes = [[0, 0], [0, 0]]  # [set, clear] for the mount, for its whole tree
        self.superblock = 0
        self.propagation = 0
        self.bind = self.recursive = self.remount = self.copy_up = False
        # (index of the option, text)
        self.data: list[tuple[int, str]] = []
        self.special: list[tuple[int, str]] = []
        self.flag_at: dict[int, int] = {}  # MS_* flag of the filesystem -> index of its option


def parse(options: list[str]) -> Options:
    """The last word of contradicting options holds, as in mount(8)."""
    out = Options()
    for index, option in enumerate(options):
        what, first, second = _TABLE.get(option, ("data", 0, 0))
        if what == "data":
            key = option.partition("=")[0]
            (out.special if key in IDMAPS else out.data).append((index, option))
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
            out.flag_at[first] = index
        elif what == "atime":
            _undo_atime(out.attributes[second], first)
        elif what == "remount":
            out.remount = True
        elif what == "copy_up":
            out.copy_up = True
        else:
            out.special.append((index, option))
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
