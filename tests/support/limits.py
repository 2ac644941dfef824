"""Limits for containers: all of them at once, and what then can be read of them."""

from __future__ import annotations

import json
import platform
import struct
import subprocess
from pathlib import Path
from typing import Any

from tests.support import needs
from tests.support.runtime import Runtime

MIB = 1 << 20

# machine -> (its number in elf(5), exit_group(0))
PROGRAMS = {
    "x86_64": (62, "31ff b8e7000000 0f05"),  # xor edi, edi; mov eax, 231; syscall
    "aarch64": (183, "000080d2 c80b80d2 010000d4"),  # mov x0, 0; mov x8, 94; svc 0
}

# A scope that is delegated, with everybody in a leaf of it: systemd leaves what lies beside that alone.
DELEGATED = """
cd /sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup) && mkdir -p leaf && echo $$ > leaf/cgroup.procs
cd "$OLDPWD" && exec "$@"
"""


def disk() -> tuple[int, int] | None:
    """A block device whose numbers io.max takes."""
    for path in sorted(Path("/sys/block").iterdir()):
        if (path / "device").exists():
            major, minor = (path / "dev").read_text().strip().split(":")
            return int(major), int(minor)
    return None


def cgroup(runtime: Runtime, identifier: str) -> Path:
    """The container's, as its state remembers it."""
    state = json.loads((runtime.root / identifier / "state.json").read_text())
    return Path(state["cgroupPath"])


def resources() -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """(/linux/resources, what the files say then, what systemd shows)."""
    asked: dict[str, Any] = {
        "memory": {"limit": 64 * MIB, "reservation": 8 * MIB, "swap": 80 * MIB},
        "cpu": {"shares": 512, "quota": 33333, "period": 50000, "burst": 1000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 77},
        "blockIO": {"weight": 500},
        "unified": {"memory.high": "60000000", "memory.min": "4096", "cgroup.max.depth": "5"},
    }  # fmt: skip
    files = {
        "memory.max": str(64 * MIB),
        "memory.low": str(8 * MIB),
        "memory.swap.max": str(16 * MIB),
        "memory.high": str(60000000 // 4096 * 4096),
        "memory.min": "4096",
        "cpu.weight": "59",
        "cpu.max": "33333 50000",
        "cpu.max.burst": "1000",
        "cpuset.cpus": "0",
        "cpuset.mems": "0",
        "pids.max": "77",
        "io.weight": "default 4950",
        "cgroup.max.depth": "5",
    }
    shown = {
        "MemoryMax": str(64 * MIB),
        "MemoryLow": str(8 * MIB),
        "MemorySwapMax": str(16 * MIB),
        "MemoryMin": "4096",
        "CPUWeight": "59",
        "CPUQuotaPerSecUSec": "670ms",
        "CPUQuotaPeriodUSec": "50ms",
        "AllowedCPUs": "0",
        "AllowedMemoryNodes": "0",
        "TasksMax": "77",
        "IOWeight": "4950",
    }
    numbers = disk()
    if numbers:
        major, minor = numbers
        for key, rate in (("ReadBps", 5000000), ("WriteBps", 6000000), ("ReadIOPS", 100)):
            asked["blockIO"][f"throttle{key}Device"] = [
                {"major": major, "minor": minor, "rate": rate}
            ]
        files["io.max"] = f"{major}:{minor} rbps=5000000 wbps=6000000 riops=100 wiops=max"
        shown["IOReadBandwidthMax"] = f"/dev/block/{major}:{minor} 5000000"
    return asked, files, shown


def shows(unit: str, names: dict[str, str]) -> dict[str, str]:
    """These properties of a unit, as systemd tells them."""
    options = [f"--property={name}" for name in names]
    argv = ["systemctl", "--user", "show", unit, *options]
    answer = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in answer.splitlines())


def write_program(path: Path) -> None:
    """The smallest that can be: one page, no libc, ends at once with 0 (elf(5))."""
    needs.require(platform.machine() in PROGRAMS, f"no program for {platform.machine()}")
    machine, text = PROGRAMS[platform.machine()]
    code = bytes.fromhex(text)
    base, size = 0x400000, 120 + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, base + 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    header += struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x10000)
    path.write_bytes(header + code)
    path.chmod(0o755)
