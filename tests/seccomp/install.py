"""Installs a filter in forked children and reports what the kernel does with raw system calls."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct

from rootless_pyoki.plan import seccomp_abi

PR_SET_NO_NEW_PRIVS = 38
SECCOMP_SET_MODE_FILTER = 1
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

Probe = tuple[int, tuple[int, ...]]
"""(system call number, six arguments)."""


class Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def _install(program: bytes, flags: int = 0) -> None:
    prog = Program(len(program) // 8, program)
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
    seccomp = seccomp_abi.numbers({"x86_64": "x86_64"}.get(os.uname().machine, "aarch64"))[
        "seccomp"
    ]
    if libc.syscall(seccomp, SECCOMP_SET_MODE_FILTER, flags, ctypes.byref(prog)) < 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def call(number: int, arguments: tuple[int, ...]) -> tuple[int, int]:
    """(result, errno) of a raw system call; errno 0 when it did not fail."""
    ctypes.set_errno(0)
    values = [ctypes.c_ulong(value) for value in arguments]
    result = libc.syscall(ctypes.c_long(number), *values)
    return result, ctypes.get_errno() if result == -1 else 0


def answers(program: bytes, probes: list[Probe]) -> list[tuple[int, int]]:
    """(result, errno) of each probe, all in one child under the filter; none of them may kill.

    Results go through shared memory: the filter may refuse write.
    """
    shared = mmap.mmap(-1, 16 * len(probes) + 16)
    pid = os.fork()
    if pid == 0:
        try:
            _install(program)
            for index, (number, arguments) in enumerate(probes):
                struct.pack_into("=qq", shared, 16 * index, *call(number, arguments))
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    return [struct.unpack_from("=qq", shared, 16 * index) for index in range(len(probes))]


def death(program: bytes, probe: Probe) -> int:
    """The signal that ends a child which makes this one call under the filter; 0: it survived."""
    pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGSYS, signal.SIG_DFL)
            _install(program)
            call(*probe)
            os._exit(0)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def refusal(program: bytes, flags: int) -> int:
    """The errno with which seccomp(2) refuses the program and flags; 0: it took them."""
    pid = os.fork()
    if pid == 0:
        try:
            _install(program, flags)
        except OSError as error:
            os._exit(error.errno or 255)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
