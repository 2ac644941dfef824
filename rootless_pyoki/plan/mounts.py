"""/mounts: what is mounted where, and what the host has instead where the kernel would refuse.

config.md "Mounts". A user namespace may mount what shows its own namespaces, tmpfs and a few more
(mount_namespaces(7)), and bind what it sees; ids in options must be mapped.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.idmap import is_mapped
from rootless_pyoki.plan.mount_options import SYMLINKS, Options, parse
from rootless_pyoki.plan.plan import Mount
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.notes import Notes
    from rootless_pyoki.plan.plan import IdRange

ALL_TREE_SAFE = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC


class Surroundings:
    """What a mount's meaning depends on beside its own entry."""

    __slots__ = (
        "bundle",
        "caller_gids",
        "caller_uids",
        "gids",
        "joined",
        "label",
        "new",
        "privileged",
        "uids",
    )

    def __init__(
        self,
        *,
        bundle: str,
        new: set[str],
        joined: set[str],
        uids: tuple[IdRange, ...] | None,
        gids: tuple[IdRange, ...] | None,
        caller_uids: tuple[IdRange, ...],
        caller_gids: tuple[IdRange, ...],
        privileged: bool,
        label: str,
    ) -> None:
        """new, joined: the container's namespaces by kind; uids, gids: its maps, None when they are not
        known (a joined user namespace).

        privileged: whether the caller may mount; label: the SELinux context of new filesystems.
        """
        self.bundle = bundle
        self.new = new
        self.joined = joined
        self.uids = uids
        self.gids = gids
        self.caller_uids = caller_uids
        self.caller_gids = caller_gids
        self.privileged = privileged
        self.label = label

    def strange_pids(self) -> bool:
        """Does the pid namespace belong to another user namespace than the container's new one?"""
        return "user" in self.new and "pid" not in self.new and "pid" not in self.joined


def make(config: dict[str, Any], around: Surroundings, notes: Notes) -> tuple[Mount, ...]:
    """All of /mounts, in order.

    Raises SpecError for what cannot be, UnsupportedError for what the kernel would refuse.
    """
    entries = config.get("mounts") or ()
    return tuple(
        _make_one(entry, f"/mounts/{index}", around, notes) for index, entry in enumerate(entries)
    )


def _make_one(entry: dict[str, Any], pointer: str, around: Surroundings, notes: Notes) -> Mount:
    destination = entry["destination"]
    if destination[:1] != "/":
        notes.tell(f"{pointer}/destination", f"{destination} is taken as /{destination}")
        destination = f"/{destination}"
    words = entry.get("options") or []
    options = parse(words)
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
    if not options.remount and not destination.strip("/."):
        raise UnsupportedError(
            "a mount on / would cover the root filesystem with all that lies in it",
            pointer=f"{pointer}/destination",
            hint="name the tree in /root/path instead",
        )
    if kind == "proc" and around.strange_pids() and not options.remount:
        raise UnsupportedError(
            "the kernel refuses a new user namespace the proc of a pid namespace that is not its own",
            pointer=pointer,
            hint='give the container a pid namespace, or bind the host\'s: "type": "none", '
            '"source": "/proc", "options": ["rbind"]',
        )
    _look_at_rare(kind, words, options, pointer, around, notes)
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
        superblock_flags=options.superblock & ~c.MS_MANDLOCK,
        data=_data(kind, options, pointer, around, notes),
        copy_up=options.copy_up,
        remount=options.remount,
        fallback=_FALLBACKS.get(kind, ""),
        pointer=pointer,
        options=tuple(words),
    )
    if mount.fallback and not options.remount:
        mount = _host_instead(mount, around, notes)
    if options.special or "uidMappings" in entry:
        return _special(mount, entry, options, around, notes)
    return mount


def _check_bind(options: Options, source: str, destination: str, pointer: str) -> None:
    if not source and not options.remount:
        raise SpecError(f"bind mount on {destination} has no source", pointer=f"{pointer}/source")
    for index, text in options.data:
        raise SpecError(
            f"bind mount on {destination}: unknown option {text}",
            pointer=f"{pointer}/options/{index}",
        )


def _look_at_rare(
    kind: str,
    words: list[str],
    options: Options,
    pointer: str,
    around: Surroundings,
    notes: Notes,
) -> None:
    """Options that want a filesystem of a certain kind, and types that need something first."""
    if options.copy_up and (kind != "tmpfs" or options.remount):
        index = words.index("tmpcopyup")
        raise SpecError("tmpcopyup is for a new tmpfs", pointer=f"{pointer}/options/{index}")
    if options.superblock:
        _superblock_notes(kind, options, pointer, notes)
    fuse = kind[:4] == "fuse" and not options.remount
    if not (fuse or kind == "overlay" or around.label):
        return
    from rootless_pyoki.plan import filesystems

    if fuse:
        filesystems.check_fuse(kind, options.data, pointer)
    if kind == "overlay":
        options.data = filesystems.overlay(options.data, around.bundle)
    if around.label and not options.remount:
        options.data = filesystems.label(kind, around.label, options.data)


def _superblock_notes(kind: str, options: Options, pointer: str, notes: Notes) -> None:
    if options.superblock & c.MS_MANDLOCK:
        at = f"{pointer}/options/{options.flag_at[c.MS_MANDLOCK]}"
        notes.pass_over(at, "mand: mandatory locking left Linux with 5.15")
    if kind != "bind":
        return
    for flag, index in options.flag_at.items():
        if options.superblock & flag & ~c.MS_MANDLOCK:
            notes.pass_over(
                f"{pointer}/options/{index}",
                "an option of the filesystem, which a bind mount leaves as it is",
            )


def _special(
    mount: Mount, entry: dict[str, Any], options: Options, around: Surroundings, notes: Notes
) -> Mount:
    """Mappings of this mount's own, and crun's options about symbolic links."""
    from rootless_pyoki.plan import idmapped

    pointer = mount.pointer
    links = tuple([text for _, text in options.special if text in SYMLINKS])
    for index, text in options.special:
        if text in SYMLINKS and (options.remount or (mount.kind != "bind" and text[0] != "d")):
            raise SpecError(
                f"{text} is for bind mounts" if not options.remount else f"remount with {text}",
                pointer=f"{pointer}/options/{index}",
            )
    mapping = idmapped.make(
        entry,
        options.special,
        bind=mount.kind == "bind",
        remount=options.remount,
        pointer=pointer,
        around=around,
        notes=notes,
    )
    return replace(mount, special=links, idmap=mapping)


_FALLBACKS = {
    "sysfs": "/sys",
    "mqueue": "/dev/mqueue",
    "cgroup": "/sys/fs/cgroup",
    "cgroup2": "/sys/fs/cgroup",
}


def _host_instead(mount: Mount, around: Surroundings, notes: Notes) -> Mount:
    """The host's /sys or /dev/mqueue, where it is known that the kernel will refuse a new one.

    A filesystem that shows a namespace may be mounted only by whom that namespace belongs to.
    """
    if "user" not in around.new:
        return mount
    if mount.kind == "sysfs" and "network" not in around.new:
        why = "sysfs needs a new network namespace beside the new user namespace"
        # the host's tree holds what the container may not write to, cgroups among it
        lasting = c.MOUNT_ATTR_RDONLY | mount.attr_set & ALL_TREE_SAFE
    elif mount.kind == "mqueue" and "ipc" not in around.new:
        why = "mqueue needs a new ipc namespace beside the new user namespace"
        lasting = 0
    else:
        return mount
    readonly = " read-only" if lasting & c.MOUNT_ATTR_RDONLY else ""
    notes.tell(mount.pointer, f"{why}: the host's {mount.fallback} is bound{readonly}")
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
    kind: str, options: Options, pointer: str, around: Surroundings, notes: Notes
) -> tuple[str, ...]:
    """Options for the filesystem, with the ids that it names checked against the maps."""
    if kind not in ("devpts", "tmpfs"):
        return tuple([text for _, text in options.data])
    kept = []
    for index, text in options.data:
        key, _, value = text.partition("=")
        ids = around.uids if key == "uid" else around.gids if key == "gid" else None
        if ids is not None and value.isdecimal() and not is_mapped(ids, int(value)):
            at = f"{pointer}/options/{index}"
            if kind == "tmpfs":
                raise SpecError(f"{key} {value} is not mapped", pointer=at)
            notes.tell(at, f"{text} left out: {key} {value} is not mapped")
            continue
        kept.append(text)
    return tuple(kept)
