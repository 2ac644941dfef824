"""/linux/resources/devices as a program for the cgroup's device hook: BPF_PROG_TYPE_CGROUP_DEVICE.

config-linux.md "Allowed Device list": the rules apply in their order, so for each kind of access the
last one that matches decides. The program looks at them from the last to the first and keeps the kinds
of access that are still undecided; what no rule speaks of is allowed, as without a list. Sources:
bpf(2), linux/bpf.h (struct bpf_cgroup_dev_ctx: access << 16 | type at 0, major at 4, minor at 8),
Documentation/bpf/standardization/instruction-set.rst.

Only loaded where a filter can be attached: for root of the machine.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Rule = tuple[bool, int, int, int, int]  # allow, type or ANY, major or ANY, minor or ANY, access

ANY = -1
_TYPES = {"b": 1, "c": 2, "u": 2, "a": ANY, "p": 0}  # BPF_DEVCG_DEV_*; a fifo is no device
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_ALL = 7
_CHARACTER, _BLOCK = 2, 1

# Programs need these whatever the list says; a node can be made but not opened by that alone.
ALWAYS: tuple[Rule, ...] = (
    (True, _CHARACTER, ANY, ANY, 1),
    (True, _BLOCK, ANY, ANY, 1),
    (True, _CHARACTER, 1, 3, _ALL),  # null
    (True, _CHARACTER, 1, 5, _ALL),  # zero
    (True, _CHARACTER, 1, 7, _ALL),  # full
    (True, _CHARACTER, 1, 8, _ALL),  # random
    (True, _CHARACTER, 1, 9, _ALL),  # urandom
    (True, _CHARACTER, 5, 0, _ALL),  # tty
    (True, _CHARACTER, 5, 2, _ALL),  # ptmx
    (True, _CHARACTER, 136, ANY, _ALL),  # pts/*
)

# registers: the answer, what is asked of us, its type, the access undecided, major, minor
_R0, _CTX, _TYPE, _LEFT, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5
_LOAD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_AND = 0x54  # BPF_ALU | BPF_AND | BPF_K
_RSH = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_MOV = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_JA = 0x05  # BPF_JMP | BPF_JA
_JNE = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_JSET = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_EXIT = 0x95

_Instruction = tuple[int, int, int, int, int]  # code, destination, source, offset, immediate


def compile(devices: Sequence[dict[str, Any]], *, big: bool = sys.byteorder == "big") -> bytes:
    """struct bpf_insn[]; big: the byte order of the machine."""
    code: list[_Instruction] = [
        (_LOAD, _TYPE, _CTX, 0, 0),
        (_AND, _TYPE, 0, 0, 0xFFFF),
        (_LOAD, _LEFT, _CTX, 0, 0),
        (_RSH, _LEFT, 0, 0, 16),
        (_LOAD, _MAJOR, _CTX, 4, 0),
        (_LOAD, _MINOR, _CTX, 8, 0),
    ]
    for rule in reversed((*[_rule(device) for device in devices], *ALWAYS)):
        code += _block(rule)
        if rule[1:] == (ANY, ANY, ANY, _ALL):
            break  # all is decided
    else:
        code += _answer(True)
    return b"".join([_encode(instruction, big) for instruction in code])


def _rule(device: dict[str, Any]) -> Rule:
    access = 0
    for letter in device.get("access") or "rwm":
        access |= _ACCESS[letter]
    numbers = [device.get(key) for key in ("major", "minor")]
    major, minor = (ANY if number is None or number < 0 else number for number in numbers)
    return bool(device["allow"]), _TYPES[device.get("type") or "a"], major, minor, access


def _block(rule: Rule) -> list[_Instruction]:
    """Return, or decide some kinds of access and run off the end."""
    allow, *numbers, access = rule
    if access == _ALL:
        inner = _answer(allow)
    elif allow:
        inner = [(_AND, _LEFT, 0, 0, _ALL & ~access), (_JNE, _LEFT, 0, 2, 0), *_answer(True)]
    else:
        inner = [(_JSET, _LEFT, 0, 1, access), (_JA, 0, 0, 2, 0), *_answer(False)]
    for register, number in zip((_MINOR, _MAJOR, _TYPE), reversed(numbers), strict=True):
        if number >= 1 << 31:
            return []  # no device has such a number
        if number != ANY:
            inner = [(_JNE, register, 0, len(inner), number), *inner]
    return inner


def _answer(allow: bool) -> list[_Instruction]:
    return [(_MOV, _R0, 0, 0, int(allow)), (_EXIT, 0, 0, 0, 0)]


def _encode(instruction: _Instruction, big: bool) -> bytes:
    code, destination, source, offset, immediate = instruction
    registers = destination << 4 | source if big else source << 4 | destination
    numbers = ((offset & 0xFFFF, 2), (immediate & 0xFFFFFFFF, 4))
    parts = [n.to_bytes(size, "big" if big else "little") for n, size in numbers]
    return bytes((code, registers)) + b"".join(parts)
