"""What the specification (config-linux.md) demands of /linux beyond the types of its fields."""

from __future__ import annotations

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec.fields import UINT32, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless_pyoki.spec.types import IDMapping, Linux, Mount, Resources

MOST_EXTENTS = 340  # user_namespaces(7): lines of a uid_map since Linux 4.15
LARGEST_MAJOR = 2**12 - 1  # makedev(3) and the kernel's MKDEV: 12 and 20 bits
LARGEST_MINOR = 2**20 - 1
INTERFACE_LENGTH = 15  # IFNAMSIZ without the NUL


def check_linux(linux: Linux, namespaces: dict[str, str]) -> None:
    """All rules below /linux; namespaces is what check_namespaces returned."""
    check_mappings(linux, namespaces)
    check_time_offsets(linux, namespaces)
    check_devices(linux)
    check_net_devices(linux, namespaces)
    check_sysctl(linux, namespaces)
    check_seccomp(linux)
    check_personality(linux)
    check_intel_rdt(linux)
    check_memory_policy(linux)
    check_resources(linux.get("resources", {}), "/linux/resources")


def check_namespaces(linux: Linux) -> dict[str, str]:
    """config-linux.md, "Namespaces": path MUST be absolute, a repeated type MUST be an error.

    Returns the path of each type that is there, "" for a new namespace.
    """
    found: dict[str, str] = {}
    for index, namespace in enumerate(linux.get("namespaces", ())):
        kind = namespace["type"]
        path = namespace.get("path", "")
        if kind in found:
            raise SpecError(
                f"there are two {kind} namespaces", pointer=f"/linux/namespaces/{index}/type"
            )
        if path and path[0] != "/":
            raise SpecError(
                f"must be an absolute path, not {path!r}", pointer=f"/linux/namespaces/{index}/path"
            )
        found[kind] = path
    return found


def check_mappings(linux: Linux, namespaces: dict[str, str]) -> None:
    """config-linux.md, "User namespace mappings": without a user namespace they mean nothing."""
    for key in ("uidMappings", "gidMappings"):
        if linux.get(key) and "user" not in namespaces:
            raise SpecError("needs a user namespace in /linux/namespaces", pointer=f"/linux/{key}")
    check_mapping_pair(linux, "/linux")


def check_mapping_pair(owner: Linux | Mount, pointer: str) -> None:
    """uidMappings and gidMappings of a namespace or a mount: both or none, each sound."""
    uids, gids = owner.get("uidMappings", []), owner.get("gidMappings", [])
    if bool(uids) != bool(gids):
        there, missing = ("uid", "gid") if uids else ("gid", "uid")
        raise SpecError(f"needs {missing}Mappings beside it", pointer=f"{pointer}/{there}Mappings")
    check_extents(uids, f"{pointer}/uidMappings")
    check_extents(gids, f"{pointer}/gidMappings")


def check_extents(mappings: Sequence[IDMapping], pointer: str) -> None:
    """user_namespaces(7), "Defining user and group ID mappings": sizes, overlaps, their number."""
    if len(mappings) > MOST_EXTENTS:
        raise SpecError(
            f"must have at most {MOST_EXTENTS} entries, not {len(mappings)}", pointer=pointer
        )
    for index, mapping in enumerate(mappings):
        size = mapping["size"]
        if size == 0:
            raise SpecError("must be at least 1", pointer=f"{pointer}/{index}/size")
        if mapping["containerID"] + size > UINT32 or mapping["hostID"] + size > UINT32:
            raise SpecError("goes beyond the last id, 4294967294", pointer=f"{pointer}/{index}")
    _check_overlaps([m["containerID"] for m in mappings], mappings, "containerID", pointer)
    _check_overlaps([m["hostID"] for m in mappings], mappings, "hostID", pointer)


def _check_overlaps(
    starts: list[int], mappings: Sequence[IDMapping], key: str, pointer: str
) -> None:
    last_end, last = -1, 0
    for index in sorted(range(len(starts)), key=starts.__getitem__):
        if starts[index] < last_end:
            earlier, later = sorted((last, index))
            raise SpecError(
                f"overlaps the range of entry {earlier}", pointer=f"{pointer}/{later}/{key}"
            )
        last_end, last = starts[index] + mappings[index]["size"], index


def check_time_offsets(linux: Linux, namespaces: dict[str, str]) -> None:
    """config-linux.md, "Offset for Time Namespace": they are set in a new time namespace only.

    time_namespaces(7): before its first process.
    """
    if linux.get("timeOffsets") and namespaces.get("time") != "":
        raise SpecError(
            "needs a new time namespace in /linux/namespaces", pointer="/linux/timeOffsets"
        )


def check_devices(linux: Linux) -> None:
    """config-linux.md, "Devices": major and minor are REQUIRED unless type is p."""
    for index, device in enumerate(linux.get("devices", ())):
        if device["type"] == "p":
            continue
        for key, value, largest in (
            ("major", device.get("major"), LARGEST_MAJOR),
            ("minor", device.get("minor"), LARGEST_MINOR),
        ):
            at = f"/linux/devices/{index}/{key}"
            if value is None:
                raise SpecError("is required", pointer=at)
            if not 0 <= value <= largest:
                raise SpecError(f"must be from 0 to {largest}, not {value}", pointer=at)


def check_net_devices(linux: Linux, namespaces: dict[str, str]) -> None:
    """config-linux.md, "Network Devices": they move into the container's network namespace."""
    devices = linux.get("netDevices")
    if not devices:
        return
    if "network" not in namespaces:
        raise SpecError(
            "needs a network namespace in /linux/namespaces", pointer="/linux/netDevices"
        )
    for host_name, device in devices.items():
        at = join("/linux/netDevices", host_name)
        _check_interface(host_name, at)
        if device.get("name"):
            _check_interface(device["name"], f"{at}/name")


def _check_interface(name: str, pointer: str) -> None:
    """The kernel's dev_valid_name()."""
    legal = name not in (".", "..") and not any(c in "/:" or c.isspace() for c in name)
    if not legal or len(name.encode()) > INTERFACE_LENGTH:
        raise SpecError(f"{name!r} is no name of a network interface", pointer=pointer)


def check_sysctl(linux: Linux, namespaces: dict[str, str]) -> None:
    """config-linux.md, "Sysctl": parameters for the container, so of namespaces that it has."""
    for key in linux.get("sysctl", {}):
        at = join("/linux/sysctl", key)
        parts = sysctl_parts(key)
        if any(part in ("", ".", "..") for part in parts):
            raise SpecError(f"{key!r} is no name of a kernel parameter", pointer=at)
        kind = sysctl_namespace(parts)
        if not kind:
            raise SpecError(
                f"{key} belongs to the whole machine, not to a namespace of the container",
                pointer=at,
            )
        if kind not in namespaces:
            raise SpecError(f"{key} needs a {kind} namespace in /linux/namespaces", pointer=at)


def sysctl_parts(key: str) -> list[str]:
    """The components below /proc/sys.

    sysctl(8): the first dot or slash says which one separates; between dots a slash stands for a
    dot (net.ipv4.conf.eth0/1.mtu is about the interface eth0.1).
    """
    dot, slash = key.find("."), key.find("/")
    if slash != -1 and (dot == -1 or slash < dot):
        return key.split("/")
    return [part.replace("/", ".") for part in key.split(".")]


def sysctl_namespace(parts: Sequence[str]) -> str:
    """The type of namespace a kernel parameter belongs to; "" if it is the machine's."""
    top, rest = parts[0], parts[1:]
    if top == "net" and rest:
        return "network"
    if top == "user" and rest:
        return "user"
    if top == "fs" and len(rest) > 1 and rest[0] == "mqueue":
        return "ipc"
    if top == "kernel" and len(rest) == 1:
        if rest[0] in IPC_PARAMETERS:
            return "ipc"
        if rest[0] in ("hostname", "domainname"):
            return "uts"
    return ""


IPC_PARAMETERS = (  # ipc/ipc_sysctl.c
    "auto_msgmni",
    "msg_next_id",
    "msgmax",
    "msgmnb",
    "msgmni",
    "sem",
    "sem_next_id",
    "shm_next_id",
    "shm_rmid_forced",
    "shmall",
    "shmmax",
    "shmmni",
)


def check_seccomp(linux: Linux) -> None:
    """config-linux.md, "Seccomp": names MUST contain at least one entry.

    listenerMetadata MUST NOT be set if listenerPath is not set.
    """
    seccomp = linux.get("seccomp")
    if seccomp is None:
        return
    for index, rule in enumerate(seccomp.get("syscalls", ())):
        if not rule["names"]:
            raise SpecError(
                "must have at least one entry", pointer=f"/linux/seccomp/syscalls/{index}/names"
            )
    if seccomp.get("listenerMetadata") and not seccomp.get("listenerPath"):
        raise SpecError("needs listenerPath beside it", pointer="/linux/seccomp/listenerMetadata")


def check_personality(linux: Linux) -> None:
    """config-linux.md, "Personality": currently no flag values are supported."""
    if linux.get("personality", {}).get("flags"):
        raise SpecError("no personality flag is defined", pointer="/linux/personality/flags/0")


def check_intel_rdt(linux: Linux) -> None:
    """config-linux.md, "IntelRdt": memBwSchema MUST start with MB: and MUST NOT have newlines.

    Nor MUST any element of schemata.
    """
    rdt = linux.get("intelRdt")
    if rdt is None:
        return
    schema = rdt.get("memBwSchema")
    if schema is not None and (schema[:3] != "MB:" or "\n" in schema):
        raise SpecError(
            "must be one line that starts with MB:", pointer="/linux/intelRdt/memBwSchema"
        )
    for index, line in enumerate(rdt.get("schemata", ())):
        if "\n" in line:
            raise SpecError("must be one line", pointer=f"/linux/intelRdt/schemata/{index}")


def check_memory_policy(linux: Linux) -> None:
    """config-linux.md, "Memory policy"."""
    if "memoryPolicy" in linux:
        from rootless_pyoki.spec import scheduling_rules  # few have one

        scheduling_rules.check_memory_policy(linux["memoryPolicy"])


def check_resources(resources: Resources, pointer: str) -> None:
    """config-linux.md, "Memory": swappiness is from 0 to 100.

    "Huge page limits": sizes are <n><K|M|G>B. "Unified": keys are files of the cgroup, so they
    have no slash.
    """
    if not resources:
        return
    _check_cpu(resources, pointer)
    _check_weights(resources, pointer)
    for name, limits in resources.get("rdma", {}).items():
        if "hcaHandles" not in limits and "hcaObjects" not in limits:
            raise SpecError("needs hcaHandles or hcaObjects", pointer=join(f"{pointer}/rdma", name))
    swappiness = resources.get("memory", {}).get("swappiness", 0)
    if swappiness > 100:
        raise SpecError(
            f"must be from 0 to 100, not {swappiness}", pointer=f"{pointer}/memory/swappiness"
        )
    for index, limit in enumerate(resources.get("hugepageLimits", ())):
        size = limit["pageSize"]
        digits = size[:-2]
        whole = digits.isascii() and digits.isdigit() and digits[0] != "0"
        if size[-2:] not in ("KB", "MB", "GB") or not whole:
            raise SpecError(
                f"must be a size such as 2MB, not {size!r}",
                pointer=f"{pointer}/hugepageLimits/{index}/pageSize",
            )
    for name in resources.get("unified", {}):
        if "/" in name:
            raise SpecError(
                "must be the name of a file in the cgroup", pointer=join(f"{pointer}/unified", name)
            )


def _check_cpu(resources: Resources, pointer: str) -> None:
    """config-linux.md, "CPU": burst MUST be no larger than any positive quota."""
    cpu = resources.get("cpu", {})
    quota, burst = cpu.get("quota", 0), cpu.get("burst", 0)
    if 0 < quota < burst:
        raise SpecError(
            f"{burst} µs are more than the quota of {quota} µs", pointer=f"{pointer}/cpu/burst"
        )


def _check_weights(resources: Resources, pointer: str) -> None:
    """config-linux.md, "Block IO": at least one of weight and leafWeight MUST be specified."""
    for index, device in enumerate(resources.get("blockIO", {}).get("weightDevice", ())):
        if "weight" not in device and "leafWeight" not in device:
            raise SpecError(
                "needs weight or leafWeight", pointer=f"{pointer}/blockIO/weightDevice/{index}"
            )
