"""How the kernel runs the process: what init or exec's process sets on itself, and main on the gate.

All of it survives execve(2), sched(7). Loaded for a process that has any of it.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.plan.plan import Note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.plan.plan import IoPriority, MemoryPolicy, Process, Scheduler

    Tell = Callable[[Note], None]

INSTEAD = {
    c.SCHED_OTHER: "a nice value below the caller's takes CAP_SYS_NICE on the host or RLIMIT_NICE "
    "(limits.conf(5) nice, systemd's LimitNICE=)",
    c.SCHED_FIFO: "it takes CAP_SYS_NICE on the host or RLIMIT_RTPRIO of at least the priority "
    "(limits.conf(5) rtprio, systemd's LimitRTPRIO=)",
    c.SCHED_DEADLINE: "it takes CAP_SYS_NICE on the host and a process that may use every CPU of its "
    "root domain: no execCPUAffinity, no cpuset that leaves some out",
}
INSTEAD[c.SCHED_BATCH] = INSTEAD[c.SCHED_IDLE] = INSTEAD[c.SCHED_OTHER]
INSTEAD[c.SCHED_RR] = INSTEAD[c.SCHED_FIFO]


def start_on(process: Process, tell: Tell) -> None:
    """execCPUAffinity.initial, on main itself: exec's process is born with it."""
    scheduling = process.scheduling
    if scheduling is not None and scheduling.initial_cpus:
        _set_affinity(process, 0, scheduling.initial_cpus, "initial", tell)


def prepare(process: Process, tell: Tell, *, forks: bool) -> None:
    """What init, or exec's process, sets on itself before it becomes the gate.

    forks: the gate will have to, to enter a pid namespace.
    """
    scheduling = process.scheduling
    if scheduling is None:
        return
    if scheduling.personality is not None:
        _set_personality(process, scheduling.personality, tell)
    if scheduling.memory_policy is not None:
        _set_memory_policy(process, scheduling.memory_policy, tell)
    if scheduling.scheduler is not None and not _by_main(scheduling.scheduler, forks):
        _set_scheduler(process, 0, scheduling.scheduler, tell)
    if scheduling.io_priority is not None:
        _set_io_priority(process, scheduling.io_priority, tell)


def finish(process: Process, gate: int, tell: Tell, *, forked: bool) -> None:
    """What main sets on the gate that stands in the container's cgroup."""
    scheduling = process.scheduling
    if scheduling is None:
        return
    if scheduling.final_cpus:
        _set_affinity(process, gate, scheduling.final_cpus, "final", tell)
    if scheduling.scheduler is not None and _by_main(scheduling.scheduler, forked):
        _set_scheduler(process, gate, scheduling.scheduler, tell)


def _by_main(scheduler: Scheduler, forks: bool) -> bool:
    """sched(7): no deadline task forks, and who resets on fork does not pass that on.

    Else the process does it itself, which need not have main's uid.
    """
    resets = bool(scheduler.flags & c.SCHED_FLAG_RESET_ON_FORK)
    return scheduler.policy == c.SCHED_DEADLINE or (forks and resets)


def _refused(
    process: Process, error: SyscallError, doing: str, pointer: str, hint: str, tell: Tell
) -> None:
    """UnsupportedError, or a note where the user is lenient."""
    if not process.lenient:
        raise UnsupportedError(
            f"{doing}: {error}", pointer=pointer, errno=error.errno or 0, hint=hint
        )
    tell(Note(pointer=pointer, text=f"not applied: {doing}: {error}"))


def _set_affinity(process: Process, pid: int, cpus: tuple[int, ...], key: str, tell: Tell) -> None:
    try:
        syscalls.sched_setaffinity(pid, cpus)
    except SyscallError as error:
        pointer = f"{process.pointer}/execCPUAffinity/{key}"
        hint = (
            "name a CPU that is online and that the cgroup may use"
            if error.errno == c.EINVAL
            else ""
        )
        _refused(process, error, "run on the CPUs asked for", pointer, hint, tell)


def _set_scheduler(process: Process, pid: int, wanted: Scheduler, tell: Tell) -> None:
    try:
        syscalls.sched_setattr(
            pid, wanted.policy, wanted.flags, wanted.nice, wanted.priority, wanted.times
        )
    except SyscallError as error:
        key = "nice" if wanted.policy in (c.SCHED_OTHER, c.SCHED_BATCH) else "policy"
        hint = ""
        if error.errno == c.EPERM and pid and wanted.policy != c.SCHED_DEADLINE:
            key = "flags"
            hint = "in a pid namespace that is joined it takes a container whose id 0 is the caller's own"
        elif error.errno == c.EPERM:
            hint = INSTEAD[wanted.policy]
        elif error.errno == c.EBUSY:
            hint = (
                "no room for it: see kernel.sched_rt_runtime_us and what other tasks have reserved"
            )
        else:
            key = ""  # flags, times: the kernel does not say which
        pointer = f"{process.pointer}/scheduler{key and '/' + key}"
        _refused(process, error, f"set the scheduler to {wanted.name}", pointer, hint, tell)


def _set_io_priority(process: Process, wanted: IoPriority, tell: Tell) -> None:
    """config.md: for the process group, which the process leads and is all of."""
    try:
        syscalls.ioprio_set(c.IOPRIO_WHO_PROCESS, 0, wanted.level, wanted.data)
    except SyscallError as error:
        hint = ""
        if error.errno == c.EPERM:
            hint = "IOPRIO_CLASS_BE with priority 0 is the highest without CAP_SYS_NICE on the host"
        pointer = f"{process.pointer}/ioPriority/class"
        _refused(process, error, f"set the I/O priority to {wanted.name}", pointer, hint, tell)


def _set_memory_policy(process: Process, wanted: MemoryPolicy, tell: Tell) -> None:
    """set_mempolicy(2): EINVAL for nodes that are not there or not allowed, or what is too new."""
    try:
        syscalls.set_mempolicy(wanted.mode, wanted.nodes)
    except SyscallError as error:
        hint = ""
        if error.errno == c.ENOSYS:
            hint = "this kernel is built without NUMA"
        elif error.errno == c.EINVAL:
            hint = (
                "the nodes must be online and allowed to the cgroup (/sys/devices/system/node/online); "
                "MPOL_PREFERRED_MANY came with Linux 5.15, MPOL_WEIGHTED_INTERLEAVE with 6.9"
            )
        pointer = "/linux/memoryPolicy"
        _refused(process, error, f"set the memory policy {wanted.name}", pointer, hint, tell)


def _set_personality(process: Process, wanted: int, tell: Tell) -> None:
    try:
        syscalls.personality(wanted)
    except SyscallError as error:
        hint = ""
        if error.errno == c.EINVAL:
            hint = "this machine runs no 32-bit programs"
        pointer = "/linux/personality/domain"
        _refused(process, error, "set the personality", pointer, hint, tell)
