"""What is put into a place: right values of real life, and all that the schema's words suggest."""

from __future__ import annotations

import re
from typing import Any

from hypothesis import strategies as st

from tests.fuzz.schema import EVERY, Node

Values = list[Any]
WRONG_TYPES: Values = [None, True, 5, -1, 2**64, 1.5, "x", "", [], ["x"], {}, {"x": 1}]
STRANGE_TEXTS: Values = [
    "", " ", "\n", "a\0b", "\ud800", "é" * 40, "x" * 300, "../..", "a/b~c", "/", "//", "-1", "{}",
    "/proc/self/fd/0", "%s", "\x1b[2J", "/a\nb",
]  # fmt: skip
CAPABILITIES: Values = ["CAP_KILL", "CAP_SYS_ADMIN", "CAP_NET_RAW", "CAP_CHECKPOINT_RESTORE"]
OPTIONS: Values = [
    "ro", "rw", "nosuid", "nodev", "noexec", "relatime", "noatime", "rro", "rnosuid", "private",
    "rslave", "rprivate", "size=64k", "mode=755", "sync", "tmpcopyup", "bind", "rbind", "defaults",
    "idmap", "ridmap=uids=0-0-1;gids=0-0-1", "remount", "copy-symlink", "src-nofollow",
    "dest-nofollow", "uid=1000", "gid=5", "lazytime", "nosymfollow",
]  # fmt: skip
RIGHT: dict[str, Values] = {
    "/ociVersion": ["1.0.0", "1.2.1", "1.3.0", "1.0.2-dev", "1.1.0+x"],
    "/annotations": [
        {},
        {"run.oci.keep_original_groups": "1"},
        {"run.oci.hooks.stdout": "/dev/null", "run.oci.systemd.subgroup": ""},
        {"run.oci.mount_context_type": "context", "run.oci.handler": "wasm"},
        {"run.oci.delegate-cgroup": "inner", "run.oci.seccomp_fail_unknown_syscall": "1"},
        {"org.systemd.property.TasksMax": "5"},
    ],
    "/annotations/*": ["", "x", "1", "true"],
    "/hostname": ["box", "", "a.b", "x" * 64],
    "/domainname": ["example.org", "(none)", ""],
    "/mounts/*/source": ["tmpfs", "/etc", "rootfs", "none"],
    "/mounts/*/destination": ["/tmp", "/run", "/var", "data", "/a/b", "/etc/hostname"],
    "/mounts/*/options": [[], ["ro"], ["nosuid", "nodev"], ["mode=700"], ["size=1m", "noexec"]],
    "/mounts/*/options/*": OPTIONS,
    "/mounts/*/type": ["tmpfs", "proc", "mqueue", "sysfs", "bind", "cgroup", "devpts", "overlay"],
    "/root/path": ["rootfs", "./rootfs"],
    "/root/readonly": [True, False],
    "/process/args": [["sleep", "1000"], ["true"], ["/bin/sleep", "1000", ""]],
    "/process/args/*": ["1000", "sleep"],
    "/process/commandLine": ["true"],
    "/process/consoleSize/height": [0, 24, 65535],
    "/process/consoleSize/width": [0, 80, 65535],
    "/process/cwd": ["/", "/tmp", "/root", "/new/place"],
    "/process/env": [[], ["A=b"], ["PATH=/bin", "PATH=/sbin"]],
    "/process/env/*": ["A=b", "EMPTY=", "A=b=c", "PATH=/bin", "UTF=é"],
    "/process/terminal": [False, False, True],
    "/process/user/uid": [0, 1, 1000],
    "/process/user/gid": [0, 1, 1000],
    "/process/user/umask": [0, 0o22, 0o77, 0o777],
    "/process/user/additionalGids": [[], [0], [5, 10]],
    "/process/user/additionalGids/*": [0, 5, 1000],
    "/process/user/username": ["root"],
    "/process/apparmorProfile": ["", "unconfined", "docker-default"],
    "/process/oomScoreAdj": [0, 100, 1000],
    "/process/selinuxLabel": [""],
    "/process/ioPriority": [{"class": "IOPRIO_CLASS_BE", "priority": 4}, {}],
    "/process/ioPriority/class": ["IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"],
    "/process/ioPriority/priority": [0, 4, 7],
    "/process/scheduler": [{"policy": "SCHED_OTHER", "nice": 5}, {"policy": "SCHED_BATCH"}],
    "/process/scheduler/policy": ["SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE"],
    "/process/scheduler/nice": [0, 5, 19],
    "/process/scheduler/priority": [0],
    "/process/scheduler/flags": [[]],
    "/process/scheduler/flags/*": ["SCHED_FLAG_RESET_ON_FORK"],
    "/process/rlimits": [[], [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]],
    "/process/rlimits/*/type": ["RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_STACK"],
    "/process/rlimits/*/hard": [1024, 100000],
    "/process/rlimits/*/soft": [64, 512],
    "/process/execCPUAffinity/initial": ["0", "", "0-1"],
    "/process/execCPUAffinity/final": ["0", ""],
    "/linux/devices/*": [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229},
        {"path": "/dev/pipe", "type": "p"},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 438, "uid": 0},
    ],
    "/linux/devices/*/type": ["c", "u", "p"],
    "/linux/devices/*/path": ["/dev/null", "/dev/zero", "/dev/full"],
    "/linux/devices/*/fileMode": [0o666, 0o600, 0o20666],
    "/linux/devices/*/major": [1],
    "/linux/devices/*/minor": [3, 5, 7],
    "/linux/devices/*/uid": [0, 1],
    "/linux/devices/*/gid": [0, 5],
    "/linux/netDevices": [{}],
    "/linux/netDevices/*/name": ["", "inside"],
    "/linux/uidMappings/*": [{"containerID": 70000, "hostID": 165535, "size": 1}],
    "/linux/gidMappings/*": [{"containerID": 70000, "hostID": 165535, "size": 1}],
    "/linux/uidMappings/*/size": [1, 1000],
    "/linux/gidMappings/*/size": [1, 1000],
    "/linux/namespaces": [[{"type": kind} for kind in ("mount", "pid", "network", "ipc", "uts")]],
    "/linux/namespaces/*": [
        {"type": "cgroup"},
        {"type": "user", "path": ""},
        {"type": "time"},
        {"type": "network", "path": "/proc/self/ns/net"},
        {"type": "pid", "path": "/proc/1/ns/pid"},
        {"type": "ipc", "path": "/etc/passwd"},
    ],
    "/linux/namespaces/*/type": ["ipc", "cgroup", "uts", "pid"],
    "/linux/namespaces/*/path": [""],
    "/linux/resources/unified": [{}, {"memory.high": "max"}],
    "/linux/resources/unified/*": ["max", "1000000"],
    "/linux/resources/devices/*/type": ["a", "c", "b"],
    "/linux/resources/devices/*/access": ["rwm", "r", ""],
    "/linux/resources/pids": [{}, {"limit": 5}],
    "/linux/resources/pids/limit": [-1, 0, 100],
    "/linux/resources/blockIO/weight": [0, 10, 500, 1000],
    "/linux/resources/blockIO/leafWeight": [0],
    "/linux/resources/blockIO/weightDevice/*/leafWeight": [0],
    "/linux/resources/blockIO/weightDevice/*/weight": [0, 500],
    "/linux/resources/cpu/cpus": ["0", "0-1", ""],
    "/linux/resources/cpu/mems": ["0", ""],
    "/linux/resources/cpu/period": [0, 100000],
    "/linux/resources/cpu/quota": [-1, 0, 50000],
    "/linux/resources/cpu/burst": [0, 1000],
    "/linux/resources/cpu/realtimePeriod": [0],
    "/linux/resources/cpu/realtimeRuntime": [0],
    "/linux/resources/cpu/shares": [0, 2, 1024, 262144],
    "/linux/resources/cpu/idle": [0, 1],
    "/linux/resources/hugepageLimits": [[], [{"pageSize": "2MB", "limit": 0}]],
    "/linux/resources/hugepageLimits/*/pageSize": ["2MB", "1GB", "64KB"],
    "/linux/resources/memory/limit": [0, -1, 1 << 28],
    "/linux/resources/memory/swap": [0, -1, 1 << 29],
    "/linux/resources/memory/reservation": [0, 1 << 20],
    "/linux/resources/memory/swappiness": [0, 60, 100],
    "/linux/resources/network/priorities/*/name": ["eth0", "lo"],
    "/linux/cgroupsPath": ["", "box", "/a/b", "user.slice:pyoki:box"],
    "/linux/rootfsPropagation": ["private", "slave", "shared", "unbindable", "rslave", ""],
    "/linux/seccomp": [{"defaultAction": "SCMP_ACT_ALLOW"}],
    "/linux/seccomp/defaultAction": ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG"],
    "/linux/seccomp/defaultErrnoRet": [1, 38],
    "/linux/seccomp/flags": [[], ["SECCOMP_FILTER_FLAG_LOG"]],
    "/linux/seccomp/flags/*": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
    "/linux/seccomp/listenerPath": ["", "/no/such.sock"],
    "/linux/seccomp/listenerMetadata": [""],
    "/linux/seccomp/architectures": [[], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]],
    "/linux/seccomp/architectures/*": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    "/linux/seccomp/syscalls": [
        [],
        [{"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    ],
    "/linux/seccomp/syscalls/*/names": [["mount"], ["no_such_call"], ["chroot", "pivot_root"]],
    "/linux/seccomp/syscalls/*/names/*": ["chroot", "mount", "no_such_call"],
    "/linux/seccomp/syscalls/*/action": ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_ERRNO"],
    "/linux/seccomp/syscalls/*/errnoRet": [1, 38],
    "/linux/seccomp/syscalls/*/args": [[], [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]],
    "/linux/seccomp/syscalls/*/args/*": [{"index": 1, "value": 2**64 - 1, "op": "SCMP_CMP_GT"}],
    "/linux/seccomp/syscalls/*/args/*/index": [0, 1, 5],
    "/linux/sysctl": [{}, {"kernel.msgmax": "8192"}],
    "/linux/sysctl/*": ["1", "0"],
    "/linux/maskedPaths/*": ["/proc/kcore", "/no/such", "/etc/passwd"],
    "/linux/readonlyPaths/*": ["/proc/sys", "/no/such", "/etc"],
    "/linux/mountLabel": [""],
    "/linux/intelRdt": [{}],
    "/linux/intelRdt/memBwSchema": ["MB:0=20"],
    "/linux/memoryPolicy": [{"mode": "MPOL_LOCAL"}, {"mode": "MPOL_DEFAULT", "nodes": ""}],
    "/linux/memoryPolicy/mode": ["MPOL_LOCAL", "MPOL_DEFAULT", "MPOL_BIND"],
    "/linux/memoryPolicy/nodes": ["0", ""],
    "/linux/memoryPolicy/flags": [[]],
    "/linux/personality": [{"domain": "LINUX"}],
    "/linux/personality/domain": ["LINUX", "LINUX32"],
    "/linux/personality/flags": [[]],
    "/linux/timeOffsets": [{}, {"boottime": {"secs": -100}, "monotonic": {"nanosecs": 5}}],
    "/linux/timeOffsets/boottime": [{}, {"secs": 5, "nanosecs": 0}],
}
for _set in ("bounding", "permitted", "effective", "inheritable", "ambient"):
    RIGHT[f"/process/capabilities/{_set}"] = [[], CAPABILITIES[:1], CAPABILITIES]
    RIGHT[f"/process/capabilities/{_set}/*"] = CAPABILITIES
for _kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart"):
    RIGHT[f"/hooks/{_kind}/*/path"] = ["/bin/true", "/usr/bin/true"]
RIGHT["/hooks/poststop/*/path"] = ["/bin/true", "/bin/false"]
for _kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart"):
    RIGHT[f"/hooks/{_kind}/*/env/*"] = ["A=b", "EMPTY="]
    RIGHT[f"/hooks/{_kind}/*/timeout"] = [1, 10]
RIGHT["/hooks/poststop/*/env/*"] = ["A=b", "EMPTY="]


def least(node: Node) -> Any:
    """The smallest right value: required members, empty lists."""
    if node.kind == "object":
        required = node.schema.get("required", ())
        return {name: least(node.children[name]) for name in required}
    if node.kind == "array":
        child = node.children.get(EVERY)
        return [least(child)] * node.schema.get("minItems", 0) if child else []
    return right(node)[0]


def right(node: Node) -> Values:
    """Values that a real configuration could have there."""
    if node.pattern in RIGHT:
        return RIGHT[node.pattern]
    if node.kind == "object":
        return [least(node)]
    if node.kind == "array":
        child = node.children.get(EVERY)
        return [[], [least(child)]] if child else [[]]
    return by_schema(node)


def by_schema(node: Node) -> Values:
    """Values that the schema takes, its limits among them, whatever they mean."""
    words = node.schema
    if "enum" in words:
        return list(words["enum"])
    if node.kind == "boolean":
        return [True, False]
    if node.kind == "integer":
        low, high = words.get("minimum", 0), words.get("maximum", 1000)
        return sorted({low, high, *(n for n in (0, 1, 100, 65536) if low <= n <= high)})
    if node.kind == "string":
        pattern = words.get("pattern")
        texts = ["x", "0", "0-1", "a b", "/x", "MB:0=20", "RLIMIT_CORE", "c", "2MB", "02MB", ""]
        fitting = [text for text in texts if not pattern or re.search(pattern, text)]
        return fitting or ["x"]
    return [least(node)]


def beyond_schema(node: Node) -> Values:
    """Values of the right type just outside of what the schema takes."""
    words = node.schema
    if node.kind == "integer":
        ends = (words.get("minimum", 0) - 1, words.get("maximum", 2**64) + 1)
        return [*ends, 0.5]
    if "enum" in words:
        return [words["enum"][0].lower(), "", f"{words['enum'][0]}X", "rslave"]
    if node.pattern == "/linux/resources/hugepageLimits/*/pageSize":
        return ["64kB", "2M", "0MB", "02MB", "2MB\n"]
    if node.kind == "string":
        return STRANGE_TEXTS
    return [least(node)]


def choices(node: Node, how: str) -> Values:
    """how: right, schema, beyond, text or type; any other word means right."""
    if how == "schema":
        return by_schema(node)
    if how == "beyond":
        return beyond_schema(node)
    if how == "text":
        return STRANGE_TEXTS
    return WRONG_TYPES if how == "type" else right(node)


def by_schema_at_large(node: Node) -> st.SearchStrategy[Any]:
    """Any number that the schema takes; None where the lists are as good."""
    if node.kind == "integer" and "enum" not in node.schema:
        return st.integers(node.schema.get("minimum"), node.schema.get("maximum")) | st.none()
    return st.none()
