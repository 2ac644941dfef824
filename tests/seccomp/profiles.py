"""Profiles to try: podman's default, one shaped like Docker's, and random ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from rootless_pyoki.plan import seccomp_abi

PODMAN = Path("/usr/share/containers/seccomp.json")

DEFAULT_CAPABILITIES = frozenset(
    [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_NET_BIND_SERVICE",
        "CAP_SETFCAP",
        "CAP_SETGID",
        "CAP_SETPCAP",
        "CAP_SETUID",
        "CAP_SYS_CHROOT",
    ]
)

# Go's name of an architecture → the SCMP_ARCH_* whose `archMap` entry applies
GO_ARCHITECTURES = {"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}


def resolve(
    profile: dict[str, Any],
    *,
    go_architecture: str = "amd64",
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES,
) -> dict[str, Any]:
    """An engine's profile (archMap, includes, excludes) as the /linux/seccomp of config.json."""
    own = GO_ARCHITECTURES[go_architecture]
    mapped = next(entry for entry in profile["archMap"] if entry["architecture"] == own)
    resolved: dict[str, Any] = {
        "defaultAction": profile["defaultAction"],
        "architectures": [own, *(mapped["subArchitectures"] or ())],
        "syscalls": [],
    }
    if "defaultErrnoRet" in profile:
        resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
    for group in profile["syscalls"]:
        includes, excludes = group.get("includes") or {}, group.get("excludes") or {}
        if includes.get("arches") and go_architecture not in includes["arches"]:
            continue
        if go_architecture in excludes.get("arches", ()):
            continue
        if not capabilities.issuperset(includes.get("caps", ())):
            continue
        if capabilities.intersection(excludes.get("caps", ())):
            continue
        kept = {"names": group["names"], "action": group["action"]}
        if "errnoRet" in group:
            kept["errnoRet"] = group["errnoRet"]
        if group.get("args"):
            kept["args"] = group["args"]
        resolved["syscalls"].append(kept)
    return resolved


def podman(**changes: Any) -> dict[str, Any]:
    """What podman puts in config.json for a container with default capabilities."""
    return resolve(json.loads(PODMAN.read_text()), **changes)


def like_docker() -> dict[str, Any]:
    """Podman's list in the shape of Docker's default profile.

    EPERM by default, clone without namespace flags only, clone3 not there at all, no vsock sockets,
    mount and namespace calls not allowed.
    """
    profile = podman()
    namespaces = [
        "clone",
        "clone3",
        "unshare",
        "setns",
        "mount",
        "umount",
        "umount2",
        "pivot_root",
        "mount_setattr",
        "move_mount",
        "open_tree",
        "fsopen",
        "fsconfig",
        "fsmount",
        "fspick",
        "keyctl",
        "add_key",
        "request_key",
    ]
    groups = []
    for group in profile["syscalls"]:
        names = [name for name in group["names"] if name not in (*namespaces, "socket")]
        if group["action"] == "SCMP_ACT_ALLOW" and names:
            groups.append({**group, "names": names})
    no_namespace = {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    no_vsock = {"index": 0, "value": 40, "op": "SCMP_CMP_NE"}
    groups += [
        {"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [no_vsock]},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_namespace]},
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    ]
    return {**profile, "defaultErrnoRet": 1, "syscalls": groups}


VERDICTS: tuple[tuple[str, int | None], ...] = (
    ("SCMP_ACT_ALLOW", None),
    ("SCMP_ACT_ERRNO", None),
    ("SCMP_ACT_ERRNO", 38),
    ("SCMP_ACT_ERRNO", 0),
    ("SCMP_ACT_TRACE", 7),
    ("SCMP_ACT_KILL", None),
    ("SCMP_ACT_KILL_THREAD", None),
    ("SCMP_ACT_KILL_PROCESS", None),
    ("SCMP_ACT_TRAP", None),
    ("SCMP_ACT_LOG", None),
)
VALUES = (0, 1, 2, 5, 9, 40, 0x7E020000, 0x7FFFFFFF, 0xFFFFFFFF, 0x100000000, 0x500000002)
VALUES += (0x8000000000000000, 0xFFFFFFFFFFFFFFFF)
ORDERED = ("SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_GE", "SCMP_CMP_GT")
EQUALITIES = ("SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_MASKED_EQ")
ARCHITECTURES = ("SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_X86_64", "SCMP_ARCH_ARM")
ARCHITECTURES += ("SCMP_ARCH_AARCH64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_RISCV64")


def random_profile(
    chance: random.Random, names: list[str], *, plain: bool = True, overlapping: bool = False
) -> dict[str, Any]:
    """Every action, operator and kind of rule, unconditional groups, several architectures.

    plain: only combinations of rules that libseccomp 2.5 merges rightly (`_shapes`);
    overlapping: rules of one call have different actions, perhaps for the same arguments.
    """
    default, default_errno = chance.choice(VERDICTS)
    profile: dict[str, Any] = {
        "defaultAction": default,
        "architectures": chance.sample(ARCHITECTURES, chance.randint(0, 4)),
        "syscalls": [],
    }
    if default_errno is not None:
        profile["defaultErrnoRet"] = default_errno
    # libseccomp refuses two rules for the same multiplexed call, even unconditional ones
    multiplexed = {*seccomp_abi.SOCKET_CALLS, *seccomp_abi.IPC_CALLS}
    used: set[str] = set()
    for _ in range(chance.randint(1, 12)):
        picked = [name for name in chance.sample(names, chance.randint(2, 60)) if name not in used]
        used |= multiplexed.intersection(picked)
        if picked:
            profile["syscalls"].append(_group(chance, picked))
    for name in chance.sample([name for name in names if name not in used], chance.randint(1, 12)):
        profile["syscalls"] += random_rules(chance, name, plain=plain, overlapping=overlapping)
    chance.shuffle(profile["syscalls"])
    return profile


def random_rules(
    chance: random.Random, name: str, *, plain: bool = True, overlapping: bool = False
) -> list[dict[str, Any]]:
    """Rules with conditions for one call."""
    action, errno = chance.choice(VERDICTS)
    groups = []
    for args in _shapes(chance) if plain else _any_shape(chance):
        if overlapping:
            action, errno = chance.choice(VERDICTS)
        groups.append({**_group(chance, [name], action, errno), "args": args})
    return groups


def _group(
    chance: random.Random, names: list[str], action: str = "", errno: int | None = None
) -> dict[str, Any]:
    if not action:
        action, errno = chance.choice(VERDICTS)
    group: dict[str, Any] = {"names": names, "action": action}
    if errno is not None:
        group["errnoRet"] = errno
    return group


def _any_shape(chance: random.Random) -> list[list[dict[str, Any]]]:
    """The `args` of one to four rules for one call, without restraint."""
    return [
        [_argument(chance) for _ in range(chance.randint(1, 3))]
        for _ in range(chance.randint(1, 4))
    ]


def _shapes(chance: random.Random) -> list[list[dict[str, Any]]]:
    """The `args` of the rules for one call, as real profiles have them.

    libseccomp 2.5.4 loses verdicts when rules of several arguments share a prefix or the high word
    of an ordered comparison; so: one rule with many arguments, several with one argument each (at
    most one of them ordered), or several that test the same arguments for equality.
    """
    shape = chance.randrange(3)
    if shape == 0:
        indexes = chance.sample(range(6), chance.randint(1, 5))
        return [[_argument(chance, index) for index in indexes]]
    if shape == 1:
        operators = [chance.choice(ORDERED), *chance.choices(EQUALITIES, k=chance.randint(0, 3))]
        chance.shuffle(operators)
        return [[_argument(chance, operator=operator)] for operator in operators]
    indexes = chance.sample(range(6), chance.randint(1, 3))
    return [
        [_argument(chance, index, "SCMP_CMP_EQ") for index in indexes]
        for _ in range(chance.randint(2, 4))
    ]


def _argument(
    chance: random.Random, index: int | None = None, operator: str = ""
) -> dict[str, Any]:
    operator = operator or chance.choice((*ORDERED, *EQUALITIES))
    index = chance.randint(0, 5) if index is None else index
    argument = {"index": index, "value": chance.choice(VALUES), "op": operator}
    if operator == "SCMP_CMP_MASKED_EQ":
        argument["valueTwo"] = chance.choice(VALUES)
    return argument
