"""Which subordinate ids a user was granted: subuid(5), subgid(5), and getsubids(1) where another
source than the files is configured (nsswitch.conf(5): `subid: sss`).

newuidmap and newgidmap ask the same source and refuse what is not in it.
Ranges are (start, count): sorted, neighbours and overlaps merged, whole within the 32-bit ids.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls, users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Ranges = tuple[tuple[int, int], ...]

IDS = 2**32 - 1  # ids are 0 to IDS - 1
GETSUBIDS = ("/usr/bin/getsubids", "/bin/getsubids", "/usr/local/bin/getsubids")


def granted(uid: int) -> tuple[str, Ranges, Ranges]:
    """The user's name ("" if it has none), its subordinate uids and its subordinate gids."""
    name = users.user_name(uid)
    if _source(_read("/etc/nsswitch.conf")) not in ("", "files"):
        return name, ask(name, uid, ()), ask(name, uid, ("-g",))
    return (
        name,
        parse(_read("/etc/subuid"), name, uid),
        parse(_read("/etc/subgid"), name, uid),
    )


def needed(config: Mapping[str, Any], euid: int, egid: int, capabilities_effective: int) -> bool:
    """Whether the plan's id maps depend on what is granted; otherwise reading it can be saved.

    Not for who may write any map, nor for a joined namespace, nor for a map of the own ids alone.
    """
    both = 1 << c.CAP_SETUID | 1 << c.CAP_SETGID
    if capabilities_effective & both == both:
        return False
    linux = config.get("linux") or {}
    for namespace in linux.get("namespaces") or ():
        if namespace["type"] == "user" and namespace.get("path"):
            return False
    for key, own in (("uidMappings", euid), ("gidMappings", egid)):
        mappings = linux.get(key) or []
        if len(mappings) != 1 or mappings[0]["hostID"] != own or mappings[0]["size"] != 1:
            return True
    return False


def parse(text: str, name: str, uid: int) -> Ranges:
    """The ranges that /etc/subuid or /etc/subgid grants to the user, by name or by number.

    Lines that make no sense are nobody's, as for newuidmap.
    """
    owners = {str(uid), name} - {""}
    found = []
    for line in text.splitlines():
        owner, _, rest = line.strip().partition(":")
        start, _, count = rest.partition(":")
        if owner in owners and _number(start) and _number(count):
            found.append((int(start), int(count)))
    return merge(found)


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted, without overlaps, without gaps of nothing, cut off where the ids end."""
    merged: list[tuple[int, int]] = []
    for start, count in sorted(ranges):
        end = min(start + count, IDS)
        if end <= start:
            continue
        if merged and start <= sum(merged[-1]):
            first = merged[-1][0]
            merged[-1] = (first, max(end, sum(merged[-1])) - first)
        else:
            merged.append((start, end - start))
    return tuple(merged)


def parse_getsubids(text: str) -> Ranges:
    """getsubids(1) prints `INDEX: OWNER START COUNT` a line."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) == 4 and _number(words[2]) and _number(words[3]):
            found.append((int(words[2]), int(words[3])))
    return merge(found)


def ask(name: str, uid: int, options: tuple[str, ...]) -> Ranges:
    """What getsubids says of the user; nothing when it is not installed or knows nothing."""
    for path in GETSUBIDS:
        reader, writer = syscalls.pipe()
        try:
            spawned = syscalls.spawn(
                path, ["getsubids", *options, name or str(uid)], [], stdout=writer
            )
        except SyscallError:
            syscalls.close(reader)
            raise
        finally:
            syscalls.close(writer)
        try:
            output = fds.read_all(reader)
            syscalls.spawn_result(spawned)
        except SyscallError as error:
            if error.errno in (c.ENOENT, c.ENOTDIR, c.EACCES):
                continue
            raise
        finally:
            syscalls.close(reader)
            syscalls.waitpid(spawned.pid, 0)
            fds.close_quietly(spawned.pidfd)
        return parse_getsubids(output.decode("utf-8", "replace"))
    return ()


def _source(text: str) -> str:
    """The first source of `subid:` in nsswitch.conf, "" if there is no such line."""
    for line in text.splitlines():
        database, colon, sources = line.partition("#")[0].partition(":")
        if colon and database.strip() == "subid":
            return (sources.split() or [""])[0]
    return ""


def _read(path: str) -> str:
    """The file as text; a file that is missing or closed to us says nothing."""
    try:
        return fds.read_file(c.AT_FDCWD, path).decode("utf-8", "surrogateescape")
    except SyscallError as error:
        if error.errno in (c.ENOENT, c.ENOTDIR, c.EACCES):
            return ""
        raise


def _number(word: str) -> bool:
    return word.isascii() and word.isdigit()
