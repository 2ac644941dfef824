"""kernel.procfs: /proc through a verified descriptor."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, procfs, syscalls
from tests.kernel.conftest import InChild
from tests.kernel.test_processes import filter_refusing

OPENAT2 = 437


@pytest.mark.parametrize("path", ["/", "/proc/self", "/proc/sys", "/tmp"])
def test_open_proc_wants_the_root_of_a_procfs(path: str, no_leak: None) -> None:
    """Anything else is refused: EXDEV, or ENOTDIR for a link."""
    with pytest.raises(SyscallError) as caught:
        procfs.open_proc(path)
    assert caught.value.errno in (constants.EXDEV, constants.ENOTDIR)
    os.close(procfs.open_proc())


def test_start_time() -> None:
    """It agrees with the clock, differs for a later process, and is None for zombies and nobody."""
    mine = procfs.start_time(os.getpid())
    assert mine is not None
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - mine / os.sysconf("SC_CLK_TCK")
    assert -1 < age < 7200
    reader, writer = syscalls.pipe()
    pid = syscalls.clone(0)
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    os.close(reader)
    theirs = procfs.start_time(pid)
    assert theirs is not None and theirs >= mine
    os.close(writer)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert procfs.start_time(pid) is None
    syscalls.waitpid(pid)
    assert procfs.start_time(pid) is None


@pytest.mark.parametrize("name", [") Z 1 (", "a b", "))", "((", ") S"])
def test_start_time_of_a_process_with_a_nasty_name(in_child: InChild, name: str) -> None:
    """Brackets and blanks in a name do not shift the fields."""

    def child() -> list[Any]:
        before = procfs.start_time(os.getpid())
        syscalls.set_name(name)
        return [before, procfs.start_time(os.getpid())]

    before, after = in_child(child)
    assert before == after is not None


def test_read_and_boot_id() -> None:
    """Files of a process and of the kernel, the same as by their paths."""
    assert procfs.read(os.getpid(), "cmdline") == procfs.read("self", "cmdline")
    assert procfs.read("self", "cmdline") == Path("/proc/self/cmdline").read_bytes()
    assert procfs.boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    with pytest.raises(SyscallError) as caught:
        procfs.read(os.getpid(), "nonexistent")
    assert caught.value.errno == constants.ENOENT


@pytest.mark.parametrize("refused", [0, constants.ENOSYS, constants.EPERM])
def test_links_out_are_refused(in_child: InChild, refused: int) -> None:
    """Neither magic links nor ".." lead out, with openat2 and without."""

    def child() -> list[Any]:
        if refused:
            syscalls.prctl(constants.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.seccomp_set_filter(0, filter_refusing(OPENAT2, refused))
        proc = procfs.open_proc()
        answers: list[Any] = [procfs.read_path(proc, "self/comm").decode()]
        for path in ("self/root/etc/passwd", "self/cwd", "self/exe", "../etc/passwd", "self/fd/0"):
            try:
                answers.append(procfs.read_path(proc, path).decode())
            except SyscallError as error:
                answers.append(error.errno in (constants.ELOOP, constants.EXDEV, constants.ENOTDIR))
        return answers

    comm, *refusals = in_child(child)
    assert comm == Path("/proc/self/comm").read_text()
    assert refusals == [True] * 5


def test_something_mounted_over_a_file_is_noticed(in_user_namespace: InChild) -> None:
    """A tmpfs file bound over /proc/self's own is EXDEV, for reading and for writing."""

    def child() -> list[Any]:
        syscalls.mount("none", "/tmp", "tmpfs", 0, None)
        Path("/tmp/fake").write_text("fake")
        pid = os.getpid()
        proc = procfs.open_proc()
        syscalls.mount("/tmp/fake", f"/proc/{pid}/comm", None, constants.MS_BIND, None)
        answers: list[Any] = []
        try:
            procfs.read_path(proc, f"{pid}/comm")
        except SyscallError as error:
            answers.append(error.errno)
        try:
            procfs.write(proc, "self/comm", b"x")
        except SyscallError as error:
            answers.append(error.errno)
        return [*answers, Path("/tmp/fake").read_text()]

    assert in_user_namespace(child) == [constants.EXDEV, constants.EXDEV, "fake"]


def test_another_file_of_procfs_mounted_over_one_is_noticed(in_user_namespace: InChild) -> None:
    """It is EXDEV as well: a uid_map that is somebody's comm is not to be written."""

    def child() -> list[Any]:
        pid = os.getpid()
        proc = procfs.open_proc()
        syscalls.mount(f"/proc/{pid}/sessionid", f"/proc/{pid}/comm", None, constants.MS_BIND, None)
        answers: list[Any] = []
        for flags in (constants.O_RDONLY, constants.O_WRONLY):
            try:
                answers.append(procfs.open_beneath(proc, "self/comm", flags))
            except SyscallError as error:
                answers.append(error.errno)
        return answers

    assert in_user_namespace(child) == [constants.EXDEV, constants.EXDEV]


def test_proc_sys_mounted_read_only(in_user_namespace: InChild) -> None:
    """As engines do it: what is below can be read, and not be written; a tmpfs there is EXDEV."""

    def child() -> list[Any]:
        proc = procfs.open_proc()
        syscalls.mount("/proc/sys", "/proc/sys", None, constants.MS_BIND, None)
        read_only = constants.MS_BIND | constants.MS_REMOUNT | constants.MS_RDONLY
        held = constants.MS_NOSUID | constants.MS_NODEV | constants.MS_NOEXEC  # locked in a userns
        syscalls.mount(None, "/proc/sys", None, read_only | held, None)
        answers: list[Any] = [procfs.read_path(proc, "sys/kernel/random/boot_id").decode()]
        for path in ("sys/net/ipv4/ping_group_range", "sys/../../etc/passwd"):
            try:
                procfs.write(proc, path, b"x")
            except SyscallError as error:
                answers.append(error.errno)
        syscalls.mount("none", "/proc/sys", "tmpfs", 0, None)
        Path("/proc/sys/fake").write_text("fake")
        try:
            procfs.read_path(proc, "sys/fake")
        except SyscallError as error:
            answers.append(error.errno)
        return answers

    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    refusals = [constants.EROFS, constants.EXDEV, constants.EXDEV]
    assert in_user_namespace(child, constants.CLONE_NEWNET) == [boot_id, *refusals]


def test_write_and_its_error(in_child: InChild) -> None:
    """What is written arrives; a refusal names the file."""

    def child() -> list[Any]:
        proc = procfs.open_proc()
        procfs.write(proc, "self/comm", b"renamed")
        try:
            procfs.write(proc, "self/oom_score_adj", b"rubbish")
        except SyscallError as error:
            return [procfs.read("self", "comm").decode(), error.errno, error.call, error.filename]
        return []

    assert in_child(child) == ["renamed\n", constants.EINVAL, "write", "/proc/self/oom_score_adj"]


def test_user_namespace(in_user_namespace: InChild) -> None:
    """A new user namespace is not the initial one."""
    assert in_user_namespace(procfs.in_initial_user_namespace) is False
    inode = os.stat("/proc/self/ns/user").st_ino
    assert procfs.in_initial_user_namespace() is (inode == 0xEFFFFFFD)


def test_held_survives_a_new_pid_namespace(in_child: InChild) -> None:
    """self means the reader, seen from the procfs that is held."""
    procfs.held()

    def child() -> list[Any]:
        reader, writer = syscalls.pipe()
        pid = syscalls.clone(constants.CLONE_NEWUSER | constants.CLONE_NEWPID)
        if pid == 0:
            try:
                os.write(writer, procfs.read("self", "stat").split()[0])
            finally:
                os._exit(0)
        syscalls.waitpid(pid)
        return [int(os.read(reader, 20)), pid]

    inner, outer = in_child(child)
    assert inner == outer
