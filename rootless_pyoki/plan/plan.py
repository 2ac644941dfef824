"""The Plan: everything that will be done for one container, decided before anything is done.

Pure data. The files beside this one (idmap, mounts, devices, resources, process, seccomp, hooks)
make the parts from the configuration and the host's facts; `apply` and `processes` carry them out.
Paths are absolute str: of the host, or of the container as config.json gives them.
"""

from __future__ import annotations

from rootless_pyoki.host.id_range import IdRange as IdRange
from rootless_pyoki.record import Record


class Note(Record):
    """Something that was changed or not applied, told by `state --verbose` and the debug log."""

    pointer: str  # JSON pointer of the field
    text: str  # what was done instead, and why


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
    apparmor_profile: str
    selinux_label: str
    pointer: str  # "/process" or "" for a process file of exec


class Seccomp(Record):
    program: bytes  # struct sock_filter[], 8 bytes each
    flags: int  # SECCOMP_FILTER_FLAG_*
    notify: bool


class Resources(Record):
    """Cgroup v2 files to write, decided from /linux/resources."""

    files: tuple[tuple[str, str, str], ...]  # (file, value, JSON pointer), in order of writing
    optional: tuple[str, ...] = ()  # of these files, those that older kernels lack (ENOENT is fine)
    bfq_weight: int = 0  # blockIO.weight as given: for io.bfq.weight, where io.weight is missing


class Hook(Record):
    path: str
    args: tuple[str, ...]
    env: tuple[str, ...]
    timeout: int  # seconds, 0 = none
    pointer: str


class Hooks(Record):
    prestart: tuple[Hook, ...] = ()
    create_runtime: tuple[Hook, ...] = ()
    create_container: tuple[Hook, ...] = ()
    start_container: tuple[Hook, ...] = ()
    poststart: tuple[Hook, ...] = ()
    poststop: tuple[Hook, ...] = ()


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
    sysctl: tuple[tuple[str, str], ...]  # ("net/ipv4/ip_forward", "1"): path below /proc/sys
    hostname: str
    domainname: str
    resources: Resources
    cgroups_path: str  # "" when config.json has none
    loopback_up: bool  # bring lo up in a new network namespace
    new_keyring: bool
    annotations: dict[str, str]
    notes: tuple[Note, ...]

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
