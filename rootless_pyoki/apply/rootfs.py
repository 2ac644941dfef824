"""The container's root: cloned, attached, completed and entered.

Everything beneath it is reached by file descriptors (kernel.paths); pivot_root(2).
"""

from __future__ import annotations

from rootless_pyoki.apply import mounting
from rootless_pyoki.apply.places import Places
from rootless_pyoki.errors import HostError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import paths, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.plan.plan import Plan, Rootfs


def cut_propagation(rootfs: Rootfs) -> None:
    """Nothing that is mounted from here on reaches the caller's mount namespace."""
    kind = rootfs.propagation & ~c.MS_REC
    flag = c.MS_PRIVATE if kind == c.MS_PRIVATE else c.MS_SLAVE
    try:
        syscalls.mount(None, "/", None, flag | c.MS_REC, None)
    except SyscallError as error:
        raise from_oserror(error, "take / out of the caller's propagation") from None


def attach(rootfs: Rootfs) -> int:
    """Clone the rootfs onto itself, as the caller; returns the new mount's root as an fd.

    pivot_root wants a mount point, and mounts can only be made on what is attached.
    """
    try:
        here = syscalls.openat(c.AT_FDCWD, rootfs.path, c.O_PATH | c.O_DIRECTORY)
        tree = mounting.clone(rootfs.path, recursive=True)
        mounting.attach(tree, here)
        syscalls.close(here)
    except SyscallError as error:
        raise from_oserror(error, "bind the root filesystem", pointer="/root/path") from None
    return tree


def places(plan: Plan) -> Places:
    """The mounts that make_readonly() will look into, to be held from when they are made."""
    return Places(plan.mounts, (*plan.rootfs.readonly_paths, *plan.rootfs.masked_paths))


def make_readonly(rootfs: Rootfs, root: int, places: Places) -> None:
    """readonlyPaths, maskedPaths and a read-only root; paths that are not there are passed over."""
    for index, path in enumerate(rootfs.readonly_paths):
        pointer = f"/linux/readonlyPaths/{index}"
        if _protect(places, root, path, pointer, _bind_readonly):
            places.covered(path, hidden=False)
    null = _null_device(root) if rootfs.masked_paths else -1
    empty = -1
    for index, path in enumerate(rootfs.masked_paths):
        pointer = f"/linux/maskedPaths/{index}"
        empty = _mask(places, root, path, pointer, null, empty, rootfs.label)
    if rootfs.readonly:
        try:
            mounting.set_attributes(root, c.MOUNT_ATTR_RDONLY, attached=True)
        except SyscallError as error:
            raise from_oserror(error, "make / read-only", pointer="/root/readonly") from None


def _protect(
    places: Places, root: int, path: str, pointer: str, action: Callable[[int], None]
) -> bool:
    """Was it there, and is now protected?"""
    try:
        target = places.find(root, path, pointer)
    except SyscallError as error:
        if error.errno in (c.ENOENT, c.ENOTDIR, c.EACCES):
            return False
        raise from_oserror(error, f"find {path}", pointer=pointer) from None
    try:
        action(target)
    except SyscallError as error:
        raise from_oserror(error, f"protect {path}", pointer=pointer) from None
    finally:
        syscalls.close(target)
    return True


def _bind_readonly(target: int) -> None:
    tree = mounting.clone_fd(target)
    mounting.set_attributes(tree, c.MOUNT_ATTR_RDONLY, recursive=True)
    mounting.attach(tree, target)
    syscalls.close(tree)


def _null_device(root: int) -> int:
    """The container's /dev/null, proven to be the null device (an image could put anything there)."""
    try:
        null = paths.resolve(root, "/dev/null")
        seen = syscalls.fstat(null)
    except SyscallError as error:
        raise from_oserror(
            error, "open /dev/null for masking", pointer="/linux/maskedPaths"
        ) from None
    if seen.st_mode & c.S_IFMT != c.S_IFCHR or seen.st_rdev != syscalls.makedev(1, 3):
        raise HostError(
            "the container's /dev/null is not the null device", pointer="/linux/maskedPaths"
        )
    return null


def _mask(
    places: Places, root: int, path: str, pointer: str, null: int, empty: int, label: str
) -> int:
    """Cover a file with the null device, a directory with an empty read-only tmpfs.

    One tmpfs serves all directories: `empty` is its mount (-1 before the first), and is returned.
    """

    def cover(target: int) -> None:
        nonlocal empty
        directory = syscalls.fstat(target).st_mode & c.S_IFMT == c.S_IFDIR
        if directory and empty < 0:
            empty = _empty_directory(label)
            mounting.attach(empty, target)
            return
        tree = mounting.clone_fd(empty if directory else null)
        mounting.attach(tree, target)
        syscalls.close(tree)

    if _protect(places, root, path, pointer, cover):
        places.covered(path, hidden=True)
    return empty


def _empty_directory(label: str) -> int:
    """An empty, read-only tmpfs, detached. label: its SELinux context, "" without."""
    attributes = (
        c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC
    )
    data = ["nr_blocks=1", f"context={label}"] if label else ["nr_blocks=1"]
    return mounting.make_filesystem("tmpfs", "", data, attributes)


def enter(rootfs: Rootfs, root: int) -> None:
    """Make `root` the process's /, with nothing of the host left beneath or behind it."""
    try:
        syscalls.fchdir(root)
        if rootfs.no_pivot:
            _move_and_chroot(root)
        else:
            syscalls.pivot_root(".", ".")
            # "." is now the old root, stacked on the new one
            syscalls.umount2(".", c.MNT_DETACH)
        syscalls.chdir("/")
        if rootfs.propagation:
            syscalls.mount(None, "/", None, rootfs.propagation, None)
    except SyscallError as error:
        hint = ""
        if error.call == "pivot_root":
            hint = "a root filesystem on the initial ramdisk cannot be pivoted: try --no-pivot"
        raise from_oserror(error, "enter the root filesystem", pointer="/root", hint=hint) from None


def _move_and_chroot(root: int) -> None:
    """For an initial ramdisk, which cannot be pivoted away: cover / instead.

    The host's proc and sys go first where that is allowed: below a chroot they could be found again.
    """
    for path in ("/proc", "/sys"):
        try:
            syscalls.umount2(path, c.MNT_DETACH)
        except SyscallError:
            pass  # locked mounts of a user namespace stay, as they do for runc
    syscalls.mount(".", "/", None, c.MS_MOVE, None)
    syscalls.chroot(".")
