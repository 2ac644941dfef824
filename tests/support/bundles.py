"""Bundles to test with: a busybox root filesystem and a config.json that can be changed at will."""

from __future__ import annotations

import copy
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.support import needs

PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n"
GROUP = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n"
CAPABILITIES = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"]


def busybox() -> Path:
    """The statically linked busybox of the machine; skips where there is none."""
    path = Path(needs.require_program("busybox")).resolve()
    # A dynamically linked one names its loader (ELF program header PT_INTERP).
    needs.require(b"/ld-linux" not in path.read_bytes()[:4096], "busybox is not static")
    return path


def applets() -> list[str]:
    """The names that busybox answers to."""
    import subprocess

    listing = subprocess.run([busybox(), "--list"], capture_output=True, text=True, check=True)
    return [name for name in listing.stdout.split() if name != "busybox"]


_applets: list[str] = []


def make_rootfs(path: Path, names: Sequence[str] = ()) -> Path:
    """A root filesystem with busybox, its applets (all or these), and the users root and user."""
    for name in ("bin", "dev", "etc", "home/user", "proc", "root", "run", "sys", "tmp", "var"):
        (path / name).mkdir(parents=True, exist_ok=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy(busybox(), path / "bin/busybox")
    if not _applets:
        _applets.extend(applets())
    for name in names or _applets:
        (path / "bin" / name).symlink_to("busybox")
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)
    return path


def id_mappings(kind: str) -> list[dict[str, int]]:
    """Container id 0 is this user, the others are the subordinate ids."""
    own = os.getuid() if kind == "uid" else os.getgid()
    mappings = [{"containerID": 0, "hostID": own, "size": 1}]
    subordinate = needs.subordinate_ids(kind)
    if subordinate is not None:
        first, count = subordinate
        mappings.append({"containerID": 1, "hostID": first, "size": min(count, 65535)})
    return mappings


MOUNTS: list[dict[str, Any]] = [
    {"destination": "/proc", "type": "proc", "source": "proc"},
    {
        "destination": "/dev",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
    },
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
    },
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
    },
    {
        "destination": "/dev/mqueue",
        "type": "mqueue",
        "source": "mqueue",
        "options": ["nosuid", "noexec", "nodev"],
    },
    {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    },
]
CGROUP_MOUNT = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
}
MASKED = ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def base_config(*args: str) -> dict[str, Any]:
    """What `spec --rootless` would write, nearly: all namespaces new, all ids of the user."""
    kinds = ["pid", "network", "ipc", "uts", "mount", "user", "cgroup"]
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args or ("sleep", "1000")),
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": False},
        "hostname": "pyoki-test",
        "mounts": copy.deepcopy(MOUNTS),
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": id_mappings("uid"),
            "gidMappings": id_mappings("gid"),
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
        },
    }
    if needs.pure_v2():
        config["mounts"].append(copy.deepcopy(CGROUP_MOUNT))
    return config


class Bundle:
    """A bundle's directory; `config` may be changed freely before `write`."""

    def __init__(self, path: Path, *args: str, applets: Sequence[str] = ()) -> None:
        self.path = path
        self.rootfs = make_rootfs(path / "rootfs", applets)
        self.config = base_config(*args)
        self.write()

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.config["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        linux: dict[str, Any] = self.config["linux"]
        return linux

    def write(self) -> Bundle:
        """Write config.json."""
        (self.path / "config.json").write_text(json.dumps(self.config, indent=1))
        return self

    def args(self, *args: str) -> Bundle:
        """Another program to run."""
        self.process["args"] = list(args)
        return self.write()

    def shell(self, script: str) -> Bundle:
        """A shell script to run."""
        return self.args("sh", "-c", script)

    def namespace(self, kind: str) -> dict[str, Any]:
        """The entry of /linux/namespaces of this kind."""
        entries: list[dict[str, Any]] = self.linux["namespaces"]
        return next(entry for entry in entries if entry["type"] == kind)

    def without_namespace(self, *kinds: str) -> Bundle:
        """Share these namespaces with the caller."""
        self.linux["namespaces"] = [
            entry for entry in self.linux["namespaces"] if entry["type"] not in kinds
        ]
        return self.write()

    def single_map(self) -> Bundle:
        """Map this user's own ids to 0 and nothing else."""
        for kind in ("uid", "gid"):
            self.linux[f"{kind}Mappings"] = id_mappings(kind)[:1]
        return self.write()
