"""New limits for a live container: what was given, seen together with what it has already.

Pure. `given` and `known` are /linux/resources objects, `current` is what its cgroup's files say now.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, StateError
from rootless_pyoki.plan import resources
from rootless_pyoki.record import replace
from rootless_pyoki.spec import linux_rules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.notes import Notes
    from rootless_pyoki.plan.plan import Resources

    Tree = dict[str, Any]

# The files whose content is asked for in `current`; one that does not exist is not in there.
CURRENT = (
    *("memory.max", "memory.current"),
    *("cpu.max", "cpu.max.burst", "cpu.idle"),
)
DEFAULT_SHARES = 1024
SCHEMATA = {"l3_cache_schema": "l3CacheSchema", "mem_bw_schema": "memBwSchema"}
_SECTIONS = (
    *("memory", "cpu", "pids", "blockIO", "hugepageLimits", "rdma", "network", "devices"),
    "unified",
)
# Members that mean "not given" when they are 0, as in runc.
_NOTHING = {
    "memory": ("limit", "swap", "reservation", "kernel", "kernelTCP"),
    "cpu": ("shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"),
    "blockIO": ("weight", "leafWeight"),
}


def said(given: Tree) -> Tree:
    """`given` without the members that say nothing."""
    found = {key: given[key] for key in _SECTIONS if key in given}
    for key, members in _NOTHING.items():
        if key in found:
            found[key] = {k: v for k, v in found[key].items() if v or k not in members}
    return {key: value for key, value in found.items() if value}


def refuse_schema(key: str, notes: Notes) -> None:
    """key: of SCHEMATA, the option that was given."""
    notes.refuse(
        f"/linux/intelRdt/{SCHEMATA[key]}",
        f"--{key.replace('_', '-')}: /sys/fs/resctrl is writable for root of the host only: "
        "permission denied (EACCES)",
        hint="let root write to /sys/fs/resctrl/GROUP/schemata",
    )


def make(given: Tree, known: Tree, current: dict[str, str], notes: Notes) -> Resources:
    """The files to write: of what is given, and of nothing else.

    Pointers are those of `given`. Raises SpecError, UnsupportedError as resources.make; StateError
    where memory.checkBeforeUpdate finds a limit below what is used.
    """
    whole: Any = {**given}
    unasked: set[str] = set()
    if "memory" in given:
        whole["memory"] = _memory(given["memory"], known.get("memory") or {}, current, unasked)
    if "cpu" in given:
        whole["cpu"] = _cpu(given["cpu"], known.get("cpu") or {}, current, unasked)
    linux_rules.check_resources(whole, "")
    made = resources.make(whole, notes, "")
    files = [entry for entry in made.files if entry[2] not in unasked]
    if not (given.get("cpu") or {}).get("quota"):
        files = [(n, v, "/cpu/period" if p == "/cpu/quota" else p) for n, v, p in files]
    return replace(made, files=tuple(files))


def _memory(given: Tree, known: Tree, current: dict[str, str], unasked: set[str]) -> Tree:
    """The limit and the sum of memory and swap belong together: v2 counts swap alone.

    With a new limit the known sum stays, as with v1; with a new sum the limit that is there.
    """
    memory = {**given}
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    _check_usage(limit, {**known, **given}.get("checkBeforeUpdate"), current)
    if limit > 0 and not swap:
        total = known.get("swap") or 0
        if 0 < total < limit:
            raise SpecError(
                f"a limit of {limit} bytes is more than the {total} that memory and swap have "
                "together",
                pointer="/memory/limit",
                hint="give a new swap limit as well: --memory-swap, or /memory/swap",
            )
        if total > 0:
            memory["swap"] = total
    elif swap > 0 and not limit:
        unasked.add("/memory/limit")
        if "memory.max" in current:
            memory["limit"] = _number(current["memory.max"])
        else:  # no memory controller: that is the error to come, not a missing limit
            memory["limit"] = known.get("limit") or swap
    return memory


def _check_usage(limit: int, asked: object, current: dict[str, str]) -> None:
    """config-linux.md, "Memory", checkBeforeUpdate: a limit below what is used MUST be rejected."""
    used = _number(current.get("memory.current", ""))
    if asked and 0 < limit < used:
        raise StateError(
            f"a limit of {limit} bytes is less than the {used} that the container uses now",
            pointer="/memory/limit",
            hint="without checkBeforeUpdate the kernel reclaims what it can and kills for the rest",
        )


def _cpu(given: Tree, known: Tree, current: dict[str, str], unasked: set[str]) -> Tree:
    """Quota and period are one file; a burst may not be larger than the quota."""
    cpu = {**given}
    quota, _, period = current.get("cpu.max", "").partition(" ")
    bandwidth = {"quota": _number(quota) or -1, "period": _number(period)}
    if "quota" in cpu or "period" in cpu:
        if "burst" not in cpu:
            cpu["burst"] = _number(current.get("cpu.max.burst", ""))
            unasked.add("/cpu/burst")
    elif "burst" in cpu:
        unasked |= {"/cpu/quota", "/cpu/period"}
    else:
        bandwidth = {}
    for key, value in bandwidth.items():
        cpu.setdefault(key, value)
    if cpu.get("idle") == 0 and _number(current.get("cpu.idle", "")):
        # idleness has made the kernel forget it, and for systemd idle is a weight
        cpu.setdefault("shares", known.get("shares") or DEFAULT_SHARES)
    return cpu


def _number(text: str) -> int:
    """0 where there is none, as in "max"."""
    word = text.strip()
    return int(word) if word.isdigit() else 0


def merge(known: Tree, given: Tree) -> Tree:
    """What is known when `given` has been applied.

    Devices are not kept: they are limited by what lies in /dev.
    """
    merged = dict(known)
    for key, value in given.items():
        before = merged.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            merged[key] = merge(before, value)
        elif isinstance(value, list) and isinstance(before, list):
            entries = {_identity(entry): entry for entry in before}
            for entry in value:
                entries[_identity(entry)] = {**entries.get(_identity(entry), {}), **entry}
            merged[key] = list(entries.values())
        elif key != "devices":
            merged[key] = value
    memory = given.get("memory") or {}
    if (memory.get("limit") or 0) < 0 and not memory.get("swap"):
        merged["memory"] = {**merged["memory"], "swap": -1}
    return merged


def _identity(entry: Tree) -> tuple[object, ...]:
    """Which device, page size or interface an entry is about."""
    return tuple(entry.get(key) for key in ("major", "minor", "pageSize", "name"))
