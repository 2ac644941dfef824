"""Write a child's uid and gid maps: by hand where we may, else newuidmap and newgidmap side by side.

user_namespaces(7), newuidmap(1). The child must be dumpable while this runs.
"""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError, from_oserror
from rootless_pyoki.host import programs
from rootless_pyoki.kernel import fds, procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import IdMap, IdRange


def write_maps(proc: int, pid: int, idmap: IdMap) -> None:
    """proc: a verified procfs root; pid: the child, waiting in its new user namespace.

    Raises HostError that names the helper, its exit status and its words, or the refused map.
    """
    if idmap.writer == "helpers":
        _run_helpers(pid, idmap)
        return
    if idmap.deny_setgroups:
        _write(proc, pid, "setgroups", b"deny", "/linux/gidMappings")
    _write(proc, pid, "uid_map", _table(idmap.uids), "/linux/uidMappings")
    _write(proc, pid, "gid_map", _table(idmap.gids), "/linux/gidMappings")


def _table(ranges: tuple[IdRange, ...]) -> bytes:
    return "".join(f"{r.container} {r.host} {r.size}\n" for r in ranges).encode()


def _write(proc: int, pid: int, name: str, data: bytes, pointer: str) -> None:
    try:
        procfs.write(proc, f"{pid}/{name}", data)
    except OSError as error:
        raise from_oserror(error, "write the user namespace's map", pointer=pointer) from None


def _run_helpers(pid: int, idmap: IdMap) -> None:
    """Start both, then wait for both: side by side they take half the time."""
    running = []
    failure: HostError | None = None
    for name, ranges, pointer in (
        ("newuidmap", idmap.uids, "/linux/uidMappings"),
        ("newgidmap", idmap.gids, "/linux/gidMappings"),
    ):
        try:
            running.append((name, pointer, *_start(name, pid, ranges, pointer)))
        except HostError as error:
            failure = failure or error
    for name, pointer, spawned, words in running:
        try:
            _finish(name, pointer, spawned, words)
        except HostError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _start(
    name: str, pid: int, ranges: tuple[IdRange, ...], pointer: str
) -> tuple[syscalls.Spawned, int]:
    path = programs.find(name)
    if not path:
        raise HostError(
            f"{name} is not installed, and the map has more than the caller's own id",
            pointer=pointer,
            hint="install it (Debian, Ubuntu: uidmap; Fedora: shadow-utils), or map one id only",
            id="MAP-MISSING",
        )
    arguments = [name, str(pid)]
    for r in ranges:
        arguments += [str(r.container), str(r.host), str(r.size)]
    reader, writer = syscalls.pipe()
    try:
        spawned = syscalls.spawn(path, arguments, [], stdout=writer, stderr=writer)
    finally:
        syscalls.close(writer)
    return spawned, reader


def _finish(name: str, pointer: str, spawned: syscalls.Spawned, words: int) -> None:
    """Reap one helper; raise with its own words if it refused."""
    try:
        try:
            syscalls.spawn_result(spawned)
        except SyscallError as error:
            syscalls.waitpid(spawned.pid, 0)
            raise from_oserror(error, f"run {name}", pointer=pointer) from None
        said = fds.read_all(words).decode("utf-8", "replace").strip().replace("\n", "; ")
    finally:
        syscalls.close(words)
        fds.close_quietly(spawned.pidfd)
    _, status = syscalls.waitpid(spawned.pid, 0)
    if status == 0:
        return
    how = f"exit status {status >> 8}" if status & 0x7F == 0 else f"signal {status & 0x7F}"
    hint, hint_id = _explain(name, said)
    raise HostError(f"{name} failed ({how}): {said}", pointer=pointer, hint=hint, id=hint_id)


def _explain(name: str, said: str) -> tuple[str, str]:
    kind = "uid" if name == "newuidmap" else "gid"
    if "not allowed" in said:
        return f"the range must be granted in /etc/sub{kind}", "MAP-DENY"
    if "ermission" in said or "not permitted" in said or "caps" in said:
        return (
            f"{name} needs its setuid bit or cap_set{kind}: reinstall its package, and look for "
            "a nosuid mount or no_new_privs",
            "MAP-PRIV",
        )
    return "", ""
