"""The configuration that `spec` writes: a small read-only container that any user may run."""

from __future__ import annotations

from rootless_pyoki.spec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_pyoki.spec.types import IDMapping, Mount, Rlimit

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
OPEN_FILES = 1024
TTY_GROUP = 5

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def make(
    *,
    uid: int,
    gid: int,
    subuids: Sequence[tuple[int, int]] = (),
    subgids: Sequence[tuple[int, int]] = (),
    nofile_hard: int = OPEN_FILES,
    user_namespace: bool = True,
    net: str = "private",
    args: Sequence[str] = ("sh",),
    terminal: bool = False,
    hostname: str = "pyoki",
) -> dict[str, Any]:
    """config.json as an object.

    uid, gid: the caller's effective ids; subuids, subgids: (start, count) as granted to the caller,
    all ids of the caller's user namespace; nofile_hard: the caller's hard RLIMIT_NOFILE;
    net: "private" or "host" (no network namespace, so the host's /sys instead of an own one).
    """
    uids = default_mappings(uid, subuids if subgids else ())
    gids = default_mappings(gid, subgids if subuids else ())
    tty_group = not user_namespace or sum(entry["size"] for entry in gids) > TTY_GROUP
    namespaces = ["user"] if user_namespace else []
    namespaces += ["pid", "ipc", "uts", "mount", "cgroup"]
    if net != "host":
        namespaces.append("network")
    linux: dict[str, Any] = {"namespaces": [{"type": kind} for kind in namespaces]}
    if user_namespace:
        linux["uidMappings"] = uids
        linux["gidMappings"] = gids
    linux["maskedPaths"] = list(MASKED_PATHS)
    linux["readonlyPaths"] = list(READONLY_PATHS)
    return {
        "ociVersion": OCI_VERSION,
        "process": _process(args, terminal, nofile_hard),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": hostname,
        "mounts": _mounts(tty_group, net == "host"),
        "linux": linux,
    }


def default_mappings(own: int, granted: Sequence[tuple[int, int]]) -> list[IDMapping]:
    """Container 0 is the caller; 1 and up are the granted ids in their order, less the caller's."""
    mappings: list[IDMapping] = [{"containerID": 0, "hostID": own, "size": 1}]
    following = 1
    for start, count in granted:
        for low, high in ((start, min(start + count, own)), (max(start, own + 1), start + count)):
            if low < high:
                mappings.append({"containerID": following, "hostID": low, "size": high - low})
                following += high - low
    return mappings


def _process(args: Sequence[str], terminal: bool, nofile_hard: int) -> dict[str, Any]:
    rlimits: list[Rlimit] = []
    if nofile_hard >= OPEN_FILES:
        rlimits.append({"type": "RLIMIT_NOFILE", "soft": OPEN_FILES, "hard": OPEN_FILES})
    process: dict[str, Any] = {
        "terminal": terminal,
        "user": {"uid": 0, "gid": 0},
        "args": list(args),
        "env": [PATH, "TERM=xterm"],
        "cwd": "/",
        "capabilities": {
            kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
        },
        "noNewPrivileges": True,
    }
    if rlimits:
        process["rlimits"] = rlimits
    return process


def _mount(destination: str, kind: str, source: str, options: str = "") -> Mount:
    mount: Mount = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = options.split(",")
    return mount


def _mounts(tty_group: bool, host_network: bool) -> list[Mount]:
    pts = "nosuid,noexec,newinstance,ptmxmode=0666,mode=0620"
    if tty_group:  # devpts refuses a group that is not mapped
        pts += f",gid={TTY_GROUP}"
    # A sysfs belongs to the network namespace: without an own one the kernel refuses a new mount.
    sys = (
        _mount("/sys", "none", "/sys", "rbind,nosuid,noexec,nodev,ro")
        if host_network
        else _mount("/sys", "sysfs", "sysfs", "nosuid,noexec,nodev,ro")
    )
    return [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid,strictatime,mode=755,size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", pts),
        _mount("/dev/shm", "tmpfs", "shm", "nosuid,noexec,nodev,mode=1777,size=65536k"),
        _mount("/dev/mqueue", "mqueue", "mqueue", "nosuid,noexec,nodev"),
        sys,
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid,noexec,nodev,relatime,ro"),
    ]
