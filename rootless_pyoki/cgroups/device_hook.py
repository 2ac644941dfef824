"""Attach a device filter to a cgroup: bpf(2), BPF_PROG_TYPE_CGROUP_DEVICE.

For root of the machine only: it takes CAP_BPF (before Linux 5.8 CAP_SYS_ADMIN) and CAP_NET_ADMIN there.
"""

from __future__ import annotations

from rootless_pyoki.cgroups import tree
from rootless_pyoki.kernel import bpf, fds


def attach(path: str, program: bytes) -> None:
    """From now on the program is asked, beside those of others, for all who live in the cgroup or below.

    The kernel keeps it as long as the cgroup exists. Raises SyscallError.
    """
    held = cgroup = -1
    try:
        held = bpf.load_device_filter(program)
        cgroup = tree.open_cgroup(path)
        bpf.attach_device_filter(cgroup, held)
    finally:
        fds.close_quietly(cgroup)
        fds.close_quietly(held)
