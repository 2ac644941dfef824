"""kernel.syscalls: clone, namespaces, ids, limits, capabilities, seccomp, exec."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, syscalls
from tests.kernel.conftest import InChild
from tests.support import needs


def test_clone_child_runs_python_and_forks_again(in_child: InChild) -> None:
    """A child is a whole interpreter: it allocates, imports, and clones a child of its own."""

    def child() -> list[int]:
        import fractions

        half = fractions.Fraction(1, 2)
        grandchild = syscalls.clone(0)
        if grandchild == 0:
            os._exit(sum(range(10)) + half.denominator)
        _, status = syscalls.waitpid(grandchild)
        return [os.getpid(), os.getppid(), os.waitstatus_to_exitcode(status)]

    pid, parent, code = in_child(child)
    assert parent == os.getpid() != pid
    assert code == 47


def test_clone_runs_at_fork_hooks() -> None:
    """The interpreter is told of the fork, as os.fork() tells it."""
    script = (
        "import os\n"
        "say = lambda word: os.write(1, word)\n"
        "from rootless_pyoki.kernel import syscalls\n"
        "os.register_at_fork(before=lambda: say(b'before '),\n"
        "    after_in_parent=lambda: say(b'parent '),\n"
        "    after_in_child=lambda: say(b'child '))\n"
        "pid = syscalls.clone(0)\n"
        "if pid == 0: os._exit(0)\n"
        "syscalls.waitpid(pid)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert out[0] == "before"
    assert sorted(out[1:]) == ["child", "parent"]


def test_clone_parent_makes_a_sibling() -> None:
    """CLONE_PARENT: our child's child is ours to wait for."""
    reader, writer = syscalls.pipe()
    child = syscalls.clone(0)
    if child == 0:
        sibling = syscalls.clone(constants.CLONE_PARENT)
        if sibling == 0:
            os._exit(21)
        os.write(writer, sibling.to_bytes(4, sys.byteorder))
        os._exit(0)
    sibling = int.from_bytes(os.read(reader, 4), sys.byteorder)
    os.close(reader)
    os.close(writer)
    assert syscalls.waitpid(child) == (child, 0)
    pid, status = syscalls.waitpid(sibling)
    assert (pid, os.waitstatus_to_exitcode(status)) == (sibling, 21)


def test_clone_with_a_new_namespace(in_child: InChild) -> None:
    """Namespace flags reach the kernel: the child of a new pid namespace is pid 1."""
    pid = in_child(os.getpid, constants.CLONE_NEWUSER | constants.CLONE_NEWPID)
    assert pid == 1


def test_clone_into_a_cgroup(v2: Path) -> None:
    """The child is born there; what is no cgroup is refused, and nobody is born."""
    place = v2 / f"born-{os.getpid()}"
    place.mkdir()
    try:
        with os_directory(place) as fd:
            pid = syscalls.clone(0, cgroup=fd)
            if pid == 0:
                signal.pause()
                os._exit(0)
        try:
            assert (place / "cgroup.procs").read_text().split() == [str(pid)]
        finally:
            os.kill(pid, signal.SIGKILL)
            syscalls.waitpid(pid)
    finally:
        place.rmdir()
    with os_directory(Path("/")) as fd, pytest.raises(SyscallError, match="clone3") as raised:
        syscalls.clone(0, cgroup=fd)
    assert raised.value.errno


@contextlib.contextmanager
def os_directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield fd
    finally:
        os.close(fd)


def test_clone_error_is_raised_in_the_parent() -> None:
    """Flags that contradict each other: EINVAL, and the interpreter goes on."""
    with pytest.raises(SyscallError) as caught:
        syscalls.clone(constants.CLONE_NEWNS | constants.CLONE_FS)
    assert (caught.value.errno, caught.value.call) == (constants.EINVAL, "clone")
    assert sum(range(1000)) == 499500


def test_unshare_and_setns_by_pidfd(in_child: InChild) -> None:
    """setns() takes a pidfd with several flags and lands in that process's namespaces."""

    def child() -> bool:
        ready, tell = syscalls.pipe()
        flags = constants.CLONE_NEWUSER | constants.CLONE_NEWUTS
        target = syscalls.clone(flags)
        if target == 0:
            os.write(tell, b"x")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)
        pidfd = syscalls.pidfd_open(target)
        try:
            syscalls.setns(pidfd, flags)
            same = [
                os.stat(f"/proc/self/ns/{kind}").st_ino
                == os.stat(f"/proc/{target}/ns/{kind}").st_ino
                for kind in ("user", "uts")
            ]
        finally:
            syscalls.pidfd_send_signal(pidfd, constants.SIGKILL)
            syscalls.waitpid(target)
        return all(same)

    assert in_child(child)


def test_setns_names_the_descriptor() -> None:
    """A failure says which fd it was about."""
    with pytest.raises(SyscallError, match=r"setns fd 0: .*\(EINVAL\)"), open("/dev/null") as null:
        saved = os.dup(0)
        os.dup2(null.fileno(), 0)
        try:
            syscalls.setns(0, 0)
        finally:
            os.dup2(saved, 0)
            os.close(saved)


def test_prlimit_reads_and_sets(in_child: InChild) -> None:
    """prlimit() agrees with getrlimit(3), and returns the old pair when it sets a new one."""

    def child() -> list[tuple[int, int]]:
        first = syscalls.prlimit(0, constants.RLIMIT_CORE, (0, 0))
        second = syscalls.prlimit(os.getpid(), constants.RLIMIT_CORE, None)
        return [first, second]

    soft, hard = (n % 2**64 for n in resource.getrlimit(resource.RLIMIT_CORE))
    assert in_child(child) == [[soft, hard], [0, 0]]


def test_prlimit_infinity() -> None:
    """No limit is 2**64 - 1."""
    assert resource.getrlimit(resource.RLIMIT_CPU)[1] == resource.RLIM_INFINITY
    assert syscalls.prlimit(0, constants.RLIMIT_CPU, None)[1] == constants.RLIM_INFINITY


def test_capabilities_of_a_user_namespace(in_user_namespace: InChild) -> None:
    """capget() shows all of them, capset() drops what it is told, the kernel agrees."""

    def child() -> list[object]:
        _, permitted, inheritable = syscalls.capget()
        wanted = 1 << constants.CAP_SETPCAP | 1 << constants.CAPABILITIES["CAP_CHECKPOINT_RESTORE"]
        syscalls.capset(wanted, wanted, 1 << constants.CAP_SETPCAP)
        with open("/proc/self/status") as status:
            lines = dict(line.rstrip().split(":\t", 1) for line in status if line.startswith("Cap"))
        return [
            permitted,
            inheritable,
            wanted,
            int(lines["CapEff"], 16),
            int(lines["CapInh"], 16),
            syscalls.capget(),
        ]

    permitted, inheritable, wanted, effective_now, inheritable_now, again = in_user_namespace(child)
    assert permitted >> constants.CAPABILITIES["CAP_BPF"] & 1
    assert inheritable == 0
    assert effective_now == wanted
    assert inheritable_now == 1 << constants.CAP_SETPCAP
    assert again == [wanted, wanted, 1 << constants.CAP_SETPCAP]


def test_capset_cannot_raise(in_child: InChild) -> None:
    """What is gone is gone: EPERM."""

    def child() -> int:
        syscalls.capset(0, 0, 0)
        try:
            syscalls.capset(1, 1, 0)
        except SyscallError as error:
            return error.errno or 0
        return 0

    assert in_child(child) == constants.EPERM


def test_ids_in_a_user_namespace(in_user_namespace: InChild) -> None:
    """setresuid and setresgid change what they are asked to; an unmapped id is EINVAL."""

    def child() -> list[object]:
        syscalls.setresgid(0, 0, 0)
        syscalls.setresuid(-1, 0, -1)
        try:
            syscalls.setresuid(5, 5, 5)
        except SyscallError as error:
            return [os.getresuid(), os.getresgid(), error.errno, error.call]
        return []

    assert in_user_namespace(child) == [[0, 0, 0], [0, 0, 0], constants.EINVAL, "setresuid"]


def test_setgroups_refused_is_a_syscall_error(in_user_namespace: InChild) -> None:
    """After setgroups=deny: EPERM."""

    def child() -> object:
        try:
            syscalls.setgroups([0])
        except SyscallError as error:
            return [error.errno, error.call]
        return None

    assert in_user_namespace(child) == [constants.EPERM, "setgroups"]


def test_set_name_and_prctl(in_child: InChild) -> None:
    """The name is cut at 15 bytes; prctl() returns what the kernel does."""

    def child() -> list[object]:
        syscalls.set_name("pyoki:[1:INTERMEDIATE]")
        syscalls.prctl(constants.PR_SET_DUMPABLE, 0)
        dumpable = syscalls.prctl(constants.PR_GET_DUMPABLE)
        syscalls.prctl(constants.PR_SET_DUMPABLE, 1)
        with open("/proc/self/comm") as comm:
            return [comm.read(), dumpable, syscalls.prctl(constants.PR_GET_DUMPABLE)]

    assert in_child(child) == ["pyoki:[1:INTERM\n", 0, 1]


def test_waitpid_and_wait4() -> None:
    """WNOHANG gives 0 while the child lives; the status is the kernel's; no child is ECHILD."""
    reader, writer = syscalls.pipe()
    pid = syscalls.clone(0)
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass
        os._exit(9)
    assert syscalls.waitpid(pid, constants.WNOHANG) == (0, 0)
    assert syscalls.wait4(pid, constants.WNOHANG) == (0, 0, (0, 0))
    os.close(writer)
    os.close(reader)
    waited, status, times = syscalls.wait4(pid)
    assert (waited, status >> 8) == (pid, 9)
    assert 10_000 < sum(times) < 5_000_000
    for wait in (syscalls.waitpid, syscalls.wait4):
        with pytest.raises(SyscallError) as caught:
            wait(pid)
        assert caught.value.errno == constants.ECHILD


def test_waitpid_survives_a_signal(in_child: InChild) -> None:
    """A handled signal does not end the wait."""

    def child() -> list[int]:
        hits: list[int] = []
        signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
        pid = syscalls.clone(0)
        if pid == 0:
            time.sleep(0.3)
            os._exit(4)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        _, status = syscalls.waitpid(pid)
        return [status >> 8, len(hits)]

    assert in_child(child) == [4, 1]


def test_kill_of_nobody() -> None:
    """ESRCH names the pid."""
    with pytest.raises(SyscallError) as caught:
        syscalls.kill(2**22 + 5, 0)
    assert (caught.value.errno, caught.value.filename) == (constants.ESRCH, str(2**22 + 5))


def filter_refusing(number: int, errno: int) -> bytes:
    """struct sock_filter[]: this system call gives errno, all others run."""

    def statement(code: int, jump_true: int, jump_false: int, k: int) -> bytes:
        order = sys.byteorder
        return code.to_bytes(2, order) + bytes([jump_true, jump_false]) + k.to_bytes(4, order)

    load, jump_equal, ret = 0x20, 0x15, 0x06
    return (
        statement(load, 0, 0, 0)
        + statement(jump_equal, 0, 1, number)
        + statement(ret, 0, 0, constants.SECCOMP_RET_ERRNO | errno)
        + statement(ret, 0, 0, constants.SECCOMP_RET_ALLOW)
    )


def test_seccomp_filter_is_obeyed(in_child: InChild) -> None:
    """A filter that refuses uname(2) does, and a broken one is EINVAL."""
    number = {"x86_64": 63, "aarch64": 160}[platform.machine()]  # uname

    def child() -> list[object]:
        syscalls.prctl(constants.PR_SET_NO_NEW_PRIVS, 1)
        try:
            syscalls.seccomp_set_filter(0, b"\0" * 7)
        except SyscallError as error:
            broken = error.errno
        syscalls.seccomp_set_filter(0, filter_refusing(number, constants.EXDEV))
        try:
            os.uname()
        except OSError as error:
            return [broken, error.errno]
        return []

    assert in_child(child) == [constants.EINVAL, constants.EXDEV]


def test_execveat_by_descriptor(tmp_path: object) -> None:
    """A program is run from its fd; argv and envp arrive byte for byte."""
    reader, writer = syscalls.pipe()
    pid = syscalls.clone(0)
    if pid == 0:
        try:
            os.dup2(writer, 1)
            fd = os.open("/usr/bin/env", os.O_PATH | os.O_CLOEXEC)
            syscalls.execveat(
                fd, "", ["env"], [b"A=\xff", "B=\udcfe", "C=ä"], constants.AT_EMPTY_PATH
            )
        finally:
            os._exit(99)
    os.close(writer)
    with open(reader, "rb") as stream:
        out = stream.read()
    assert syscalls.waitpid(pid)[1] == 0
    assert out == b"A=\xff\nB=\xfe\nC=\xc3\xa4\n"


def test_execveat_failure_returns_to_python() -> None:
    """No such program: SyscallError naming it, nothing else changed."""
    with pytest.raises(SyscallError) as caught:
        syscalls.execveat(constants.AT_FDCWD, "/nonexistent", ["x"], [], 0)
    assert (caught.value.errno, caught.value.filename) == (constants.ENOENT, "/nonexistent")


def test_personality_query() -> None:
    """0xffffffff only asks."""
    assert syscalls.personality(0xFFFFFFFF) == syscalls.personality(0xFFFFFFFF)


def test_scheduler_of_a_process(in_child: InChild) -> None:
    """sched_setattr(2): policy, flags and nice value; what cannot be is EINVAL."""
    nice = os.getpriority(os.PRIO_PROCESS, 0)

    def child() -> list[int]:
        syscalls.sched_setattr(0, constants.SCHED_BATCH, 1, nice + 2, 0, (0, 0, 0))
        return [os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)]

    assert in_child(child) == [os.SCHED_BATCH | os.SCHED_RESET_ON_FORK, nice + 2]
    with pytest.raises(SyscallError) as caught:
        syscalls.sched_setattr(0, constants.SCHED_OTHER, 0, 0, 5, (0, 0, 0))
    assert (caught.value.errno, caught.value.call) == (constants.EINVAL, "sched_setattr")


def test_io_priority_of_a_process(in_child: InChild) -> None:
    """ioprio_set(2), as ionice(1) sees it."""
    needs.require_program("ionice")

    def child() -> str:
        syscalls.ioprio_set(constants.IOPRIO_WHO_PROCESS, 0, constants.IOPRIO_CLASS_BE, 5)
        return subprocess.run(["ionice"], capture_output=True, text=True, check=True).stdout

    assert in_child(child).strip() == "best-effort: prio 5"
    with pytest.raises(SyscallError) as caught:
        syscalls.ioprio_set(constants.IOPRIO_WHO_PROCESS, 0, 7, 0)
    assert (caught.value.errno, caught.value.call) == (constants.EINVAL, "ioprio_set")


def test_memory_policy_of_a_process(in_child: InChild) -> None:
    """set_mempolicy(2), as numa_maps(5) shows it; nodes may lie beyond the first 64."""
    maps = Path("/proc/self/numa_maps")
    needs.require(maps.exists(), "this kernel is built without NUMA")

    def child() -> list[str]:
        found = []
        for mode, nodes in ((constants.MPOL_BIND, [0]), (constants.MPOL_DEFAULT, [])):
            syscalls.set_mempolicy(mode, nodes)
            found.append(maps.read_text().split()[1])
        return found

    assert in_child(child) == ["bind:0", "default"]
    with pytest.raises(SyscallError) as caught:
        syscalls.set_mempolicy(constants.MPOL_BIND, [1000])
    assert (caught.value.errno, caught.value.call) == (constants.EINVAL, "set_mempolicy")


@pytest.mark.parametrize(
    ("path", "errno"), [("a\0b", constants.EINVAL), ("\ud800", constants.EILSEQ)]
)
def test_strings_the_kernel_cannot_take(path: str, errno: int) -> None:
    """An embedded NUL is refused and not cut; a lone surrogate that is no byte is refused."""
    for call in (
        lambda: syscalls.openat(constants.AT_FDCWD, path, 0),
        lambda: syscalls.mount(None, path, None, 0, None),
        lambda: syscalls.spawn("/bin/true", [path], []),
        lambda: syscalls.execveat(constants.AT_FDCWD, "/bin/true", [path], [], 0),
    ):
        with pytest.raises(SyscallError) as caught:
            call()
        assert caught.value.errno == errno
