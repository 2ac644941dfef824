"""What the options of a mount set and clear: attributes, propagation, and option `remount`.

mount_setattr(2); what a user namespace may not change: mount_namespaces(7).
"""

from __future__ import annotations

from rootless_pyoki.apply import mounting
from rootless_pyoki.errors import PyokiError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import paths, syscalls
from rootless_pyoki.plan import mount_options
from rootless_pyoki.plan.plan import Note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.plan.plan import Mount

ATIMES = c.MOUNT_ATTR__ATIME | c.MOUNT_ATTR_NODIRATIME
_SHOWN = {
    c.MOUNT_ATTR_RDONLY: c.ST_RDONLY,
    c.MOUNT_ATTR_NOSUID: c.ST_NOSUID,
    c.MOUNT_ATTR_NODEV: c.ST_NODEV,
    c.MOUNT_ATTR_NOEXEC: c.ST_NOEXEC,
    c.MOUNT_ATTR_NOSYMFOLLOW: c.ST_NOSYMFOLLOW,
}


def change(mount: Mount, tree: int, tell: Callable[[Note], None]) -> None:
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
                    if error.errno == c.EPERM and attr_clear & ~ATIMES:
                        raise _locked(mount, tree, error, recursive) from None
                    raise
                text = f"access times of {mount.destination} stay as they are: {error}"
                tell(Note(pointer=f"{mount.pointer}/options", text=text))


def _locked(mount: Mount, tree: int, error: SyscallError, recursive: bool) -> PyokiError:
    """Name the option that would take off what the parent user namespace has locked."""
    held = syscalls.fstatfs(tree).flags
    table = mount_options.RECURSIVE_ATTRIBUTES if recursive else mount_options.ATTRIBUTES
    pointer, word = f"{mount.pointer}/options", "an option"
    for index, option in enumerate(mount.options):
        cleared = table.get(option, (0, 0))[1] & ~ATIMES
        # a bound tree may have it deeper down; which of several words it was, nobody says
        if cleared and (recursive or held & _SHOWN[cleared]):
            pointer, word = f"{mount.pointer}/options/{index}", option
    return from_oserror(
        error,
        f"{word} on {mount.destination}: the mount {mount.source} has the opposite from outside",
        pointer=pointer,
        hint="what a user namespace was given it cannot take off, mount_namespaces(7): leave the option "
        "out, or change the mount on the host",
    )


def set_propagation(mount: Mount, tree: int) -> None:
    kind = mount.propagation & ~c.MS_REC
    if kind:
        mounting.set_propagation(tree, kind, recursive=bool(mount.propagation & c.MS_REC))


def remount(mount: Mount, root: int, tell: Callable[[Note], None]) -> None:
    """Option `remount`: change what is mounted at the destination already.

    The filesystem itself only where an option is about it: it may belong to somebody else.
    """
    target = paths.resolve(root, mount.destination)
    try:
        if mount.kind != "bind" and (
            mount.data or any(word in mount_options.SUPERBLOCK for word in mount.options)
        ):
            flags, changes = mount.superblock_flags, (mount.attr_set, mount.attr_clear)
            if "async" not in mount.options and syscalls.fstatfs(target).flags & c.ST_SYNCHRONOUS:
                flags |= c.MS_SYNCHRONOUS
            mounting.reconfigure(target, flags, list(mount.data), *changes)
        change(mount, target, tell)
        set_propagation(mount, target)
    finally:
        syscalls.close(target)
