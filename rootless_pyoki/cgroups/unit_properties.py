"""Cgroup files as properties of a systemd unit: systemd.resource-control(5), org.freedesktop.systemd1(5).

Pure. What has no property, and what a property cannot express, stays a file: systemd is told what it
would else overwrite when it writes a unit's files anew (daemon-reload, SetUnitProperties).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Property = tuple[str, str, Any]  # name, D-Bus signature, value

INFINITY = 2**64 - 1  # "infinity" of every limit
DEFAULT_PERIOD = 100000  # microseconds, cpu.max without a second number
WHOLE_MEMORY = 2**63 - 1  # bytes: no limit of memory reaches that far
HIGHEST = 8191  # the last CPU or memory node that is looked at (CONFIG_NR_CPUS)

# file → (property, smallest value that systemd takes)
_MEMORY = {
    "memory.max": ("MemoryMax", 1),
    "memory.high": ("MemoryHigh", 1),
    "memory.low": ("MemoryLow", 0),
    "memory.min": ("MemoryMin", 0),
    "memory.swap.max": ("MemorySwapMax", 0),
    "memory.zswap.max": ("MemoryZSwapMax", 0),  # systemd 253
}
_SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_IO_MAX = {
    "rbps": "IOReadBandwidthMax",
    "wbps": "IOWriteBandwidthMax",
    "riops": "IOReadIOPSMax",
    "wiops": "IOWriteIOPSMax",
}
# These take effect when a unit starts, and cannot be changed later.
ONLY_AT_START = ("OOMPolicy",)  # of a scope: systemd 253


def of(files: tuple[tuple[str, str, str], ...]) -> tuple[list[Property], list[Property]]:
    """(those that the unit starts with, those that are set when the program's process stands).

    files: (cgroup file, value, JSON pointer) in order of writing; the last value of a file wins,
    the lines of io.max are collected. Limits of memory and tasks come later.
    """
    at_start: dict[str, Property] = {}
    later: dict[str, Property] = {}
    devices: dict[str, dict[str, int]] = {}
    idle = False
    for name, value, _ in files:
        value = value.strip()
        if name in _MEMORY:
            _keep(later, _memory(*_MEMORY[name], value))
        elif name == "pids.max":
            _keep(later, _number("TasksMax", value, 1, INFINITY, low=1))
        elif name == "cpu.weight":
            _keep(at_start, _number("CPUWeight", value, 1, 10000))
        elif name == "cpu.idle":
            idle = value == "1"
        elif name == "cpu.max":
            for found in _quota(value):
                _keep(at_start, found)
        elif name in _SETS:
            _keep(at_start, _mask(_SETS[name], value))
        elif name == "io.weight":
            _weight(value, at_start, devices)
        elif name == "io.max":
            _throttle(value, devices)
        elif name == "memory.oom.group" and value in ("0", "1"):
            _keep(at_start, ("OOMPolicy", "s", "kill" if value == "1" else "continue"))
    if idle:
        at_start["CPUWeight"] = ("CPUWeight", "t", 0)  # systemd 252; out of range before
    for key, limits in devices.items():
        at_start[key] = (key, "a(st)", list(limits.items()))
    return list(at_start.values()), list(later.values())


def _keep(properties: dict[str, Property], found: Property | None) -> None:
    if found is not None:
        properties[found[0]] = found


def _number(
    key: str, value: str, least: int, most: int, *, low: int | None = None
) -> Property | None:
    """low: what is taken for values below `least`; without it such a value has no property."""
    if value == "max" and most == INFINITY:
        return (key, "t", INFINITY)
    if not _is_number(value):
        return None
    number = int(value)
    if number < least and low is not None:
        number = low
    return (key, "t", number) if least <= number <= most else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 20


def _memory(key: str, least: int, value: str) -> Property | None:
    if value == "max":
        return (key, "t", INFINITY)
    amount = bytes_of(value)
    if amount is None or amount < least:
        return None
    return (key, "t", amount if amount < WHOLE_MEMORY else INFINITY)


def bytes_of(text: str) -> int | None:
    """A number with one of the kernel's suffixes K M G T P E, or None."""
    shift = 10 * ("KMGTPE".find(text[-1:].upper()) + 1) if text[-1:].isalpha() else 0
    digits = text[:-1] if shift else text
    return int(digits) << shift if _is_number(digits) else None


def _quota(value: str) -> list[Property]:
    """cpu.max, "QUOTA [PERIOD]" in microseconds: of each second, in whole hundredths, rounded up."""
    words = value.split()
    if not 1 <= len(words) <= 2 or not all(word == "max" or _is_number(word) for word in words):
        return []
    period = int(words[1]) if len(words) == 2 and words[1] != "max" else DEFAULT_PERIOD
    share = INFINITY
    if words[0] != "max" and period:
        share = -(int(words[0]) * 1000000 // -period)
        share = min(-(share // -10000) * 10000, INFINITY)
    found = [("CPUQuotaPerSecUSec", "t", share)] if share else []
    if len(words) == 2:
        found.append(("CPUQuotaPeriodUSec", "t", period))
    return found


def _mask(key: str, value: str) -> Property | None:
    members = members_of(value)
    if not members:
        return None
    mask = 0
    for member in members:
        mask |= 1 << member
    return (key, "ay", mask.to_bytes(max(members) // 8 + 1, "little"))


def members_of(text: str) -> set[int] | None:
    """The numbers of a list as in cpuset(7), "0-3,5"; None where it is not one."""
    found: set[int] = set()
    for part in text.replace("\n", "").split(","):
        first, dash, last = part.strip().partition("-")
        if not first and not dash:
            continue  # the kernel passes over an empty part
        last = last if dash else first
        if not _is_number(first) or not _is_number(last) or int(last) > HIGHEST:
            return None
        if int(first) > int(last):
            return None
        found.update(range(int(first), int(last) + 1))
    return found


def _weight(value: str, at_start: dict[str, Property], devices: dict[str, dict[str, int]]) -> None:
    """io.weight: "WEIGHT", "default WEIGHT" or "MAJ:MIN WEIGHT"."""
    target, _, weight = value.rpartition(" ")
    found = _number("IOWeight", weight, 1, 10000)
    if found is None:
        return
    if target in ("", "default"):
        _keep(at_start, found)
    elif path := _device(target.strip()):
        devices.setdefault("IODeviceWeight", {})[path] = found[2]


def _throttle(value: str, devices: dict[str, dict[str, int]]) -> None:
    """A line of io.max: "MAJ:MIN KEY=LIMIT ..."."""
    words = value.split()
    path = _device(words[0]) if words else ""
    if not path:
        return
    for word in words[1:]:
        key, _, limit = word.partition("=")
        found = _number("", limit, 1, INFINITY)
        if key in _IO_MAX and found is not None:
            devices.setdefault(_IO_MAX[key], {})[path] = found[2]


def _device(numbers: str) -> str:
    """A device's path for systemd, which wants no numbers: udev makes a link for each."""
    major, colon, minor = numbers.partition(":")
    return f"/dev/block/{numbers}" if colon and _is_number(major) and _is_number(minor) else ""
