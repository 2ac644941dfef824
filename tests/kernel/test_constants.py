"""kernel.constants: every number against the compiler's, on this architecture."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from rootless_pyoki.kernel import constants

HEADERS = """
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/ioprio.h>
#include <linux/magic.h>
#include <linux/memfd.h>
#include <linux/mempolicy.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
"""

# Not macros, so #ifdef does not see them; all are older than any header we are built with.
ENUMS = [
    "FSCONFIG_SET_FLAG",
    "FSCONFIG_SET_STRING",
    "FSCONFIG_SET_BINARY",
    "FSCONFIG_SET_PATH",
    "FSCONFIG_SET_PATH_EMPTY",
    "FSCONFIG_SET_FD",
    "FSCONFIG_CMD_CREATE",
    "FSCONFIG_CMD_RECONFIGURE",
    "SOCK_STREAM",
    "SOCK_DGRAM",
    "SOCK_SEQPACKET",
    "SHUT_RD",
    "SHUT_WR",
    "SHUT_RDWR",
    "ST_NODEV",
    "ST_NOEXEC",
    "ST_SYNCHRONOUS",
    "ST_NOATIME",
    "ST_NODIRATIME",
    "ST_RELATIME",
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "IOPRIO_CLASS_NONE",
    "IOPRIO_CLASS_RT",
    "IOPRIO_CLASS_BE",
    "IOPRIO_CLASS_IDLE",
    "IOPRIO_WHO_PROCESS",
    "PER_LINUX",
    "PER_LINUX32",
    "ADDR_NO_RANDOMIZE",
    "MPOL_PREFERRED_MANY",
]

# Younger than the headers of Debian 12 (6.1); values from the kernel's include/uapi.
YOUNG = {
    "MOVE_MOUNT_BENEATH": 0x200,
    "FSCONFIG_CMD_CREATE_EXCL": 8,
    "ST_NOSYMFOLLOW": 0x2000,
    "PID_FS_MAGIC": 0x50494446,
    "F_SEAL_EXEC": 0x20,
    "MFD_NOEXEC_SEAL": 8,
    "MFD_EXEC": 0x10,
    "PR_SET_MDWE": 65,
    "PR_SET_MEMORY_MERGE": 67,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
COMPUTED = {"SIGRTMIN", "SIGRTMAX"}  # calls in the headers where they are known at all


def table() -> dict[str, int]:
    numbers = {
        name: value
        for name, value in vars(constants).items()
        if name.isupper() and not name.startswith("_") and isinstance(value, int)
    }
    return numbers | constants.CAPABILITIES | constants.SIGNALS | constants.RLIMITS


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """What the C compiler makes of the same names; those it does not know are left out."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        pytest.skip("no C compiler here")
    folder: Path = tmp_path_factory.mktemp("constants")
    lines = []
    for name in sorted(table()):
        line = f'printf("{name} %lld\\n", (long long)({name}));'
        known = name in ENUMS or name.startswith("RLIMIT_")
        lines.append(line if known else f"#ifdef {name}\n{line}\n#endif")
    source = folder / "names.c"
    source.write_text(HEADERS + "int main(void) {\n" + "\n".join(lines) + "\nreturn 0; }\n")
    subprocess.run([compiler, "-w", "-o", folder / "names", source], check=True)
    out = subprocess.run([folder / "names"], check=True, capture_output=True, text=True).stdout
    return {name: int(value) for name, value in map(str.split, out.splitlines())}


def test_numbers_are_the_compilers(compiled: dict[str, int]) -> None:
    """No name differs, and none is left unchecked but those younger than the headers."""
    ours = table()
    assert {name: ours[name] % 2**64 for name in compiled} == {
        name: value % 2**64 for name, value in compiled.items()
    }
    assert set(ours) - set(compiled) <= set(YOUNG) | COMPUTED
    assert len(compiled) > 400


def test_young_numbers() -> None:
    """What older headers lack has the value of the kernel's own headers."""
    assert {name: getattr(constants, name) for name in YOUNG} == YOUNG


def test_names_agree_with_the_standard_library() -> None:
    """errno, signal and os know some of the names too."""
    for module in (errno, os):
        for name, value in vars(module).items():
            if isinstance(value, int) and name in vars(constants) and name.isupper():
                assert getattr(constants, name) == value, name
    known = {name: int(one) for name, one in signal.Signals.__members__.items()}
    assert known == known | constants.SIGNALS
    assert (constants.SIGRTMIN, constants.SIGRTMAX) == (signal.SIGRTMIN, signal.SIGRTMAX)


def test_capabilities_are_complete() -> None:
    """Every capability of the running kernel has a name, and they are numbered without a gap."""
    with open("/proc/sys/kernel/cap_last_cap") as file:
        last = int(file.read())
    assert sorted(constants.CAPABILITIES.values()) == list(range(len(constants.CAPABILITIES)))
    assert last < len(constants.CAPABILITIES)
