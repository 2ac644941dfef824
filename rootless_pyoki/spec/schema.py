"""The shape of config.json, version 1.3 of the specification, as far as this runtime reads it."""

from __future__ import annotations

from rootless_pyoki.spec.fields import HIGHEST_ID, INT64, UINT32, UINT64
from rootless_pyoki.spec.shapes import (
    absolute,
    boolean,
    filled,
    integer,
    list_of,
    made_of,
    map_of,
    object_of,
    one_of,
    text,
    texts,
)

_int32 = integer(-(2**31), 2**31 - 1)
_int64 = integer(-INT64 - 1, INT64)
_uint16 = integer(0, 2**16 - 1)
_uint32 = integer(0, UINT32)
_uint64 = integer(0, UINT64)
_id = integer(0, HIGHEST_ID)
_strings = map_of(text)
_number_list = made_of("0123456789,- ", "0-3,7")

_ID_MAPPINGS = list_of(
    object_of(
        {"containerID": _uint32, "hostID": _uint32, "size": _uint32},
        ("containerID", "hostID", "size"),
    )
)

_ROOT = object_of({"path": filled, "readonly": boolean}, ("path",))

_MOUNT = object_of(
    {
        "destination": filled,
        "type": text,
        "source": text,
        "options": texts,
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
    },
    ("destination",),
)

HOOK_KINDS = (
    *("prestart", "createRuntime", "createContainer"),
    *("startContainer", "poststart", "poststop"),
)
_HOOKS = list_of(
    object_of(
        {"path": absolute, "args": texts, "env": texts, "timeout": integer(1, INT64)}, ("path",)
    )
)

_USER = object_of(
    {
        "uid": _id,
        "gid": _id,
        "umask": integer(0, 0o777),
        "additionalGids": list_of(_id),
        "username": text,
    },
    ("uid", "gid"),
)

_SCHEDULER = object_of(
    {
        "policy": one_of(
            "scheduling policy",
            "SCHED_OTHER SCHED_FIFO SCHED_RR SCHED_BATCH SCHED_ISO SCHED_IDLE SCHED_DEADLINE",
        ),
        "nice": integer(-20, 19),
        "priority": _int32,
        "flags": list_of(
            one_of(
                "scheduling flag",
                "SCHED_FLAG_RESET_ON_FORK SCHED_FLAG_RECLAIM SCHED_FLAG_DL_OVERRUN "
                "SCHED_FLAG_KEEP_POLICY SCHED_FLAG_KEEP_PARAMS "
                "SCHED_FLAG_UTIL_CLAMP_MIN SCHED_FLAG_UTIL_CLAMP_MAX",
            )
        ),
        "runtime": _uint64,
        "deadline": _uint64,
        "period": _uint64,
    },
    ("policy",),
)

PROCESS = object_of(
    {
        "terminal": boolean,
        "consoleSize": object_of({"height": _uint64, "width": _uint64}, ("height", "width")),
        "cwd": absolute,
        "env": texts,
        "args": texts,
        "user": _USER,
        "capabilities": object_of(
            dict.fromkeys(("bounding", "effective", "inheritable", "permitted", "ambient"), texts)
        ),
        "rlimits": list_of(
            object_of({"type": text, "soft": _uint64, "hard": _uint64}, ("type", "soft", "hard"))
        ),
        "noNewPrivileges": boolean,
        "oomScoreAdj": integer(-1000, 1000),
        "apparmorProfile": text,
        "selinuxLabel": text,
        "scheduler": _SCHEDULER,
        "ioPriority": object_of(
            {
                "class": one_of(
                    "I/O priority class", "IOPRIO_CLASS_RT IOPRIO_CLASS_BE IOPRIO_CLASS_IDLE"
                ),
                "priority": integer(0, 7),
            },
            ("class", "priority"),
        ),
        "execCPUAffinity": object_of({"initial": _number_list, "final": _number_list}),
    },
    ("cwd", "args"),
)

_DEVICE = object_of(
    {
        "type": one_of("device type", "c b u p"),
        "path": absolute,
        "major": _int64,
        "minor": _int64,
        "fileMode": _uint32,  # callers leave the type bits in
        "uid": _id,
        "gid": _id,
    },
    ("type", "path"),
)

_THROTTLES = list_of(
    object_of({"major": _int64, "minor": _int64, "rate": _uint64}, ("major", "minor", "rate"))
)

_BLOCK_IO = object_of(
    {
        "weight": _uint16,
        "leafWeight": _uint16,
        "weightDevice": list_of(
            object_of(
                {"major": _int64, "minor": _int64, "weight": _uint16, "leafWeight": _uint16},
                ("major", "minor"),
            )
        ),
        "throttleReadBpsDevice": _THROTTLES,
        "throttleWriteBpsDevice": _THROTTLES,
        "throttleReadIOPSDevice": _THROTTLES,
        "throttleWriteIOPSDevice": _THROTTLES,
    }
)

RESOURCES = object_of(
    {
        "unified": _strings,
        "devices": list_of(
            object_of(
                {
                    "allow": boolean,
                    "type": one_of("device type", "a c b u p", ""),
                    "major": _int64,
                    "minor": _int64,
                    "access": made_of("rwm", "rwm"),
                },
                ("allow",),
            )
        ),
        "pids": object_of({"limit": _int64}),
        "blockIO": _BLOCK_IO,
        "cpu": object_of(
            {
                "shares": _uint64,
                "quota": _int64,
                "burst": _uint64,
                "period": _uint64,
                "realtimeRuntime": _int64,
                "realtimePeriod": _uint64,
                "cpus": _number_list,
                "mems": _number_list,
                "idle": _int64,
            }
        ),
        "memory": object_of(
            {
                "limit": _int64,
                "reservation": _int64,
                "swap": _int64,
                "kernel": _int64,
                "kernelTCP": _int64,
                "swappiness": _uint64,
                "disableOOMKiller": boolean,
                "useHierarchy": boolean,
                "checkBeforeUpdate": boolean,
            }
        ),
        "hugepageLimits": list_of(
            object_of({"pageSize": filled, "limit": _uint64}, ("pageSize", "limit"))
        ),
        "network": object_of(
            {
                "classID": _uint32,
                "priorities": list_of(
                    object_of({"name": text, "priority": _uint32}, ("name", "priority"))
                ),
            }
        ),
        "rdma": map_of(object_of({"hcaHandles": _uint32, "hcaObjects": _uint32})),
    }
)

# The values of actions, architectures and operators are judged where the filter is compiled.
_SECCOMP = object_of(
    {
        "defaultAction": filled,
        "defaultErrnoRet": _uint32,
        "architectures": texts,
        "flags": texts,
        "listenerPath": text,
        "listenerMetadata": text,
        "syscalls": list_of(
            object_of(
                {
                    "names": texts,
                    "action": filled,
                    "errnoRet": _uint32,
                    "args": list_of(
                        object_of(
                            {"index": _uint32, "value": _uint64, "valueTwo": _uint64, "op": filled},
                            ("index", "value", "op"),
                        )
                    ),
                },
                ("names", "action"),
            )
        ),
    },
    ("defaultAction",),
)

_OFFSET = object_of({"secs": _int64, "nanosecs": integer(0, 999_999_999)})

_LINUX = object_of(
    {
        "namespaces": list_of(
            object_of(
                {
                    "type": one_of("namespace type", "user pid network mount ipc uts cgroup time"),
                    "path": text,
                },
                ("type",),
            )
        ),
        "uidMappings": _ID_MAPPINGS,
        "gidMappings": _ID_MAPPINGS,
        "timeOffsets": object_of({"boottime": _OFFSET, "monotonic": _OFFSET}),
        "devices": list_of(_DEVICE),
        "netDevices": map_of(object_of({"name": text})),
        "cgroupsPath": text,
        "resources": RESOURCES,
        "rootfsPropagation": one_of(
            "mount propagation",
            "private shared slave unbindable rprivate rshared rslave runbindable",
            "",
        ),
        "seccomp": _SECCOMP,
        "sysctl": _strings,
        "maskedPaths": list_of(absolute),
        "readonlyPaths": list_of(absolute),
        "mountLabel": text,
        "personality": object_of(
            {"domain": one_of("personality", "LINUX LINUX32"), "flags": texts}, ("domain",)
        ),
        "intelRdt": object_of(
            {
                "closID": text,
                "schemata": texts,
                "l3CacheSchema": text,
                "memBwSchema": text,
                "enableMonitoring": boolean,
                "enableCMT": boolean,
                "enableMBM": boolean,
            }
        ),
        "memoryPolicy": object_of(
            {
                "mode": one_of(
                    "memory policy",
                    "MPOL_DEFAULT MPOL_BIND MPOL_INTERLEAVE MPOL_WEIGHTED_INTERLEAVE "
                    "MPOL_PREFERRED MPOL_PREFERRED_MANY MPOL_LOCAL",
                ),
                "nodes": _number_list,
                "flags": list_of(
                    one_of(
                        "memory policy flag",
                        "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES",
                    )
                ),
            },
            ("mode",),
        ),
    }
)

CONFIG = object_of(
    {
        "ociVersion": text,
        "root": _ROOT,
        "process": PROCESS,
        "hostname": text,
        "domainname": text,
        "mounts": list_of(_MOUNT),
        "hooks": object_of(dict.fromkeys(HOOK_KINDS, _HOOKS)),
        "annotations": _strings,
        "linux": _LINUX,
    },
    ("ociVersion", "root"),
)
