"""The namespaces of others that a configuration names: looked at before anything is made.

config-linux.md, "Namespaces": an error if `path` is not associated with a namespace of type `type`.
"""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SpecError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# OCI name -> (CLONE_NEW*, its name below /proc/PID/ns)
KINDS = {
    "user": (c.CLONE_NEWUSER, "user"),
    "pid": (c.CLONE_NEWPID, "pid"),
    "network": (c.CLONE_NEWNET, "net"),
    "mount": (c.CLONE_NEWNS, "mnt"),
    "ipc": (c.CLONE_NEWIPC, "ipc"),
    "uts": (c.CLONE_NEWUTS, "uts"),
    "cgroup": (c.CLONE_NEWCGROUP, "cgroup"),
    "time": (c.CLONE_NEWTIME, "time"),
}


def check(linux: dict[str, Any]) -> None:
    """Raises SpecError, HostError or PyokiError with the pointer of the path."""
    for index, entry in enumerate(linux.get("namespaces") or ()):
        if entry.get("path"):
            _check(entry["type"], entry["path"], f"/linux/namespaces/{index}/path")


def _check(kind: str, path: str, pointer: str) -> None:
    doing = f"join {kind} namespace {path}"
    flag, name = KINDS[kind]
    try:
        found, inode = _look(path)
    except SyscallError as error:
        hint = ""
        if error.errno == c.EACCES:
            hint = "the caller may not look at that process's namespaces: is it another user's?"
        raise from_oserror(error, doing, pointer=pointer, hint=hint) from None
    if found != flag:
        what = "no namespace"
        for other, (each, short) in KINDS.items():
            if each == found:
                what = f"the {other} namespace {short}:[{inode}]"
        raise SpecError(f"{doing}: it is {what} (EINVAL)", pointer=pointer, errno=c.EINVAL)
    if (
        kind in ("user", "mount")
        and inode == syscalls.fstatat(procfs.held(), f"self/ns/{name}").st_ino
    ):
        raise _own(kind, doing, pointer)


def _own(kind: str, doing: str, pointer: str) -> HostError:
    if kind == "user":
        return HostError(
            f"{doing}: it is the caller's own, which cannot be entered again (EINVAL)",
            pointer=pointer,
            errno=c.EINVAL,
            hint="without this entry the container has the caller's user namespace, if the caller is "
            "privileged there, else a new one",
        )
    return HostError(
        f"{doing}: it is the caller's own, which would lose its root",
        pointer=pointer,
        hint="leave the path out: the container gets a mount namespace of its own",
    )


def _look(path: str) -> tuple[int, int]:
    """(CLONE_NEW*, inode) of a namespace, (0, 0) for what is none. It is opened only when it is known to
    be one: it may be a device or a pipe."""
    place = syscalls.openat(c.AT_FDCWD, path, c.O_PATH)
    try:
        if syscalls.fstatfs(place).type != c.NSFS_MAGIC:
            return 0, 0
        namespace = syscalls.openat(procfs.held(), f"self/fd/{place}", c.O_RDONLY)
    finally:
        syscalls.close(place)
    try:
        return syscalls.ns_type(namespace), syscalls.fstat(namespace).st_ino
    finally:
        syscalls.close(namespace)
