"""The Plan: everything that will be done for one container, decided before anything is done.

Pure data. The files beside this one (idmap, mounts, devices, resources, process, seccomp, hooks)
make the parts from the configuration and the host's facts; `apply` and `processes` carry them out.
Paths are absolute str: of the host, or of the container as config.json gives them.
"""

from __future__ import annotations

from rootless_pyoki.host.id_range import IdRange as IdRange
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Note(Record):
    """Something that was changed or not applied, told by `state --verbose` and the debug log."""

    pointer: str  # JSON pointer of the field
    text: str  # what was done instead, and why
    warning: bool = False  # told as a warning, whatever is asked for


class IdMap(Record):
    """A new user namespace's maps and who writes them."""

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]
    # "direct": main holds CAP_SETUID and CAP_SETGID, or it is a self-map;
    # "helpers": newuidmap and newgidmap, side by side
    writer: str
    deny_setgroups: bool  # write "deny" first: for a self-written map of an unprivileged caller


class Namespace(Record):
    kind: str  # the OCI name: "user", "pid", "network", "mount", "ipc", "uts", "cgroup", "time"
    flag: int  # CLONE_NEW*
    path: str  # "" = a new one
    pointer: str


class TimeOffset(Record):
    clock: str  # "monotonic" or "boottime"
    secs: int  # may be negative
    nanosecs: int
    pointer: str


class MountIdmap(Record):
    """Ids of an idmapped mount: `container` as the filesystem has it, `host` as it is shown.

    host counts in the caller's user namespace for a bind, in the container's for a new filesystem:
    each time in the one that the filesystem belongs to, as far as we may idmap it.
    """

    uids: tuple[IdRange, ...]
    gids: tuple[IdRange, ...]
    recursive: bool  # ridmap
    pointer: str


class Mount(Record):
    """One entry of /mounts, options parsed."""

    destination: str
    kind: str  # "bind" or the filesystem's type: proc, sysfs, tmpfs, devpts, mqueue, cgroup2 ...
    source: str  # host path for bind (absolute), else the source name
    recursive: bool  # rbind
    attr_set: int  # MOUNT_ATTR_* to set / clear on this mount
    attr_clear: int
    recursive_set: int  # MOUNT_ATTR_* to set / clear on the whole tree (rro, rnosuid ...)
    recursive_clear: int
    propagation: int  # 0 or MS_PRIVATE, MS_SHARED, MS_SLAVE, MS_UNBINDABLE; with MS_REC: the tree
    superblock_flags: int  # MS_* of the filesystem itself (MS_SYNCHRONOUS, MS_DIRSYNC ...)
    data: tuple[str, ...]  # filesystem options "key=value" or "flag"
    copy_up: bool  # tmpcopyup
    remount: bool  # change the attributes of what is mounted at the destination already
    # "" or what to bind from the host when the kernel refuses: /sys, /dev/mqueue, /sys/fs/cgroup
    fallback: str
    pointer: str
    options: tuple[str, ...] = ()  # as in config.json, to name the one that fails
    special: tuple[str, ...] = ()  # of copy-symlink, src-nofollow, dest-nofollow
    idmap: MountIdmap | None = None


class Device(Record):
    path: str
    kind: str  # "bind" (from `source`), "mknod", "fifo"
    source: str  # host path to bind, for kind "bind"
    mode: int  # S_IFCHR|0666 ... for mknod and fifo
    major: int
    minor: int
    uid: int
    gid: int
    pointer: str  # "" for a default device


class Rootfs(Record):
    path: str  # host, absolute
    readonly: bool
    propagation: int  # MS_* for the container's / after the pivot; 0 = leave
    no_pivot: bool
    masked_paths: tuple[str, ...]
    readonly_paths: tuple[str, ...]
    label: str = ""  # SELinux context of what covers masked directories


class Capabilities(Record):
    """Five 64-bit masks, bit N = capability N of capabilities(7)."""

    bounding: int
    effective: int
    inheritable: int
    permitted: int
    ambient: int


class Rlimit(Record):
    resource: int  # RLIMIT_*
    name: str
    soft: int  # 2**64-1 = infinity
    hard: int
    pointer: str


class Scheduler(Record):
    """sched_setattr(2)."""

    policy: int  # SCHED_*
    name: str
    flags: int  # SCHED_FLAG_*
    nice: int
    priority: int
    times: tuple[int, int, int]  # runtime, deadline, period in nanoseconds


class IoPriority(Record):
    """ioprio_set(2)."""

    level: int  # IOPRIO_CLASS_*
    name: str
    data: int  # 0 (highest) to 7


class MemoryPolicy(Record):
    """set_mempolicy(2)."""

    mode: int  # MPOL_* | MPOL_F_*
    name: str
    nodes: tuple[int, ...]


class Scheduling(Record):
    """How the kernel runs the process, as far as config.json says."""

    scheduler: Scheduler | None = None
    io_priority: IoPriority | None = None
    initial_cpus: tuple[int, ...] = ()  # of exec: before it is in the container's cgroup; () = any
    final_cpus: tuple[int, ...] = ()  # and after
    memory_policy: MemoryPolicy | None = None
    personality: int | None = None  # PER_*
    pointer: str  # of the process


class Process(Record):
    args: tuple[str, ...]
    env: tuple[str, ...]  # "KEY=value"; HOME is added from the container's /etc/passwd when absent
    cwd: str
    uid: int  # in the container's user namespace
    gid: int
    additional_gids: tuple[int, ...]
    set_groups: bool  # False: leave the groups alone (setgroups is denied)
    umask: int
    terminal: bool
    console_rows: int  # 0 = not given
    console_columns: int
    capabilities: Capabilities | None  # None: not in config.json, nothing is held
    rlimits: tuple[Rlimit, ...]
    no_new_privileges: bool
    oom_score_adj: int | None
    # what the kernel refuses of oomScoreAdj, rlimits, scheduler, ioPriority is clamped or left out, and told
    lenient: bool
    seccomp: Seccomp | None
    label: Label | None  # of AppArmor or SELinux
    pointer: str  # "/process" or "" for a process file of exec
    scheduling: Scheduling | None = None  # None: as it comes, which is what most ask for


class Label(Record):
    """What a security module is told of the program, just before execve."""

    module: str  # "apparmor" or "selinux"
    attribute: str  # below /proc/self/attr: "exec" or "apparmor/exec"
    value: str  # as it is written there
    pointer: str


class Agent(Record):
    """Who answers the calls that SCMP_ACT_NOTIFY is for."""

    path: str  # its AF_UNIX stream socket, absolute
    metadata: str  # for it alone
    pointer: str  # of what names the path, "" for the environment


class Seccomp(Record):
    program: bytes  # struct sock_filter[], 8 bytes each
    flags: int  # SECCOMP_FILTER_FLAG_*
    agent: Agent | None = None  # there when a rule notifies


class Resources(Record):
    """Cgroup v2 files to write, decided from /linux/resources."""

    files: tuple[tuple[str, str, str], ...]  # (file, value, JSON pointer), in order of writing
    optional: tuple[str, ...] = ()  # of these files, those that older kernels lack (ENOENT is fine)
    bfq_weight: int = 0  # blockIO.weight as given: for io.bfq.weight, where io.weight is missing
    device_filter: bytes = b""  # struct bpf_insn[] for the cgroup's device hook, where we are root


class Hook(Record):
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...] | None  # None: the runtime's; of a startContainer hook the program's
    timeout: int  # seconds, 0 = none
    pointer: str


class Hooks(Record):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()
    # files that hooks write to, relative to the bundle; "": what they say is shown if they fail
    stdout: str = ""
    stderr: str = ""


class Plan(Record):
    id: str
    bundle: str  # host, absolute
    namespaces: tuple[Namespace, ...]  # as in /linux/namespaces, an added user namespace first
    idmap: IdMap | None  # for a new user namespace
    rootfs: Rootfs
    mounts: tuple[Mount, ...]
    devices: tuple[Device, ...]
    process: Process
    hooks: Hooks
    # ("net/ipv4/ip_forward", "1", "/linux/sysctl/net.ipv4.ip_forward"): path below /proc/sys, value, pointer
    sysctl: tuple[tuple[str, str, str], ...]
    hostname: str
    domainname: str
    resources: Resources
    cgroups_path: str  # "" when config.json has none
    loopback_up: bool  # bring lo up in a new network namespace
    new_keyring: bool
    annotations: dict[str, str]
    notes: tuple[Note, ...]
    delegate_cgroup: str = ""  # below the container's cgroup: the one that is given to it
    notify_socket: str = ""  # who is told that the program is ready: NOTIFY_SOCKET, sd_notify(3)
    time_offsets: tuple[TimeOffset, ...] = ()  # of a new time namespace
    # of the container's systemd unit, from annotations: (property, D-Bus signature, value)
    unit_properties: tuple[tuple[str, str, Any], ...] = ()
    subgroup: str = ""  # below the unit's cgroup: the one that is the container's
    # the mount through which process.user, who is not the caller, is to change the container's cgroup
    writable_cgroup: str = ""

    def hosts_new(self, kind: str) -> bool:
        """Does the container get a new namespace of this kind?"""
        return any(n.kind == kind and not n.path for n in self.namespaces)

    def joins(self, kind: str) -> bool:
        """Does the container enter an existing namespace of this kind?"""
        return any(n.kind == kind and n.path for n in self.namespaces)

    def working_ids(self) -> tuple[int, int]:
        """(uid, gid) that build the container: 0, or the process's own where 0 is not mapped."""
        if self.idmap is None:
            return 0, 0
        uid = 0 if any(r.container == 0 for r in self.idmap.uids) else self.process.uid
        gid = 0 if any(r.container == 0 for r in self.idmap.gids) else self.process.gid
        return uid, gid
