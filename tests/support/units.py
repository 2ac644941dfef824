"""The units of this user's systemd manager, and their cgroups."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from tests.support import needs


def listed(mark: str) -> list[str]:
    """Units with this in their names, whatever has become of them: "NAME loaded active running ..."."""
    words = ["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", f"*{mark}*"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True, timeout=30)
    return [line.strip() for line in answer.stdout.splitlines()]


def cgroups(mark: str) -> list[str]:
    """The directories of cgroups with this in their names."""
    top = Path(f"{needs.cgroup_mount()}{needs.user_manager()}")
    return [str(path) for path in top.rglob(f"*{mark}*") if path.is_dir()]


def left(mark: str, patience: float = 5.0) -> list[str]:
    """What is there still when `patience` seconds have passed, or [] as soon as nothing is."""
    deadline = time.monotonic() + patience
    while found := [*listed(mark), *cgroups(mark)]:
        if time.monotonic() > deadline:
            return found
        time.sleep(0.05)
    return []
