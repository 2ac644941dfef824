"""Mounts as mount(2) can make them: before Linux 5.2, or where a seccomp filter around us refuses the
new calls.

mount(2) knows no detached mounts. What is to be attached later waits on a tmpfs of our own, which
lies over the container's state directory, in the container's mount namespace only: nobody binds from
there, and it goes with the old root at the pivot. It is unbindable, so that no recursive bind takes
it along. All paths are /proc/self/fd/N; what the caller sees and what mountinfo says is never
looked up by name, but for mounts below a mount (proc_pid_mountinfo(5)).
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls

# (MOUNT_ATTR_*, MS_*, ST_*)
_FLAGS = (
    (c.MOUNT_ATTR_RDONLY, c.MS_RDONLY, c.ST_RDONLY),
    (c.MOUNT_ATTR_NOSUID, c.MS_NOSUID, c.ST_NOSUID),
    (c.MOUNT_ATTR_NODEV, c.MS_NODEV, c.ST_NODEV),
    (c.MOUNT_ATTR_NOEXEC, c.MS_NOEXEC, c.ST_NOEXEC),
    (c.MOUNT_ATTR_NODIRATIME, c.MS_NODIRATIME, c.ST_NODIRATIME),
    (c.MOUNT_ATTR_NOSYMFOLLOW, c.MS_NOSYMFOLLOW, c.ST_NOSYMFOLLOW),
)
_ATIMES = {
    c.MOUNT_ATTR_NOATIME: c.MS_NOATIME,
    c.MOUNT_ATTR_RELATIME: c.MS_RELATIME,
    c.MOUNT_ATTR_STRICTATIME: c.MS_STRICTATIME,
}
# options of every filesystem, which fsconfig(2) takes as words and mount(2) as flags
_WORDS = {"sync": c.MS_SYNCHRONOUS, "dirsync": c.MS_DIRSYNC, "lazytime": c.MS_LAZYTIME}

place = ""  # the directory to cover, told by intermediate
needed = False  # a new call was refused: ask no more
_stage = -1
_count = 0


def bind(source: int, *, recursive: bool) -> int:
    """A copy of what an O_PATH fd shows, on the stage; its root as an O_PATH fd."""
    directory = syscalls.fstat(source).st_mode & c.S_IFMT == c.S_IFDIR
    name, spot = _spot(directory)
    flags = c.MS_BIND | (c.MS_REC if recursive else 0)
    try:
        syscalls.mount(fds.fd_path(source), fds.fd_path(spot), None, flags, None)
    finally:
        syscalls.close(spot)
    # what was bound may be a symbolic link
    return syscalls.openat(_stage, name, c.O_PATH | c.O_NOFOLLOW)


def make_filesystem(
    kind: str, source: str, data: list[str], attributes: int, flags: int = 0
) -> int:
    """A new filesystem on the stage. flags: more MS_* of mount(2)."""
    kept = []
    for word in data:
        flags |= _WORDS.get(word, 0)
        if word not in _WORDS:
            # only a context may have commas, selinux(8)
            kept.append(f'context="{word[8:]}"' if word[:8] == "context=" else word)
    for attribute, flag, _ in _FLAGS:
        flags |= flag if attributes & attribute else 0
    name, spot = _spot(True)
    try:
        syscalls.mount(source or kind, fds.fd_path(spot), kind, flags, ",".join(kept) or None)
    except SyscallError as error:
        error.filename = kind
        raise
    finally:
        syscalls.close(spot)
    return syscalls.openat(_stage, name, c.O_PATH)


def move(tree: int, target: int) -> None:
    syscalls.mount(fds.fd_path(tree), fds.fd_path(target), None, c.MS_MOVE, None)


def take(tree: int) -> None:
    """Put a detached mount on the stage: mount(2) changes attributes of attached mounts only."""
    directory = syscalls.fstat(tree).st_mode & c.S_IFMT == c.S_IFDIR
    _, spot = _spot(directory)
    syscalls.move_mount(tree, "", spot, "", c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH)
    syscalls.close(spot)


def set_attributes(tree: int, attr_set: int, attr_clear: int, *, recursive: bool) -> None:
    """What mount_setattr(2) does, one mount after the other."""
    remount(fds.fd_path(tree), attr_set, attr_clear)
    if recursive:
        for path in _below(tree):
            remount(path, attr_set, attr_clear)


def remount(
    path: str, attr_set: int, attr_clear: int, what: int = c.MS_BIND, data: str | None = None
) -> None:
    """All flags are said anew, so those stay that the mount has: some may be locked.

    what: MS_BIND for the mount alone; else flags of the filesystem, which is reconfigured too.
    """
    held = syscalls.statfs(path).flags
    flags = 0
    for attribute, flag, shown in _FLAGS:
        if attr_set & attribute or (held & shown and not attr_clear & attribute):
            flags |= flag
    if attr_clear & c.MOUNT_ATTR__ATIME:
        flags |= _ATIMES[attr_set & c.MOUNT_ATTR__ATIME]
    elif held & c.ST_NOATIME:
        flags |= c.MS_NOATIME
    else:
        flags |= c.MS_RELATIME if held & c.ST_RELATIME else c.MS_STRICTATIME
    syscalls.mount(None, path, None, c.MS_REMOUNT | what | flags, data)


def set_propagation(tree: int, kind: int, *, recursive: bool) -> None:
    syscalls.mount(None, fds.fd_path(tree), None, kind | (c.MS_REC if recursive else 0), None)


def _spot(directory: bool) -> tuple[str, int]:
    """(name on the stage, O_PATH fd of a fresh directory or file to mount on)."""
    global _stage, _count
    if _stage < 0:
        _stage = _open_stage()
    while True:
        _count += 1
        name = str(_count)
        try:
            if directory:
                syscalls.mkdirat(_stage, name, 0o700)
            else:
                syscalls.mknodat(_stage, name, c.S_IFREG | 0o600, 0)
        except SyscallError as error:
            if error.errno != c.EEXIST:  # a child of ours that shares the stage was faster
                raise
            continue
        return name, syscalls.openat(_stage, name, c.O_PATH)


def _open_stage() -> int:
    syscalls.mount("tmpfs", place, "tmpfs", c.MS_NOSUID | c.MS_NODEV, "mode=755")
    syscalls.mount(None, place, None, c.MS_UNBINDABLE, None)
    return syscalls.openat(c.AT_FDCWD, place, c.O_PATH | c.O_DIRECTORY)


def _below(tree: int) -> list[str]:
    """The mount points below a mount; our own namespace, where nobody else mounts anything."""
    own = b""
    for line in _lines(f"/proc/self/fdinfo/{tree}"):
        if line.startswith(b"mnt_id:"):
            own = line.split()[1]
    family = {own}
    found = []
    for line in _lines("/proc/self/mountinfo"):  # parents come before their children
        words = line.split()
        if words[1] in family:
            family.add(words[0])
            found.append(_unescape(words[4]))
    return found


def _lines(path: str) -> list[bytes]:
    return fds.read_file(c.AT_FDCWD, path).splitlines()


def _unescape(field: bytes) -> str:
    r"""mountinfo writes blank, tab, newline and backslash as \040, \011, \012, \134."""
    first, *rest = field.split(b"\\")
    whole = first + b"".join([bytes((int(part[:3], 8),)) + part[3:] for part in rest])
    return whole.decode("utf-8", "surrogateescape")
