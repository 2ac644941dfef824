"""Older kernels, played by a seccomp filter that answers newer system calls with ENOSYS.

An unprivileged process gets a filter only with no_new_privs (seccomp(2)), and then newuidmap has no
power: bundles for these kernels map one id (Bundle.single_map).
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable

# system call numbers since 5.1 are the same everywhere
OPENAT2 = 437
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, FSPICK = range(428, 434)
MOUNT_SETATTR = 442

KERNELS: dict[str, tuple[int, ...]] = {
    "this kernel": (),
    "no mount_setattr": (MOUNT_SETATTR,),
    "no openat2": (OPENAT2,),
    "no new mount calls": (OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, FSPICK, MOUNT_SETATTR),
}
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _JUMP_IF_SET, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def program(numbers: tuple[int, ...], error: int) -> bytes:
    """struct sock_filter[]: these calls fail, the others pass."""
    code = [(_LOAD, 0, 0, 0)]
    for index, number in enumerate(numbers):
        code.append((_JUMP_IF_EQUAL, len(numbers) - index, 0, number))
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ERRNO | error)]
    return _assemble(code)


def _assemble(code: list[tuple[int, int, int, int]]) -> bytes:
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def refuse_mount_flag(flag: int, error: int) -> Callable[[], None]:
    """A preexec function: mount(2) with this MS_* flag fails."""
    mount = 165 if os.uname().machine == "x86_64" else 40
    flags = 16 + 3 * 8  # struct seccomp_data: the low half of the fourth argument
    return _loader(
        [
            (_LOAD, 0, 0, 0),
            (_JUMP_IF_EQUAL, 0, 3, mount),
            (_LOAD, 0, 0, flags),
            (_JUMP_IF_SET, 0, 1, flag),
            (_RETURN, 0, 0, _ERRNO | error),
            (_RETURN, 0, 0, _ALLOW),
        ]
    )


def refuse(numbers: tuple[int, ...], error: int = errno.ENOSYS) -> Callable[[], None] | None:
    """A preexec function that loads the filter; None when there is nothing to refuse."""
    if not numbers:
        return None
    return _loader_of(program(numbers, error))


def _loader(code: list[tuple[int, int, int, int]]) -> Callable[[], None]:
    return _loader_of(_assemble(code))


def _loader_of(code: bytes) -> Callable[[], None]:
    libc = ctypes.CDLL(None, use_errno=True)

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))

    loaded = Program(len(code) // 8, code)

    def load() -> None:
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(loaded), 0, 0):
            raise OSError(ctypes.get_errno(), "PR_SET_SECCOMP")

    return load
