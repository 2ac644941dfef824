"""The guests are what the tests in them take for granted (tests/vm/run)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import needs

UID = os.getuid()
MANAGER = f"/user.slice/user-{UID}.slice/user@{UID}.service"


def own_cgroup() -> str:
    """Our cgroup v2 as systemd names it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def bed() -> tuple[str, str]:
    """(back end, setting); skips on a machine with a user session of its own."""
    needs.require("PYOKI_BED" in os.environ, "this machine is not a guest of tests/vm/run")
    return os.environ["PYOKI_BED"], os.environ["PYOKI_BED_SETTING"]


@pytest.mark.session
def test_systemd_is_the_first_process() -> None:
    """PID 1 is systemd, and /sys/fs/cgroup is cgroup v2 alone."""
    assert Path("/proc/1/comm").read_text() == "systemd\n"
    assert needs.is_cgroup2("/sys/fs/cgroup")


@pytest.mark.session
def test_the_manager_answers() -> None:
    """`systemctl --user` speaks with a manager that has all its units up, through the user's bus."""
    assert (Path(os.environ["XDG_RUNTIME_DIR"]) / "bus").is_socket()
    answer = subprocess.run(
        ["systemctl", "--user", "show", "--property=Version,ControlGroup"],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert f"ControlGroup={MANAGER}\n" in answer.stdout


@pytest.mark.session
def test_where_we_are() -> None:
    """The tests run where the setting says: in a session's scope, or below the user manager."""
    _, setting = bed()
    where = {
        "session-scope": (f"/user.slice/user-{UID}.slice/session-", ".scope"),
        "app-slice": (f"{MANAGER}/app.slice/run-", ".scope"),
    }
    start, end = where[setting]
    assert own_cgroup().startswith(start) and own_cgroup().endswith(end)


@pytest.mark.controllers
def test_controllers_are_delegated() -> None:
    """The user manager's cgroup is the user's, and has all five controllers."""
    cgroup = Path(f"/sys/fs/cgroup{MANAGER}")
    found = set((cgroup / "cgroup.controllers").read_text().split())
    assert found >= {"cpu", "cpuset", "io", "memory", "pids"}
    assert cgroup.stat().st_uid == UID


@pytest.mark.controllers
def test_a_limit_holds() -> None:
    """A task limit that the user manager sets is the kernel's, and is enforced."""
    script = 'cat /sys/fs/cgroup$(sed -n "s/^0:://p" /proc/self/cgroup)/pids.max; sleep 1 & sleep 1 & wait'
    answer = subprocess.run(
        ["systemd-run", "--user", "--scope", "--quiet", "-pTasksMax=2", "sh", "-c", script],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert answer.stdout == "2\n", answer.stderr
    assert "fork" in answer.stderr.lower()
