"""What usually lies behind a failed call on a rootless host, and what to do about it.

A table of mechanisms, not of distributions. Each hint has a lasting name; the texts avoid the
phrases that callers search for in error messages (log.CALLERS_WORDS).
"""

from __future__ import annotations

from errno import (
    EACCES,
    EAGAIN,
    EDQUOT,
    EINVAL,
    ENAMETOOLONG,
    ENODEV,
    ENOENT,
    ENOEXEC,
    ENOSPC,
    ENOSYS,
    EPERM,
    EROFS,
    EUSERS,
)

from rootless_pyoki.record import Record


class Hint(Record):
    id: str
    text: str


# (name, calls, errnos, a word of the path or situation ("" for any; after = the whole of it), text);
# the first that fits
_HINTS: tuple[tuple[str, tuple[str, ...], tuple[int, ...], str, str], ...] = (
    (
        "SUBID-NONE",
        ("chown", "fchownat", "fchown", "setgroups", "setresuid", "setresgid", "setuid", "setgid"),
        (EINVAL,),
        "",
        "the id is not mapped into the user namespace: give the user at least 65536 ids in "
        "/etc/subuid and /etc/subgid (usermod --add-subuids --add-subgids)",
    ),
    (
        "SETGROUPS",
        ("setgroups",),
        (EPERM,),
        "",
        "supplementary groups need a gid map written by newgidmap: give the user a range in "
        "/etc/subgid, or drop additionalGids",
    ),
    (
        "MAP-MISSING",
        ("execve", "spawn", "posix_spawn"),
        (ENOENT,),
        "idmap",
        "install newuidmap and newgidmap (package uidmap, or shadow-utils)",
    ),
    (
        "MAP-PRIV",
        ("write", "openat", "newuidmap", "newgidmap"),
        (EPERM, EACCES),
        "id_map",
        "newuidmap and newgidmap need their setuid bit or cap_setuid,cap_setgid, on a mount "
        "without nosuid, and a caller without no_new_privs; the ranges must lie in /etc/subuid and "
        "/etc/subgid",
    ),
    (
        "USERNS-OFF",
        ("unshare", "clone", "clone3"),
        (ENOSPC, EUSERS),
        "",
        "the limit of namespaces is reached: see user.max_user_namespaces and its siblings",
    ),
    (
        "USERNS-CHROOT",
        ("unshare", "clone", "clone3"),
        (EPERM, EACCES),
        "chroot",
        "a process in a plain chroot may not make user namespaces",
    ),
    (
        "USERNS-DENIED",
        ("unshare", "clone", "clone3"),
        (EPERM, EACCES),
        "",
        "new user namespaces are refused here: kernel.apparmor_restrict_unprivileged_userns=1 "
        "wants an AppArmor profile with `userns,` for this program, "
        "kernel.unprivileged_userns_clone must not be 0, and an outer container needs a seccomp "
        "profile that lets unshare and clone through",
    ),
    (
        "USERNS-OFF",
        ("unshare", "clone", "clone3"),
        (EINVAL, ENOSYS),
        "",
        "this kernel lacks the namespace, or user namespaces are switched off "
        "(kernel.unprivileged_userns_clone, user.max_user_namespaces)",
    ),
    (
        "NEST-PROC",
        ("mount", "fsmount", "move_mount"),
        (EPERM,),
        "=proc",
        "parts of /proc are covered in the outer container, so the kernel refuses a fresh one: "
        "start the outer container with unmasked paths (podman --security-opt unmask=ALL, docker "
        "systempaths=unconfined), or bind the host's /proc",
    ),
    (
        "NEST-SYSFS",
        ("mount", "fsmount", "move_mount"),
        (EPERM,),
        "=sysfs",
        "sysfs needs a network namespace of our own; bind the host's /sys instead",
    ),
    (
        "FS-KIND",
        ("mount", "fsopen", "fsmount", "fsconfig"),
        (ENODEV,),
        "",
        "this kernel does not know the filesystem, or it may not be mounted in a user namespace",
    ),
    (
        "MKNOD",
        ("mknod", "mknodat"),
        (EPERM,),
        "",
        "devices cannot be made in a user namespace: bind the host's device instead",
    ),
    (
        "OOM-ADJ",
        ("write", "openat"),
        (EACCES, EPERM),
        "oom_score_adj",
        "lowering oom_score_adj needs CAP_SYS_RESOURCE: ask for at least the caller's value",
    ),
    (
        "RLIMIT",
        ("prlimit", "setrlimit"),
        (EPERM,),
        "",
        "the limit lies above the caller's hard limit: lower it in /process/rlimits, or raise "
        "DefaultLimitNOFILE and the like for the user's session",
    ),
    (
        "KEYRING",
        ("keyctl", "add_key", "join_session_keyring"),
        (EDQUOT,),
        "",
        "the user's keys are used up: raise kernel.keys.maxkeys, or pass --no-new-keyring",
    ),
    (
        "CG-CTRL",
        ("openat", "write"),
        (ENOENT, EACCES),
        "cgroup.subtree_control",
        "the controller is not delegated to the user: a drop-in for user@.service with "
        "Delegate=cpu cpuset io memory pids, then log in again",
    ),
    (
        "CG-RO",
        ("openat", "mkdirat", "write"),
        (EROFS, EACCES, EPERM),
        "/sys/fs/cgroup",
        "the cgroup is not the user's: start under systemd-run --user --scope -p Delegate=yes, or "
        "drop the limits and pass --cgroup-manager disabled",
    ),
    (
        "PING",
        ("write",),
        (EINVAL,),
        "ping_group_range",
        "the groups of net.ipv4.ping_group_range must be mapped into the user namespace",
    ),
    (
        "SOCKET-PATH",
        ("bind", "connect"),
        (ENAMETOOLONG,),
        "",
        "a socket's path has at most 107 bytes: use a shorter directory",
    ),
    (
        "EXEC-FORMAT",
        ("execve", "execveat"),
        (ENOEXEC,),
        "",
        "the program is built for another architecture, or a script without #! line",
    ),
    (
        "NOEXEC",
        ("execve", "execveat"),
        (EACCES,),
        "",
        "see whether the file and its directories have the x bit for the container's user, and "
        "whether the filesystem is mounted noexec",
    ),
    (
        "PROCESSES",
        ("fork", "clone", "clone3", "setresuid"),
        (EAGAIN,),
        "",
        "no more processes: RLIMIT_NPROC, the pids limit of the user's cgroup, or kernel.pid_max",
    ),
)


def find(call: str, errno: int, context: str = "") -> Hint | None:
    """The hint for a failed call; context: the path it was called on, or a word on why."""
    for id, calls, errnos, word, text in _HINTS:
        if errno in errnos and call in calls and _fits(word, context):
            return Hint(id=id, text=text)
    return None


def _fits(word: str, context: str) -> bool:
    return context == word[1:] if word[:1] == "=" else word in context
