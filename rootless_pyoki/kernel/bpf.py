"""bpf(2): load a program for the devices of a cgroup, and attach it. Rare: not part of syscalls.py."""

from __future__ import annotations

import sys

from rootless_pyoki.kernel._call import check, ffi, lib

_PROG_LOAD, _PROG_ATTACH = 5, 8  # BPF_*
_CGROUP_DEVICE_PROGRAM = 15  # BPF_PROG_TYPE_CGROUP_DEVICE
_CGROUP_DEVICE = 6  # BPF_CGROUP_DEVICE, enum bpf_attach_type
_ALLOW_MULTI = 2  # BPF_F_ALLOW_MULTI
_INSTRUCTION = 8  # bytes


def load_device_filter(program: bytes) -> int:
    """BPF_PROG_LOAD: struct bpf_insn[] as a BPF_PROG_TYPE_CGROUP_DEVICE; its fd, close-on-exec.

    Raises SyscallError: EPERM without CAP_BPF and CAP_NET_ADMIN, EINVAL if the verifier refuses it.
    """
    instructions, license = ffi.from_buffer(program), ffi.new("char[]", b"none")
    attributes = (
        _words(4, _CGROUP_DEVICE_PROGRAM, len(program) // _INSTRUCTION)
        + _words(8, int(ffi.cast("uintptr_t", instructions)), int(ffi.cast("uintptr_t", license)))
        + _words(4, 0, 0)  # log_level, log_size
        + _words(8, 0)  # log_buf
        + _words(4, 0, 0)  # kern_version, prog_flags
        + b"pyoki_devices".ljust(16, b"\0")
    )
    return check(lib.pk_bpf(_PROG_LOAD, attributes, len(attributes)), "bpf", "BPF_PROG_LOAD")


def attach_device_filter(cgroup: int, program: int) -> None:
    """BPF_PROG_ATTACH to the cgroup's directory, beside the programs of others."""
    attributes = _words(4, cgroup, program, _CGROUP_DEVICE, _ALLOW_MULTI)
    check(lib.pk_bpf(_PROG_ATTACH, attributes, len(attributes)), "bpf", "BPF_PROG_ATTACH")


def _words(size: int, *numbers: int) -> bytes:
    return b"".join([number.to_bytes(size, sys.byteorder) for number in numbers])
