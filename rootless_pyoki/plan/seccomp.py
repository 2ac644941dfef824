"""/linux/seccomp → a filter program, as libseccomp 2.5 and the runtimes over it read a profile.

- The machine's own architecture is always filtered; a call from an architecture that is not listed
  kills the thread (libseccomp's default, which runc and crun leave). On x86_64 an x32 call is one
  from another architecture unless X32 is listed.
- An action equal to the default is skipped; so is a name that no table knows (`unknown_names`).
- Rules for one call are alternatives: one without conditions beats all with; among those with
  conditions libseccomp's order of trying decides (`_precedence`). Conditions inside a rule must all
  hold, but when two of them test the same argument each is a rule of its own (runc and crun).
- On architectures with socketcall(2) and ipc(2), a rule for `socket` is also a rule for
  socketcall(SOCKET, …), its condition on argument 0 replaced, as libseccomp does.
- 32-bit architectures compare the low half of a value.

Source: config-linux.md "Seccomp", seccomp_rule_add(3), seccomp(2).
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.plan import bpf, seccomp_abi, seccomp_profile
from rootless_pyoki.plan.plan import Seccomp
from rootless_pyoki.plan.seccomp_abi import (
    known_actions,
    known_architectures,
    known_flags,
    known_operators,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.bpf import Condition, Rule, Section, Verdict
    from rootless_pyoki.plan.seccomp_abi import Architecture
    from rootless_pyoki.plan.seccomp_profile import Group

    Alternative = tuple[tuple[Condition, ...], int, str]  # conditions, verdict, JSON pointer
    Run = tuple[int, list[Verdict | None]]  # first number, verdicts from there on

__all__ = [
    "compile",
    "known_actions",
    "known_architectures",
    "known_flags",
    "known_operators",
    "unknown_names",
]

_FULL = 0xFFFFFFFFFFFFFFFF
_LOW = 0xFFFFFFFF
_X86_TOKEN = 0xC000003E
_NR_SKIP = 0xFFFFFFFF  # nr of a call that a tracer asked to skip


def compile(
    linux_seccomp: dict[str, Any],
    *,
    arch: str,
    pointer: str = "/linux/seccomp",
    receiver: tuple[str, str] = ("", ""),
) -> Seccomp:
    """The filter for a machine that uname(2) calls `arch` ("x86_64", "aarch64", …).

    receiver: (socket, JSON pointer of what names it) of the agent where there is no listenerPath.
    SpecError: the profile says what cannot be; UnsupportedError: too long for the kernel, or an
    architecture or action that cannot be had here. Both carry the JSON pointer.
    """
    default, groups = seccomp_profile.read(linux_seccomp, pointer)
    architectures = seccomp_profile.architectures(linux_seccomp, arch, pointer)
    agent = seccomp_profile.agent(linux_seccomp, groups, receiver, pointer)
    flags = seccomp_profile.flags(linux_seccomp, agent is not None, pointer)
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
    return Seccomp(program=program, flags=flags, agent=agent)


def unknown_names(linux_seccomp: dict[str, Any], *, arch: str) -> list[str]:
    """The system call names of a profile that `compile` skipped: no architecture of it has them."""
    known: set[str] = set(seccomp_abi.SOCKET_CALLS) | set(seccomp_abi.IPC_CALLS)
    for architecture in seccomp_profile.architectures(linux_seccomp, arch, "/linux/seccomp"):
        known.update(seccomp_abi.numbers(architecture.table))
    groups = linux_seccomp.get("syscalls") or []
    return sorted({name for group in groups for name in group["names"] if name not in known})


def _sections(
    architectures: list[Architecture], groups: list[Group], default: int
) -> list[Section]:
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


def _first(run: Run) -> int:
    return run[0]


def _ranges(runs: list[Run], default: int) -> list[tuple[int, Verdict]]:
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
    """x86_64 and x32 share a token: the one that is not listed is a bad architecture.

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
    rules: dict[str, list[Alternative]] = {}
    hidden = architecture.multiplexed and not ("socketcall" in always and "ipc" in always)
    for group in groups:
        if not (group.conditions or hidden):
            continue
        seen = [_narrowed(conditions, architecture.wide) for conditions in group.conditions]
        for conditions in seen:
            for name in group.names:
                rules.setdefault(name, []).append((conditions, group.verdict, group.pointer))
        if hidden:
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
    alternatives: list[Alternative],
) -> tuple[Rule, ...]:
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


def _precedence(rule: Rule) -> tuple[tuple[int, int, int], ...]:
    """Sort key: higher argument first, then equality before upper before lower bounds, then the
    greater value (for upper bounds the smaller); a shorter rule before a longer."""
    key = []
    for index, operator, _, value in rule[0]:
        if operator in ("LT", "LE"):
            key.append((-index, 1, value))
        else:
            key.append((-index, 2 if operator in ("GT", "GE") else 0, -value))
    return tuple(key)
