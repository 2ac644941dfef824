"""The gate's life: what it waits for, whom it listens to, what its hooks do."""

from __future__ import annotations

import errno
import json
import os
import signal
import time

import pytest

from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.plan.plan import Hook
from rootless_pyoki.processes import gate
from rootless_pyoki.record import replace
from tests.processes.gate_stage import all_caps, in_child, record, until

ECHO = {"path": b"/bin/echo", "peer_uids": (0,)}
CLIENT, HOOK, TIMEOUT = 19, gate.STEP_HOOK, 5


def hook(script, timeout=0, env=("A=1",)):
    return Hook(
        path="/bin/sh", args=("sh", "-c", script), env=env, timeout=timeout, pointer="/hooks"
    )


def test_run_waits_for_commit_and_go(stage):
    """RUN: R, then C, then G on the channel, whose end of file means that the program runs."""
    started = stage.launch(record(mode=gate.RUN, path=b"/bin/echo"), ["echo", "ran"]).ready()
    started.commit()
    assert started.go() is None
    assert started.text() == "ran\n"
    assert started.wait() == 0


def test_exec_waits_for_go_alone(stage):
    """EXEC: R, then G."""
    started = stage.launch(record(mode=gate.EXEC, path=b"/bin/echo"), ["echo", "ran"]).ready()
    assert started.go() is None
    assert started.text() == "ran\n"


@pytest.mark.parametrize("mode", [gate.CREATE, gate.RUN, gate.EXEC])
def test_the_gate_dies_with_its_channel(stage, mode):
    """End of file before the first word from main: exit code 1 and silence."""
    started = stage.launch(record(mode=mode), ["x"]).ready()
    started.channel.close()
    assert started.wait() == 1


@pytest.mark.parametrize("word", [b"G", b"X", b"S"])
def test_a_wrong_word_ends_the_gate(stage, word):
    """Only C is heard first in CREATE."""
    started = stage.launch(record(), ["x"]).ready()
    started.channel.send(word)
    assert started.wait() == 1


def test_a_created_gate_outlives_main(stage):
    """After COMMIT the channel's end no longer matters, nor does the death of its parent."""
    started = stage.launch(
        record(**ECHO), ["echo", "x"], setup=lambda made: _die_with_parent(made)
    ).ready()
    started.commit()
    started.channel.close()
    assert not until(lambda: os.waitid(os.P_PID, started.pid, os.WEXITED | os.WNOHANG), 0.1)
    assert started.start() is None
    assert started.text() == "x\n"


def _die_with_parent(made):
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
    return made


def test_a_refused_program_is_told_to_start(stage):
    """execve's error comes back on start's connection; the exit code is the shell's."""
    started = stage.launch(record(path=b"/no/such", peer_uids=(0,)), ["x"]).ready().commit()
    assert started.start() == gate.Message(kind="failed", step=18, errno=errno.ENOENT)
    assert started.wait() == 127
    started = stage.launch(record(path=b"/etc/passwd", peer_uids=(0,)), ["x"]).ready().commit()
    assert started.start() == gate.Message(kind="failed", step=18, errno=errno.EACCES)
    assert started.wait() == 126


def test_a_silent_client_is_dropped_and_the_next_one_served(stage):
    """Nothing said within the deadline: told ETIMEDOUT and closed; meanwhile the other waits."""
    started = stage.launch(record(**ECHO, deadline_ms=150), ["echo", "x"]).ready().commit()
    silent, begun = started.connect(), time.monotonic()
    assert started.start() is None
    assert 0.1 < time.monotonic() - begun < 2
    told = gate.parse_message(silent.recv(64))
    assert told == gate.Message(kind="failed", step=CLIENT, errno=errno.ETIMEDOUT)
    assert silent.recv(64) == b""
    silent.close()


def test_clients_that_leave_or_talk_rubbish_change_nothing(stage):
    """End of file, a wrong byte and too long a message are closed; the gate waits on."""
    started = stage.launch(record(**ECHO), ["echo", "x"]).ready().commit()
    started.connect().close()
    for rubbish in (b"X", b"SS", b"S" * 5000):
        with started.connect() as client:
            client.send(rubbish)
            told = gate.parse_message(client.recv(64))
            assert told == gate.Message(kind="failed", step=CLIENT, errno=errno.EPROTO)
    assert started.start() is None
    assert started.text() == "x\n"


def test_only_the_named_users_may_start(stage):
    """Another SO_PEERCRED uid is told EPERM; no list, nobody."""
    for uids in ((12345, 1), ()):
        started = stage.launch(record(**{**ECHO, "peer_uids": uids}), ["echo", "x"]).ready()
        started.commit()
        refused = gate.Message(kind="failed", step=CLIENT, errno=errno.EPERM)
        assert started.start() == refused
        assert started.start() == refused


def test_a_client_of_another_user_is_refused_then_ours_served(stage):
    """The uid is taken from the socket, whatever the client says."""
    started = stage.launch(record(**ECHO), ["echo", "x"]).ready().commit()
    os.chmod(stage.folder, 0o755)
    os.chmod(started.address, 0o666)

    def start_as_another():
        namespace = os.open(f"/proc/{started.pid}/ns/user", os.O_RDONLY)
        syscalls.setns(namespace, c.CLONE_NEWUSER)
        os.setresuid(1000, 1000, 1000)
        assert started.start() == gate.Message(kind="failed", step=CLIENT, errno=errno.EPERM)

    assert in_child(start_as_another) == ""
    assert started.start() is None


def test_the_lock_falls_when_the_program_runs(stage):
    """flock through the gate's fd is held while it waits and released by execve."""
    path = f"{stage.folder}/lock"
    ours = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)

    def take(made):
        lock = os.open(path, os.O_RDWR)
        syscalls.flock(lock, c.LOCK_EX)
        return replace(made, lock=lock)

    os.chmod(stage.folder, 0o755)
    os.chmod(path, 0o666)
    started = stage.launch(
        record(path=b"/bin/cat", peer_uids=(0,)), ["cat", "/dev/zero"], setup=take
    )
    started.ready().commit()
    with pytest.raises(OSError):
        syscalls.flock(ours, c.LOCK_EX | c.LOCK_NB)
    assert started.start() is None
    assert os.readlink(f"/proc/{started.pid}/exe") if os.geteuid() == 0 else True
    syscalls.flock(ours, c.LOCK_EX | c.LOCK_NB)
    os.close(ours)


def test_a_clone_enters_the_joined_pid_namespace(stage):
    """fork: PID first, then READY from a child of main's that is inside; the first left with 0."""

    def join(made):
        syscalls.unshare(c.CLONE_NEWPID)
        return made

    started = stage.launch(
        record(fork=True, path=b"/bin/sh", peer_uids=(0,)), ["sh", "-c", "echo $$"], setup=join
    )
    said = started.hear()
    assert said is not None and said.kind == "pid"
    assert said.pid != started.pid
    started.ready()
    assert started.wait() == 0
    started.pid, started.status = said.pid, None
    assert started.commit().start() is None
    assert started.text() == "1\n"
    assert started.wait() == 0


def test_a_cloned_gate_dies_with_its_channel(stage):
    """The child of `fork` listens like any other."""

    def join(made):
        syscalls.unshare(c.CLONE_NEWPID)
        return made

    started = stage.launch(record(fork=True), ["x"], setup=join)
    inside = started.hear().pid
    started.ready()
    started.wait()
    started.channel.close()
    started.pid, started.status = inside, None
    assert started.wait() == 1


def test_a_terminal_becomes_the_controlling_one(stage):
    """new_session and controlling_tty: the program leads a session on fd 0's terminal."""
    master, slave = os.openpty()

    def terminal(made):
        os.dup2(slave, 0)
        return made

    fields = {"path": b"/bin/sh", "controlling_tty": True, "mode": gate.EXEC}
    argv = ["sh", "-c", "cat /proc/self/stat; echo hi >/dev/tty"]
    started = stage.launch(record(**fields), argv, setup=terminal).ready()
    assert started.go() is None
    line = started.text()
    session, tty = line.rpartition(")")[2].split()[3:5]
    assert (int(session), int(tty)) == (started.pid, os.fstat(slave).st_rdev)
    assert os.read(master, 10) == b"hi\r\n"
    os.close(master)
    os.close(slave)


def test_no_terminal_is_a_failure_before_ready(stage):
    """TIOCSCTTY on what is none: step 3."""
    started = stage.launch(record(controlling_tty=True), ["x"])
    assert started.hear() == gate.Message(kind="failed", step=3, errno=errno.ENOTTY)
    assert started.wait() == 1


# ---- startContainer hooks ----


def test_hooks_run_in_order_with_the_state_on_stdin(stage):
    """Each has its args, its env alone and the whole state; then the program follows."""
    state = json.dumps({"id": "x", "annotations": {"a": "b" * 300_000}}).encode()
    hooks = (
        hook("wc -c; echo $A $0; pwd", env=("A=one", "PATH=/bin:/usr/bin")),
        hook("exec 0<&-; echo second"),  # does not want the state: no SIGPIPE for the gate
        Hook(path="/bin/true", args=(), env=(), timeout=5, pointer=""),
    )
    made = record(**ECHO, start_hooks=hooks, state=state, capabilities=all_caps())
    started = stage.launch(made, ["echo", "program"]).ready().commit()
    assert started.start() is None
    assert started.text() == f"{len(state)}\none sh\n/\nsecond\nprogram\n"
    assert started.wait() == 0


def test_hooks_have_clean_signals_no_descriptors_and_no_inheritable_capability(stage):
    """A hook starts like the program does: nothing ignored or blocked, fds 0-2, CapInh empty."""
    look = Hook(path="/bin/cat", args=("cat", "/proc/self/status"), env=(), timeout=0, pointer="")
    listing = Hook(path="/bin/ls", args=("ls", "/proc/self/fd"), env=(), timeout=0, pointer="")

    def preserve(made):
        os.dup2(0, 3)
        os.dup2(0, 4)
        return replace(made, preserve=2)

    made = record(**ECHO, start_hooks=(look, listing), state=b"{}")
    started = stage.launch(made, ["echo", "end"], setup=preserve).ready().commit()
    assert started.start() is None
    text = started.text()
    for name in ("SigIgn", "SigBlk", "SigCgt", "CapInh", "CapAmb"):
        assert f"{name}:\t0000000000000000\n" in text
    assert text.endswith("0\n1\n2\n3\nend\n")  # 3 is the folder that ls reads


@pytest.mark.parametrize(
    ("script", "came_to"), [("exit 3", -3), ("kill -9 $$", -137), ("kill -13 $$", -141)]
)
def test_a_failing_hook_fails_the_start(stage, script, came_to):
    """Exit code or signal are told; the program does not run."""
    made = record(**ECHO, start_hooks=(hook("true"), hook(script), hook("echo no")), state=b"{}")
    started = stage.launch(made, ["echo", "no"]).ready().commit()
    assert started.start() == gate.Message(kind="failed", step=HOOK, errno=came_to)
    assert started.wait() == 1
    assert started.text() == ""


def test_a_missing_hook_is_told_with_its_errno(stage):
    """The errno of the hook's own execve."""
    missing = Hook(path="/no/hook", args=("hook",), env=(), timeout=0, pointer="")
    started = stage.launch(record(**ECHO, start_hooks=(missing,)), ["echo"]).ready().commit()
    assert started.start() == gate.Message(kind="failed", step=HOOK, errno=errno.ENOENT)


def test_a_hook_that_overstays_is_killed(stage):
    """After `timeout` seconds, even while the state is still being written to it."""
    for state in (b"{}", b"x" * 200_000):
        made = record(**ECHO, start_hooks=(hook("exec sleep 30", timeout=1),), state=state)
        started = stage.launch(made, ["echo"]).ready().commit()
        begun = time.monotonic()
        assert started.start() == gate.Message(kind="failed", step=TIMEOUT, errno=errno.ETIMEDOUT)
        assert 0.9 < time.monotonic() - begun < 3
        assert started.wait() == 1
        assert started.text() == ""  # its end: the hook is dead too
