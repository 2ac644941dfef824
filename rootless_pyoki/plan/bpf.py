"""Seccomp filters as classic BPF: verdicts for ranges of system call numbers become a program.

    ld arch; per architecture: jeq token → ld nr → a balanced tree of "nr >= N" → leaves

A leaf is one instruction: `ret VERDICT`, or `ja` to a chain of argument rules; chains stand at the
end, each once however many calls use it. Conditional jumps reach 255 instructions; the tree goes
through `ja` where a half is longer. Source: seccomp(2), linux/filter.h, linux/seccomp.h (struct
seccomp_data: nr at 0, arch at 4, instruction_pointer at 8, six 64-bit args at 16).

While a program is built an instruction is one int: code | jt << 16 | jf << 24 | k << 32.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypeAlias

MAX_INSTRUCTIONS: Final = 4096  # BPF_MAXINSNS

_LD: Final = 0x20  # BPF_LD | BPF_W | BPF_ABS
_AND: Final = 0x54  # BPF_ALU | BPF_AND | BPF_K
_JA: Final = 0x05  # BPF_JMP | BPF_JA
_JEQ: Final = 0x15
_JGT: Final = 0x25
_JGE: Final = 0x35
_RET: Final = 0x06  # BPF_RET | BPF_K

_LD_NR: Final = _LD | 0 << 32
_LD_ARCH: Final = _LD | 4 << 32
_JGE_OVER_ONE: Final = _JGE | 1 << 16
_WORD: Final = 0xFFFFFFFF

Condition: TypeAlias = "tuple[int, str, int, int]"
"""(argument 0 to 5, "EQ" NE GT GE LT LE or MASKED_EQ, mask, value already masked)."""

Rule: TypeAlias = "tuple[tuple[Condition, ...], int]"
"""(conditions that must all hold, SECCOMP_RET_* value)."""

Chain: TypeAlias = "tuple[bool, tuple[Rule, ...]]"
"""(64-bit comparisons, rules: the first that holds decides; none: the filter's default)."""

Verdict: TypeAlias = "int | Chain"
Section: TypeAlias = "tuple[int, list[tuple[int, Verdict]]]"
"""(AUDIT_ARCH_*, ascending (first number, verdict up to the next one), from 0 on)."""


def assemble(sections: list[Section], *, default: int, bad_arch: int, big: bool) -> bytes:
    """struct sock_filter[]: each section for its architecture, `bad_arch` for all others.

    default: what a chain returns when no rule of it holds; big: byte order of the target.
    May be longer than MAX_INSTRUCTIONS: the caller looks.
    """
    out = [_LD_ARCH]
    chains: dict[Chain, list[int]] = {}  # chain → where a `ja` to it waits for its offset
    for token, ranges in sections:
        size = 1 + _size(len(ranges))
        if size > 255:
            out += (_JEQ | 1 << 16 | token << 32, _JA | size << 32)
        else:
            out.append(_JEQ | size << 24 | token << 32)
        out.append(_LD_NR)
        start = len(out)
        _emit_tree(out, [_leaf(verdict) for _, verdict in ranges], ranges, 0, len(ranges))
        waiting = [verdict for _, verdict in ranges if not isinstance(verdict, int)]
        if waiting:
            leaves = [at for at in range(start, len(out)) if out[at] == _JA]
            for at, chain in zip(leaves, waiting, strict=True):
                chains.setdefault(chain, []).append(at)
    out.append(_RET | bad_arch << 32)
    for chain, places in chains.items():
        for at in places:
            out[at] = _JA | len(out) - at - 1 << 32
        for conditions, verdict in chain[1]:
            out += _rule(conditions, verdict, chain[0], big)
        out.append(_RET | default << 32)
    if big:
        return b"".join([_big(instruction) for instruction in out])
    return b"".join([instruction.to_bytes(8, "little") for instruction in out])


_sizes: dict[int, int] = {1: 1}


def _size(count: int) -> int:
    """Instructions in the tree over `count` ranges."""
    size = _sizes.get(count)
    if size is None:
        left = _size(count // 2)
        size = _sizes[count] = 1 + (left > 255) + left + _size(count - count // 2)
    return size


def _leaf(verdict: Verdict) -> int:
    """`ret VERDICT`; for a chain a `ja` whose offset comes later (no other `ja` has offset 0)."""
    return _RET | verdict << 32 if isinstance(verdict, int) else _JA


def _emit_tree(
    out: list[int], leaves: list[int], ranges: list[tuple[int, Verdict]], low: int, high: int
) -> None:
    """Append the tree that finds a number's range among ranges[low:high]; leaves in their order."""
    count = high - low
    if count == 2:
        out += (_JGE_OVER_ONE | ranges[low + 1][0] << 32, leaves[low], leaves[low + 1])
        return
    if count == 1:
        out.append(leaves[low])
        return
    half = count // 2
    left = _size(half)
    if left > 255:
        out += (_JGE | 1 << 24 | ranges[low + half][0] << 32, _JA | left << 32)
    else:
        out.append(_JGE | left << 16 | ranges[low + half][0] << 32)
    _emit_tree(out, leaves, ranges, low, low + half)
    _emit_tree(out, leaves, ranges, low + half, high)


# Steps of a comparison: (half "hi" or "lo" or "" = accumulator has it, jump, where when true, else)
_ON: Final = 0  # the next instruction
_PASS: Final = 1  # the condition holds
_FAIL: Final = 2  # the rule does not

_WIDE: dict[str, tuple[tuple[str, int, int, int], ...]] = {
    "EQ": (("hi", _JEQ, _ON, _FAIL), ("lo", _JEQ, _PASS, _FAIL)),
    "NE": (("hi", _JEQ, _ON, _PASS), ("lo", _JEQ, _FAIL, _PASS)),
    "GT": (("hi", _JGT, _PASS, _ON), ("", _JEQ, _ON, _FAIL), ("lo", _JGT, _PASS, _FAIL)),
    "GE": (("hi", _JGT, _PASS, _ON), ("", _JEQ, _ON, _FAIL), ("lo", _JGE, _PASS, _FAIL)),
    "LT": (("hi", _JGT, _FAIL, _ON), ("", _JEQ, _ON, _PASS), ("lo", _JGE, _FAIL, _PASS)),
    "LE": (("hi", _JGT, _FAIL, _ON), ("", _JEQ, _ON, _PASS), ("lo", _JGT, _FAIL, _PASS)),
}
_WIDE["MASKED_EQ"] = _WIDE["EQ"]


def _rule(conditions: tuple[Condition, ...], verdict: int, wide: bool, big: bool) -> list[int]:
    """Instructions that return `verdict` when all conditions hold and else run off the end."""
    steps: list[tuple[int, int, int]] = []  # (instruction, where when true, where when false)
    ends: list[int] = []  # per step: index after its condition
    for argument, operator, mask, value in conditions:
        for half, jump, true, false in _WIDE[operator] if wide else _WIDE[operator][-1:]:
            high = half == "hi" or (not half)
            part = mask >> 32 if high else mask & _WORD
            if half:
                offset = 16 + 8 * argument + (4 if high != big else 0)
                steps.append((_LD | offset << 32, _ON, _ON))
                if part != _WORD:
                    steps.append((_AND | part << 32, _ON, _ON))
            steps.append((jump | (value >> 32 if high else value & _WORD) << 32, true, false))
        ends += [len(steps)] * (len(steps) - len(ends))
    length = len(steps) + 1
    out: list[int] = []
    for at, (instruction, true, false) in enumerate(steps):
        to = (0, ends[at] - at - 1, length - at - 1)
        out.append(instruction | to[true] << 16 | to[false] << 24)
    out.append(_RET | verdict << 32)
    return out


def _big(instruction: int) -> bytes:
    """One instruction for a big-endian machine."""
    code, true, false = instruction & 0xFFFF, instruction >> 16 & 0xFF, instruction >> 24 & 0xFF
    return (code << 48 | true << 40 | false << 32 | instruction >> 32).to_bytes(8, "big")
