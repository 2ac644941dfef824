"""Configurations to mutate, of the shapes that real programs write, and who plans each of them."""

from __future__ import annotations

import copy
import functools
import json
from typing import Any

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.host.facts import Facts
from rootless_pyoki.spec import template
from tests.fuzz import schema
from tests.plan import plans
from tests.spec import configs

Config = dict[str, Any]
DEFAULT_CAPABILITIES = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP",
    "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
]  # fmt: skip
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")


class Base:
    def __init__(self, name: str, config: Config, facts: Facts) -> None:
        self.name = name
        self.config = config
        self.facts = facts

    def __repr__(self) -> str:
        return self.name


def capabilities(*sets: str) -> dict[str, list[str]]:
    return {kind: [f"CAP_{name}" for name in DEFAULT_CAPABILITIES] for kind in sets}


def mount(destination: str, kind: str, source: str, options: str = "") -> dict[str, Any]:
    entry: dict[str, Any] = {"destination": destination, "type": kind, "source": source}
    if options:
        entry["options"] = options.split(",")
    return entry


def ours() -> Config:
    """What `spec` writes for a user with subordinate ids."""
    return template.make(uid=1000, gid=1000, subuids=plans.RANGE, subgids=plans.RANGE)


def rule(names: str, *args: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"names": names.split(), "action": "SCMP_ACT_ALLOW"}
    if args:
        entry["args"] = list(args)
    return entry


def podman() -> Config:
    """podman run with a volume, a tmpfs, a device, limits and a profile (shortened)."""
    temporary = "rw,rprivate,nosuid,nodev,tmpcopyup"
    file = "bind,rprivate,ro,nosuid,noexec,nodev"
    user_data = "/home/dev/.local/share/containers/storage/overlay-containers/e5cb/userdata"
    return {
        "ociVersion": "1.0.2-dev",
        "process": {
            "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [5]},
            "args": ["sleep", "1000"],
            "env": [PATH, "TERM=xterm", "HOSTNAME=e5cb94449e47", "HOME=/root"],
            "cwd": "/",
            "capabilities": capabilities("bounding", "effective", "permitted"),
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024},
                {"type": "RLIMIT_NPROC", "hard": 4096, "soft": 4096},
            ],
        },
        "root": {"path": "/home/dev/.local/share/containers/storage/overlay/1/merged"},
        "hostname": "e5cb94449e47",
        "mounts": [
            mount("/dev", "tmpfs", "tmpfs", "nosuid,noexec,strictatime,mode=755,size=65536k"),
            mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/e", "bind", "/etc", "ro,rslave,rbind"),
            mount("/t", "tmpfs", "tmpfs", f"size=64k,mode=700,{temporary}"),
            mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
            mount("/run", "tmpfs", "tmpfs", temporary),
            mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,gid=5"),
            mount("/dev/mynull", "bind", "/dev/null", "slave,nosuid,noexec,rw,rbind"),
            mount("/etc/hosts", "bind", f"{user_data}/hosts", file),
            mount("/dev/shm", "bind", f"{user_data}/shm", "bind,rprivate,nosuid,noexec,nodev"),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", "rprivate,nosuid,noexec,nodev,relatime,ro"),
        ],
        "annotations": {
            "io.container.manager": "libpod",
            "io.podman.annotations.init": "FALSE",
            "org.opencontainers.image.stopSignal": "15",
        },
        "linux": {
            "sysctl": {"net.ipv4.ip_forward": "1"},
            "resources": {
                "memory": {"limit": 67108864, "swap": 134217728},
                "pids": {"limit": 50},
                "devices": [{"allow": False, "access": "rwm"}],
            },
            "cgroupsPath": "user.slice:libpod:e5cb",
            "namespaces": [{"type": kind} for kind in (*NAMESPACES, "cgroup")],
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": 38,
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                "syscalls": [
                    rule("read write execve capset exit exit_group brk mmap munmap close"),
                    rule("personality", {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}),
                    rule(
                        "clone",
                        {
                            "index": 0,
                            "value": 2114060288,
                            "valueTwo": 0,
                            "op": "SCMP_CMP_MASKED_EQ",
                        },
                    ),
                    {
                        "names": ["bdflush", "sysfs"],
                        "action": "SCMP_ACT_ERRNO",
                        "errnoRet": 1,
                    },
                ],
            },
            "rootfsPropagation": "rslave",
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/sys/firmware"],
            "readonlyPaths": ["/proc/asound", "/proc/bus", "/proc/fs", "/proc/sys"],
        },
    }


def containerd() -> Config:
    """What containerd's client makes for `ctr run` with one device."""
    return {
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0, "additionalGids": [0, 10]},
            "args": ["sleep", "1000"],
            "env": [PATH],
            "cwd": "/",
            "capabilities": capabilities("bounding", "effective", "permitted"),
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            mount("/proc", "proc", "proc", "nosuid,noexec,nodev"),
            mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
            mount("/dev/pts", "devpts", "devpts", "nosuid,noexec,newinstance,ptmxmode=0666,gid=5"),
            mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
            mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
            mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro"),
            mount("/run", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        ],
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "devices": [
                {"path": "/dev/mynull", "type": "c", "major": 1, "minor": 3, "fileMode": 438}
            ],
            "cgroupsPath": "/default/one",
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "maskedPaths": list(template.MASKED_PATHS),
            "readonlyPaths": list(template.READONLY_PATHS),
        },
    }


def examples() -> list[Base]:
    """The schema folder's good examples, with the process and the mount namespace `create` needs."""
    found = []
    for path in sorted((schema.folder() / "test/config/good").glob("*.json")):
        config: Config = json.loads(path.read_text())
        config.setdefault("process", {"cwd": "/", "args": ["true"]})
        config["process"].setdefault("args", ["true"])
        config.setdefault("root", {"path": "rootfs"})
        if config["ociVersion"].startswith("0."):
            config["ociVersion"] = "1.0.0"
        spaces = config.setdefault("linux", {}).setdefault("namespaces", [])
        for kind in ("mount", "network", "uts"):
            if not any(entry["type"] == kind for entry in spaces):
                spaces.append({"type": kind})
        found.append(Base(f"schema: {path.stem}", config, plans.ROOT))
    return found


def everything() -> Config:
    """A right configuration with a field of nearly every kind; planning may refuse some of them."""
    return copy.deepcopy(configs.FULL)


@functools.cache
def all_bases() -> tuple[Base, ...]:
    return (
        Base("spec", ours(), plans.USER),
        Base("podman", podman(), plans.IN_PODMAN),
        Base("containerd", containerd(), plans.ROOT),
        *(plannable(example) for example in examples()),
    )


def plannable(base: Base) -> Base:
    """The base without the fields for which it is refused as it stands."""
    config = copy.deepcopy(base.config)
    for _ in range(20):
        try:
            plans.make(config, base.facts)
        except (SpecError, UnsupportedError) as error:
            *way, last = error.pointer.split("/")[1:]
            value: Any = config
            for token in way:
                value = value[int(token)] if isinstance(value, list) else value[token]
            del value[int(last) if isinstance(value, list) else last]
        else:
            return Base(base.name, config, base.facts)
    raise AssertionError(f"{base} is refused whatever is left out of it")
