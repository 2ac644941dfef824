"""From the gate to the program: it finds what the record says, and nothing of ours."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import resource
import signal
import socket
import struct

import pytest

from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.plan.plan import Capabilities
from rootless_pyoki.processes import gate
from rootless_pyoki.record import replace
from tests.processes.gate_stage import (
    ALLOW,
    KILL,
    NONE,
    NOTIFY,
    NUMBERS,
    all_caps,
    bpf,
    build_exit_42,
    errno_action,
    every_capability,
    record,
    status,
)

STATUS = ["cat", "/proc/self/status"]
SOME = 1 << c.CAP_KILL | 1 << c.CAP_CHOWN | 1 << c.CAP_NET_RAW
LABEL, NOFILE, GROUPS, CAPS, AMBIENT_STEP, CWD = 6, 7, 9, 12, 13, 14
SECCOMP, LISTENER, EXECVE = 16, 17, 18
# Calls that the gate makes and the program `cat` does not: after the filter none may come.
GATES_OWN = (
    "prctl", "setresuid", "setresgid", "setgroups", "chdir", "getcwd", "rt_sigaction",
    "rt_sigprocmask", "close_range", "sendto", "sendmsg",
)  # fmt: skip


def run(stage, argv, **options):
    """Launch in EXEC mode, say GO, expect success; what the program wrote."""
    launch = {key: options.pop(key) for key in ("setup", "userns", "alone") if key in options}
    envp = options.pop("envp", ["PATH=/usr/bin:/bin"])
    made = record(**{"mode": gate.EXEC, **options})
    started = stage.launch(made, argv, envp, **launch).ready()
    assert started.go() is None
    return started.text()


def refused(stage, **options):
    """The same for a start that fails: (step, errno)."""
    launch = {key: options.pop(key) for key in ("setup", "userns", "alone") if key in options}
    started = stage.launch(record(**{"mode": gate.EXEC, **options}), ["x"], **launch).ready()
    message = started.go()
    assert message is not None, started.text()
    assert message.kind == "failed"
    assert started.wait() in (1, 126, 127)
    return message.step, message.errno


def capability_lines(text):
    lines = status(text)
    return tuple(int(lines[f"Cap{name}"], 16) for name in ("Bnd", "Eff", "Inh", "Prm", "Amb"))


EVERY = every_capability()
AMBIENT = Capabilities(
    bounding=SOME, effective=SOME, inheritable=SOME, permitted=SOME, ambient=SOME
)
IDENTITIES = {
    # name: (uid, capabilities asked for, found: bounding effective inheritable permitted ambient)
    "root with every capability": (0, all_caps(), (EVERY, EVERY, 0, EVERY, 0)),
    "root with some bounding": (
        0,
        replace(AMBIENT, inheritable=0, ambient=0),
        (SOME, SOME, 0, SOME, 0),
    ),
    "user without any": (1000, NONE, (0, 0, 0, 0, 0)),
    "user with bounding alone": (1000, all_caps(), (EVERY, 0, 0, 0, 0)),
    "user with ambient": (1000, AMBIENT, (SOME, SOME, SOME, SOME, SOME)),
    "user with every ambient": (
        1000,
        all_caps(inheritable=EVERY, ambient=EVERY),
        (EVERY, EVERY, EVERY, EVERY, EVERY),
    ),
    "inheritable beyond bounding": (
        1000,
        Capabilities(bounding=0, effective=0, inheritable=SOME, permitted=SOME, ambient=0),
        (0, 0, SOME, 0, 0),
    ),
}


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("no_new_privileges", [False, True])
@pytest.mark.parametrize("name", IDENTITIES)
def test_ids_and_capabilities(stage, name, no_new_privileges, filtered):
    """Ids, groups, capabilities, no_new_privs and seccomp as asked; the filter stops our calls."""
    uid, caps, expected = IDENTITIES[name]
    rules = dict.fromkeys(GATES_OWN, KILL)
    if no_new_privileges:
        rules["capset"] = KILL
    text = run(
        stage,
        STATUS,
        uid=uid,
        gid=uid + 5,
        groups=(3, 77),
        capabilities=caps,
        no_new_privileges=no_new_privileges,
        filter=bpf(rules, ALLOW) if filtered else b"",
    )
    lines = status(text)
    assert lines["Uid"].split() == [str(uid)] * 4
    assert lines["Gid"].split() == [str(uid + 5)] * 4
    assert lines["Groups"].split() == ["3", "77"]
    assert capability_lines(text) == expected
    assert lines["NoNewPrivs"] == str(int(no_new_privileges))
    assert lines["Seccomp"] == ("2" if filtered else "0")


@pytest.mark.root
@pytest.mark.parametrize("uid", [0, 1000])
def test_without_a_user_namespace(stage, uid):
    """The same on the machine's own ids, as real root."""
    if os.geteuid():
        pytest.skip("needs real root")
    text = run(stage, STATUS, userns=False, uid=uid, groups=(), capabilities=AMBIENT)
    assert capability_lines(text) == (SOME,) * 5
    assert status(text)["Groups"].strip() == ""


def test_where_uid_0_is_not_mapped(stage):
    """Only one id is mapped, not 0: capabilities reach the gate all the same, by ambient ones."""
    filter_ = bpf({"prctl": KILL}, ALLOW)
    text = run(stage, STATUS, alone=1000, uid=1000, gid=1000, capabilities=AMBIENT, filter=filter_)
    assert capability_lines(text) == (SOME,) * 5
    text = run(stage, STATUS, alone=1000, uid=1000, gid=1000)
    assert capability_lines(text) == (0,) * 5


def test_where_uid_0_means_nothing(stage):
    """With SECBIT_NOROOT an execve by uid 0 keeps ambient capabilities alone: they are raised."""

    def noroot(made):
        syscalls.prctl(c.PR_SET_SECUREBITS, 1)
        return made

    text = run(stage, STATUS, setup=noroot, uid=1000, capabilities=AMBIENT)
    assert capability_lines(text) == (SOME,) * 5


def test_groups_are_left_alone_when_not_given(stage):
    """groups=None makes no setgroups: where it is denied, that alone works."""
    assert refused(stage, alone=0, groups=()) == (GROUPS, errno.EPERM)
    text = run(stage, STATUS, alone=0)
    assert len(status(text)["Groups"].split()) == len(os.getgroups())


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_a_filter_needs_to_allow_next_to_nothing(stage, no_new_privileges):
    """execve, what the program itself calls, and capset where no_new_privileges is not set."""
    program = build_exit_42(stage.folder)
    os.chmod(stage.folder, 0o755)
    rules = {"execve": ALLOW, "exit_group": ALLOW}
    if not no_new_privileges:
        rules["capset"] = ALLOW
    made = record(
        mode=gate.EXEC, path=os.fsencode(program), uid=1000, groups=(5,),
        filter=bpf(rules, KILL), no_new_privileges=no_new_privileges,
    )  # fmt: skip
    started = stage.launch(made, ["exit42"]).ready()
    assert started.go() is None
    assert started.wait() == 42


def test_a_filter_that_stops_execve_is_told(stage):
    """The filter's own errno comes back, through write, which it lets pass."""
    assert refused(stage, filter=bpf({"execve": errno_action(77), "sendto": KILL}, ALLOW)) == (
        EXECVE,
        77,
    )


def test_a_filter_that_the_kernel_refuses_is_told(stage):
    """No return at its end: EINVAL at the step `seccomp`."""
    assert refused(stage, filter=struct.pack("=HBBI", 0x20, 0, 0, 0)) == (SECCOMP, errno.EINVAL)
    flags = {"filter": bpf({}, ALLOW), "filter_flags": 1 << 20}
    assert refused(stage, **flags) == (SECCOMP, errno.EINVAL)


def test_a_filter_without_sys_admin_and_without_no_new_privileges(stage):
    """The kernel wants one of the two: EACCES at the step `seccomp`."""

    def drop(made):
        syscalls.prctl(c.PR_CAPBSET_DROP, c.CAP_SYS_ADMIN)
        effective, permitted, _ = syscalls.capget()
        less = permitted & ~(1 << c.CAP_SYS_ADMIN)
        syscalls.capset(effective & less, less, 0)
        return made

    filter_ = bpf({}, ALLOW)
    assert refused(stage, setup=drop, filter=filter_) == (SECCOMP, errno.EACCES)
    lines = status(run(stage, STATUS, setup=drop, filter=filter_, no_new_privileges=True))
    assert lines["Seccomp"] == "2"


def test_capabilities_that_are_not_held_are_an_error(stage):
    """Neither silently less, nor a start."""

    def drop(made):
        syscalls.prctl(c.PR_CAPBSET_DROP, c.CAP_CHOWN)
        effective, permitted, _ = syscalls.capget()
        less = permitted & ~(1 << c.CAP_CHOWN)
        syscalls.capset(effective & less, less, 0)
        return made

    # uid 0: what is not in the bounding set does not pass the exec into the gate
    wanted = {"uid": 1000, "capabilities": replace(AMBIENT, inheritable=0, ambient=0)}
    assert refused(stage, setup=drop, **wanted) == (CAPS, errno.EPERM)
    ambient = replace(NONE, ambient=SOME)
    assert refused(stage, uid=1000, capabilities=ambient) == (AMBIENT_STEP, errno.EPERM)


@pytest.mark.parametrize("mode", [gate.CREATE, gate.EXEC])
def test_signals_start_clean(stage, mode):
    """SigIgn, SigBlk, SigCgt are 0 though the caller ignores and blocks all that can be."""

    def block(made):
        for number in range(1, 65):
            if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
                signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        return made

    started = stage.launch(record(mode=mode, peer_uids=(0,)), STATUS, setup=block).ready()
    assert (started.go() if mode == gate.EXEC else started.commit().start()) is None
    lines = status(started.text())
    for name in ("SigIgn", "SigBlk", "SigCgt", "SigPnd", "ShdPnd"):
        assert int(lines[name], 16) == 0, name


@pytest.mark.parametrize("count", [0, 3])
def test_no_descriptor_but_stdio_and_the_preserved(stage, count):
    """Whatever the caller had open without close-on-exec is gone, the preserved ones are there."""

    def scatter(made):
        for number in range(3, 3 + count):
            os.dup2(os.open("/dev/zero", os.O_RDONLY), number)
        lock = os.open("/dev/null", os.O_RDONLY)
        for number in (3 + count, 4 + count, 90, 200):
            try:
                os.fstat(number)
            except OSError:
                os.dup2(0, number)
        return replace(made, preserve=count, lock=lock, proc_dir=os.open("/proc", os.O_PATH))

    made = record(peer_uids=(0,), path=b"/bin/ls")
    started = stage.launch(made, ["ls", "-l", "/proc/self/fd/"], setup=scatter)
    assert started.ready().commit().start() is None
    found = {
        int(line.split(" -> ")[0].split()[-1]): line.split(" -> ")[1]
        for line in started.text().splitlines()
        if " -> " in line
    }
    assert sorted(found) == list(range(4 + count))  # the last is the folder that ls reads
    assert found[3 + count].endswith("/fd")
    assert [found[number] for number in range(3, 3 + count)] == ["/dev/zero"] * count


def test_arguments_and_environment_are_the_users_own(stage):
    """64 KiB and more of each, bytes that are no UTF-8, empty strings: as given."""
    long_one = b"x" * 100_000
    argv = [b"sh", b"-c", b'printf "%s\\n" "$#" "$@" "${#VAR}" | cat -v | cut -c-20', b"0"]
    text = run(
        stage,
        [*argv, long_one, b"", b"\xff\xfe", "a b"],
        path=b"/bin/sh",
        envp=[b"VAR=" + b"y" * 70_000, "PATH=/usr/bin:/bin"],
    )
    assert text.splitlines() == ["4", "x" * 20, "", "M-^?M-~", "a b", "70000"]


def test_many_arguments(stage):
    """20,000 of them."""
    argv = ["sh", "-c", "echo $#", *(str(number) for number in range(20_000))]
    assert run(stage, argv, path=b"/bin/sh") == "19999\n"


def test_the_working_directory_is_entered_as_the_user(stage):
    """cwd is tried with the program's ids and capabilities: not as root."""
    folder = f"{stage.folder}/mine"
    os.mkdir(folder)
    os.chmod(stage.folder, 0o755)
    argv = ["sh", "-c", "pwd"]
    fields = {"path": b"/bin/sh", "uid": 1000, "gid": 1000, "cwd": folder.encode()}
    assert run(stage, argv, **fields) == f"{folder}\n"
    os.chmod(folder, 0)
    assert refused(stage, **fields) == (CWD, errno.EACCES)
    os.chmod(folder, 0o700)
    fields["cwd"] = b"/no/such"
    assert refused(stage, **fields) == (CWD, errno.ENOENT)


def test_a_working_directory_outside_the_root_is_refused(stage):
    """getcwd says (unreachable): the fd of a host directory does not get into the container."""

    def outside(made):
        inner = f"{stage.folder}/root"
        os.mkdir(inner)
        os.chdir(stage.folder)
        os.chroot(inner)
        return made

    assert refused(stage, setup=outside) == (CWD, errno.ENOENT)


def test_the_open_files_limit(stage):
    """RLIMIT_NOFILE is the gate's to set, even to what Python could not live with."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    text = run(
        stage, ["sh", "-c", "ulimit -Sn; ulimit -Hn"], path=b"/bin/sh", nofile=(4, min(hard, 64))
    )
    assert text.split() == ["4", str(min(hard, 64))]
    if os.geteuid():
        assert refused(stage, nofile=(4, hard + 1)) == (NOFILE, errno.EPERM)


@pytest.mark.root
def test_a_hard_limit_is_raised_before_capabilities_go(stage):
    """Real root may raise RLIMIT_NOFILE for a program that holds nothing."""
    if os.geteuid():
        pytest.skip("needs real root")
    if not syscalls.capget()[1] >> c.CAP_SYS_RESOURCE & 1:
        pytest.skip("root here was started without CAP_SYS_RESOURCE")

    def lower(made):
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 600))
        return made

    text = run(
        stage, ["sh", "-c", "ulimit -Hn"], path=b"/bin/sh", userns=False, uid=1000,
        nofile=(512, 700), setup=lower,
    )  # fmt: skip
    assert int(text) == 700


def test_the_label_is_written_to_procfs(stage):
    """Rubbish for a label reaches the kernel, which refuses it at the step of its own."""

    def proc(made):
        return replace(made, proc_dir=os.open("/proc", os.O_PATH | os.O_DIRECTORY))

    assert refused(stage, setup=proc, label=("exec", b"no such label")) == (LABEL, errno.EINVAL)


def test_the_label_goes_nowhere_but_procfs(stage):
    """A folder that looks like /proc gets nothing written (CVE-2019-16884)."""
    os.makedirs(f"{stage.folder}/self/attr")
    fake = f"{stage.folder}/self/attr/exec"
    open(fake, "w").close()
    os.chmod(fake, 0o666)
    os.chmod(stage.folder, 0o755)

    def proc(made):
        return replace(made, proc_dir=os.open(stage.folder, os.O_PATH | os.O_DIRECTORY))

    assert refused(stage, setup=proc, label=("exec", b"label")) == (LABEL, errno.EXDEV)
    assert open(fake).read() == ""


def test_a_mount_over_the_label_file_is_not_crossed(stage):
    """Another procfs file bound there would swallow the label (CVE-2025-52881)."""

    def proc(made):
        syscalls.unshare(c.CLONE_NEWNS)
        syscalls.mount("none", "/", None, c.MS_REC | c.MS_PRIVATE, None)
        target = f"/proc/{os.getpid()}/attr/exec"
        syscalls.mount(f"/proc/{os.getpid()}/comm", target, None, c.MS_BIND, None)
        return replace(made, proc_dir=os.open("/proc", os.O_PATH | os.O_DIRECTORY))

    assert refused(stage, setup=proc, label=("exec", b"label")) == (LABEL, errno.EXDEV)


# ---- seccomp's listener ----

NOTIF_RECV, NOTIF_SEND, CONTINUE = 0xC0502100, 0xC0182101, 1


def memfd(content):
    """As main makes one; the test process keeps it, as it ends soon."""
    fd = os.memfd_create("listener-state")
    os.write(fd, content)
    return fd


@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_the_listener_is_sent_whatever_the_filter_stops(stage, no_new_privileges):
    """The fd and the JSON arrive though sendmsg, write and execve all ask the listener first."""
    agent, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    agent.settimeout(10)
    state = b'{"fds": ["seccompFd"]}' + b" " * 300_000
    made = record(
        mode=gate.EXEC, path=b"/bin/echo", listener=ours.fileno(), listener_state=memfd(state),
        no_new_privileges=no_new_privileges, uid=1000,
        filter=bpf(dict.fromkeys(("sendmsg", "execve", "write"), NOTIFY), ALLOW),
    )  # fmt: skip
    started = stage.launch(made, ["echo", "notified"]).ready()
    ours.close()
    started.channel.send(b"G")
    data, passed = b"", array.array("i")
    while len(data) < len(state):
        part, controls, _, _ = agent.recvmsg(1 << 20, 64)
        data += part
        for _, _, content in controls:
            passed.frombytes(content)
    assert data == state
    assert len(passed) == 1
    heard = []
    for _ in range(2):
        notice = bytearray(80)
        fcntl.ioctl(passed[0], NOTIF_RECV, notice)
        id_, pid, _, number = struct.unpack_from("=QIIi", notice)
        heard.append((pid, number))
        fcntl.ioctl(passed[0], NOTIF_SEND, bytearray(struct.pack("=QqiI", id_, 0, 0, CONTINUE)))
    assert started.hear() is None
    assert started.text() == "notified\n"
    assert heard == [(started.pid, NUMBERS["execve"]), (started.pid, NUMBERS["write"])]
    os.close(passed[0])
    agent.close()


def test_an_agent_that_has_left_fails_the_start(stage):
    """Nobody takes the listener: the program would hang, so it is not run."""
    agent, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    agent.close()
    assert refused(
        stage,
        listener=ours.fileno(),
        listener_state=memfd(b"{}"),
        filter=bpf({"sendmsg": NOTIFY}, ALLOW),
    ) == (LISTENER, errno.EPIPE)
    ours.close()
