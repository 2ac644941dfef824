"""Mounts by descriptor: cloned or made detached, given their attributes, then attached.

The newest form comes first: open_tree(2), fsopen(2) and move_mount(2) since Linux 5.2,
mount_setattr(2) since 5.12. Where one is missing, or an outer seccomp profile refuses it,
staging.py does the same with mount(2). All functions raise SyscallError.
"""

from __future__ import annotations

from rootless_pyoki.apply import staging
from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls

_REFUSED = (c.ENOSYS, c.EPERM)
_ATTACH = c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH
_CLONE = c.OPEN_TREE_CLONE | c.OPEN_TREE_CLOEXEC
ONLY_MOUNT = c.MS_I_VERSION | c.MS_SILENT | c.MS_POSIXACL
_LONGEST_WORD = 200  # characters, surely fewer than the 256 bytes that fsconfig(2) takes


def clone(path: str, *, recursive: bool, nofollow: bool = False) -> int:
    """A copy of the host's mount at `path`, attached nowhere yet: its root as an fd.

    nofollow: where `path` is a symbolic link, that link itself.
    """
    if not staging.needed:
        flags = _CLONE | (c.AT_RECURSIVE if recursive else 0)
        try:
            return syscalls.open_tree(
                c.AT_FDCWD, path, flags | (c.AT_SYMLINK_NOFOLLOW if nofollow else 0)
            )
        except SyscallError as error:
            if error.errno not in _REFUSED:
                raise
    source = syscalls.openat(c.AT_FDCWD, path, c.O_PATH | (c.O_NOFOLLOW if nofollow else 0))
    try:
        return _stage(source, recursive)
    except SyscallError as error:
        error.filename = path
        raise
    finally:
        syscalls.close(source)


def clone_source(path: str, *, recursive: bool, nofollow: bool) -> int:
    """clone(); a tree with mounts locked by the parent user namespace is only cloned whole."""
    try:
        return clone(path, recursive=recursive, nofollow=nofollow)
    except SyscallError as error:
        if error.errno != c.EINVAL or recursive:
            raise
        return clone(path, recursive=True, nofollow=nofollow)


def clone_fd(fd: int, *, recursive: bool = True) -> int:
    """The same of what an O_PATH fd shows."""
    if not staging.needed:
        flags = _CLONE | c.AT_EMPTY_PATH | (c.AT_RECURSIVE if recursive else 0)
        try:
            return syscalls.open_tree(fd, "", flags)
        except SyscallError as error:
            if error.errno not in _REFUSED:
                raise
    return _stage(fd, recursive)


def _stage(source: int, recursive: bool) -> int:
    tree = staging.bind(source, recursive=recursive)
    staging.needed = True  # it was the call that was refused, not what we asked for
    return tree


def make_filesystem(
    kind: str, source: str, data: list[str], attributes: int = 0, flags: int = 0
) -> int:
    """A new filesystem, attached nowhere yet; SyscallError carries the kernel's own words as a note.

    flags: of ONLY_MOUNT. Those, long options and subtypes (fuse.X) only mount(2) takes.
    """
    long = any(len(word) > _LONGEST_WORD for word in data)
    if staging.needed or flags or long or "." in kind:
        return staging.make_filesystem(kind, source, data, attributes, flags)
    try:
        context = syscalls.fsopen(kind, c.FSOPEN_CLOEXEC)
    except SyscallError as error:
        if error.errno not in _REFUSED:
            raise
        return staging.make_filesystem(kind, source, data, attributes, flags)
    try:
        if source:
            syscalls.fsconfig(context, c.FSCONFIG_SET_STRING, "source", source)
        for word in data:
            key, equals, value = word.partition("=")
            if equals:
                syscalls.fsconfig(context, c.FSCONFIG_SET_STRING, key, value)
            else:
                syscalls.fsconfig(context, c.FSCONFIG_SET_FLAG, key, None)
        syscalls.fsconfig(context, c.FSCONFIG_CMD_CREATE, None, None)
        return syscalls.fsmount(context, c.FSMOUNT_CLOEXEC, attributes)
    except SyscallError as error:
        words = syscalls.fs_context_message(context)
        if words:
            error.add_note(words)
        error.filename = error.filename or kind  # fsmount(2) has a descriptor only
        raise
    finally:
        syscalls.close(context)


def attach(tree: int, target: int) -> None:
    """Mount a tree on the O_PATH fd `target`; `tree` goes on meaning its root."""
    if staging.needed:
        staging.move(tree, target)
    else:
        syscalls.move_mount(tree, "", target, "", _ATTACH)


def set_attributes(
    tree: int,
    attr_set: int,
    attr_clear: int = 0,
    *,
    recursive: bool = False,
    attached: bool = False,
) -> None:
    """MOUNT_ATTR_* to set and to clear; attached: `tree` is not one that we are still to attach."""
    try:
        syscalls.mount_setattr(
            tree,
            "",
            c.AT_EMPTY_PATH | (c.AT_RECURSIVE if recursive else 0),
            attr_set=attr_set,
            attr_clr=attr_clear,
        )
    except SyscallError as error:
        if not _unknown(error, tree):
            raise
        if not attached and not staging.needed:
            staging.take(tree)
        staging.set_attributes(tree, attr_set, attr_clear, recursive=recursive)


def reconfigure(target: int, flags: int, data: list[str], attr_set: int, attr_clear: int) -> None:
    """Change the filesystem that is mounted at the O_PATH fd: MS_* flags and options of its own.

    Its mount gets the attributes at the same time: mount(2) knows one set of flags for both.
    """
    path = fds.fd_path(target)
    staging.remount(path, attr_set, attr_clear, flags, ",".join(data) or None)


def set_propagation(tree: int, kind: int, *, recursive: bool) -> None:
    """MS_SHARED, MS_PRIVATE, MS_SLAVE or MS_UNBINDABLE, of an attached mount or all below it."""
    try:
        syscalls.mount_setattr(
            tree, "", c.AT_EMPTY_PATH | (c.AT_RECURSIVE if recursive else 0), propagation=kind
        )
    except SyscallError as error:
        if not _unknown(error, tree):
            raise
        staging.set_propagation(tree, kind, recursive=recursive)


def _unknown(error: SyscallError, tree: int) -> bool:
    """Is mount_setattr(2) missing or refused altogether, or only what we asked of it?"""
    if error.errno != c.EPERM:
        return error.errno == c.ENOSYS
    try:
        syscalls.mount_setattr(tree, "", c.AT_EMPTY_PATH)  # changes nothing, and is always granted
    except SyscallError as refused:
        return refused.errno == c.EPERM
    return False
