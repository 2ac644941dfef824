"""What the names in a seccomp profile stand for: actions, flags, operators, architectures.

Sources: config-linux.md "Seccomp", seccomp(2), linux/{seccomp,audit,net,ipc}.h.
The values are those of every architecture, so they do not come from this machine's compiler.
"""

from __future__ import annotations

from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# SECCOMP_RET_*: what a filter returns; ERRNO and TRACE carry 16 bits of data
RET_KILL_THREAD: Final = 0x00000000
RET_ERRNO: Final = 0x00050000
RET_NOTIFY: Final = 0x7FC00000
RET_TRACE: Final = 0x7FF00000

ACTIONS: dict[str, int] = {
    "SCMP_ACT_KILL": RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": RET_KILL_THREAD,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": RET_ERRNO,
    "SCMP_ACT_TRACE": RET_TRACE,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": RET_NOTIFY,
}

# SECCOMP_FILTER_FLAG_*
FLAG_TSYNC: Final = 1 << 0
FLAG_SPEC_ALLOW: Final = 1 << 2
FLAG_NEW_LISTENER: Final = 1 << 3
FLAG_TSYNC_ESRCH: Final = 1 << 4
FLAG_WAIT_KILLABLE_RECV: Final = 1 << 5

FLAGS: dict[str, int] = {
    "SECCOMP_FILTER_FLAG_TSYNC": FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": 1 << 1,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": FLAG_WAIT_KILLABLE_RECV,
}

OPERATORS: tuple[str, ...] = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)

X32_BIT: Final = 0x40000000


class Architecture(Record):
    """One value of /linux/seccomp/architectures."""

    token: int  # AUDIT_ARCH_* as struct seccomp_data carries it
    wide: bool  # arguments have 64 bits that count
    big: bool  # big endian
    table: str  # the table of system call numbers
    multiplexed: bool  # has socketcall(2) and ipc(2)


# (AUDIT_ARCH_*, 64 bit, big endian, table, has socketcall and ipc)
_ARCHITECTURES: dict[str, tuple[int, bool, bool, str, bool]] = {
    "SCMP_ARCH_X86": (0x40000003, False, False, "x86", True),
    "SCMP_ARCH_X86_64": (0xC000003E, True, False, "x86_64", False),
    "SCMP_ARCH_X32": (0xC000003E, False, False, "x32", False),
    "SCMP_ARCH_ARM": (0x40000028, False, False, "arm", False),
    "SCMP_ARCH_AARCH64": (0xC00000B7, True, False, "aarch64", False),
    "SCMP_ARCH_LOONGARCH64": (0xC0000102, True, False, "loongarch64", False),
    "SCMP_ARCH_M68K": (0x00000004, False, True, "m68k", True),
    "SCMP_ARCH_MIPS": (0x00000008, False, True, "mips", True),
    "SCMP_ARCH_MIPS64": (0x80000008, True, True, "mips64", False),
    "SCMP_ARCH_MIPS64N32": (0xA0000008, False, True, "mips64n32", False),
    "SCMP_ARCH_MIPSEL": (0x40000008, False, False, "mips", True),
    "SCMP_ARCH_MIPSEL64": (0xC0000008, True, False, "mips64", False),
    "SCMP_ARCH_MIPSEL64N32": (0xE0000008, False, False, "mips64n32", False),
    "SCMP_ARCH_PPC": (0x00000014, False, True, "ppc", True),
    "SCMP_ARCH_PPC64": (0x80000015, True, True, "ppc64", True),
    "SCMP_ARCH_PPC64LE": (0xC0000015, True, False, "ppc64", True),
    "SCMP_ARCH_S390": (0x00000016, False, True, "s390", True),
    "SCMP_ARCH_S390X": (0x80000016, True, True, "s390x", True),
    "SCMP_ARCH_SH": (0x4000002A, False, False, "sh", True),
    "SCMP_ARCH_SHEB": (0x0000002A, False, True, "sh", True),
    "SCMP_ARCH_PARISC": (0x0000000F, False, True, "parisc", False),
    "SCMP_ARCH_PARISC64": (0x8000000F, True, True, "parisc64", False),
    "SCMP_ARCH_RISCV64": (0xC00000F3, True, False, "riscv64", False),
}

# uname -m → the architecture that a filter always has
_MACHINES: dict[str, str] = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
    "m68k": "SCMP_ARCH_M68K",
    "ppc": "SCMP_ARCH_PPC",
    "ppc64": "SCMP_ARCH_PPC64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "s390": "SCMP_ARCH_S390",
    "s390x": "SCMP_ARCH_S390X",
    "riscv64": "SCMP_ARCH_RISCV64",
    "parisc": "SCMP_ARCH_PARISC",
    "parisc64": "SCMP_ARCH_PARISC64",
    "sh4": "SCMP_ARCH_SH",
    "sh4a": "SCMP_ARCH_SH",
    "sh4eb": "SCMP_ARCH_SHEB",
}

# Numbers of the first argument of socketcall(2) and ipc(2)
_SOCKET_NAMES: Final = (
    "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom"
    " shutdown setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
)
SOCKET_CALLS: dict[str, int] = dict(zip(_SOCKET_NAMES.split(), range(1, 21), strict=True))
IPC_CALLS: dict[str, int] = {
    "semop": 1,
    "semget": 2,
    "semctl": 3,
    "semtimedop": 4,
    "msgsnd": 11,
    "msgrcv": 12,
    "msgget": 13,
    "msgctl": 14,
    "shmat": 21,
    "shmdt": 22,
    "shmget": 23,
    "shmctl": 24,
}


def architecture(name: str) -> Architecture | None:
    """The architecture of an SCMP_ARCH_* name; None: there is no such name."""
    values = _ARCHITECTURES.get(name)
    if values is None:
        return None
    token, wide, big, table, multiplexed = values
    return Architecture(token=token, wide=wide, big=big, table=table, multiplexed=multiplexed)


def native(machine: str, byteorder: str) -> str:
    """The SCMP_ARCH_* name of a machine as uname(2) calls it; "" when it has none.

    byteorder: "little" or "big", for machines whose name does not tell (mips).
    """
    if machine in _MACHINES:
        return _MACHINES[machine]
    if machine.startswith("arm"):
        return "SCMP_ARCH_ARM"
    if len(machine) == 4 and machine[0] == "i" and machine[2:] == "86":
        return "SCMP_ARCH_X86"
    if machine in ("mips", "mips64"):
        wide = "64" if machine == "mips64" else ""
        return f"SCMP_ARCH_MIPS{'EL' if byteorder == 'little' else ''}{wide}"
    return ""


def table(name: str) -> tuple[tuple[int, str], ...]:
    """Runs of calls in the order of their numbers: (number of the first, names; "-" is a hole).

    A run that starts inside an earlier one gives second names. Loads the rarer tables only when
    asked for one of them.
    """
    from rootless_pyoki.plan.syscall_numbers import TABLES

    if name not in TABLES:
        from rootless_pyoki.plan.syscall_numbers_rare import TABLES
    return TABLES[name]


def numbers(name: str) -> dict[str, int]:
    """name → number of every call in a table."""
    known: dict[str, int] = {}
    for first, names in table(name):
        known.update(zip(names.split(), range(first, first + 1000), strict=False))
    known.pop("-", None)
    return known


def known_actions() -> list[str]:
    """Every SCMP_ACT_* that a profile may use, for `features`."""
    return sorted(ACTIONS)


def known_flags() -> list[str]:
    """Every SECCOMP_FILTER_FLAG_* that a profile may use, for `features`."""
    return sorted(FLAGS)


def known_architectures() -> list[str]:
    """Every SCMP_ARCH_* that a profile may use, for `features`."""
    return sorted(_ARCHITECTURES)


def known_operators() -> list[str]:
    """Every SCMP_CMP_* that a profile may use, for `features`."""
    return sorted(OPERATORS)
