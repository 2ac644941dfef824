"""Two filters, every system call number, chosen arguments: where do they differ?"""

from __future__ import annotations

import itertools
import random
from typing import Any

from rootless_pyoki.plan import seccomp_abi
from tests.seccomp import bpf

FULL = 0xFFFFFFFFFFFFFFFF
FOREIGN = 0xDEADBEEF  # an AUDIT_ARCH_* that nobody has


def interesting(profile: dict[str, Any]) -> dict[int, set[int]]:
    """Argument → values on both sides of each value that the profile compares it with."""
    values: dict[int, set[int]] = {index: {0, FULL} for index in range(6)}
    for group in profile.get("syscalls", ()):
        for arg in group.get("args") or ():
            for value in (arg["value"], arg.get("valueTwo", 0)):
                near = {value, value - 1, value + 1, value ^ 1 << 32, value & 0xFFFFFFFF}
                near |= {value | 1 << 63, ~arg["value"] | value, value << 32, value >> 32}
                values[arg["index"]] |= {one & FULL for one in near}
    values[0] |= {*range(25)}  # what socketcall and ipc multiplex
    return values


def vectors_of(profile: dict[str, Any], chance: random.Random, most: int) -> list[tuple[int, ...]]:
    """Argument vectors: each value alone, then random mixtures."""
    values = {index: sorted(found) for index, found in interesting(profile).items()}
    vectors = [(0,) * 6, (FULL,) * 6]
    for index, found in values.items():
        vectors += [tuple(one if index == at else 0 for at in range(6)) for one in found]
    while len(vectors) < most:
        vectors.append(tuple(chance.choice(values[index]) for index in range(6)))
    return vectors[:most]


def differences(
    profile: dict[str, Any],
    ours: bytes,
    theirs: bytes,
    architectures: list[str],
    *,
    seed: int = 0,
    most: int = 300,
) -> tuple[int, list[tuple[str, int, tuple[int, ...], int, int]]]:
    """(how many verdicts were compared, [(architecture, number, arguments, ours, theirs)])."""
    chance = random.Random(seed)
    vectors = vectors_of(profile, chance, most)
    named = {
        name
        for group in profile.get("syscalls", ())
        if group.get("args")
        for name in group["names"]
    }
    compared, wrong = 0, []
    for name in [*architectures, ""]:
        architecture = seccomp_abi.architecture(name)
        token = architecture.token if architecture else FOREIGN
        big = bool(architecture and architecture.big)
        table = seccomp_abi.numbers(architecture.table) if architecture else {"read": 0}
        least, highest = min(table.values()), max(table.values())
        plain = [*range(max(0, least - 64), least), *range(least, min(highest, least + 600) + 65)]
        plain += [number | 0x40000000 for number in range(612)] + list(table.values())
        plain += [
            0x3FFFFFFF,
            0x40000000,
            0x7FFFFFFF,
            0x80000000,
            0xFFFFFFFE,
            0xFFFFFFFF,
            0xFFFFFF9B,
        ]
        close = [table[one] for one in named if one in table]
        close += [table[one] for one in ("socketcall", "ipc") if one in table]
        for numbers, chosen in ((plain, vectors[:4]), (close, vectors)):
            mine = bpf.run(ours, token, numbers, chosen, big=big)
            other = bpf.run(theirs, token, numbers, chosen, big=big)
            compared += len(mine)
            if mine != other:
                pairs = zip(itertools.product(numbers, chosen), mine, other, strict=True)
                wrong += [(name, *where, a, b) for where, a, b in pairs if a != b]
    return compared, wrong
