"""What a test needs of the machine: a skip with the reason, or a failure where none is allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NoReturn


def skip(reason: str) -> NoReturn:
    """Skip the test; pytest is imported only here, for the benchmark has none."""
    import pytest

    pytest.skip(reason)


def require(fulfilled: object, reason: str) -> None:
    """Skip the test for this reason, unless PYOKI_REQUIRE_KERNEL=1 asks for a failure instead."""
    if fulfilled:
        return
    if os.environ.get("PYOKI_REQUIRE_KERNEL") == "1":
        import pytest

        pytest.fail(f"PYOKI_REQUIRE_KERNEL=1, but {reason}", pytrace=False)
    skip(reason)


def require_program(name: str) -> str:
    """The absolute path of a program that is not pyoki's own, else a skip."""
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
    if path is None:
        skip(f"{name} is not installed")
    return path


def is_cgroup2(path: str) -> bool:
    """By stat(1): Python has no statfs that tells the filesystem type."""
    answer = subprocess.run(
        ["stat", "-f", "-c", "%t", path], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() == "63677270"


def cgroup_mount() -> Path | None:
    """Where cgroup v2 is mounted here."""
    for path in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if is_cgroup2(path):
            return Path(path)
    return None


def own_cgroup() -> Path | None:
    """The directory of this process's own cgroup v2, None when there is none to be seen."""
    mount = cgroup_mount()
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::/") and mount is not None and not line.startswith("0::/.."):
            return mount / line[4:]
    return None


def delegated_cgroup() -> Path | None:
    """A directory in which this user may make cgroups and move its processes to them."""
    own = own_cgroup()
    if own is None:
        return None
    for directory in (own.parent, own):
        writable = all(os.access(path, os.W_OK) for path in (directory, directory / "cgroup.procs"))
        if writable and is_cgroup2(str(directory)):
            return directory
    return None


def pure_v2() -> bool:
    """Whether /sys/fs/cgroup is cgroup v2 and a subtree of it is ours."""
    return is_cgroup2("/sys/fs/cgroup") and delegated_cgroup() is not None


def real_root() -> bool:
    """Whether we are uid 0 of the initial user namespace, which maps every id to itself."""
    return os.getuid() == 0 and Path("/proc/self/uid_map").read_text().split()[2] == "4294967295"


def subordinate_ids(kind: str = "uid") -> tuple[int, int] | None:
    """(first, count) of this user's range in /etc/subuid or /etc/subgid; real root has all ids."""
    import pwd

    user = pwd.getpwuid(os.getuid())
    if user.pw_uid == 0:
        # of a user namespace: the ids that are mapped in it (kept to one range, as podman has it)
        mapped = max(int(n) for n in Path(f"/proc/self/{kind}_map").read_text().split()[2::3])
        return (100000, 65536) if real_root() else (1, mapped) if mapped > 1 else None
    path = Path(f"/etc/sub{kind}")
    if not path.exists() or shutil.which("newuidmap") is None:
        return None
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name in (user.pw_name, str(user.pw_uid)):
            first, _, count = rest.partition(":")
            return int(first), int(count)
    return None


def require_controller(directory: Path, *names: str) -> str:
    """The first of these controllers that the cgroup has.

    Skips where cgroup v1 hierarchies hold them, which is no fault of this user's delegation.
    """
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    held = {word for line in lines for word in line.split(":")[1].split(",")}
    held |= {"io"} if "blkio" in held else set()  # its name in v1
    wanted = [name for name in names if name not in held]
    if not wanted:
        skip(f"cgroup v1 hierarchies hold {', '.join(names)} here")
    available = (directory / "cgroup.controllers").read_text().split()
    found = [name for name in wanted if name in available]
    require(found, f"none of {', '.join(wanted)} is delegated to this user")
    return found[0]


@cache
def user_manager() -> str:
    """The cgroup of this user's systemd manager, as the manager says; "" where none answers."""
    if not Path(os.environ.get("XDG_RUNTIME_DIR", "/nowhere"), "bus").is_socket():
        return ""
    command = ["systemctl", "--user", "show", "--property=ControlGroup", "--value"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def session() -> None:
    """A `systemd --user` that answers on its bus, in a cgroup v2 that can be seen; else a skip."""
    if not user_manager():
        skip("no `systemd --user` answers at $XDG_RUNTIME_DIR/bus")
    if cgroup_mount() is None or not Path(f"{cgroup_mount()}{user_manager()}").is_dir():
        skip("the cgroup of `systemd --user` cannot be seen")


def controllers(*names: str) -> None:
    """These are delegated to `systemd --user`; else a skip."""
    session()
    have = Path(f"{cgroup_mount()}{user_manager()}/cgroup.controllers").read_text().split()
    missing = [name for name in names if name not in have]
    if missing:
        skip(f"not delegated to `systemd --user`: {', '.join(missing)}")


def oci_schema() -> Path:
    """The folder of the specification's JSON schemas; skips where PYOKI_OCI_SCHEMA names none."""
    path = os.environ.get("PYOKI_OCI_SCHEMA", "")
    require(path and Path(path).is_dir(), "PYOKI_OCI_SCHEMA names no folder with the OCI schemas")
    return Path(path)
