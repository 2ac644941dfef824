"""The verb `spec`: write a config.json to start from, fit for this user on this host."""

from __future__ import annotations

from rootless_pyoki.cli import show
from rootless_pyoki.errors import SyscallError, UsageError, from_oserror
from rootless_pyoki.host import facts, programs, subid
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, json, syscalls
from rootless_pyoki.spec import template


def spec(*, bundle: str, file: str | None, rootless: bool, net: str, terminal: bool) -> None:
    """Into the bundle's config.json, or `file` (- is stdout); an existing one is never overwritten.

    rootless: with a user namespace also for real root; other users get one in any case.
    """
    uid = syscalls.geteuid()
    uids, gids = _ids(uid)
    config = template.make(
        uid=uid,
        gid=syscalls.getegid(),
        subuids=uids,
        subgids=gids,
        nofile_hard=syscalls.prlimit(0, c.RLIMITS["RLIMIT_NOFILE"], None)[1],
        user_namespace=rootless or uid != 0,
        net=net,
        terminal=terminal,
    )
    text = json.dumps_pretty(config) + "\n"
    if file == "-":
        show.write(text)
    else:
        name = file or "config.json"
        _write(name if name.startswith("/") else f"{bundle}/{name}", text.encode())


def _ids(uid: int) -> tuple[subid.Ranges, subid.Ranges]:
    """(start, count) of the uids and gids that the caller may map, as its own namespace counts."""
    own = facts.gather()
    if own.in_initial_userns or not own.has(c.CAPABILITIES["CAP_SETUID"]):
        _, uids, gids = subid.granted(uid)
        return (uids, gids) if programs.id_helpers() else ((), ())
    return (
        tuple((part.container, part.size) for part in own.uid_map),
        tuple((part.container, part.size) for part in own.gid_map),
    )


def _write(path: str, data: bytes) -> None:
    try:
        fd = syscalls.openat(c.AT_FDCWD, path, c.O_WRONLY | c.O_CREAT | c.O_EXCL, 0o666)
    except SyscallError as error:
        if error.errno == c.EEXIST:
            raise UsageError(f"{path} exists: remove it first") from None
        raise from_oserror(error, "write the new configuration") from error
    try:
        fds.write_all(fd, data)
    except SyscallError as error:
        raise from_oserror(error, f"write {path}") from error
    finally:
        syscalls.close(fd)
