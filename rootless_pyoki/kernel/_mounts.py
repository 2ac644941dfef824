"""Mounts: the old calls and the new mount API."""

from __future__ import annotations

import posix

from rootless_pyoki.kernel._call import check, decode, encode, encode_or_null, failed, ffi, lib
from rootless_pyoki.record import Record

_CLOEXEC = 1  # FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC
_OPEN_TREE_CLOEXEC = posix.O_CLOEXEC


class Statfs(Record):
    type: int  # *_MAGIC
    flags: int  # ST_*


def mount(
    source: str | None, target: str, fstype: str | None, flags: int, data: str | None
) -> None:
    """mount(2)."""
    check(
        lib.pk_mount(
            encode_or_null(source, "mount"),
            encode(target, "mount"),
            encode_or_null(fstype, "mount"),
            flags,
            encode_or_null(data, "mount"),
        ),
        "mount",
        target,
    )


def umount2(target: str, flags: int) -> None:
    """umount2(2)."""
    check(lib.pk_umount2(encode(target, "umount2"), flags), "umount2", target)


def pivot_root(new_root: str, put_old: str) -> None:
    """pivot_root(2)."""
    check(
        lib.pk_pivot_root(encode(new_root, "pivot_root"), encode(put_old, "pivot_root")),
        "pivot_root",
        new_root,
    )


def chroot(path: str) -> None:
    """chroot(2)."""
    try:
        posix.chroot(encode(path, "chroot"))
    except OSError as error:
        raise failed(error, "chroot", path) from None


def open_tree(dirfd: int, path: str, flags: int) -> int:
    """open_tree(2), Linux 5.2: an fd of the mount, a copy of it with OPEN_TREE_CLONE."""
    raw = encode(path, "open_tree")
    return check(lib.pk_open_tree(dirfd, raw, flags | _OPEN_TREE_CLOEXEC), "open_tree", path)


def move_mount(from_dirfd: int, from_path: str, to_dirfd: int, to_path: str, flags: int) -> None:
    """move_mount(2), Linux 5.2."""
    source, target = encode(from_path, "move_mount"), encode(to_path, "move_mount")
    check(
        lib.pk_move_mount(from_dirfd, source, to_dirfd, target, flags),
        "move_mount",
        to_path or f"fd {to_dirfd}",
    )


def fsopen(fsname: str, flags: int = 0) -> int:
    """fsopen(2), Linux 5.2: an fd that fsconfig() and fs_context_message() take."""
    return check(lib.pk_fsopen(encode(fsname, "fsopen"), flags | _CLOEXEC), "fsopen", fsname)


def fsconfig(fd: int, cmd: int, key: str | None, value: str | None, aux: int = 0) -> None:
    """fsconfig(2), Linux 5.2."""
    check(
        lib.pk_fsconfig(
            fd, cmd, encode_or_null(key, "fsconfig"), encode_or_null(value, "fsconfig"), aux
        ),
        "fsconfig",
        key if value is None else f"{key}={value}",
    )


def fsmount(fd: int, flags: int = 0, attributes: int = 0) -> int:
    """fsmount(2), Linux 5.2: an fd of the new mount, attached nowhere yet."""
    return check(lib.pk_fsmount(fd, flags | _CLOEXEC, attributes), "fsmount")


def fs_context_message(fd: int) -> str:
    """What the kernel had to say to fsconfig() or fsmount() on this fsopen() fd; "" if nothing.

    Each line loses its class letter ("e ", "w ", "i "), see fsopen(2).
    """
    lines = []
    while True:
        try:
            line = posix.read(fd, 8192)
        except OSError:  # ENODATA: no more
            break
        if not line:
            break
        lines.append(decode(line.rstrip(b"\n")))
    return "; ".join(line[2:] if line[1:2] == " " else line for line in lines)


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clr: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2), Linux 5.12; flags: AT_RECURSIVE, AT_EMPTY_PATH (then path is "")."""
    attributes = (attr_set, attr_clr, propagation, userns_fd)
    check(
        lib.pk_mount_setattr(dirfd, encode(path, "mount_setattr"), flags, attributes),
        "mount_setattr",
        path or f"fd {dirfd}",
    )


def statfs(path: str) -> Statfs:
    """statfs(2): type and flags only."""
    out = ffi.new("uint64_t[2]")
    check(lib.pk_statfs(encode(path, "statfs"), out), "statfs", path)
    return Statfs(type=out[0], flags=out[1])


def fstatfs(fd: int) -> Statfs:
    """fstatfs(2): type and flags only; O_PATH fds will do."""
    out = ffi.new("uint64_t[2]")
    check(lib.pk_fstatfs(fd, out), "fstatfs", f"fd {fd}")
    return Statfs(type=out[0], flags=out[1])
