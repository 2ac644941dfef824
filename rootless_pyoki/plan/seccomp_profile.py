"""Reading /linux/seccomp: words become numbers; what cannot be is refused with its JSON pointer.

Source: config-linux.md "Seccomp"; where it is silent, what runc and crun agree on.
"""

from __future__ import annotations

import sys

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.plan import seccomp_abi
from rootless_pyoki.plan.plan import Agent
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.bpf import Condition
    from rootless_pyoki.plan.seccomp_abi import Architecture

_EPERM = 1
_FULL = 0xFFFFFFFFFFFFFFFF


class Group(Record):
    """One entry of /linux/seccomp/syscalls whose action differs from the default."""

    names: list[str]
    verdict: int
    conditions: list[tuple[Condition, ...]]  # alternatives; empty: unconditional
    pointer: str


def read(profile: dict[str, Any], pointer: str) -> tuple[int, list[Group]]:
    """(SECCOMP_RET_* of the default, the entries of `syscalls` that change something)."""
    default = _default_action(profile, pointer)
    return default, _groups(profile, default, pointer)


def _default_action(profile: dict[str, Any], pointer: str) -> int:
    """SECCOMP_RET_* of defaultAction and defaultErrnoRet."""
    if profile.get("defaultAction") is None:
        raise SpecError("seccomp profile has no defaultAction", pointer=f"{pointer}/defaultAction")
    default = _action(profile, "defaultAction", "defaultErrnoRet", pointer)
    if default == seccomp_abi.RET_NOTIFY:
        raise UnsupportedError(
            "SCMP_ACT_NOTIFY cannot be the default action: the container could not even start",
            pointer=f"{pointer}/defaultAction",
        )
    return default


def _action(holder: dict[str, Any], key: str, errno_key: str, pointer: str) -> int:
    """SECCOMP_RET_* of an action and its errno: only ERRNO and TRACE take one (EPERM if absent)."""
    name = holder.get(key)
    verdict = seccomp_abi.ACTIONS.get(name) if isinstance(name, str) else None
    if verdict is None:
        raise SpecError(f"unknown seccomp action {name!r}", pointer=f"{pointer}/{key}")
    errno = holder.get(errno_key)
    if verdict == seccomp_abi.RET_ERRNO or verdict == seccomp_abi.RET_TRACE:
        if errno is None:
            return verdict | _EPERM
        if type(errno) is not int or not 0 <= errno <= 0xFFFF:
            raise SpecError(f"{errno!r} is no errno", pointer=f"{pointer}/{errno_key}")
        return verdict | errno
    if errno is not None:
        raise SpecError(f"{name} takes no {errno_key}", pointer=f"{pointer}/{errno_key}")
    return verdict


def _groups(profile: dict[str, Any], default: int, pointer: str) -> list[Group]:
    """The entries of `syscalls` that change something, read and checked."""
    groups = []
    for index, entry in enumerate(_list(profile, "syscalls", pointer)):
        where = f"{pointer}/syscalls/{index}"
        if type(entry) is not dict:
            raise SpecError("a seccomp rule must be an object", pointer=where)
        names = _list(entry, "names", where)
        if not names:
            raise SpecError("seccomp rule names no system call", pointer=f"{where}/names")
        if set(map(type, names)) != {str}:
            raise SpecError("a system call name must be a string", pointer=f"{where}/names")
        verdict = _action(entry, "action", "errnoRet", where)
        conditions = _conditions(entry, where) if entry.get("args") else []
        if verdict != default:
            groups.append(Group(names=names, verdict=verdict, conditions=conditions, pointer=where))
    return groups


def _conditions(entry: dict[str, Any], pointer: str) -> list[tuple[Condition, ...]]:
    """`args` as alternatives of conditions sorted by argument."""
    conditions: list[Condition] = []
    for number, arg in enumerate(_list(entry, "args", pointer)):
        where = f"{pointer}/args/{number}"
        if type(arg) is not dict:
            raise SpecError("a seccomp argument must be an object", pointer=where)
        index = _integer(arg, "index", 5, where)
        value = _integer(arg, "value", _FULL, where)
        operator = arg.get("op")
        if type(operator) is not str or operator not in seccomp_abi.OPERATORS:
            raise SpecError(f"unknown seccomp operator {operator!r}", pointer=f"{where}/op")
        if operator == "SCMP_CMP_MASKED_EQ":
            wanted = _integer(arg, "valueTwo", _FULL, where) if arg.get("valueTwo") else 0
            conditions.append((index, "MASKED_EQ", value, wanted & value))
        else:
            conditions.append((index, operator[9:], _FULL, value))
    if len({condition[0] for condition in conditions}) < len(conditions):
        return [(condition,) for condition in conditions]
    return [tuple(sorted(conditions))]


def architectures(profile: dict[str, Any], machine: str, pointer: str) -> list[Architecture]:
    """The machine's own architecture, then the others that the profile lists."""
    own = seccomp_abi.native(machine, sys.byteorder)
    if not own:
        raise UnsupportedError(f"no seccomp filters for machine {machine!r}", pointer=pointer)
    found: dict[str, Architecture] = {}
    for index, name in enumerate([own, *_list(profile, "architectures", pointer)], -1):
        where = f"{pointer}/architectures/{index}"
        architecture = seccomp_abi.architecture(name) if isinstance(name, str) else None
        if architecture is None:
            raise SpecError(f"unknown seccomp architecture {name!r}", pointer=where)
        if found and architecture.big != found[own].big:
            message = f"{name} has another byte order than this machine ({own})"
            raise UnsupportedError(message, pointer=where)
        found.setdefault(name, architecture)
    return list(found.values())


def flags(profile: dict[str, Any], notify: bool, pointer: str) -> int:
    """SECCOMP_FILTER_FLAG_*; without a list SPEC_ALLOW, as runc and crun do."""
    bits = 0
    if profile.get("flags") is None:
        bits = seccomp_abi.FLAG_SPEC_ALLOW
    for index, name in enumerate(_list(profile, "flags", pointer)):
        flag = seccomp_abi.FLAGS.get(name) if isinstance(name, str) else None
        where = f"{pointer}/flags/{index}"
        if flag is None:
            raise SpecError(f"unknown seccomp flag {name!r}", pointer=where)
        if flag == seccomp_abi.FLAG_WAIT_KILLABLE_RECV and not notify:
            raise SpecError(f"{name} needs a rule with SCMP_ACT_NOTIFY", pointer=where)
        bits |= flag
    if notify:
        bits |= seccomp_abi.FLAG_NEW_LISTENER
        if bits & seccomp_abi.FLAG_TSYNC:  # the kernel takes both only with this one
            bits |= seccomp_abi.FLAG_TSYNC_ESRCH
    return bits


def agent(
    profile: dict[str, Any], groups: list[Group], receiver: tuple[str, str], pointer: str
) -> Agent | None:
    """Who answers, None where no rule notifies: then listenerPath is ignored (config-linux.md).

    receiver: (path, pointer), for a profile without listenerPath. The gate itself writes once the
    filter is loaded, so `write` is refused, as in runc and youki.
    """
    where = f"{pointer}/listenerPath"
    notifying = [group for group in groups if group.verdict == seccomp_abi.RET_NOTIFY]
    if profile.get("listenerMetadata") and not profile.get("listenerPath"):
        raise SpecError(
            "listenerMetadata without listenerPath", pointer=f"{pointer}/listenerMetadata"
        )
    if not notifying:
        return None
    path = profile.get("listenerPath")
    if not path:
        path, where = receiver if receiver[0] else ("", where)
    if type(path) is not str or not path:
        raise SpecError("SCMP_ACT_NOTIFY needs a listenerPath", pointer=where)
    if path[0] != "/":
        raise SpecError(
            f"the seccomp agent's socket must be an absolute path, not {path!r}", pointer=where
        )
    for group in notifying:
        if "write" in group.names:
            raise UnsupportedError(
                "SCMP_ACT_NOTIFY cannot be used for write",
                pointer=f"{group.pointer}/names/{group.names.index('write')}",
            )
    return Agent(path=path, metadata=profile.get("listenerMetadata") or "", pointer=where)


def _list(holder: dict[str, Any], key: str, pointer: str) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if type(value) is not list:
        raise SpecError(f"{key} must be an array", pointer=f"{pointer}/{key}")
    return value


def _integer(holder: dict[str, Any], key: str, limit: int, pointer: str) -> int:
    value = holder.get(key)
    if type(value) is not int or not 0 <= value <= limit:
        raise SpecError(f"{key} must be an integer from 0 to {limit}", pointer=f"{pointer}/{key}")
    return value
