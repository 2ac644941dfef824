"""The gate's record, its messages, its image and how a process becomes one."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import traceback

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.plan.plan import Capabilities, Hook
from rootless_pyoki.processes import failures, gate
from rootless_pyoki.record import replace
from tests.processes.gate_stage import ENV, bpf, in_child, record

NOT_HERE = 77


def test_encode_writes_the_header_that_the_parser_reads():
    """The fixed part is 128 bytes in the documented order, and `size` is the whole record's."""
    caps = Capabilities(bounding=1, effective=2, inheritable=3, permitted=4, ambient=5)
    data = gate.encode(
        record(
            mode=gate.RUN, fork=True, uid=7, gid=8, groups=(1, 2), capabilities=caps,
            nofile=(10, 20), preserve=1, channel=9, lock=11, deadline_ms=30,
            filter=bpf({}, 0), filter_flags=2,
        )
    )  # fmt: skip
    numbers = struct.unpack("=12I6i7Q", data[:128])
    assert numbers[:12] == (gate.MAGIC, gate.VERSION, len(data), 2, 51, 7, 8, 1, 30, 2, 0, 0)
    assert numbers[12:18] == (9, -1, 11, -1, -1, -1)
    assert numbers[18:] == (1, 2, 3, 4, 5, 10, 20)


def test_encode_refuses_a_nul_inside_a_string():
    """A NUL would cut the string short for the kernel, so it never gets that far."""
    hook = Hook(path="/x", args=("a\0b",), env=(), timeout=0, pointer="")
    for bad in (record(path=b"/bin/\0x"), record(cwd=b"/\0"), record(start_hooks=(hook,))):
        with pytest.raises(ValueError, match="NUL"):
            gate.encode(bad)


def test_messages_are_parsed_and_nothing_else_is():
    """READY, PID and failures have exactly one form each."""
    assert gate.parse_message(b"R") == gate.Message(kind="ready")
    assert gate.parse_message(b"P" + struct.pack("=I", 77)) == gate.Message(kind="pid", pid=77)
    failed = gate.parse_message(b"F" + struct.pack("=Bi", 16, errno.EACCES))
    assert failed == gate.Message(kind="failed", step=16, errno=errno.EACCES)
    for bad in (b"", b"R!", b"P", b"P12345", b"F", b"F1234", b"F123456", b"X"):
        with pytest.raises(ValueError):
            gate.parse_message(bad)


def test_failures_have_words():
    """Errnos are named; what a hook came to is told apart from them."""
    assert failures.describe_step(18, errno.ENOENT) == "execve: no such file or directory (ENOENT)"
    assert failures.describe_step(gate.STEP_HOOK, -3) == "start-container hook: exit status 3"
    assert (
        failures.describe_step(gate.STEP_HOOK, -137) == "start-container hook: killed by signal 9"
    )
    assert failures.describe_step(250, 0) == "step 250"


def test_steps_name_every_step_of_the_gate():
    """STEPS and the C enumeration have the same length and order of magnitude: 1...N, no hole."""
    source = open(gate.image_path() + ".c").read()
    body = source[source.index("STEP_RECORD = 1") :]
    names = body[: body.index("}")].replace("= 1", "").split(",")
    names = [name.strip() for name in names if name.strip()]
    assert list(failures.STEPS) == list(range(1, len(names) + 1))
    assert names[gate.STEP_HOOK - 1] == "STEP_HOOK"
    assert [n for n, name in enumerate(names, 1) if name == "STEP_EXECVE"] == [18]


def test_the_memfd_is_sealed_and_unreadable():
    """Mode 0111 and every seal: no write, no resize, no chmod, no further seal."""
    fd = gate.make_memfd()
    try:
        assert os.fstat(fd).st_mode & 0o777 == 0o111
        sealed = syscalls.get_seals(fd)
        every = c.F_SEAL_WRITE | c.F_SEAL_SHRINK | c.F_SEAL_GROW | c.F_SEAL_SEAL
        assert sealed & every == every
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        if sealed & c.F_SEAL_EXEC:  # 6.3
            with pytest.raises(PermissionError):
                os.fchmod(fd, 0o600)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.parametrize("name", [name for name, _ in gate.IMAGES])
def test_each_image_becomes_a_gate(stage, name):
    """Every form of the image, down to the installed file, comes up and runs the program."""
    made = dict(gate.IMAGES)[name]()
    started = stage.launch(
        record(path=b"/bin/echo", peer_uids=(0,)), ["echo", "hello"], image=made
    ).ready()
    assert started.commit().start() is None
    assert started.text() == "hello\n"


@pytest.mark.parametrize(
    ("setting", "name"), [("1", "memfd made executable"), ("2", "unlinked copy")]
)
def test_the_image_where_memfds_are_not_executable(setting, name):
    """vm.memfd_noexec=1 wants MFD_EXEC said; =2 refuses even that: a nameless file serves."""

    def choose():
        syscalls.unshare(c.CLONE_NEWPID)
        child = os.fork()
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        try:
            with open("/proc/sys/vm/memfd_noexec", "w") as file:
                file.write(setting)
        except OSError:
            os._exit(NOT_HERE)
        fd, found = gate.make_image()
        executed = os.fork()
        if not executed:
            syscalls.execveat(fd, "", ["gate"], [], c.AT_EMPTY_PATH)
        status = os.waitpid(executed, 0)[1]
        os._exit(0 if found == name and os.waitstatus_to_exitcode(status) == 1 else 1)

    child = os.fork()
    if not child:
        try:
            choose()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == NOT_HERE:
        pytest.skip("vm.memfd_noexec cannot be set for a pid namespace here (6.3, real root)")
    if code == 99 and os.geteuid():
        pytest.skip("needs a pid namespace of real root's")
    assert code == 0


@pytest.mark.parametrize("installed", [False, True])
def test_the_container_cannot_look_into_a_waiting_gate(stage, installed):
    """To its own uid in its own user namespace memory and fds are closed without CAP_SYS_PTRACE."""
    image = gate.IMAGES[-1][1]() if installed else None
    started = stage.launch(record(), ["x"], image=image).ready()
    folder = f"/proc/{started.pid}"

    def look():
        namespace = os.open(f"{folder}/ns/user", os.O_RDONLY)
        syscalls.setns(namespace, c.CLONE_NEWUSER)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        assert os.readlink(f"{folder}/exe") == (
            gate.image_path() if installed else "/memfd:pyoki-gate (deleted)"
        )
        syscalls.capset(0, 0, 0)
        for name in ("mem", "environ", "maps"):
            with pytest.raises(PermissionError):
                os.open(f"{folder}/{name}", os.O_RDONLY)
        for name in ("exe", "cwd", "root", "fd/0"):
            with pytest.raises(PermissionError):
                os.readlink(f"{folder}/{name}")

    assert in_child(look) == ""


def test_the_waiting_gate_holds_only_what_the_record_names(stage):
    """Neither its own memfd nor its record nor any other fd of the caller's is open any more."""
    started = stage.launch(record(), ["x"]).ready()
    folder = f"/proc/{started.pid}/fd"
    links = {int(fd): os.readlink(f"{folder}/{fd}") for fd in os.listdir(folder)}
    assert sorted(link.split(":")[0] for fd, link in links.items() if fd > 2) == ["socket"] * 2


def test_the_waiting_gate_is_small(stage):
    """PSS of a created container's process: at most 24 KiB."""
    started = stage.launch(record(), ["x"], ENV).ready()
    rollup = open(f"/proc/{started.pid}/smaps_rollup").read()
    pss = next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    assert pss <= 24, f"{pss} KiB"


def test_a_failed_exec_leaves_the_channel_to_say_so():
    """become() raises where execveat is refused, and the record's descriptors still work."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    broken = os.memfd_create("broken")
    os.write(broken, b"\x7fELF nonsense")
    os.fchmod(broken, 0o111)
    child = os.fork()
    if not child:
        try:
            gate.become(broken, record(channel=theirs.fileno()), ["x"], [])
        except SyscallError as error:
            theirs.send(f"{error.call} {error.errno}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert select.select([ours], [], [], 0)[0]
    assert ours.recv(100).decode() == f"execveat {errno.ENOEXEC}"
    ours.close()
    theirs.close()
    os.close(broken)


def test_a_rubbish_record_is_told_on_the_channel(stage):
    """What the parser refuses comes back as step 1, exit code 1."""
    started = stage.launch(record(path=b"relative"), ["x"])
    assert started.hear() == gate.Message(kind="failed", step=1, errno=errno.EINVAL)
    assert started.wait() == 1


def test_nobody_else_starts_the_gate():
    """Executed by its path, not as /dev/fd/E, it leaves with 1 at once."""
    assert os.spawnv(os.P_WAIT, gate.image_path(), ["gate"]) == 1


def test_preserved_holes_do_not_confuse_the_numbers(stage):
    """E, the record and the channel find three free neighbours whatever else is open."""

    def scatter(made):
        for number in range(5, 60, 3):
            try:
                os.fstat(number)
            except OSError:
                os.dup2(0, number)
        return replace(made, preserve=0)

    started = stage.launch(
        record(path=b"/bin/echo", peer_uids=(0,)), ["echo", "x"], setup=scatter
    ).ready()
    assert started.commit().start() is None
    assert started.text() == "x\n"
