"""libseccomp as the oracle: the same profile, added rule by rule as runtimes do, as BPF."""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import os
import struct
from typing import Any

from rootless_pyoki.plan import seccomp_abi

UNKNOWN = -1  # __NR_SCMP_ERROR
X32_TOKEN = 0x4000003E  # libseccomp's own word for x32, whose AUDIT_ARCH is x86_64's
OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp."""

    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    )


class Refused(Exception):
    """libseccomp did not take a rule."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """libseccomp, or None where it is not installed."""
    name = ctypes.util.find_library("seccomp")
    if name is None:
        return None
    loaded = ctypes.CDLL(name)
    loaded.seccomp_init.restype = ctypes.c_void_p
    loaded.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    for function in ("release", "arch_add", "arch_remove", "rule_add_array", "export_bpf"):
        getattr(loaded, f"seccomp_{function}").argtypes = [ctypes.c_void_p]
    loaded.seccomp_release.restype = None
    loaded.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    loaded.seccomp_arch_remove.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    loaded.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    loaded.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_void_p,
    ]
    return loaded


def token(architecture: str) -> int:
    """libseccomp's SCMP_ARCH_* value."""
    if architecture == "SCMP_ARCH_X32":
        return X32_TOKEN
    known = seccomp_abi.architecture(architecture)
    assert known is not None
    return known.token


def resolve(name: str, architecture: str) -> int:
    """The call's number there; negative: it has none; UNKNOWN: libseccomp has never heard of it."""
    loaded = library()
    assert loaded is not None
    return int(
        loaded.seccomp_syscall_resolve_name_arch(
            ctypes.c_uint32(token(architecture)), name.encode()
        )
    )


def knows(architecture: str) -> bool:
    """Whether this libseccomp has the architecture at all."""
    loaded = library()
    assert loaded is not None
    word = ctypes.c_uint32(token(architecture))
    return bool(loaded.seccomp_syscall_resolve_num_arch(word, resolve("read", architecture)))


def action(name: str, errno: int | None) -> int:
    verdict = seccomp_abi.ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        verdict |= 1 if errno is None else errno
    return verdict


def export(profile: dict[str, Any], native: str) -> bytes:
    """The filter of the profile for a machine whose own architecture is `native`.

    Raises Refused(errno of the call).
    """
    loaded = library()
    assert loaded is not None
    default = action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    context = loaded.seccomp_init(ctypes.c_uint32(default))
    assert context
    try:
        if native != "SCMP_ARCH_X86_64":
            _must(loaded.seccomp_arch_remove(context, token("SCMP_ARCH_X86_64")))
            _must(loaded.seccomp_arch_add(context, token(native)))
        for name in profile.get("architectures", ()):
            _must(loaded.seccomp_arch_add(context, token(name)), 17)
        for group in profile.get("syscalls", ()):
            _add(loaded, context, group, default)
        return _exported(loaded, context)
    finally:
        loaded.seccomp_release(context)


def mended(program: bytes, profile: dict[str, Any]) -> bytes:
    """A big-endian export as it would be on such a machine, in our byte order.

    libseccomp 2.5 swaps the value of a `ret` twice where it repeats one for the reach of a jump.
    """
    verdicts = {0, action(profile["defaultAction"], profile.get("defaultErrnoRet"))}
    for group in profile["syscalls"]:
        verdicts.add(action(group["action"], group.get("errnoRet")))
    out = []
    for code, true, false, k in struct.iter_unpack(">HBBI", program):
        if code == 0x06 and k not in verdicts:
            k = int.from_bytes(k.to_bytes(4, "big"), "little")
        out.append(struct.pack("=HBBI", code, true, false, k))
    return b"".join(out)


def _add(loaded: ctypes.CDLL, context: int, group: dict[str, Any], default: int) -> None:
    verdict = action(group["action"], group.get("errnoRet"))
    if verdict == default:
        return
    comparisons = [
        Comparison(arg["index"], OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0))
        for arg in group.get("args") or ()
    ]
    indexes = [comparison.arg for comparison in comparisons]
    apart = len(set(indexes)) < len(indexes)
    for name in group["names"]:
        number = loaded.seccomp_syscall_resolve_name(name.encode())
        if number == UNKNOWN:
            continue
        for rule in [[one] for one in comparisons] if apart else [comparisons]:
            packed = (Comparison * len(rule))(*rule)
            _must(loaded.seccomp_rule_add_array(context, verdict, number, len(rule), packed))


def _exported(loaded: ctypes.CDLL, context: int) -> bytes:
    memory = os.memfd_create("filter")
    try:
        _must(loaded.seccomp_export_bpf(context, memory))
        return os.pread(memory, 1 << 20, 0)
    finally:
        os.close(memory)


def _must(result: int, *but: int) -> None:
    if result < 0 and -result not in but:
        raise Refused(-result)
