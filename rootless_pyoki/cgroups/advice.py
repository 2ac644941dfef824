"""Why a cgroup lacks a controller, and what is to be done: words for the hint of an error.

Only loaded when a limit has been refused.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds

# systemd.resource-control(5), Delegate=: what a user's systemd can be given
DELEGABLE = ("cpu", "cpuset", "io", "memory", "pids")
FOLDER = "/etc/systemd/system/user@.service.d"
DELEGATION_HINT = (
    f"delegate the controllers, as root: mkdir -p {FOLDER}; "
    f"printf '[Service]\\nDelegate={' '.join(DELEGABLE)}\\n' > {FOLDER}/delegate.conf; "
    "systemctl daemon-reload; then log in again"
)
UNIFIED = "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line"
_V1_NAMES = {"io": "blkio"}


def on(controller: str) -> tuple[str, str]:
    """(what keeps the controller from cgroup v2 as a whole, or ""; what to do)."""
    old = _V1_NAMES.get(controller, controller)
    if old in _held_by_v1():
        return f"a cgroup v1 hierarchy holds the {old} controller", UNIFIED
    if _enabled().get(old) == "0":
        return (
            f"the {controller} controller is switched off",
            f"boot with cgroup_enable={old} on the kernel's command line",
        )
    if controller not in DELEGABLE:
        return "", (
            f"systemd hands on {', '.join(DELEGABLE)} only: {controller} needs a cgroup that root "
            "has given to this user, see /linux/cgroupsPath"
        )
    return "", DELEGATION_HINT


def _held_by_v1() -> set[str]:
    """cgroups(7), /proc/PID/cgroup: the second field of all lines but that of v2."""
    found: set[str] = set()
    for line in _read("/proc/self/cgroup"):
        found.update(line.split(":")[1].split(","))
    return found - {""}


def _enabled() -> dict[str, str]:
    """cgroups(7), /proc/cgroups: controller → "1" or "0"; not everything of v2 stands in there."""
    words = [line.split() for line in _read("/proc/cgroups")]
    return {found[0]: found[3] for found in words if len(found) == 4 and found[0][0] != "#"}


def _read(path: str) -> list[str]:
    try:
        return fds.read_file(c.AT_FDCWD, path).decode().splitlines()
    except SyscallError:
        return []
