"""Carry out /mounts beneath the attached root.

Sources of binds are cloned by intermediate, while it still is the caller (mount_sources); init makes
the other filesystems, sets attributes on the detached mount, and attaches it by fd (mounting.py).
"""

from __future__ import annotations

from rootless_pyoki.apply import attributes, copy_up, foreign_proc, mounting
from rootless_pyoki.errors import HostError, PyokiError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import paths, syscalls
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.apply import idmapped
    from rootless_pyoki.apply.places import Places
    from rootless_pyoki.plan.plan import Mount, Plan

REFUSED = (c.EPERM, c.EBUSY, c.ENODEV, c.EACCES)
_FLAG_WORDS = ((c.MS_SYNCHRONOUS, "sync"), (c.MS_DIRSYNC, "dirsync"), (c.MS_LAZYTIME, "lazytime"))


def idmap_helper(plan: Plan) -> idmapped.Helper | None:
    """Whoever will idmap binds, where a new user namespace takes us the power to do it."""
    if not any(mount.idmap and mount.kind == "bind" for mount in plan.mounts):
        return None
    if not any(namespace.kind == "user" for namespace in plan.namespaces):
        return None
    from rootless_pyoki.apply import idmapped

    return idmapped.Helper()


def mount_sources(mounts: tuple[Mount, ...], helper: idmapped.Helper | None = None) -> list[int]:
    """A detached clone for every bind, -1 for the others; in the new mount namespace, as the caller.

    Raises PyokiError with the pointer of the mount whose source is missing or out of reach.
    """
    sources = [
        _source(mount, helper) if mount.kind == "bind" and not mount.remount else -1
        for mount in mounts
    ]
    if helper:
        helper.end()
    return sources


def _source(mount: Mount, helper: idmapped.Helper | None) -> int:
    try:
        if mount.idmap:
            from rootless_pyoki.apply import idmapped

            return idmapped.source(mount, helper)
        nofollow = "copy-symlink" in mount.special or "src-nofollow" in mount.special
        return mounting.clone_source(mount.source, recursive=mount.recursive, nofollow=nofollow)
    except SyscallError as error:
        raise from_oserror(
            error, f"bind {mount.source} to {mount.destination}", pointer=f"{mount.pointer}/source"
        ) from None


def mount_all(
    mounts: tuple[Mount, ...],
    root: int,
    sources: list[int],
    tell: Callable[[Note], None],
    *,
    places: Places,
    joined_pid: bool,
) -> list[tuple[Mount, int]]:
    """In the order of config.json. `tell` hears what the kernel made us do differently.

    places: holds the mounts in which paths will be protected. joined_pid: the container's pid
    namespace is one that we stay outside of.
    Returns what is for make_readonly(), once mount points and device nodes in there are made.
    """
    late: list[tuple[Mount, int]] = []
    for index, (mount, source) in enumerate(zip(mounts, sources, strict=True)):
        tree, waits = -1, False
        try:
            if mount.remount:
                late = _settle(late, mount.destination)
                attributes.remount(mount, root, tell)
            else:
                tree, waits = _mount(mount, root, source, tell, joined_pid)
        except SyscallError as error:
            raise _explain(mount, error) from None
        held = places.hold(index, tree)
        if waits:
            late.append((mount, tree))
        elif tree >= 0 and not held:
            syscalls.close(tree)
    return late


def _settle(late: list[tuple[Mount, int]], destination: str) -> list[tuple[Mount, int]]:
    """What a remount is going to change is made read-only before that; the others are returned."""
    place = destination.rstrip("/") + "/"
    now = [pair for pair in late if f"{pair[0].destination}/".startswith(place)]
    make_readonly(now)
    return [pair for pair in late if pair not in now]


def make_readonly(late: list[tuple[Mount, int]]) -> None:
    """Option `ro` of a tmpfs: its mount refuses writes from now on. The fds close with the exec."""
    for mount, tree in late:
        try:
            mounting.set_attributes(tree, c.MOUNT_ATTR_RDONLY, attached=True)
        except SyscallError as error:
            raise _explain(mount, error) from None


def _mount(
    mount: Mount, root: int, source: int, tell: Callable[[Note], None], joined_pid: bool
) -> tuple[int, bool]:
    """(the mount's fd, is it still to be made read-only?)."""
    if "copy-symlink" in mount.special:
        from rootless_pyoki.apply import symlinks

        if symlinks.copy(mount, root, source):
            return source, False
    target = _target(mount, root, source)
    try:
        if source >= 0:
            tree = source
        elif mount.kind == "proc" and joined_pid:
            tree = foreign_proc.make(_data(mount, target))
        else:
            tree, mount = _filesystem(mount, target, tell)
        if mount.idmap and tree != source:
            from rootless_pyoki.apply import idmapped

            idmapped.apply(tree, mount, mount.idmap)
        if mount.copy_up:
            copy_up.copy(target, tree)
        waits = mount.kind == "tmpfs" and bool(mount.attr_set & c.MOUNT_ATTR_RDONLY)
        if waits:
            mount = replace(mount, attr_set=mount.attr_set & ~c.MOUNT_ATTR_RDONLY)
        attributes.change(mount, tree, tell)
        mounting.attach(tree, target)
        attributes.set_propagation(mount, tree)
    finally:
        syscalls.close(target)
    return tree, waits


def _target(mount: Mount, root: int, source: int) -> int:
    """The place to mount on, made when it is not there; a bound file needs a file."""
    if "dest-nofollow" in mount.special:
        from rootless_pyoki.apply import symlinks

        directory = source < 0 or syscalls.fstat(source).st_mode & c.S_IFMT == c.S_IFDIR
        return symlinks.place(mount, root, directory=directory)
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
        data = _data(mount, target)
        flags = mount.superblock_flags & mounting.ONLY_MOUNT
        return mounting.make_filesystem(mount.kind, mount.source, data, flags=flags), mount
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
        mount = replace(
            mount,
            attr_clear=mount.attr_clear & ~c.MOUNT_ATTR_RDONLY,
            recursive_clear=mount.recursive_clear & ~c.MOUNT_ATTR_RDONLY,
        )
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


def _explain(mount: Mount, error: SyscallError) -> PyokiError:
    hint = ""
    if mount.kind == "proc" and error.errno == c.EPERM:
        hint = (
            "a new proc needs a pid namespace of the container's own, and no part of /proc covered "
            "around us (by an outer container); else bind /proc with type bind"
        )
    elif mount.kind == "sysfs" and error.errno == c.EPERM:
        hint = "sysfs needs a network namespace of our own; bind the host's /sys instead"
    elif mount.kind[:4] == "fuse" and error.errno == c.EINVAL:
        hint = (
            "fuse wants fd, rootmode, user_id and group_id, and the fd must be of a /dev/fuse that was "
            "opened in the user namespace of the container"
        )
    doing = f"mount {mount.kind} on {mount.destination}"
    told = from_oserror(error, doing, pointer=mount.pointer, hint=hint)
    for note in getattr(error, "__notes__", ()):
        told.add_note(note)
    return told
