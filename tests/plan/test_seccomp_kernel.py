"""The kernel gives the verdicts that the interpreter predicts."""

from __future__ import annotations

import errno
import os
import random
import signal
from typing import Any

import pytest

from rootless_pyoki.plan import seccomp, seccomp_abi
from tests.seccomp import bpf, compare, install, profiles

MACHINE = os.uname().machine
NATIVE = seccomp_abi.native(MACHINE, "little")
OWN = seccomp_abi.architecture(NATIVE)
# Calls that ignore their arguments and change nothing, so any argument may be tried on them.
HARMLESS = ["getppid", "getuid", "geteuid", "getgid", "getegid", "gettid", "sched_yield"]
LETHAL = (0x00000000, 0x80000000, 0x00030000)  # KILL_THREAD, KILL_PROCESS, TRAP


def expected(verdict: int) -> int:
    """The errno a probe sees."""
    if verdict & 0xFFFF0000 == seccomp_abi.RET_ERRNO:
        return verdict & 0xFFFF
    return errno.ENOSYS if verdict & 0xFFFF0000 == seccomp_abi.RET_TRACE else 0


def plain_profile(seed: int) -> dict[str, Any]:
    """A random profile that leaves everything but the harmless calls alone."""
    chance = random.Random(seed)
    groups = [group for name in HARMLESS for group in profiles.random_rules(chance, name)]
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": groups}


def probes_of(
    profile: dict[str, Any], program: bytes, most: int
) -> list[tuple[int, tuple[int, ...], int]]:
    """(number, arguments, predicted verdict), every verdict as evenly as they come."""
    assert OWN is not None
    numbers = [seccomp_abi.numbers(OWN.table)[name] for name in HARMLESS]
    vectors = compare.vectors_of(profile, random.Random(1), 200)
    verdicts = bpf.run(program, OWN.token, numbers, vectors)
    found: dict[int, list[tuple[int, tuple[int, ...], int]]] = {}
    pairs = ((number, vector) for number in numbers for vector in vectors)
    for (number, vector), verdict in zip(pairs, verdicts, strict=True):
        found.setdefault(verdict, []).append((number, vector, verdict))
    chance = random.Random(2)
    return [
        probe
        for same in found.values()
        for probe in chance.sample(same, min(len(same), most // len(found) + 1))
    ]


def test_five_hundred_verdicts_are_the_kernels() -> None:
    """Raw calls under real filters end as predicted: result, errno, or SIGSYS."""
    confirmed: dict[int, int] = {}
    for seed in range(20):
        profile = plain_profile(seed)
        program = seccomp.compile(profile, arch=MACHINE).program
        probes = probes_of(profile, program, 40)
        gentle = [probe for probe in probes if probe[2] not in LETHAL]
        answers = install.answers(program, [probe[:2] for probe in gentle])
        for (number, arguments, verdict), (result, failed) in zip(gentle, answers, strict=True):
            assert failed == expected(verdict), (seed, number, arguments, hex(verdict))
            assert (result == -1) == bool(failed)
            confirmed[verdict] = confirmed.get(verdict, 0) + 1
        for probe in [probe for probe in probes if probe[2] in LETHAL][:6]:
            assert install.death(program, probe[:2]) == signal.SIGSYS, (seed, probe)
            confirmed[probe[2]] = confirmed.get(probe[2], 0) + 1
    assert sum(confirmed.values()) >= 500
    gentle_ones = {0x7FFF0000, 0x7FFC0000, 0x50000, 0x50001, 0x50026, 0x7FF00007}
    assert set(confirmed) == {*LETHAL, *gentle_ones}


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 exists on x86_64 only")
def test_x32_calls_kill_unless_listed() -> None:
    """getppid's x32 number is a bad architecture, and with X32 listed a call like others."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW"}
    probe = (110 | seccomp_abi.X32_BIT, (0,) * 6)
    assert install.death(seccomp.compile(profile, arch=MACHINE).program, probe) == signal.SIGSYS
    listed = {**profile, "architectures": ["SCMP_ARCH_X32"]}
    assert install.death(seccomp.compile(listed, arch=MACHINE).program, probe) == 0


@pytest.mark.parametrize("listed", [None, [], ["LOG"], ["TSYNC", "SPEC_ALLOW"]])
@pytest.mark.parametrize("notify", [False, True])
def test_the_kernel_takes_the_flags(listed: list[str] | None, notify: bool) -> None:
    """Every combination of flags that compiles is one that seccomp(2) accepts."""
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW"}
    if listed is not None:
        profile["flags"] = [f"SECCOMP_FILTER_FLAG_{flag}" for flag in listed]
    if notify:
        profile["syscalls"] = [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}]
        profile["listenerPath"] = "/run/agent.sock"
        if listed:
            profile["flags"] += ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    made = seccomp.compile(profile, arch=MACHINE)
    assert (made.agent is not None) == notify
    assert bool(made.flags & seccomp_abi.FLAG_NEW_LISTENER) == notify
    assert install.refusal(made.program, made.flags) == 0
