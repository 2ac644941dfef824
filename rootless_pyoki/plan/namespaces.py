"""/linux/namespaces and /linux/timeOffsets (config-linux.md "Namespaces", "Offset for Time Namespace")."""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.plan import Namespace, TimeOffset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.host.facts import Facts

NAMESPACES = {
    "user": c.CLONE_NEWUSER,
    "pid": c.CLONE_NEWPID,
    "network": c.CLONE_NEWNET,
    "mount": c.CLONE_NEWNS,
    "ipc": c.CLONE_NEWIPC,
    "uts": c.CLONE_NEWUTS,
    "cgroup": c.CLONE_NEWCGROUP,
    "time": c.CLONE_NEWTIME,
}
CLOCKS = ("monotonic", "boottime")  # time_namespaces(7)


def make(linux: dict[str, Any], facts: Facts) -> tuple[Namespace, ...]:
    """In the order of the configuration; a user namespace is added where it takes one to go on."""
    planned = []
    kinds = set()
    for index, entry in enumerate(linux.get("namespaces") or ()):
        kind, path = entry["type"], entry.get("path") or ""
        pointer = f"/linux/namespaces/{index}"
        if kind == "time" and not facts.time_namespaces:
            raise UnsupportedError(
                "this kernel has no time namespaces",
                pointer=pointer,
                hint="they came with Linux 5.6 and need CONFIG_TIME_NS",
            )
        kinds.add(kind)
        planned.append(Namespace(kind=kind, flag=NAMESPACES[kind], path=path, pointer=pointer))
    if "mount" not in kinds:
        raise SpecError("a mount namespace is needed", pointer="/linux/namespaces")
    if "user" not in kinds and not facts.privileged:
        added = Namespace(kind="user", flag=c.CLONE_NEWUSER, path="", pointer="/linux/namespaces")
        planned.insert(0, added)
    return tuple(planned)


def time_offsets(linux: dict[str, Any]) -> tuple[TimeOffset, ...]:
    """For a new time namespace, which validation has seen to be there."""
    planned = []
    for clock, offset in (linux.get("timeOffsets") or {}).items():
        pointer = f"/linux/timeOffsets/{clock}"
        if clock not in CLOCKS:
            raise UnsupportedError(
                f"a time namespace has no clock {clock!r} of its own", pointer=pointer
            )
        seconds, nanoseconds = offset.get("secs") or 0, offset.get("nanosecs") or 0
        planned.append(TimeOffset(clock=clock, secs=seconds, nanosecs=nanoseconds, pointer=pointer))
    return tuple(planned)
