"""What the specification and the kernel demand of scheduler, execCPUAffinity and memoryPolicy.

Loaded for a configuration that has one of them.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.spec.types import CPUAffinity, MemoryPolicy, Scheduler

LARGEST_CPU = 8191  # of the largest CONFIG_NR_CPUS
LARGEST_NODE = 1023  # of the largest CONFIG_NODES_SHIFT
LARGEST_PRIORITY = 99  # sched(7)
LEAST_RUNTIME = 1024  # nanoseconds, sched_setattr(2)
REAL_TIME = ("SCHED_FIFO", "SCHED_RR")


def numbers(text: str, largest: int, pointer: str) -> tuple[int, ...]:
    """A list such as `0-3,7` in ascending order; () for an empty text.

    As the kernel reads it: spaces and empty items are nothing.
    """
    found: set[int] = set()
    for item in text.split(","):
        if not item.strip():
            continue
        start, dash, end = [part.strip() for part in item.partition("-")]
        last = end if dash else start
        if not (start.isascii() and start.isdigit() and last.isascii() and last.isdigit()):
            raise SpecError(f"{text!r} is no list such as 0-3,7", pointer=pointer)
        if len(last.lstrip("0")) > 9 or int(last) > largest:
            raise SpecError(f"{last} is above {largest}, the largest there is", pointer=pointer)
        if len(start.lstrip("0")) > 9 or int(start) > int(last):
            raise SpecError(f"{item.strip()} ends before it begins", pointer=pointer)
        found.update(range(int(start), int(last) + 1))
    if not found and text:
        raise SpecError(f"{text!r} names nothing", pointer=pointer)
    return tuple(sorted(found))


def check_affinity(affinity: CPUAffinity, pointer: str) -> None:
    """config.md, "Linux Process", execCPUAffinity: lists such as 0-3,7."""
    for key in ("initial", "final"):
        numbers(affinity.get(key) or "", LARGEST_CPU, f"{pointer}/{key}")  # type: ignore[arg-type]


def check_scheduler(scheduler: Scheduler, pointer: str) -> None:
    """sched_setattr(2): the static priority is for real-time policies, the times for deadlines."""
    if "SCHED_FLAG_KEEP_PARAMS" in scheduler.get("flags", ()):
        return  # the kernel does not look at them
    policy, priority = scheduler["policy"], scheduler.get("priority", 0)
    if policy in REAL_TIME:
        if not 1 <= priority <= LARGEST_PRIORITY:
            raise SpecError(
                f"must be from 1 to {LARGEST_PRIORITY} for {policy}, not {priority}",
                pointer=f"{pointer}/priority",
            )
    elif priority:
        raise SpecError(
            f"is for {' and '.join(REAL_TIME)}, not {policy}", pointer=f"{pointer}/priority"
        )
    times = [
        (key, value)
        for key, value in (
            ("runtime", scheduler.get("runtime", 0)),
            ("deadline", scheduler.get("deadline", 0)),
            ("period", scheduler.get("period", 0)),
        )
        if value
    ]
    if policy == "SCHED_DEADLINE":
        _check_times(dict(times), pointer)
    elif times:
        raise SpecError(f"is for SCHED_DEADLINE, not {policy}", pointer=f"{pointer}/{times[0][0]}")


def _check_times(times: dict[str, int], pointer: str) -> None:
    """sched(7): runtime <= deadline <= period; a period of 0 is the deadline."""
    for key in ("runtime", "deadline"):
        if key not in times:
            raise SpecError("is required for SCHED_DEADLINE", pointer=f"{pointer}/{key}")
    runtime, deadline = times["runtime"], times["deadline"]
    if runtime < LEAST_RUNTIME:
        raise SpecError(
            f"must be at least {LEAST_RUNTIME} ns, not {runtime}", pointer=f"{pointer}/runtime"
        )
    if deadline < runtime:
        raise SpecError(
            f"must be at least the runtime, {runtime} ns, not {deadline}",
            pointer=f"{pointer}/deadline",
        )
    if times.get("period", deadline) < deadline:
        raise SpecError(
            f"must be at least the deadline, {deadline} ns, not {times['period']}",
            pointer=f"{pointer}/period",
        )


def check_memory_policy(policy: MemoryPolicy, pointer: str = "/linux/memoryPolicy") -> None:
    """config-linux.md, "Memory policy": some modes require that there are no nodes, others one.

    set_mempolicy(2): which ones, and which flags exclude each other.
    """
    mode, flags = policy["mode"], policy.get("flags", [])
    nodes = numbers(policy.get("nodes", ""), LARGEST_NODE, f"{pointer}/nodes")
    if nodes and mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        raise SpecError(f"{mode} takes no nodes", pointer=f"{pointer}/nodes")
    if not nodes and mode not in ("MPOL_DEFAULT", "MPOL_LOCAL", "MPOL_PREFERRED"):
        raise SpecError(f"{mode} needs at least one node", pointer=f"{pointer}/nodes")
    if "MPOL_F_STATIC_NODES" in flags and "MPOL_F_RELATIVE_NODES" in flags:
        raise SpecError(
            "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other",
            pointer=f"{pointer}/flags",
        )
    if not nodes and any(flag != "MPOL_F_NUMA_BALANCING" for flag in flags):
        raise SpecError(
            f"{mode} without nodes takes no flag about them", pointer=f"{pointer}/flags"
        )
