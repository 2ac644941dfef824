"""How the kernel shall run the process: scheduler, ioPriority, execCPUAffinity, memoryPolicy, personality.

config.md "Linux Process", config-linux.md "Memory policy" and "Personality". Loaded for a
configuration that has one of them. Memory policy and personality are "for the container", so that
exec's processes have them too.
"""

from __future__ import annotations

from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.plan import IoPriority, MemoryPolicy, Scheduler, Scheduling
from rootless_pyoki.spec.scheduling_rules import LARGEST_CPU, LARGEST_NODE, numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.host.facts import Facts
    from rootless_pyoki.plan.notes import Notes

POLICIES = {
    "SCHED_OTHER": c.SCHED_OTHER,
    "SCHED_FIFO": c.SCHED_FIFO,
    "SCHED_RR": c.SCHED_RR,
    "SCHED_BATCH": c.SCHED_BATCH,
    "SCHED_IDLE": c.SCHED_IDLE,
    "SCHED_DEADLINE": c.SCHED_DEADLINE,
}
FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": c.SCHED_FLAG_RESET_ON_FORK,
    "SCHED_FLAG_RECLAIM": c.SCHED_FLAG_RECLAIM,
    "SCHED_FLAG_DL_OVERRUN": c.SCHED_FLAG_DL_OVERRUN,
    "SCHED_FLAG_KEEP_POLICY": c.SCHED_FLAG_KEEP_POLICY,
    "SCHED_FLAG_KEEP_PARAMS": c.SCHED_FLAG_KEEP_PARAMS,
    "SCHED_FLAG_UTIL_CLAMP_MIN": c.SCHED_FLAG_UTIL_CLAMP_MIN,
    "SCHED_FLAG_UTIL_CLAMP_MAX": c.SCHED_FLAG_UTIL_CLAMP_MAX,
}
CLASSES = {
    "IOPRIO_CLASS_RT": c.IOPRIO_CLASS_RT,
    "IOPRIO_CLASS_BE": c.IOPRIO_CLASS_BE,
    "IOPRIO_CLASS_IDLE": c.IOPRIO_CLASS_IDLE,
}
MEMORY_MODES = {
    "MPOL_DEFAULT": c.MPOL_DEFAULT,
    "MPOL_PREFERRED": c.MPOL_PREFERRED,
    "MPOL_BIND": c.MPOL_BIND,
    "MPOL_INTERLEAVE": c.MPOL_INTERLEAVE,
    "MPOL_LOCAL": c.MPOL_LOCAL,
    "MPOL_PREFERRED_MANY": c.MPOL_PREFERRED_MANY,
    "MPOL_WEIGHTED_INTERLEAVE": c.MPOL_WEIGHTED_INTERLEAVE,
}
MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": c.MPOL_F_NUMA_BALANCING,
    "MPOL_F_RELATIVE_NODES": c.MPOL_F_RELATIVE_NODES,
    "MPOL_F_STATIC_NODES": c.MPOL_F_STATIC_NODES,
}
DOMAINS = {"LINUX": c.PER_LINUX, "LINUX32": c.PER_LINUX32}

NICE_POLICIES = ("SCHED_OTHER", "SCHED_BATCH")  # sched(7): the others have no nice value
ONLY_ROOT = "only CAP_SYS_NICE on the host allows it: operation not permitted (EPERM)"


def make(
    process: dict[str, Any],
    linux: dict[str, Any],
    facts: Facts,
    *,
    pointer: str,
    joins: bool,
    notes: Notes,
) -> Scheduling | None:
    """None: nothing is asked for that can be had. Both objects are validated.

    joins: for exec; execCPUAffinity is "not applicable to the container's init process".
    What the kernel alone knows (RLIMIT_NICE, RLIMIT_RTPRIO, CPUs, nodes) it judges later.
    """
    privileged = facts.in_initial_userns and facts.has(c.CAP_SYS_NICE)
    affinity = (process.get("execCPUAffinity") or {}) if joins else {}
    at = f"{pointer}/execCPUAffinity"
    made = Scheduling(
        scheduler=_scheduler(process.get("scheduler"), privileged, f"{pointer}/scheduler", notes),
        io_priority=_io_priority(
            process.get("ioPriority"), privileged, f"{pointer}/ioPriority", notes
        ),
        initial_cpus=numbers(affinity.get("initial") or "", LARGEST_CPU, f"{at}/initial"),
        final_cpus=numbers(affinity.get("final") or "", LARGEST_CPU, f"{at}/final"),
        memory_policy=_memory_policy(linux.get("memoryPolicy")),
        personality=_personality(linux.get("personality")),
        pointer=pointer,
    )
    return None if made == Scheduling(pointer=pointer) else made


def _scheduler(
    asked: dict[str, Any] | None, privileged: bool, pointer: str, notes: Notes
) -> Scheduler | None:
    if not asked:
        return None
    name = asked["policy"]
    if name not in POLICIES:
        notes.refuse(
            f"{pointer}/policy",
            f"{name}: the kernel reserves the name and has no such policy (EINVAL)",
            hint="take SCHED_OTHER or SCHED_BATCH",
        )
        return None
    if name == "SCHED_DEADLINE" and not privileged:
        notes.refuse(
            f"{pointer}/policy",
            f"{name}: {ONLY_ROOT}",
            hint="take SCHED_OTHER, or have root change the running process with chrt(1)",
        )
        return None
    nice = asked.get("nice") or 0
    if nice and name not in NICE_POLICIES:
        notes.pass_over(f"{pointer}/nice", f"{name} has no nice value")
        nice = 0
    flags = 0
    for flag in asked.get("flags") or ():
        flags |= FLAGS[flag]
    return Scheduler(
        policy=POLICIES[name],
        name=name,
        flags=flags,
        nice=nice,
        priority=asked.get("priority") or 0,
        times=(asked.get("runtime") or 0, asked.get("deadline") or 0, asked.get("period") or 0),
    )


def _io_priority(
    asked: dict[str, Any] | None, privileged: bool, pointer: str, notes: Notes
) -> IoPriority | None:
    if not asked:
        return None
    name = asked["class"]
    if name == "IOPRIO_CLASS_RT" and not privileged:
        notes.refuse(
            f"{pointer}/class",
            f"{name}: {ONLY_ROOT}",
            hint="take IOPRIO_CLASS_BE with priority 0, the highest without privileges",
        )
        return None
    return IoPriority(level=CLASSES[name], name=name, data=asked.get("priority") or 0)


def _memory_policy(asked: dict[str, Any] | None) -> MemoryPolicy | None:
    if not asked:
        return None
    mode = MEMORY_MODES[asked["mode"]]
    flags = asked.get("flags") or ()
    for flag in flags:
        mode |= MEMORY_FLAGS[flag]
    nodes = numbers(asked.get("nodes") or "", LARGEST_NODE, "/linux/memoryPolicy/nodes")
    return MemoryPolicy(mode=mode, name=" ".join((asked["mode"], *flags)), nodes=nodes)


def _personality(asked: dict[str, Any] | None) -> int | None:
    return DOMAINS[asked["domain"]] if asked else None
