"""What a profile means, evaluated directly: slow, and shares no code with the compiler."""

from __future__ import annotations

import functools
from typing import Any

from rootless_pyoki.plan import seccomp_abi

KILL_THREAD = 0
COMPARE = {
    "SCMP_CMP_NE": lambda given, value, _: given != value,
    "SCMP_CMP_LT": lambda given, value, _: given < value,
    "SCMP_CMP_LE": lambda given, value, _: given <= value,
    "SCMP_CMP_EQ": lambda given, value, _: given == value,
    "SCMP_CMP_GE": lambda given, value, _: given >= value,
    "SCMP_CMP_GT": lambda given, value, _: given > value,
    "SCMP_CMP_MASKED_EQ": lambda given, value, two: given & value == two & value,
}


@functools.cache
def _names(table: str) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    for name, number in seccomp_abi.numbers(table).items():
        found.setdefault(number, []).append(name)
    return found


def _verdict(name: str, errno: int | None) -> int:
    data = (1 if errno is None else errno) if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else 0
    return seccomp_abi.ACTIONS[name] | data


def possible(
    profile: dict[str, Any], native: str, name: str, number: int, arguments: tuple[int, ...]
) -> set[int]:
    """The verdicts that the profile allows for a call on architecture `name` ("" = an unknown one).

    More than one only where rules with different actions hold for the same arguments.
    """
    listed = {native, *profile.get("architectures", ())}
    default = _verdict(profile["defaultAction"], profile.get("defaultErrnoRet"))
    if name in ("SCMP_ARCH_X86_64", "SCMP_ARCH_X32"):  # one AUDIT_ARCH_*; the number tells
        x32 = number & 0x40000000 and number < 0x80000000
        name = "SCMP_ARCH_X32" if x32 else "SCMP_ARCH_X86_64"
        if number >= 0x80000000 and number != 0xFFFFFFFF and "SCMP_ARCH_X32" not in listed:
            return {KILL_THREAD}
    if name not in listed:
        return {KILL_THREAD}
    architecture = seccomp_abi.architecture(name)
    assert architecture is not None
    width = 0xFFFFFFFFFFFFFFFF if architecture.wide else 0xFFFFFFFF
    names = set(_names(architecture.table).get(number, ()))
    direct = set(names)
    if "socketcall" in names:
        names |= {c for c, n in seccomp_abi.SOCKET_CALLS.items() if n == arguments[0] & width}
    if "ipc" in names:
        names |= {c for c, n in seccomp_abi.IPC_CALLS.items() if n == arguments[0] & width}
    certain: list[int] = []
    found: set[int] = set()
    for group in profile.get("syscalls", ()):
        verdict = _verdict(group["action"], group.get("errnoRet"))
        if verdict == default:
            continue
        for call in names.intersection(group["names"]):
            args = group.get("args") or ()
            tests = [
                COMPARE[arg["op"]](
                    arguments[arg["index"]] & width,
                    arg["value"] & width,
                    arg.get("valueTwo", 0) & width,
                )
                if call in direct or arg["index"]
                else True
                for arg in args
            ]
            indexes = [arg["index"] for arg in args]
            alike = len(set(indexes)) < len(indexes)
            needless = [
                arg["op"] == "SCMP_CMP_MASKED_EQ" and not arg["value"] & width for arg in args
            ]
            if call in direct and (any(needless) if alike else all(needless)):
                certain.append(verdict)
            elif any(tests) if alike else all(tests):
                found.add(verdict)
    return {certain[0]} if certain else found or {default}
