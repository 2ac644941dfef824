"""Carry out /mounts beneath the attached root.

Sources of binds are cloned by intermediate, while it still is the caller (mount_sources); init makes
the other filesystems, sets attributes on the detached mount, and attaches it by fd (mounting.py).
"""

from __future__ import annotations

from rootless_pyoki.apply import copy_up, foreign_proc, mounting
from rootless_pyoki.errors import HostError, PyokiError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, paths, syscalls
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.plan.plan import Device, Mount

ATIMES = c.MOUNT_ATTR__ATIME | c.MOUNT_ATTR_NODIRATIME
REFUSED = (c.EPERM, c.EBUSY, c.ENODEV, c.EACCES)
_FLAG_WORDS = ((c.MS_SYNCHRONOUS, "sync"), (c.MS_DIRSYNC, "dirsync"), (c.MS_LAZYTIME, "lazytime"))


def mount_sources(mounts: tuple[Mount, ...]) -> list[int]:
    """A detached clone for every bind, -1 for the others; in the new mount namespace, as the caller.

    Raises PyokiError with the pointer of the mount whose source is missing or out of reach.
    """
    return [
        _source(mount) if mount.kind == "bind" and not mount.remount else -1 for mount in mounts
    ]


def _source(mount: Mount) -> int:
    try:
        try:
            return mounting.clone(mount.source, recursive=mount.recursive)
        except SyscallError as error:
            if error.errno != c.EINVAL or mount.recursive:
                raise
            # a tree with mounts locked by the parent user namespace is only cloned whole
            return mounting.clone(mount.source, recursive=True)
    except SyscallError as error:
        raise from_oserror(
            error, f"bind {mount.source} to {mount.destination}", pointer=f"{mount.pointer}/source"
        ) from None


def device_sources(devices: tuple[Device, ...]) -> list[int]:
    """The same for devices that are bound from the host."""
    opened = []
    for device in devices:
        if device.kind != "bind":
            opened.append(-1)
            continue
        try:
            opened.append(mounting.clone(device.source, recursive=False))
        except SyscallError as error:
            raise from_oserror(
                error, f"bind device {device.source}", pointer=device.pointer
            ) from None
    return opened


def mount_all(
    mounts: tuple[Mount, ...],
    root: int,
    sources: list[int],
    tell: Callable[[Note], None],
    *,
    joined_pid: bool,
) -> None:
    """In the order of config.json. `tell` hears what the kernel made us do differently.

    joined_pid: the container's pid namespace is one that we stay outside of.
    """
    for mount, source in zip(mounts, sources, strict=True):
        try:
            if mount.remount:
                _remount(mount, root, tell)
            else:
                _mount(mount, root, source, tell, joined_pid)
        except SyscallError as error:
            raise _explain(mount, error) from None
        finally:
            if source >= 0:
                fds.close_quietly(source)


def _mount(
    mount: Mount, root: int, source: int, tell: Callable[[Note], None], joined_pid: bool
) -> None:
    target = _target(mount, root, source)
    try:
        if source >= 0:
            tree = source
        elif mount.kind == "proc" and joined_pid:
            tree = foreign_proc.make(_data(mount, target))
        else:
            tree, mount = _filesystem(mount, target, tell)
        if mount.copy_up:
            copy_up.copy(target, tree)
        _set_attributes(mount, tree, tell)
        mounting.attach(tree, target)
        _set_propagation(mount, tree)
        if tree != source:
            syscalls.close(tree)
    finally:
        syscalls.close(target)


def _target(mount: Mount, root: int, source: int) -> int:
    """The place to mount on, made when it is not there; a bound file needs a file."""
    if source >= 0 and syscalls.fstat(source).st_mode & c.S_IFMT != c.S_IFDIR:
        return paths.make_file(root, mount.destination)
    if mount.kind in ("proc", "sysfs"):
        return _real_directory(mount, root)
    return paths.make_directory(root, mount.destination)


def _real_directory(mount: Mount, root: int) -> int:
    """An image whose /proc or /sys is a symbolic link wants the real one elsewhere: refused.

    What was looked at is what is mounted on, even where somebody renames meanwhile.
    """
    parent, name = paths.parent(root, mount.destination)
    try:
        try:
            syscalls.mkdirat(parent, name, 0o755)
        except SyscallError as error:
            if error.errno not in (c.EEXIST, c.EROFS, c.EACCES, c.EPERM):
                raise
        return syscalls.openat(parent, name, c.O_PATH | c.O_DIRECTORY | c.O_NOFOLLOW)
    except SyscallError as error:
        if error.errno not in (c.ENOTDIR, c.ELOOP):
            raise
        raise HostError(
            f"{mount.destination} in the root filesystem is not a directory",
            pointer=f"{mount.pointer}/destination",
        ) from None
    finally:
        syscalls.close(parent)


def _filesystem(mount: Mount, target: int, tell: Callable[[Note], None]) -> tuple[int, Mount]:
    """A new filesystem, detached; what the host has instead, where the kernel refuses one.

    Also the mount as it is to be completed: the host's own trees stay read-only whatever is asked.
    """
    try:
        return mounting.make_filesystem(mount.kind, mount.source, _data(mount, target)), mount
    except SyscallError as error:
        if not mount.fallback or error.errno not in REFUSED:
            raise
        return _fall_back(mount, error, tell)


def _fall_back(
    mount: Mount, error: SyscallError, tell: Callable[[Note], None]
) -> tuple[int, Mount]:
    tree = mounting.clone(mount.fallback, recursive=True)
    if mount.kind in ("sysfs", "cgroup2"):
        # the host's own tree: never writable from inside (a container without a cgroup namespace
        # could otherwise move the host's processes)
        mounting.set_attributes(tree, c.MOUNT_ATTR_RDONLY, recursive=True)
        mount = replace(mount, attr_clear=mount.attr_clear & ~c.MOUNT_ATTR_RDONLY)
    tell(
        Note(
            pointer=mount.pointer,
            text=f"{mount.kind} on {mount.destination}: {error}; "
            f"the host's {mount.fallback} is bound instead",
        )
    )
    return tree, mount


def _data(mount: Mount, target: int) -> list[str]:
    words = list(mount.data)
    words += [word for flag, word in _FLAG_WORDS if mount.superblock_flags & flag]
    if mount.kind == "tmpfs" and not any(word.startswith("mode=") for word in words):
        # as runc and crun: a tmpfs takes the mode of the directory that it covers
        words.append(f"mode={syscalls.fstat(target).st_mode & 0o7777:o}")
    return words


def _set_attributes(mount: Mount, tree: int, tell: Callable[[Note], None]) -> None:
    """What the options set and clear, on the whole tree first.

    What the parent user namespace has locked cannot be cleared: an error. Access times of a mount of
    its are all locked (mount_namespaces(7)); nothing but speed hangs on them, so those only get a Note.
    """
    for attr_set, attr_clear, recursive in (
        (mount.recursive_set, mount.recursive_clear, True),
        (mount.attr_set, mount.attr_clear, False),
    ):
        for mask in (-1, ~ATIMES):
            if not (attr_set & mask or attr_clear & mask):
                break
            try:
                mounting.set_attributes(
                    tree,
                    attr_set & mask,
                    attr_clear & mask,
                    recursive=recursive,
                    attached=mount.remount,
                )
                break
            except SyscallError as error:
                if error.errno != c.EPERM or not (attr_set | attr_clear) & mask & ATIMES:
                    raise
                text = f"access times of {mount.destination} stay as they are: {error}"
                tell(Note(pointer=f"{mount.pointer}/options", text=text))


def _set_propagation(mount: Mount, tree: int) -> None:
    kind = mount.propagation & ~c.MS_REC
    if kind:
        mounting.set_propagation(tree, kind, recursive=bool(mount.propagation & c.MS_REC))


def _remount(mount: Mount, root: int, tell: Callable[[Note], None]) -> None:
    """Option `remount`: change what is mounted at the destination already."""
    target = paths.resolve(root, mount.destination)
    try:
        _set_attributes(mount, target, tell)
        _set_propagation(mount, target)
    finally:
        syscalls.close(target)


def _explain(mount: Mount, error: SyscallError) -> PyokiError:
    hint = ""
    if mount.kind == "proc" and error.errno == c.EPERM:
        hint = (
            "a new proc needs a pid namespace of the container's own, and no part of /proc covered "
            "around us (by an outer container); else bind /proc with type bind"
        )
    elif mount.kind == "sysfs" and error.errno == c.EPERM:
        hint = "sysfs needs a network namespace of our own; bind the host's /sys instead"
    doing = f"mount {mount.kind} on {mount.destination}"
    told = from_oserror(error, doing, pointer=mount.pointer, hint=hint)
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
