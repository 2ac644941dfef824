"""Does a cgroup file say what it is to say? cgroup-v2.rst, "Interface Files"; each has its own way.

Pure. The kernel counts memory in pages, sorts lists of CPUs, and answers `max` or a default where
nothing was set: texts that differ may mean the same.
"""

from __future__ import annotations

from rootless_pyoki.cgroups.unit_properties import WHOLE_MEMORY, bytes_of, members_of

PAGE = 4096
# files with a line for each device: what stands in a field that has not been set
_FIELDS = {
    "io.max": "max",
    "rdma.max": "max",
    "io.latency": "",
    "io.cost.qos": "",
    "io.cost.model": "",
}
_LINES = ("io.weight", "io.bfq.weight", "misc.max", "dmem.max", "dmem.min", "dmem.low")
_AMOUNTS = ("max", "high", "low", "min")


def differs(name: str, wanted: str, present: str, *, page: int = PAGE) -> bool:
    """Must `wanted` be written to the file, which says `present`? In doubt, yes.

    page: bytes of a page of memory.
    """
    wanted, present = wanted.strip(), present.strip()
    if wanted == present:
        return False
    if name in _FIELDS:
        return _fields_differ(wanted, present, _FIELDS[name])
    if name in _LINES:
        return _lines_differ(wanted, present)
    if name == "cpu.max":
        return _quota_differs(wanted, present)
    if name in ("cpuset.cpus", "cpuset.mems", "cpuset.cpus.exclusive"):
        members = members_of(wanted)
        return members is None or members != members_of(present)
    if name[:7] == "memory." and name.rpartition(".")[2] in _AMOUNTS:
        return _amount(wanted, page) != _amount(present, page)
    if name[:8] == "hugetlb.":
        unit = bytes_of(name.split(".")[1].removesuffix("B")) or page
        return _amount(wanted, unit) != _amount(present, unit)
    return _number(wanted) != _number(present)


def _number(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else text


def _amount(text: str, unit: int) -> int | str:
    """In whole units; "max" from where the kernel's counters end."""
    amount = bytes_of(text)
    if amount is None:
        return text
    return amount // unit if amount < WHOLE_MEMORY // unit * unit else "max"


def _quota_differs(wanted: str, present: str) -> bool:
    """QUOTA [PERIOD]: a period that is not given stays what it is."""
    ours, theirs = wanted.split(), present.split()
    return [_number(word) for word in ours] != [_number(word) for word in theirs[: len(ours)]]


def _lines_differ(wanted: str, present: str) -> bool:
    """KEY VALUE, and a bare VALUE is that of `default`; a key without a line has the default."""
    key, _, value = wanted.rpartition(" ")
    lines = {line.partition(" ")[0]: line.partition(" ")[2] for line in present.splitlines()}
    if len(lines) == 1 and "" in lines.values():  # io.bfq.weight before Linux 5.6: no key at all
        lines = {"default": next(iter(lines))}
    there = lines.get(key.strip() or "default")
    if there is None:
        return value != "default"
    return _amount(value, 1) != _amount(there, 1)


def _fields_differ(wanted: str, present: str, unset: str) -> bool:
    """DEVICE FIELD=VALUE ...: only the fields that are given change."""
    device, *fields = wanted.split()
    there = {}
    for line in present.splitlines():
        words = line.split()
        if words[:1] == [device]:
            there = dict([word.partition("=")[::2] for word in words[1:]])
    for field in fields:
        key, _, value = field.partition("=")
        if _number(there.get(key, unset)) != _number(value):
            return True
    return not fields
