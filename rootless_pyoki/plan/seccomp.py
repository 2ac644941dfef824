"""/linux/seccomp → a filter program, as libseccomp 2.5 and the runtimes that use it understand a profile.

- The machine's own architecture is always filtered; a call from an architecture that is not listed kills
  the thread (libseccomp's default, which runc and crun leave). x32 calls count as such unless listed.
- An action equal to the default is skipped. A name that no table knows is skipped (`unknown_names`).
- Rules for one call are alternatives: one without conditions beats all with; among those with
  conditions the more specific order of libseccomp decides (`_precedence`). Conditions inside a rule must
  all hold, but when two of them test the same argument each is a rule of its own (runc and crun).
- On architectures with socketcall(2) and ipc(2), a rule for `socket` is also a rule for
  socketcall(SOCKET, …), its condition on argument 0 replaced, as libseccomp does.
- 32-bit architectures compare the low half of a value.

Source: config-linux.md "Seccomp", seccomp_rule_add(3), seccomp(2).
"""

from __future__ import annotations

import sys

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.plan import bpf, seccomp_abi
from rootless_pyoki.plan.plan import Seccomp
from rootless_pyoki.plan.seccomp_abi import (
    known_actions,
    known_architectures,
    known_flags,
    known_operators,
)
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.bpf import Condition, Section, Verdict
    from rootless_pyoki.plan.seccomp_abi import Architecture

__all__ = [
    "compile",
    "known_actions",
    "known_architectures",
    "known_flags",
    "known_operators",
    "unknown_names",
]

_EPERM = 1
_FULL = 0xFFFFFFFFFFFFFFFF
_LOW = 0xFFFFFFFF
_X86_TOKEN = 0xC000003E
_NR_SKIP = 0xFFFFFFFF  # nr of a call that a tracer asked to skip


class Group(Record):
    """One entry of /linux/seccomp/syscalls whose action differs from the default."""

    names: list[str]
    verdict: int
    conditions: list[tuple[Condition, ...]]  # alternatives; empty: unconditional
    pointer: str


def compile(
    linux_seccomp: dict[str, Any], *, arch: str, pointer: str = "/linux/seccomp"
) -> Seccomp:
    """The filter for a machine that uname(2) calls `arch` ("x86_64", "aarch64", …).

    SpecError: the profile says what cannot be; UnsupportedError: too long for the kernel, or an
    architecture or action that cannot be had here. Both carry the JSON pointer.
    """
    default = _default_action(linux_seccomp, pointer)
    groups = _groups(linux_seccomp, default, pointer)
    architectures = _architectures(linux_seccomp, arch, pointer)
    notify = any(group.verdict == seccomp_abi.RET_NOTIFY for group in groups)
    flags = _flags(linux_seccomp, notify, pointer)
    if notify:
        _check_listener(linux_seccomp, groups, pointer)
    elif "listenerMetadata" in linux_seccomp and not linux_seccomp.get("listenerPath"):
        raise SpecError("listenerMetadata without listenerPath", pointer=f"{pointer}/listenerMetadata")
    program = bpf.assemble(
        _sections(architectures, groups, default),
        default=default,
        bad_arch=seccomp_abi.RET_KILL_THREAD,
        big=architectures[0].big,
    )
    length = len(program) // 8
    if length > bpf.MAX_INSTRUCTIONS:
        raise UnsupportedError(
            f"seccomp profile needs {length} instructions, the kernel takes {bpf.MAX_INSTRUCTIONS}",
            pointer=pointer,
            hint="drop architectures that the container does not use, or merge rules",
        )
    return Seccomp(program=program, flags=flags, notify=notify)


def unknown_names(linux_seccomp: dict[str, Any], *, arch: str) -> list[str]:
    """The system call names of a profile that `compile` skipped: no architecture of it has them."""
    known: set[str] = set(seccomp_abi.SOCKET_CALLS) | set(seccomp_abi.IPC_CALLS)
    for architecture in _architectures(linux_seccomp, arch, "/linux/seccomp"):
        known.update(seccomp_abi.numbers(architecture.table))
    groups = linux_seccomp.get("syscalls") or []
    return sorted({name for group in groups for name in group["names"] if name not in known})


# ── reading the profile ──────────────────────────────────────────────────────────────────────────


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
    """SECCOMP_RET_* of an action and its errno, which only ERRNO and TRACE take (EPERM if absent)."""
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
        for name in names:
            if type(name) is not str:
                raise SpecError(f"{name!r} is no system call name", pointer=f"{where}/names")
        verdict = _action(entry, "action", "errnoRet", where)
        conditions = _conditions(entry, where) if entry.get("args") else []
        if verdict != default:
            groups.append(
                Group(names=names, verdict=verdict, conditions=conditions, pointer=where)
            )
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


def _architectures(profile: dict[str, Any], machine: str, pointer: str) -> list[Architecture]:
    """The machine's own architecture, then the others that the profile lists."""
    own = seccomp_abi.native(machine, sys.byteorder)
    if not own:
        raise UnsupportedError(f"no seccomp filters for machine {machine!r}", pointer=pointer)
    found = {own: seccomp_abi.architecture(own)}
    big = found[own].big
    for index, name in enumerate(_list(profile, "architectures", pointer)):
        if type(name) is not str or (architecture := seccomp_abi.architecture(name)) is None:
            where = f"{pointer}/architectures/{index}"
            raise SpecError(f"unknown seccomp architecture {name!r}", pointer=where)
        if architecture.big != big:
            raise UnsupportedError(
                f"{name} has another byte order than this machine ({own})",
                pointer=f"{pointer}/architectures/{index}",
            )
        found[name] = architecture
    return list(found.values())


def _flags(profile: dict[str, Any], notify: bool, pointer: str) -> int:
    """SECCOMP_FILTER_FLAG_*; without a list SPEC_ALLOW, as runc and crun do."""
    if profile.get("flags") is None:
        flags = seccomp_abi.FLAG_SPEC_ALLOW
    else:
        flags = 0
        for index, name in enumerate(_list(profile, "flags", pointer)):
            flag = seccomp_abi.FLAGS.get(name) if isinstance(name, str) else None
            if flag is None:
                where = f"{pointer}/flags/{index}"
                raise SpecError(f"unknown seccomp flag {name!r}", pointer=where)
            if flag == seccomp_abi.FLAG_WAIT_KILLABLE_RECV and not notify:
                raise SpecError(
                    f"{name} needs a rule with SCMP_ACT_NOTIFY",
                    pointer=f"{pointer}/flags/{index}",
                )
            flags |= flag
    if notify:
        flags |= seccomp_abi.FLAG_NEW_LISTENER
        if flags & seccomp_abi.FLAG_TSYNC:  # the kernel takes both only with this one
            flags |= seccomp_abi.FLAG_TSYNC_ESRCH
    return flags


def _check_listener(profile: dict[str, Any], groups: list[Group], pointer: str) -> None:
    """SCMP_ACT_NOTIFY needs somebody to notify, and `write` is refused as runc and youki do."""
    path = profile.get("listenerPath")
    if type(path) is not str or not path:
        raise SpecError("SCMP_ACT_NOTIFY needs a listenerPath", pointer=f"{pointer}/listenerPath")
    for group in groups:
        if group.verdict == seccomp_abi.RET_NOTIFY and "write" in group.names:
            raise UnsupportedError(
                "SCMP_ACT_NOTIFY cannot be used for write",
                pointer=f"{group.pointer}/names/{group.names.index('write')}",
            )


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


# ── rules → verdicts of numbers ──────────────────────────────────────────────────────────────────


def _sections(architectures: list[Architecture], groups: list[Group], default: int) -> list[Section]:
    """Verdicts of all numbers, one section per architecture token (x86_64 and x32 share one)."""
    always = {wide: _unconditional(groups, wide) for wide in {a.wide for a in architectures}}
    tokens: dict[int, list[Architecture]] = {}
    for architecture in architectures:
        tokens.setdefault(architecture.token, []).append(architecture)
    sections = []
    for token, sharing in tokens.items():
        runs = []
        for architecture in sharing:
            verdicts = _verdicts(architecture, groups, always[architecture.wide])
            for first, names in seccomp_abi.table(architecture.table):
                runs.append((first, [*map(verdicts.get, names.split())]))
        runs.sort(key=_first)
        ranges = _ranges(runs, default)
        if token == _X86_TOKEN and len(sharing) == 1:
            _exclude_other_abi(ranges, sharing[0].table, default)
        sections.append((token, ranges))
    return sections


def _first(run: tuple[int, list[Verdict | None]]) -> int:
    return run[0]


def _ranges(
    runs: list[tuple[int, list[Verdict | None]]], default: int
) -> list[tuple[int, Verdict]]:
    """Neighbours with one verdict become a range; None, holes and what lies between runs: default.

    A second name of a number (a run inside another) decides where the first has no verdict.
    """
    ranges: list[tuple[int, Verdict]] = []
    last: Verdict | None = default
    after = 0  # the number behind what has been seen
    while runs:
        first, verdicts = runs.pop(0)
        while runs and runs[0][0] < first + len(verdicts):
            at, again = runs.pop(0)
            if verdicts[at - first] is None:
                verdicts[at - first] = again[0]
        if after < first and last != default:
            ranges.append((after, default))
            last = default
        number = first
        for verdict in verdicts:
            if verdict is None:
                verdict = default
            if verdict != last:
                ranges.append((number, verdict))
                last = verdict
            number += 1
        after = number
    if last != default:
        ranges.append((after, default))
    if not ranges or ranges[0][0]:
        ranges.insert(0, (0, default))
    return ranges


def _exclude_other_abi(ranges: list[tuple[int, Verdict]], table: str, default: int) -> None:
    """x86_64 and x32 share a token: calls of the one that is not listed count as a bad architecture.

    -1 as x86_64 number is what a tracer sets to skip a call: it gets the default.
    """
    kill = seccomp_abi.RET_KILL_THREAD
    if table == "x86_64":
        ranges += [(seccomp_abi.X32_BIT, kill), (_NR_SKIP, default)]
    elif len(ranges) > 1 and ranges[1][0] == seccomp_abi.X32_BIT:
        ranges[0] = (0, kill)
    else:
        ranges[0:1] = [(0, kill), (seccomp_abi.X32_BIT, default)]


def _unconditional(groups: list[Group], wide: bool) -> dict[str, int]:
    """name → verdict of the first group that names it and whose conditions always hold."""
    always: dict[str, int] = {}
    for group in reversed(groups):
        if not group.conditions or () in [_narrowed(one, wide) for one in group.conditions]:
            always.update(dict.fromkeys(group.names, group.verdict))
    return always


def _verdicts(
    architecture: Architecture, groups: list[Group], always: dict[str, int]
) -> dict[str, Verdict]:
    """name → verdict on one architecture; `always`: those without conditions there."""
    rules: dict[str, list[tuple[tuple[Condition, ...], int, str]]] = {}
    for group in groups:
        seen = [_narrowed(conditions, architecture.wide) for conditions in group.conditions]
        for conditions in seen:
            for name in group.names:
                rules.setdefault(name, []).append((conditions, group.verdict, group.pointer))
        if architecture.socketcall >= 0:
            for name, conditions in _multiplexed(architecture, group.names, seen, always):
                rules.setdefault(name, []).append((conditions, group.verdict, group.pointer))
    verdicts: dict[str, Verdict] = {**always}
    for name, alternatives in rules.items():
        if name not in verdicts:
            verdicts[name] = (architecture.wide, _ordered(alternatives))
    return verdicts


def _multiplexed(
    architecture: Architecture,
    names: list[str],
    alternatives: list[tuple[Condition, ...]],
    always: dict[str, int],
) -> list[tuple[str, tuple[Condition, ...]]]:
    """("socketcall" or "ipc", conditions) for the names that hide behind one of them."""
    found = []
    for multiplexer, calls in (
        ("socketcall", seccomp_abi.SOCKET_CALLS),
        ("ipc", seccomp_abi.IPC_CALLS),
    ):
        if multiplexer in always:
            continue
        for name in names:
            if name in calls:
                which = (0, "EQ", _FULL if architecture.wide else _LOW, calls[name])
                for conditions in alternatives or [()]:
                    others = [condition for condition in conditions if condition[0]]
                    found.append((multiplexer, (which, *others)))
    return found


def _narrowed(conditions: tuple[Condition, ...], wide: bool) -> tuple[Condition, ...]:
    """Conditions as the architecture's registers are wide, without those that always hold."""
    if not wide:
        conditions = tuple(
            (index, operator, mask & _LOW, value & _LOW)
            for index, operator, mask, value in conditions
        )
    return tuple(condition for condition in conditions if condition[2])


def _ordered(
    alternatives: list[tuple[tuple[Condition, ...], int, str]],
) -> tuple[tuple[tuple[Condition, ...], int], ...]:
    """The rules of one call in the order of trying, each once.

    Same conditions with another action, or a prefix of an earlier rule's with another action, is a
    contradiction: libseccomp refuses it with EEXIST.
    """
    kept: dict[tuple[Condition, ...], int] = {}
    for conditions, verdict, pointer in alternatives:
        for earlier, other in kept.items():
            if other != verdict and earlier[: len(conditions)] == conditions:
                raise SpecError(
                    "seccomp rule contradicts an earlier rule for the same system call",
                    pointer=pointer,
                )
        kept.setdefault(conditions, verdict)
    if len(kept) > 1:
        return tuple(sorted(kept.items(), key=_precedence))
    return tuple(kept.items())


def _precedence(rule: tuple[tuple[Condition, ...], int]) -> tuple[tuple[int, int, int], ...]:
    """Sort key: higher argument first, then equality before upper before lower bounds, then the
    tighter bound (the greater value, for upper bounds the smaller); a shorter rule before a longer."""
    key = []
    for index, operator, _, value in rule[0]:
        if operator in ("LT", "LE"):
            key.append((-index, 1, value))
        else:
            key.append((-index, 2 if operator in ("GT", "GE") else 0, -value))
    return tuple(key)
