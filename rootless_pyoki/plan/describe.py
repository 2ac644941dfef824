"""The Plan in words, in the order in which it is carried out; for --debug and explain."""

from __future__ import annotations

from rootless_pyoki.kernel import constants as c

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import (
        Capabilities,
        Device,
        Hook,
        IdRange,
        Mount,
        Plan,
        Process,
        Scheduler,
        Scheduling,
    )

_ATTRIBUTES = (
    (c.MOUNT_ATTR_RDONLY, "ro", "rw"),
    (c.MOUNT_ATTR_NOSUID, "nosuid", "suid"),
    (c.MOUNT_ATTR_NODEV, "nodev", "dev"),
    (c.MOUNT_ATTR_NOEXEC, "noexec", "exec"),
    (c.MOUNT_ATTR_NODIRATIME, "nodiratime", "diratime"),
    (c.MOUNT_ATTR_NOSYMFOLLOW, "nosymfollow", "symfollow"),
)
_ATIMES = {
    c.MOUNT_ATTR_RELATIME: "relatime",
    c.MOUNT_ATTR_NOATIME: "noatime",
    c.MOUNT_ATTR_STRICTATIME: "strictatime",
}
_PROPAGATION = (
    (c.MS_PRIVATE, "private"),
    (c.MS_SHARED, "shared"),
    (c.MS_SLAVE, "slave"),
    (c.MS_UNBINDABLE, "unbindable"),
)


def describe(plan: Plan) -> list[str]:
    """A line a step."""
    lines = [f"container {plan.id}: bundle {plan.bundle}"]
    if plan.process.oom_score_adj is not None:
        lines.append(f"oom_score_adj {plan.process.oom_score_adj}")
    lines += [f"join {ns.kind} namespace {ns.path}" for ns in plan.namespaces if ns.path]
    new = [ns.kind for ns in plan.namespaces if not ns.path]
    if new:
        lines.append(f"new namespaces: {', '.join(new)}")
    for offset in plan.time_offsets:
        lines.append(f"clock {offset.clock} off by {offset.secs} s {offset.nanosecs} ns")
    lines += _idmap(plan)
    lines += _cgroup(plan)
    if plan.loopback_up:
        lines.append("bring lo up")
    lines += _rootfs(plan)
    lines += [mount(entry) for entry in plan.mounts]
    lines += [_device(entry) for entry in plan.devices]
    lines += _hooks("prestart", plan.hooks.prestart)
    lines += _hooks("createRuntime", plan.hooks.create_runtime)
    lines += _hooks("createContainer", plan.hooks.create_container)
    lines += [f"mask {path}" for path in plan.rootfs.masked_paths]
    lines += [f"make {path} read-only" for path in plan.rootfs.readonly_paths]
    if plan.rootfs.readonly:
        lines.append("make / read-only")
    lines.append("move / and chroot" if plan.rootfs.no_pivot else "pivot_root")
    for name, value in (("hostname", plan.hostname), ("domainname", plan.domainname)):
        if value:
            lines.append(f"{name} {value}")
    lines += [f"sysctl {key} = {value}" for key, value, _ in plan.sysctl]
    if plan.new_keyring:
        lines.append(f"new session keyring _ses.{plan.id}")
    lines += process(plan.process)
    lines += _hooks("startContainer", plan.hooks.start_container)
    lines += _hooks("poststart", plan.hooks.poststart)
    if plan.notify_socket:
        lines.append(f"READY=1 of the program goes to {plan.notify_socket}")
    lines += _hooks("poststop, when it is deleted,", plan.hooks.poststop)
    lines += [f"note: {note.pointer}: {note.text}" for note in plan.notes]
    return lines


def _idmap(plan: Plan) -> list[str]:
    idmap = plan.idmap
    if idmap is None:
        return []
    how = "newuidmap and newgidmap" if idmap.writer == "helpers" else "written directly"
    deny = ", setgroups denied" if idmap.deny_setgroups else ""
    return [
        f"uid map: {_ranges(idmap.uids)} ({how})",
        f"gid map: {_ranges(idmap.gids)} ({how}{deny})",
    ]


def _ranges(ranges: tuple[IdRange, ...]) -> str:
    return ", ".join(f"{r.container} → {r.host} ({r.size})" for r in ranges)


def _cgroup(plan: Plan) -> list[str]:
    lines = [f"cgroup {plan.cgroups_path}"] if plan.cgroups_path else []
    lines += [f"{file} = {value}" for file, value, _ in plan.resources.files]
    if plan.resources.device_filter:
        lines.append(f"filter devices: {len(plan.resources.device_filter) // 8} BPF instructions")
    lines += [f"unit property {name} = {value}" for name, _, value in plan.unit_properties]
    if plan.subgroup:
        lines.append(f"cgroup {plan.subgroup} below the unit's is the container's own")
    if plan.writable_cgroup:
        lines.append(f"user {plan.process.uid} may change the cgroup")
    if plan.delegate_cgroup:
        lines.append(f"cgroup {plan.delegate_cgroup} below it is the container's own")
    return lines


def _rootfs(plan: Plan) -> list[str]:
    kind = _propagation(plan.rootfs.propagation)
    return [f"root filesystem {plan.rootfs.path}{' ' + kind if kind else ''}"]


def mount(entry: Mount) -> str:
    """As mount(8) would be told."""
    words = _attributes(entry.attr_set, entry.attr_clear, "")
    words += _attributes(entry.recursive_set, entry.recursive_clear, "r")
    if entry.propagation:
        words.append(_propagation(entry.propagation))
    words += entry.data
    if entry.copy_up:
        words.append("tmpcopyup")
    words += entry.special
    if entry.idmap:
        words.append("ridmap" if entry.idmap.recursive else "idmap")
    options = f" ({','.join(words)})" if words else ""
    if entry.remount:
        return f"remount {entry.destination}{options}"
    if entry.kind == "bind":
        kind = "rbind" if entry.recursive else "bind"
        return f"{kind} {entry.source} to {entry.destination}{options}"
    fallback = f", or bind {entry.fallback}" if entry.fallback else ""
    return f"mount {entry.kind} on {entry.destination}{options}{fallback}"


def _attributes(added: int, removed: int, prefix: str) -> list[str]:
    words = []
    for bit, on, off in _ATTRIBUTES:
        if added & bit:
            words.append(prefix + on)
        elif removed & bit:
            words.append(prefix + off)
    if removed & c.MOUNT_ATTR__ATIME:
        words.append(prefix + _ATIMES[added & c.MOUNT_ATTR__ATIME])
    return words


def _propagation(flags: int) -> str:
    prefix = "r" if flags & c.MS_REC else ""
    return next((prefix + name for bit, name in _PROPAGATION if flags & bit), "")


def _device(entry: Device) -> str:
    if entry.kind == "bind":
        return f"bind device {entry.source} to {entry.path}"
    owner = f"mode {entry.mode & 0o7777:04o} owner {entry.uid}:{entry.gid}"
    if entry.kind == "fifo":
        return f"make fifo {entry.path} {owner}"
    letter = "b" if entry.mode & c.S_IFMT == c.S_IFBLK else "c"
    return f"make device {entry.path} {letter} {entry.major}:{entry.minor} {owner}"


def _hooks(when: str, hooks: tuple[Hook, ...]) -> list[str]:
    return [f"{when} hook {hook.path}" for hook in hooks]


def process(entry: Process) -> list[str]:
    """The lines of the process itself."""
    lines = [f"umask {entry.umask:04o}", f"cwd {entry.cwd}"]
    if entry.terminal:
        lines.append("terminal")
    lines += [f"{limit.name} {_limit(limit.soft)}:{_limit(limit.hard)}" for limit in entry.rlimits]
    if not entry.set_groups:
        groups = "as they are"
    else:
        groups = ",".join([str(gid) for gid in entry.additional_gids]) or "none"
    lines.append(f"uid {entry.uid} gid {entry.gid} groups {groups}")
    lines += _capabilities(entry.capabilities)
    if entry.scheduling is not None:
        lines += _scheduling(entry.scheduling)
    if entry.no_new_privileges:
        lines.append("no new privileges")
    if entry.label is not None:
        lines.append(f"{entry.label.value} to /proc/self/attr/{entry.label.attribute}")
    if entry.seccomp is not None:
        lines.append(f"seccomp filter of {len(entry.seccomp.program) // 8} instructions")
        if entry.seccomp.agent is not None:
            lines.append(f"seccomp listener goes to {entry.seccomp.agent.path}")
    lines.append(f"exec {' '.join(entry.args)}")
    return lines


def _scheduling(entry: Scheduling) -> list[str]:
    lines = []
    if entry.personality is not None:
        lines.append(f"personality {'LINUX32' if entry.personality == c.PER_LINUX32 else 'LINUX'}")
    if entry.memory_policy is not None:
        nodes = ",".join([str(node) for node in entry.memory_policy.nodes])
        lines.append(f"memory policy {entry.memory_policy.name}{nodes and ' nodes ' + nodes}")
    for when, cpus in (("before", entry.initial_cpus), ("once", entry.final_cpus)):
        if cpus:
            text = ",".join([str(cpu) for cpu in cpus])
            lines.append(f"CPUs {text} {when} it is in the container's cgroup")
    if entry.scheduler is not None:
        lines.append(f"scheduler {_scheduler(entry.scheduler)}")
    if entry.io_priority is not None:
        lines.append(f"I/O priority {entry.io_priority.name} {entry.io_priority.data}")
    return lines


def _scheduler(entry: Scheduler) -> str:
    if entry.policy == c.SCHED_DEADLINE:
        words = "runtime {} deadline {} period {} ns".format(*entry.times)
    elif entry.policy in (c.SCHED_FIFO, c.SCHED_RR):
        words = f"priority {entry.priority}"
    else:
        words = f"nice {entry.nice}"
    return f"{entry.name} {words}{f' flags {entry.flags:#x}' if entry.flags else ''}"


def _limit(value: int) -> str:
    return "unlimited" if value == c.RLIM_INFINITY else str(value)


def _capabilities(sets: Capabilities | None) -> list[str]:
    if sets is None:
        return []
    return [
        f"{name} capabilities {names(getattr(sets, name)) or 'none'}"
        for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
    ]


def names(mask: int) -> str:
    """The capabilities of a mask, without their common prefix."""
    return " ".join(name[4:] for name, bit in c.CAPABILITIES.items() if mask >> bit & 1)
