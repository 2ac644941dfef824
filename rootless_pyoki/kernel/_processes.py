"""Processes: clone, namespaces, ids, capabilities, waiting, spawn and exec."""

from __future__ import annotations

import posix
import sys
from errno import EFAULT

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel._call import (
    NULL,
    check,
    encode,
    encode_all,
    failed,
    failure,
    ffi,
    lib,
    retry,
)
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any, NoReturn

getpid = posix.getpid
getppid = posix.getppid
getuid = posix.getuid
geteuid = posix.geteuid
getgid = posix.getgid
getegid = posix.getegid
getgroups = posix.getgroups
umask = posix.umask

_PR_SET_NAME = 15
_SPAWN_STEPS = {1: "fchdir", 2: "open /dev/null", 3: "dup3", 4: "execve"}


def clone(flags: int, *, cgroup: int = -1) -> int:
    """clone(2) without an own stack, SIGCHLD added: the child's pid, 0 in the child.

    flags: CLONE_NEW*, CLONE_PARENT. The child is a whole interpreter, as after fork(2).
    cgroup: a descriptor of the cgroup v2 directory to be born in (CLONE_INTO_CGROUP, Linux 5.7).
    """
    return check(lib.pk_clone(flags, cgroup), "clone" if cgroup < 0 else "clone3")


def unshare(flags: int) -> None:
    """unshare(2). CLONE_NEWUSER gives EINVAL while a spawn()ed child still shares our memory."""
    check(lib.pk_unshare(flags), "unshare")


def setns(fd: int, nstype: int) -> None:
    """setns(2): fd of a namespace, or a pidfd with any CLONE_NEW* flags."""
    check(lib.pk_setns(fd, nstype), "setns", f"fd {fd}")


def ns_type(fd: int) -> int:
    """NS_GET_NSTYPE, ioctl_nsfs(2): the CLONE_NEW* of the namespace that fd refers to."""
    return check(lib.pk_ns_type(fd), "ioctl NS_GET_NSTYPE", f"fd {fd}")


def setresuid(ruid: int, euid: int, suid: int) -> None:
    """setresuid(2); -1 leaves an id alone."""
    try:
        posix.setresuid(ruid, euid, suid)
    except OSError as error:
        raise failed(error, "setresuid", str(euid)) from None


def setresgid(rgid: int, egid: int, sgid: int) -> None:
    """setresgid(2); -1 leaves an id alone."""
    try:
        posix.setresgid(rgid, egid, sgid)
    except OSError as error:
        raise failed(error, "setresgid", str(egid)) from None


def setgroups(groups: Iterable[int]) -> None:
    """setgroups(2)."""
    try:
        posix.setgroups(list(groups))
    except OSError as error:
        raise failed(error, "setgroups") from None


def setsid() -> None:
    """setsid(2)."""
    try:
        posix.setsid()
    except OSError as error:
        raise failed(error, "setsid") from None


def waitpid(pid: int, options: int = 0) -> tuple[int, int]:
    """waitpid(2), EINTR retried: (pid, status); pid is 0 with WNOHANG when nobody has ended."""
    try:
        return posix.waitpid(pid, options)
    except OSError as error:
        raise failed(error, "waitpid", str(pid)) from None


def wait4(pid: int, options: int = 0) -> tuple[int, int, tuple[int, int]]:
    """wait4(2), EINTR retried: (pid, status, (user, system) time in microseconds).

    posix.wait4 would import the module `resource`.
    """
    status = ffi.new("int *")
    usage = ffi.new("uint64_t[2]")
    ended = check(retry(lib.pk_wait4, pid, options, status, usage), "wait4", str(pid))
    return ended, int(status[0]), (int(usage[0]), int(usage[1]))


def kill(pid: int, signo: int) -> None:
    """kill(2)."""
    try:
        posix.kill(pid, signo)
    except OSError as error:
        raise failed(error, "kill", str(pid)) from None


def exit_now(code: int) -> NoReturn:
    """_exit(2): nothing is flushed, nothing is finalised."""
    posix._exit(code)


def pidfd_open(pid: int, flags: int = 0) -> int:
    """pidfd_open(2), Linux 5.3."""
    try:
        return posix.pidfd_open(pid, flags)
    except OSError as error:
        raise failed(error, "pidfd_open", str(pid)) from None


def pidfd_send_signal(pidfd: int, signo: int) -> None:
    """pidfd_send_signal(2), Linux 5.1."""
    check(lib.pk_pidfd_send_signal(pidfd, signo), "pidfd_send_signal", f"fd {pidfd}")


def prlimit(pid: int, resource: int, limits: tuple[int, int] | None) -> tuple[int, int]:
    """prlimit(2): the old (soft, hard); 2**64 - 1 is infinity; limits None only reads."""
    old = ffi.new("uint64_t[2]")
    new = NULL if limits is None else limits
    check(lib.pk_prlimit(pid, resource, new, old), "prlimit", str(pid))
    return old[0], old[1]


def prctl(option: int, a2: int = 0, a3: int = 0, a4: int = 0, a5: int = 0) -> int:
    """prctl(2) with numbers."""
    return check(lib.pk_prctl(option, a2, a3, a4, a5), "prctl", str(option))


def set_name(name: str) -> None:
    """PR_SET_NAME: what ps shows, cut to 15 bytes."""
    text = ffi.new("char[]", encode(name, "prctl")[:15])
    check(lib.pk_prctl(_PR_SET_NAME, int(ffi.cast("uintptr_t", text)), 0, 0, 0), "prctl", name)


def capget() -> tuple[int, int, int]:
    """capget(2) of this process: (effective, permitted, inheritable), bit N = capability N."""
    sets = ffi.new("uint64_t[3]")
    check(lib.pk_capget(sets), "capget")
    return sets[0], sets[1], sets[2]


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) of this process."""
    check(lib.pk_capset((effective, permitted, inheritable)), "capset")


def sched_setaffinity(pid: int, cpus: Iterable[int]) -> None:
    """sched_setaffinity(2): the CPUs by number."""
    try:
        posix.sched_setaffinity(pid, cpus)
    except OSError as error:
        raise failed(error, "sched_setaffinity", str(pid)) from None


def sched_setattr(
    pid: int, policy: int, flags: int, nice: int, priority: int, times: tuple[int, int, int]
) -> None:
    """sched_setattr(2); times: runtime, deadline and period of SCHED_DEADLINE in nanoseconds."""
    result = lib.pk_sched_setattr(pid, policy, flags, nice, priority, times)
    check(result, "sched_setattr", str(pid) if pid else None)


def ioprio_set(which: int, who: int, level: int, data: int) -> None:
    """ioprio_set(2): which is IOPRIO_WHO_*, level IOPRIO_CLASS_*, data 0 (highest) to 7."""
    check(lib.pk_ioprio_set(which, who, level << 13 | data), "ioprio_set")


def set_mempolicy(mode: int, nodes: Iterable[int]) -> None:
    """set_mempolicy(2): mode is MPOL_* | MPOL_F_*, the memory nodes by number."""
    mask = 0
    for node in nodes:
        mask |= 1 << node
    words = [mask >> at & 2**64 - 1 for at in range(0, mask.bit_length(), 64)]
    # the kernel takes one away: get_nodes() of mm/mempolicy.c
    maxnode = 64 * len(words) + 1 if words else 0
    check(lib.pk_set_mempolicy(mode, words or NULL, maxnode), "set_mempolicy")


def personality(persona: int) -> int:
    """personality(2): the old one; 0xffffffff only asks."""
    return check(lib.pk_personality(persona), "personality")


def seccomp(operation: int, flags: int, program: bytes | None = None) -> int:
    """seccomp(2); program: an array of struct sock_filter, for SECCOMP_SET_MODE_FILTER.

    Returns 0, or the listener with SECCOMP_FILTER_FLAG_NEW_LISTENER.
    """
    if program is None:
        return check(lib.pk_seccomp(operation, flags, NULL, 0), "seccomp")
    return check(lib.pk_seccomp(operation, flags, program, len(program)), "seccomp")


def seccomp_has_action(action: int) -> bool:
    """SECCOMP_GET_ACTION_AVAIL: does the kernel know this SECCOMP_RET_*?"""
    try:
        seccomp(2, 0, action.to_bytes(4, sys.byteorder))
    except SyscallError:
        return False
    return True


def seccomp_has_flags(flags: int) -> bool:
    """Does the kernel know these SECCOMP_FILTER_FLAG_*? Without a program no filter is set: it says
    EFAULT where it would have taken one.
    """
    try:
        seccomp(1, flags)
    except SyscallError as error:
        return error.errno == EFAULT
    return True


def seccomp_set_filter(flags: int, program: bytes) -> int:
    """seccomp(SECCOMP_SET_MODE_FILTER) with struct sock_filter[] as bytes."""
    return seccomp(1, flags, program)


def execveat(
    fd: int, path: str, argv: Iterable[bytes | str], envp: Iterable[bytes | str], flags: int
) -> NoReturn:
    """execveat(2); returns only by raising SyscallError."""
    arguments = [ffi.new("char[]", one) for one in encode_all(argv, "execveat")]
    environment = [ffi.new("char[]", one) for one in encode_all(envp, "execveat")]
    result = lib.pk_execveat(
        fd,
        encode(path, "execveat"),
        ffi.new("char *[]", [*arguments, NULL]),
        ffi.new("char *[]", [*environment, NULL]),
        flags,
    )
    raise failure(-result, "execveat", path or f"fd {fd}")


class Spawned(Record):
    """A helper on its way; hand it to spawn_result() once, then wait for it as for any child."""

    pid: int
    pidfd: int  # -1 before Linux 5.3
    status_fd: int  # end of file = execve succeeded; pollable; spawn_result() closes it
    path: str
    memory: Any  # uint64_t[2]: what the child runs in until it has exec'ed


def spawn(
    path: str,
    argv: Sequence[bytes | str],
    envp: Iterable[bytes | str],
    *,
    stdin: int = -1,
    stdout: int = -1,
    stderr: int = -1,
    cwd_fd: int = -1,
    preserve: Iterable[int] = (),
) -> Spawned:
    """Start a program without copying memory (fork) and without waiting for its exec (vfork).

    Signals at their defaults, none blocked; fds 0-2 as given (-1: /dev/null), those in `preserve`
    (all >= 3) under their own numbers, no other. Until spawn_result() the child may share our
    memory, and unshare(CLONE_NEWUSER) gives EINVAL.
    """
    arguments = encode_all(argv, "spawn")
    environment = encode_all(envp, "spawn")
    strings = b"\0".join((encode(path, "spawn"), *arguments, *environment, b""))
    try:
        status_fd, theirs = posix.pipe2(posix.O_CLOEXEC)
    except OSError as error:
        raise failed(error, "pipe2") from None
    numbers = [stdin, stdout, stderr, cwd_fd, theirs, len(arguments), len(environment), *preserve]
    memory = ffi.new("uint64_t[2]")
    pid = lib.pk_spawn(numbers, len(numbers), strings, len(strings), memory)
    posix.close(theirs)
    if pid < 0:
        posix.close(status_fd)
        raise failure(-pid, "clone", path)
    return Spawned(
        pid=pid, pidfd=_pidfd_or_none(pid), status_fd=status_fd, path=path, memory=memory
    )


def spawn_result(spawned: Spawned) -> None:
    """Wait until the program runs; raises SyscallError naming the step that failed.

    In both cases the process is left to be waited for and pidfd to be closed by the caller.
    """
    words = b""
    try:
        while chunk := posix.read(spawned.status_fd, 64):
            words += chunk
    finally:
        posix.close(spawned.status_fd)
    lib.pk_spawn_free(spawned.memory)
    if words:
        step, number = ffi.from_buffer("int[2]", words)
        raise failure(number, _SPAWN_STEPS[step], spawned.path)


def _pidfd_or_none(pid: int) -> int:
    try:
        return posix.pidfd_open(pid, 0)
    except OSError:  # ENOSYS; or out of fds, and the caller can do without
        return -1
