"""Idmapped mounts, mount_setattr(2) with MOUNT_ATTR_IDMAP, Linux 5.12.

The mapping is a user namespace that nobody lives in. Whoever asks must hold CAP_SYS_ADMIN in the user
namespace that mounted the filesystem: for a new filesystem that is the container's root, and for a
bind the caller. Once the container has a user namespace of its own the caller's power is gone, so a
helper keeps it: a child from before, which enters the new mount namespace and sends the mounts over.
(The clones must be made there: the locks on the host's read-only and nosuid come with that namespace.)
"""

from __future__ import annotations

from rootless_pyoki.apply import mounting
from rootless_pyoki.errors import PyokiError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import json, procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

    from rootless_pyoki.plan.plan import IdRange, Mount, MountIdmap

_LONGEST = 65536  # bytes of one answer


class Helper:
    """The child that is still the caller."""

    def __init__(self) -> None:
        """Call it before a user namespace is entered."""
        self.socket, theirs = syscalls.socketpair(c.SOCK_SEQPACKET)
        self.pid = syscalls.clone(0)
        if not self.pid:
            syscalls.close(self.socket)
            _serve(theirs)
        syscalls.close(theirs)

    def clone(self, mount: Mount) -> int:
        """The idmapped copy of a source, detached, for the mount namespace that we are in."""
        own = syscalls.openat(procfs.held(), "self/ns/mnt", c.O_RDONLY)
        syscalls.sendmsg(self.socket, json.dumps(_wanted(mount)), (own,))
        syscalls.close(own)
        answer, fds = syscalls.recvmsg(self.socket, _LONGEST, 1)
        if fds:
            return fds[0]
        if not answer:
            raise PyokiError("the helper for idmapped mounts died", pointer=mount.pointer)
        said = json.loads(answer)
        raise SyscallError(said["errno"], said["reason"], said["call"], said["filename"])

    def end(self) -> None:
        syscalls.close(self.socket)
        syscalls.waitpid(self.pid)


def _serve(socket: int) -> NoReturn:
    # We are a child of intermediate, with the caller's ids, capabilities and user namespace. Our
    # parent waits for each answer, and we leave with it.
    try:
        syscalls.prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)
        syscalls.set_name("pyoki:[IDMAP]")
        entered = False
        while True:
            asked, fds = syscalls.recvmsg(socket, _LONGEST, 1)
            if not asked:
                break
            try:
                if not entered:
                    syscalls.setns(fds[0], c.CLONE_NEWNS)
                    entered = True
                syscalls.close(fds[0])
                tree = _clone(json.loads(asked))
                syscalls.sendmsg(socket, b"{}", (tree,))
                syscalls.close(tree)
            except SyscallError as error:
                words = {
                    "errno": error.errno,
                    "reason": error.strerror,
                    "call": error.call,
                    "filename": error.filename,
                }
                syscalls.sendmsg(socket, json.dumps(words))
    finally:
        syscalls.exit_now(0)


def _wanted(mount: Mount) -> dict[str, Any]:
    assert mount.idmap
    return {
        "source": mount.source,
        "recursive": mount.recursive,
        "nofollow": "copy-symlink" in mount.special or "src-nofollow" in mount.special,
        "uids": _table(mount.idmap.uids),
        "gids": _table(mount.idmap.gids),
        "whole": mount.idmap.recursive,
    }


def _clone(asked: dict[str, Any]) -> int:
    tree = mounting.clone_source(
        asked["source"], recursive=asked["recursive"], nofollow=asked["nofollow"]
    )
    _set(tree, asked["uids"], asked["gids"], recursive=asked["whole"])
    return tree


def source(mount: Mount, helper: Helper | None) -> int:
    """The idmapped copy of a bind's source, detached; without helper we still are the caller.

    Raises SyscallError when the source cannot be cloned, PyokiError when it cannot be idmapped.
    """
    try:
        return helper.clone(mount) if helper else _clone(_wanted(mount))
    except SyscallError as error:
        if error.call == "open_tree":
            raise
        raise _explain(mount, error) from None


def apply(tree: int, mount: Mount, mapping: MountIdmap) -> None:
    """Map a new filesystem of ours, before it is attached."""
    try:
        uids, gids = _table(mapping.uids), _table(mapping.gids)
        _set(tree, uids, gids, recursive=mapping.recursive)
    except SyscallError as error:
        raise _explain(mount, error) from None


def _explain(mount: Mount, error: SyscallError) -> PyokiError:
    """Why there is no idmapped mount; any step can have failed."""
    what = mount.kind if mount.kind != "bind" else f"the filesystem of {mount.source}"
    hint = ""
    if error.call == "write":
        hint = "each line of a map must lie within one line of the parent's, user_namespaces(7)"
    elif error.call == "mount_setattr":
        hint = {
            c.EINVAL: f"{what} cannot be idmapped on this kernel: mount_setattr(2) lists what can",
            c.ENOSYS: "idmapped mounts need Linux 5.12",
            c.EPERM: "only who mounted a filesystem may idmap it, and only once",
        }.get(error.errno or 0, "")
    pointer = mount.idmap.pointer if mount.idmap else mount.pointer
    return from_oserror(
        error, f"idmap the mount on {mount.destination}", pointer=pointer, hint=hint
    )


def _set(tree: int, uids: str, gids: str, *, recursive: bool) -> None:
    namespace = _user_namespace(uids, gids)
    try:
        syscalls.mount_setattr(
            tree,
            "",
            c.AT_EMPTY_PATH | (c.AT_RECURSIVE if recursive else 0),
            attr_set=c.MOUNT_ATTR_IDMAP,
            userns_fd=namespace,
        )
    finally:
        syscalls.close(namespace)


def _table(ranges: tuple[IdRange, ...]) -> str:
    return "".join([f"{r.container} {r.host} {r.size}\n" for r in ranges])


def _user_namespace(uids: str, gids: str) -> int:
    """An fd of a new child namespace of ours with these maps, user_namespaces(7)."""
    ours, theirs = syscalls.socketpair(c.SOCK_SEQPACKET)
    pid = syscalls.clone(c.CLONE_NEWUSER)
    if not pid:
        syscalls.close(ours)
        _hold(theirs)
    syscalls.close(theirs)
    try:
        name = syscalls.recv(
            ours, 64
        ).decode()  # its pid as /proc has it, which may be an outer one
        proc = procfs.held()
        procfs.write(proc, f"{name}/uid_map", uids.encode())
        procfs.write(proc, f"{name}/gid_map", gids.encode())
        return syscalls.openat(proc, f"{name}/ns/user", c.O_RDONLY)
    finally:
        syscalls.close(ours)
        syscalls.waitpid(pid)


def _hold(socket: int) -> NoReturn:
    # We are the first process of the new user namespace and do nothing but keep it until it is open.
    try:
        syscalls.prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)
        syscalls.prctl(c.PR_SET_DUMPABLE, 1)  # else our maps would not be our parent's to write
        syscalls.send(socket, syscalls.readlinkat(procfs.held(), "self").encode())
        syscalls.recv(socket, 1)
    finally:
        syscalls.exit_now(0)
