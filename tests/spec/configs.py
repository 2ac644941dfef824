"""Configurations to start from."""

from __future__ import annotations

import copy
from typing import Any

NAMESPACES = ["user", "pid", "network", "ipc", "uts", "mount", "cgroup", "time"]

FULL: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [5, 6]},
        "args": ["sh", "-c", "true"],
        "env": ["PATH=/bin", "EMPTY=", "A=b=c"],
        "cwd": "/",
        "capabilities": {"bounding": ["CAP_KILL"], "ambient": []},
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 2**64 - 1},
        ],
        "noNewPrivileges": True,
        "oomScoreAdj": 100,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-3,7", "final": ""},
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "example.org",
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "data", "source": "/srv", "options": ["rbind", "ro"]},
        {
            "destination": "/mapped",
            "source": "/srv",
            "options": ["bind", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 7, "size": 1}],
            "gidMappings": [{"containerID": 0, "hostID": 7, "size": 1}],
        },
    ],
    "hooks": {
        "createRuntime": [
            {"path": "/bin/hook", "args": ["hook"], "env": ["A=b"], "timeout": 5},
        ]
    },
    "annotations": {"org.example": "x"},
    "linux": {
        "namespaces": [{"type": kind} for kind in NAMESPACES],
        "uidMappings": [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100000, "size": 65536},
        ],
        "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 1}],
        "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 7}, "monotonic": {"secs": 1}},
        "devices": [
            {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438},
            {"path": "/dev/pipe", "type": "p"},
        ],
        "netDevices": {"eth0": {"name": "inside"}},
        "cgroupsPath": "user.slice:pyoki:box",
        "resources": {
            "memory": {"limit": 1 << 20, "swappiness": 60},
            "cpu": {"shares": 1024, "cpus": "0-1"},
            "pids": {"limit": -1},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "devices": [{"allow": False, "access": "rwm"}],
            "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3}},
            "unified": {"memory.high": "max"},
        },
        "rootfsPropagation": "rslave",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 2**64 - 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "8192"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "personality": {"domain": "LINUX32"},
        "intelRdt": {"closID": "x", "schemata": ["L3:0=7"], "memBwSchema": "MB:0=20"},
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
    },
}


def full() -> dict[str, Any]:
    """A fresh configuration that has every kind of field and is right."""
    return copy.deepcopy(FULL)


def put(config: Any, pointer: str, value: Any) -> Any:
    """Set the member at a JSON pointer; a list grows by one at its end."""
    *way, last = [t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:]]
    at = config
    for token in way:
        at = at[int(token)] if isinstance(at, list) else at[token]
    if isinstance(at, list):
        at[int(last) : int(last) + 1] = [value]
    else:
        at[last] = value
    return config
