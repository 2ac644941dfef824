"""The compiler and libseccomp give the same verdicts, on every system call number."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import SpecError
from rootless_pyoki.plan import seccomp, seccomp_abi
from tests.seccomp import bpf, compare, oracle, profiles, reference

pytestmark = pytest.mark.skipif(
    oracle.library() is None or os.uname().machine != "x86_64",
    reason="needs libseccomp (libseccomp2) on x86_64",
)
NATIVE = "SCMP_ARCH_X86_64"
needs_podman = pytest.mark.skipif(
    not profiles.PODMAN.exists(), reason="needs podman's profile (golang-github-containers-common)"
)


def names() -> list[str]:
    """Names that we and this libseccomp number alike (Arm's sync_file_range2 is our alias)."""
    tables = {
        **seccomp_abi.numbers("x86_64"),
        **seccomp_abi.numbers("x86"),
        **seccomp_abi.numbers("arm"),
    }
    known = [name for name in tables if oracle.resolve(name, NATIVE) != oracle.UNKNOWN]
    return sorted(set(known) - {"sync_file_range2"})


def agree(profile: dict[str, Any], architectures: list[str], seed: int = 0) -> int:
    """Assert that both filters say the same everywhere; how many verdicts were compared."""
    ours = seccomp.compile(profile, arch="x86_64").program
    assert bpf.check(ours) == -1
    theirs = oracle.export(profile, NATIVE)
    compared, wrong = compare.differences(profile, ours, theirs, architectures, seed=seed)
    assert not wrong, (len(wrong), wrong[:3])
    return compared


@needs_podman
@pytest.mark.parametrize("capabilities", ["", "CAP_SYS_ADMIN CAP_AUDIT_WRITE CAP_SYS_PTRACE"])
def test_podmans_default_profile(capabilities: str) -> None:
    """No difference on x86_64, x86, x32 and a foreign architecture."""
    held = profiles.DEFAULT_CAPABILITIES.union(capabilities.split())
    profile = profiles.podman(capabilities=held)
    assert len(profile["architectures"]) == 3
    assert agree(profile, profile["architectures"]) > 20_000


@needs_podman
def test_a_profile_like_dockers() -> None:
    """EPERM default, masked clone flags, a condition on socket's family."""
    profile = profiles.like_docker()
    assert agree(profile, profile["architectures"]) > 20_000


@needs_podman
@pytest.mark.parametrize(
    "machine, native, others",
    [
        ("aarch64", "SCMP_ARCH_AARCH64", ["SCMP_ARCH_ARM"]),
        ("ppc64le", "SCMP_ARCH_PPC64LE", []),
        ("riscv64", "SCMP_ARCH_RISCV64", []),
        ("s390x", "SCMP_ARCH_S390X", ["SCMP_ARCH_S390"]),
        ("ppc64", "SCMP_ARCH_PPC64", ["SCMP_ARCH_PPC"]),
        ("parisc64", "SCMP_ARCH_PARISC64", ["SCMP_ARCH_PARISC"]),
        ("i686", "SCMP_ARCH_X86", []),
        ("armv7l", "SCMP_ARCH_ARM", []),
    ],
)
def test_other_machines(machine: str, native: str, others: list[str]) -> None:
    """The filter that another machine would get, its byte order included."""
    profile = {**profiles.like_docker(), "architectures": others}
    unlike = {"sync_file_range2", "arm_sync_file_range", "sync_file_range"}
    for group in profile["syscalls"]:
        group["names"] = [name for name in group["names"] if name not in unlike]
    big = seccomp_abi.architecture(native).big
    ours = bpf.in_our_order(seccomp.compile(profile, arch=machine).program, big)
    assert bpf.check(ours) == -1
    theirs = oracle.export(profile, native)
    if big:
        theirs = oracle.mended(theirs, profile)
    compared, wrong = compare.differences(profile, ours, theirs, [native, *others, NATIVE])
    assert compared > 10_000
    assert not wrong, (len(wrong), wrong[:3])


def test_random_profiles() -> None:
    """25 seeded profiles: all actions and operators, several rules a call and architectures."""
    every = names()
    for seed in range(25):
        profile = profiles.random_profile(random.Random(seed), every)
        listed = dict.fromkeys([NATIVE, "SCMP_ARCH_X32", *profile["architectures"]])
        agree(profile, list(listed), seed)


@pytest.mark.long
def test_many_random_profiles() -> None:
    """200 seeded profiles, all architectures of each and two that may not be listed."""
    every = names()
    for seed in range(200):
        profile = profiles.random_profile(random.Random(seed), every)
        listed = dict.fromkeys(
            [NATIVE, "SCMP_ARCH_X32", *profile["architectures"], "SCMP_ARCH_X86"]
        )
        agree(profile, list(listed), seed)


def test_where_libseccomp_loses_a_rule_we_do_not() -> None:
    """On combinations that libseccomp 2.5 merges wrongly, our verdict is what the rules say.

    Example: `a5 > 2` and `a5 < 2**32`, same action: 2.5.4 forgets one of them for a5 == 2**32.
    """
    every = names()
    for seed in range(12):
        profile = profiles.random_profile(random.Random(seed), every, plain=False)
        try:
            ours = seccomp.compile(profile, arch="x86_64").program
            theirs = oracle.export(profile, NATIVE)
        except (oracle.Refused, SpecError):
            continue
        listed = dict.fromkeys([NATIVE, *profile["architectures"]])
        _, wrong = compare.differences(profile, ours, theirs, list(listed), seed=seed)
        for name, number, arguments, mine, _ in wrong:
            assert mine in reference.possible(profile, NATIVE, name, number, arguments)


def test_rules_mean_what_they_say() -> None:
    """Against direct evaluation of the profile, also where rules of one call overlap."""
    every = sorted(seccomp_abi.numbers("x86_64"))
    checked = 0
    for seed in range(16):
        chance = random.Random(seed)
        profile = profiles.random_profile(chance, every, plain=False, overlapping=seed % 2 == 0)
        try:
            ours = seccomp.compile(profile, arch="x86_64").program
        except SpecError:
            continue
        vectors = compare.vectors_of(profile, chance, 40)
        for name in [NATIVE, *profile["architectures"], ""]:
            own = seccomp_abi.architecture(name)
            token, table = (own.token, own.table) if own else (compare.FOREIGN, "x86_64")
            numbers = chance.sample(sorted(seccomp_abi.numbers(table).values()), 12)
            found = bpf.run(ours, token, numbers, vectors)
            for at, verdict in enumerate(found):
                where = (numbers[at // len(vectors)], vectors[at % len(vectors)])
                assert verdict in reference.possible(profile, NATIVE, name, *where), (
                    seed,
                    name,
                    where,
                )
                checked += 1
    assert checked > 10_000


def test_the_reference_profile_is_podmans(tmp_path: Path) -> None:
    """The converter resolves includes and excludes by capability and architecture."""
    raw = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {}, "excludes": {}},
            {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_CHOWN"]}},
            {"names": ["set_tls"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm"]}},
        ],
    }
    path = tmp_path / "profile.json"
    path.write_text(json.dumps(raw))
    resolved = profiles.resolve(json.loads(path.read_text()))
    assert resolved["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert [group["names"] for group in resolved["syscalls"]] == [["read"]]
