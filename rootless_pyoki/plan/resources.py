"""/linux/resources as files of cgroup v2 (config-linux.md "Control groups"; cgroup-v2.rst).

The configuration speaks of cgroup v1. What v2 names or counts differently is converted; what v2
lacks is noted where it does no harm to go without, and refused otherwise.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.idmap import to_host
from rootless_pyoki.plan.plan import Resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_pyoki.plan.notes import Notes
    from rootless_pyoki.plan.plan import IdMap, Mount

    Files = list[tuple[str, str, str]]

POINTER = "/linux/resources"
DEFAULT_PERIOD = 100000  # microseconds, the kernel's own
NONE = Resources(files=())
BY_DEV = "access to devices is limited by what lies in /dev"
_GONE = "has no counterpart in cgroup v2"


def make(
    resources: dict[str, Any],
    notes: Notes,
    pointer: str = POINTER,
    *,
    filters_devices: bool = False,
) -> Resources:
    """`resources` is validated. Raises SpecError and UnsupportedError with the field's pointer.

    filters_devices: whether the kernel lets us attach a device filter.
    """
    if not resources:
        return NONE
    files: Files = []
    device_filter = b""
    if resources.get("devices"):
        if filters_devices:
            from rootless_pyoki.plan import device_filter as filters

            device_filter = filters.compile(resources["devices"])
        else:
            notes.pass_over(f"{pointer}/devices", BY_DEV)
    if resources.get("memory"):
        _memory(resources["memory"], files, notes, f"{pointer}/memory")
    if resources.get("pids"):
        limit = resources["pids"].get("limit")
        if limit is not None:
            files.append(("pids.max", _limit(limit), f"{pointer}/pids/limit"))
    if resources.get("cpu"):
        _cpu(resources["cpu"], files, notes, f"{pointer}/cpu")
    bfq_weight = 0
    if resources.get("blockIO"):
        bfq_weight = _block_io(resources["blockIO"], files, notes, f"{pointer}/blockIO")
    optional = _hugepages(resources.get("hugepageLimits") or (), files, f"{pointer}/hugepageLimits")
    _rdma(resources.get("rdma") or {}, files, f"{pointer}/rdma")
    network = resources.get("network") or {}
    for key in ("classID", "priorities"):
        if network.get(key):
            notes.pass_over(f"{pointer}/network/{key}", _GONE)
    _unified(resources.get("unified") or {}, files, notes, f"{pointer}/unified")
    return Resources(
        files=tuple(files),
        optional=optional,
        bfq_weight=bfq_weight,
        device_filter=device_filter,
    )


def writable_cgroup(
    config: dict[str, Any],
    mounts: tuple[Mount, ...],
    new: set[str],
    id_map: IdMap | None,
    euid: int,
) -> str:
    """config-linux.md, "Cgroup ownership": pointer of the writable mount of the container's cgroup.

    "" where there is none, where the cgroup namespace is no new one, and where the cgroup is
    process.user's as soon as the caller has made it. new: kinds of new namespaces.
    """
    for mount in mounts if "cgroup" in new else ():
        if mount.kind == "cgroup2" and mount.destination.rstrip("/") == "/sys/fs/cgroup":
            uid = (config["process"].get("user") or {}).get("uid") or 0
            owner = uid if id_map is None else to_host(id_map.uids, uid)
            readonly = mount.attr_set & c.MOUNT_ATTR_RDONLY
            return "" if readonly or owner == euid else mount.pointer
    return ""


def _limit(value: int) -> str:
    return "max" if value < 0 else str(value)


def _memory(memory: dict[str, Any], files: Files, notes: Notes, pointer: str) -> None:
    """A limit of 0 means none was given, as in runc."""
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        files.append(("memory.max", _limit(limit), f"{pointer}/limit"))
    if swap or limit < 0:
        files.append(("memory.swap.max", _swap(swap, limit, f"{pointer}/swap"), f"{pointer}/swap"))
    if memory.get("reservation"):
        files.append(("memory.low", _limit(memory["reservation"]), f"{pointer}/reservation"))
    for key in ("kernel", "kernelTCP", "swappiness", "disableOOMKiller"):
        if memory.get(key):
            notes.pass_over(f"{pointer}/{key}", _GONE)


def _swap(swap: int, limit: int, pointer: str) -> str:
    """v1 counts memory and swap together, v2 swap alone."""
    if swap < 0 or (not swap and limit < 0):
        return "max"
    if limit <= 0:
        raise SpecError("a limit of memory and swap needs a memory limit", pointer=pointer)
    if swap < limit:
        raise SpecError(
            f"{swap} bytes of memory and swap together are less than the {limit} of memory",
            pointer=pointer,
        )
    return str(swap - limit)


def _cpu(cpu: dict[str, Any], files: Files, notes: Notes, pointer: str) -> None:
    """Weight before idle: an idle cgroup has none. Quota before burst: burst may not exceed it."""
    for key in ("realtimeRuntime", "realtimePeriod"):
        if cpu.get(key):
            notes.refuse(f"{pointer}/{key}", f"{key} {_GONE}", hint="take shares, quota and period")
    if cpu.get("shares"):
        files.append(("cpu.weight", str(cpu_weight(cpu["shares"])), f"{pointer}/shares"))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if quota or period:
        value = f"{quota if quota > 0 else 'max'} {period or DEFAULT_PERIOD}"
        files.append(("cpu.max", value, f"{pointer}/{'quota' if quota else 'period'}"))
    for key, file in (("burst", "cpu.max.burst"), ("idle", "cpu.idle")):
        if cpu.get(key) is not None:
            files.append((file, str(cpu[key]), f"{pointer}/{key}"))
    for key, file in (("cpus", "cpuset.cpus"), ("mems", "cpuset.mems")):
        if cpu.get(key):
            files.append((file, cpu[key], f"{pointer}/{key}"))


def cpu_weight(shares: int) -> int:
    """cpu.shares (2 to 262144, 1024 by default) as cpu.weight (1 to 10000, 100 by default).

    The curve through the three pairs of smallest, default and largest that all runtimes use:
    10^((l² + 125 l) / 612 - 7/34), l = log2(shares), rounded up.
    """
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    logarithm = _log2(shares)
    weight = 10.0 ** ((logarithm * logarithm + 125 * logarithm) / 612 - 7 / 34)
    return -int(-weight // 1)


def _log2(number: int) -> float:
    """math.log2, digit by digit of its fraction: that module is not worth its loading here."""
    whole = number.bit_length() - 1
    rest = number / (1 << whole)  # 1 ≤ rest < 2
    result, digit = float(whole), 0.5
    while digit > 1e-16 and rest != 1.0:
        rest *= rest
        if rest >= 2:
            rest /= 2
            result += digit
        digit /= 2
    return result


_THROTTLES = (
    ("throttleReadBpsDevice", "rbps"),
    ("throttleWriteBpsDevice", "wbps"),
    ("throttleReadIOPSDevice", "riops"),
    ("throttleWriteIOPSDevice", "wiops"),
)


def _block_io(block_io: dict[str, Any], files: Files, notes: Notes, pointer: str) -> int:
    """Returns the weight as given, for io.bfq.weight."""
    weight = block_io.get("weight") or 0
    if block_io.get("leafWeight"):
        notes.refuse(f"{pointer}/leafWeight", f"leafWeight {_GONE}", hint="take weight")
    if weight:
        if not 10 <= weight <= 1000:
            raise SpecError(f"weight {weight} is not from 10 to 1000", pointer=f"{pointer}/weight")
        value = 1 + (weight - 10) * 9999 // 990
        files.append(("io.weight", str(value), f"{pointer}/weight"))
    for index, device in enumerate(block_io.get("weightDevice") or ()):
        at = f"{pointer}/weightDevice/{index}"
        if device.get("leafWeight"):
            notes.refuse(f"{at}/leafWeight", f"leafWeight {_GONE}", hint="take weight")
        if device.get("weight"):
            text = f"{device['major']}:{device['minor']} {device['weight']}"
            files.append(("io.bfq.weight", text, f"{at}/weight"))
    for key, word in _THROTTLES:
        for index, device in enumerate(block_io.get(key) or ()):
            text = f"{device['major']}:{device['minor']} {word}={device.get('rate') or 'max'}"
            files.append(("io.max", text, f"{pointer}/{key}/{index}"))
    return weight


def _hugepages(limits: Sequence[dict[str, Any]], files: Files, pointer: str) -> tuple[str, ...]:
    """Reservations are limited like use; kernels before 5.7 have no file for them."""
    optional = []
    for index, entry in enumerate(limits):
        size, value, at = entry["pageSize"], str(entry["limit"]), f"{pointer}/{index}"
        files.append((f"hugetlb.{size}.max", value, at))
        files.append((f"hugetlb.{size}.rsvd.max", value, at))
        optional.append(f"hugetlb.{size}.rsvd.max")
    return tuple(optional)


def _rdma(devices: dict[str, Any], files: Files, pointer: str) -> None:
    for name, limits in devices.items():
        words = [name]
        for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if limits.get(key) is not None:
                words.append(f"{word}={limits[key]}")
        if len(words) > 1:
            token = name.replace("~", "~0").replace("/", "~1")
            files.append(("rdma.max", " ".join(words), f"{pointer}/{token}"))


_OWN_FILES = ("cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure")


def _unified(entries: dict[str, str], files: Files, notes: Notes, pointer: str) -> None:
    """Any file of a controller, a write for each line."""
    for name, value in entries.items():
        at = f"{pointer}/{name.replace('~', '~0').replace('/', '~1')}"
        if "." not in name.strip("."):
            raise SpecError(f"{name} is not the name of a controller's file", pointer=at)
        if name.startswith("cgroup.") and name not in _OWN_FILES:
            notes.refuse(at, f"{name} belongs to the runtime")
            continue
        files.extend((name, line, at) for line in value.split("\n") if line)
