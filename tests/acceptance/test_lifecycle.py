"""A container's life, verb by verb, with everything counted after each step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import leaks, needs
from tests.support.bundles import Bundle
from tests.support.runtime import ConsoleSocket, Runtime, Terminal

Make = Callable[..., Bundle]
ABSENT = "does not exist"


class Count:
    """What has come since the beginning, by kind."""

    def __init__(self, runtime: Runtime) -> None:
        self.roots = [runtime.root]
        leaks.reap()
        self.before = leaks.snapshot(self.roots)

    def now(self, kind: str) -> list[str]:
        leaks.reap()
        return sorted(leaks.snapshot(self.roots)[kind] - self.before[kind])

    def expect(self, *, processes: int, cgroups: int, state: bool) -> None:
        """So many processes, cgroups at least, state or none; never a mount, never a descriptor."""
        assert len(self.now("process")) == processes, self.now("process")
        assert self.now("mount") == []
        assert self.now("fd") == []
        expected = cgroups if needs.delegated_cgroup() is not None else 0
        assert len(self.now("cgroup")) == expected, self.now("cgroup")
        assert bool(self.now("file")) == state, self.now("file")

    def expect_nothing(self) -> None:
        left = leaks.settle(self.before, self.roots)
        assert not left, "\n".join(left)


@pytest.fixture
def count(both_ways: Runtime) -> Count:
    return Count(both_ways)


@pytest.fixture
def bundle(make_bundle: Make) -> Bundle:
    return make_bundle()


@pytest.fixture
def running(runtime: Runtime, bundle: Bundle, identifier: str) -> Iterator[str]:
    """A container that sleeps."""
    runtime.create(identifier, bundle.path).ok()
    runtime.start(identifier).ok()
    yield identifier
    runtime.delete(identifier, force=True)


def quiet(result: object) -> None:
    """Success says nothing: callers take standard error for part of the answer."""
    assert result.code == 0, str(result)  # type: ignore[attr-defined]
    assert (result.out, result.err) == ("", ""), str(result)  # type: ignore[attr-defined]


def test_every_step(both_ways: Runtime, count: Count, bundle: Bundle, identifier: str) -> None:
    """From create to delete: one process, one cgroup, one directory, and then nothing."""
    runtime = both_ways
    pid_file = bundle.path / "pid"

    quiet(runtime.create(identifier, bundle.path, "--pid-file", str(pid_file)))
    count.expect(processes=1, cgroups=1, state=True)
    state = runtime.state(identifier)
    assert state["status"] == "created" and state["id"] == identifier
    assert state["bundle"] == str(bundle.path)
    assert pid_file.read_text() == str(state["pid"])
    assert Path(f"/proc/{state['pid']}").exists()

    quiet(runtime.start(identifier))
    count.expect(processes=1, cgroups=1, state=True)
    assert runtime.status(identifier) == "running"
    assert runtime.state(identifier)["pid"] == state["pid"]
    command = Path(f"/proc/{state['pid']}/cmdline").read_bytes()
    assert command == b"sleep\x001000\x00"

    listed = json.loads(runtime("list", "--format", "json").ok().out)
    assert [(entry["id"], entry["status"]) for entry in listed] == [(identifier, "running")]
    assert runtime("list", "--quiet").ok().out == identifier + "\n"
    table = runtime("list").ok().out.splitlines()
    assert table[0].split()[:3] == ["ID", "PID", "STATUS"] and len(table) == 2
    assert json.loads(runtime("ps", "--format", "json", identifier).ok().out) == [state["pid"]]

    result = runtime.exec(identifier, "sh", "-c", "echo out; echo err >&2; exit 5")
    assert (result.code, result.out, result.err) == (5, "out\n", "err\n")
    count.expect(processes=1, cgroups=1, state=True)

    quiet(runtime.kill(identifier, "KILL"))
    runtime.wait_status(identifier, "stopped")
    count.expect(processes=0, cgroups=1, state=True)
    assert runtime.state(identifier).get("pid", 0) == 0

    quiet(runtime.delete(identifier))
    count.expect_nothing()
    missing = runtime("state", identifier)
    assert missing.code == 1 and ABSENT in missing.err


def test_pause_and_resume(
    v2: Path, both_ways: Runtime, count: Count, bundle: Bundle, identifier: str
) -> None:
    """A paused container stands still, says so, refuses exec, and goes on where it was."""
    runtime = both_ways
    bundle.shell("n=0; while :; do n=$((n+1)); echo $n > /tmp/n; usleep 1000; done")
    runtime.create(identifier, bundle.path).ok()
    runtime.start(identifier).ok()
    quiet(runtime("pause", identifier))
    assert runtime.status(identifier) == "paused"
    first = (bundle.rootfs / "tmp/n").read_text()
    refused = runtime.exec(identifier, "true")
    assert refused.code == 255 and "paused" in refused.err
    assert (bundle.rootfs / "tmp/n").read_text() == first
    assert runtime("pause", identifier).code == 1
    quiet(runtime("resume", identifier))
    assert runtime.status(identifier) == "running"
    assert runtime.exec(identifier, "true").code == 0
    assert runtime("resume", identifier).code == 1
    runtime.delete(identifier, force=True).ok()
    count.expect_nothing()


def test_a_paused_container_is_killed_and_deleted(
    v2: Path, runtime: Runtime, running: str, bundle: Bundle
) -> None:
    """`delete --force` and SIGKILL reach what is frozen."""
    runtime("pause", running).ok()
    quiet(runtime.delete(running, force=True))
    assert runtime.status(running) == ""


def test_pause_without_cgroups_names_the_freezer(
    runtime: Runtime, bundle: Bundle, identifier: str
) -> None:
    """Where no cgroup can be had, containers live all the same, but cannot be frozen."""
    bundle.without_namespace("cgroup")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    bundle.write()
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    plain.create(identifier, bundle.path).ok()
    plain.start(identifier).ok()
    for verb in ("pause", "resume"):
        result = plain(verb, identifier)
        assert result.code == 1, str(result)
        assert "freezer" in result.err or "it is running" in result.err
    assert "freezer" in plain("pause", identifier).err
    assert plain.exec(identifier, "echo", "fine").out == "fine\n"
    pids = json.loads(plain("ps", "--format", "json", identifier).ok().out)
    assert pids == [plain.state(identifier)["pid"]]
    plain("kill", "--all", identifier, "KILL").ok()
    plain.wait_status(identifier, "stopped")
    plain.delete(identifier).ok()


def test_no_cgroup_to_be_had(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """The same on a machine that gives this user no cgroup at all, without being asked."""
    if needs.delegated_cgroup() is not None:
        pytest.skip("this user has a cgroup v2 subtree (v2view --hybrid gives none)")
    runtime.create(identifier, bundle.path).ok()
    runtime.start(identifier).ok()
    assert "freezer" in runtime("pause", identifier).err
    runtime.kill(identifier, "KILL").ok()
    runtime.wait_status(identifier, "stopped")
    runtime.delete(identifier).ok()


@pytest.mark.parametrize("code", [0, 7, 255])
def test_run_gives_the_exit_code(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, code: int
) -> None:
    """`run` passes output and exit code on and leaves nothing."""
    bundle = make_bundle("sh", "-c", f"echo hello; echo oops >&2; exit {code}")
    result = runtime.run(identifier, bundle.path)
    assert (result.code, result.out, result.err) == (code, "hello\n", "oops\n")
    assert runtime.status(identifier) == ""


def test_run_of_a_killed_program(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A program that a signal ends makes 128 and its number."""
    bundle = make_bundle("sh", "-c", "(sleep 0.2; kill -USR1 $$) & exec sleep 100")
    bundle.without_namespace("pid")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "proc"]
    bundle.linux.pop("maskedPaths")
    bundle.linux.pop("readonlyPaths")
    bundle.write()
    assert runtime.run(identifier, bundle.path).code == 128 + signal.SIGUSR1


def test_run_reads_standard_input(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """All of it, to the end."""
    text = "x" * 300_000
    result = runtime.run(identifier, make_bundle("wc", "-c").path, input=text)
    assert (result.code, result.out.strip()) == (0, "300000")


def test_run_forwards_signals(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """SIGTERM to a foreground `run` reaches the program."""
    bundle = make_bundle("sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
    process = runtime.popen("run", "--bundle", str(bundle.path), identifier, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.terminate()
    assert process.wait(10) == 9
    process.stdout.close()


def test_run_detached_and_kept(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """`--detach` leaves a running container."""
    quiet(runtime.run(identifier, bundle.path, "--detach"))
    assert runtime.status(identifier) == "running"
    refused = runtime.delete(identifier)
    assert refused.code == 1 and "not stopped: running" in refused.err
    assert runtime.status(identifier) == "running"
    quiet(runtime.delete(identifier, force=True))


def test_delete_of_a_created_container(
    leak_check: None, runtime: Runtime, bundle: Bundle, identifier: str
) -> None:
    """A container that was never started needs no force."""
    runtime.create(identifier, bundle.path).ok()
    quiet(runtime.delete(identifier))
    assert runtime.status(identifier) == ""


def test_delete_force_of_nothing(runtime: Runtime) -> None:
    """To force away what is not there is fine; without force it is an error."""
    quiet(runtime.delete("nobody", force=True))
    assert runtime.delete("nobody").code == 1


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", "term", "15", ""])
def test_kill_understands_signal_names(
    runtime: Runtime, make_bundle: Make, identifier: str, name: str
) -> None:
    """Name, name with SIG, any case, number, and SIGTERM by default."""
    bundle = make_bundle(
        "sh", "-c", "trap 'echo got; exit 3' TERM; touch /tmp/up; while :; do sleep 0.05; done"
    )
    created = runtime.create(identifier, bundle.path).ok()
    runtime.start(identifier).ok()
    wait_for(bundle.rootfs / "tmp/up")
    quiet(runtime.kill(identifier, *([name] if name else [])))
    runtime.wait_status(identifier, "stopped")
    assert created.out == "got\n"
    refused = runtime.kill(identifier, "TERM")
    assert refused.code == 1 and "not running" in refused.err


def test_kill_all_reaches_children(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Every process, not only the first."""
    bundle = make_bundle("sh", "-c", "sleep 1001 & sleep 1002 & touch /tmp/up; wait; sleep 1003")
    runtime.create(identifier, bundle.path).ok()
    runtime.start(identifier).ok()
    wait_for(bundle.rootfs / "tmp/up")
    assert len(json.loads(runtime("ps", "--format", "json", identifier).ok().out)) == 3
    quiet(runtime("kill", "--all", identifier, "KILL"))
    runtime.wait_status(identifier, "stopped")
    quiet(runtime.delete(identifier))


def test_exec_by_process_file(runtime: Runtime, running: str, tmp_path: Path) -> None:
    """podman's form: the process as a JSON file, detached, with a pid file."""
    process = {
        "user": {"uid": 1000, "gid": 1000, "additionalGids": [2000]},
        "args": ["sh", "-c", "id -u; id -g; id -G; pwd; echo $NAME"],
        "env": ["PATH=/bin", "NAME=value"],
        "cwd": "/home/user",
    }
    needs.require(needs.subordinate_ids(), "this user has no subordinate ids")
    file, pid_file = tmp_path / "process.json", tmp_path / "exec.pid"
    file.write_text(json.dumps(process))
    result = runtime("exec", "--process", str(file), running)
    assert (result.code, result.out.split()) == (
        0,
        ["1000", "1000", "1000", "2000", "/home/user", "value"],
    )
    process["args"] = ["sleep", "1000"]
    file.write_text(json.dumps(process))
    quiet(runtime("exec", "-d", "--pid-file", str(pid_file), "--process", str(file), running))
    pids = json.loads(runtime("ps", "--format", "json", running).ok().out)
    assert int(pid_file.read_text()) in pids and len(pids) == 2


def test_exec_options_stop_at_the_id(runtime: Runtime, running: str) -> None:
    """What follows the id belongs to the program."""
    result = runtime(
        "exec", "--cwd", "/tmp", "-e", "A=b c", running, "sh", "-c", "pwd; echo $A", "-e"
    )
    assert (result.code, result.out) == (0, "/tmp\nb c\n")


@pytest.mark.parametrize(
    ("program", "word"),
    [("/no/such", "no such file or directory"), ("/etc/passwd", "permission denied")],
)
def test_exec_of_what_cannot_be_executed(
    runtime: Runtime, running: str, program: str, word: str
) -> None:
    """255, with the words that callers turn into 127 and 126."""
    result = runtime.exec(running, program)
    assert result.code == 255 and word in result.err.lower() and result.err.count("\n") == 1


def test_exec_of_many_at_once(runtime: Runtime, running: str) -> None:
    """Ten side by side."""
    started = [
        runtime.popen("exec", running, "echo", str(n), stdout=subprocess.PIPE) for n in range(10)
    ]
    answers = [process.communicate(timeout=30)[0] for process in started]
    assert answers == [f"{n}\n".encode() for n in range(10)]
    assert len(json.loads(runtime("ps", "--format", "json", running).ok().out)) == 1


def test_preserved_descriptors(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """--preserve-fds hands over 3 and on, and nothing else of the caller's."""
    bundle = make_bundle("sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd | tr '\\n' ' '")
    ends = []
    for text in (b"three ", b"four "):
        read, write = os.pipe()
        os.write(write, text)
        os.close(write)
        ends.append(read)
    secret = os.open("/etc/passwd", os.O_RDONLY)
    os.dup2(secret, 77)

    def arrange() -> None:
        first, second = os.dup(ends[0]), os.dup(ends[1])
        os.dup2(first, 3)
        os.dup2(second, 4)

    try:
        result = runtime.run(
            identifier, bundle.path, "--preserve-fds", "2", preexec=arrange, pass_fds=(3, 4, 77)
        )
    finally:
        for fd in (*ends, secret, 77):
            os.close(fd)
    assert result.code == 0, str(result)
    words = result.out.split()
    assert words[:2] == ["three", "four"]
    assert set(words[2:]) <= {"0", "1", "2", "3", "4", "5"}, words  # ls itself opens one more


def test_console_socket(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """create with a terminal: the master arrives on the socket and is the program's terminal."""
    bundle = make_bundle("sh", "-c", "tty; stty size; read line; echo got $line")
    bundle.process["terminal"] = True
    bundle.process["consoleSize"] = {"height": 40, "width": 90}
    bundle.write()
    console = ConsoleSocket(tmp_path / "console.sock")
    try:
        runtime.create(identifier, bundle.path, "--console-socket", str(console.path)).ok()
        console.receive()
        runtime.start(identifier).ok()
        assert console.expect("40 90").strip().startswith("/dev/")
        console.send("words\n")
        console.expect("got words")
        runtime.wait_status(identifier, "stopped")
    finally:
        console.close()


def test_console_socket_with_a_long_path(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """A path that does not fit into sockaddr_un is reached all the same."""
    folder = tmp_path / ("d" * 100)
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    console = ConsoleSocket(Path(f"/proc/self/fd/{descriptor}/s"))
    os.close(descriptor)
    bundle = make_bundle("sh", "-c", "echo here; sleep 100")
    bundle.process["terminal"] = True
    bundle.write()
    try:
        runtime.create(identifier, bundle.path, "--console-socket", str(folder / "s")).ok()
        console.receive()
        runtime.start(identifier).ok()
        console.expect("here")
    finally:
        console.close()


def test_run_on_a_terminal(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A foreground `run` with a terminal: size, input, Ctrl-C, exit code."""
    bundle = make_bundle(
        "sh",
        "-c",
        "trap 'echo INTERRUPTED; exit 4' INT; tty; stty size; while :; do sleep 0.05; done",
    )
    bundle.process["terminal"] = True
    bundle.write()
    terminal = Terminal(runtime.argv("run", "--bundle", str(bundle.path), identifier))
    assert "/dev/" in terminal.expect("33 101")
    terminal.send("\x03")
    terminal.expect("INTERRUPTED")
    assert terminal.wait() == 4


def test_hooks_run_in_order(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """All six kinds, each with the state on its standard input and the status of its moment."""
    log = tmp_path / "hooks.log"
    log.touch()
    log.chmod(0o666)
    bundle = make_bundle("sh", "-c", "sleep 1000")
    script = tmp_path / "hook"
    script.write_text('#!/bin/sh\necho "$1 $(tr -d " \\n")" >> "$2"\n')
    script.chmod(0o755)
    kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    bundle.config["hooks"] = {
        kind: [{"path": str(script), "args": ["hook", kind, str(log)]}] for kind in kinds
    }
    inside = bundle.rootfs / "bin/hook"
    inside.write_text('#!/bin/sh\necho "$1 $(/bin/tr -d " \\n")" >> /tmp/hook.log\n')
    inside.chmod(0o755)
    bundle.config["hooks"]["startContainer"] = [
        {"path": "/bin/hook", "args": ["hook", "startContainer"]}
    ]
    bundle.write()
    runtime.create(identifier, bundle.path).ok()
    runtime.start(identifier).ok()
    runtime.delete(identifier, force=True).ok()
    lines = [line.split(" ", 1) for line in log.read_text().splitlines()]
    assert [kind for kind, _ in lines] == kinds
    lines.append((bundle.rootfs / "tmp/hook.log").read_text().strip().split(" ", 1))
    states = {kind: json.loads(text) for kind, text in lines}
    for kind, state in states.items():
        assert state["id"] == identifier, kind
        assert state["bundle"] == str(bundle.path), kind
        assert state["ociVersion"], kind
    assert {kind: state["status"] for kind, state in states.items()} == {
        "prestart": "creating",
        "createRuntime": "creating",
        "createContainer": "creating",
        "startContainer": "created",
        "poststart": "running",
        "poststop": "stopped",
    }


def test_a_failing_hook_undoes_create(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """createRuntime fails: so does create, and nothing is left."""
    bundle = make_bundle()
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/false", "args": ["false"]}]}
    bundle.write()
    result = runtime.create(identifier, bundle.path)
    assert result.code == 1 and "/bin/false" in result.err
    assert runtime.status(identifier) == ""


def test_the_program_sees_nothing_of_ours(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """No signal is ignored, blocked or caught, and no descriptor but 0 to 2 is open."""
    bundle = make_bundle("cat", "/proc/self/status")
    status = dict(
        line.split(":\t", 1) for line in runtime.run(identifier, bundle.path).ok().out.splitlines()
    )
    assert [status[name] for name in ("SigBlk", "SigIgn", "SigCgt")] == ["0" * 16] * 3
    assert status["Seccomp"] == "0" and status["NoNewPrivs"] == "1"
    bundle.args("ls", "/proc/1/fd")
    listed = runtime.run(f"{identifier}b", bundle.path).ok().out.split()
    assert listed == ["0", "1", "2", "3"]  # 3 is ls reading the directory


def test_callers_environment_is_nearly_empty(
    runtime: Runtime, bundle: Bundle, identifier: str
) -> None:
    """podman gives state, kill and delete XDG_RUNTIME_DIR and nothing else: no PATH, no HOME."""
    runtime.create(identifier, bundle.path).ok()
    bare = {"XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", "/tmp")}
    if Path(runtime.command[0]).name.startswith("python"):
        bare["PATH"] = "/usr/bin"  # an interpreter in a virtual environment asks for it
    for verb, *rest in (["state"], ["start"], ["kill", "KILL"]):
        answer = subprocess.run(
            runtime.argv(verb, identifier, *rest),
            env=bare,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert answer.returncode == 0 and answer.stderr == "", answer
    runtime.wait_status(identifier, "stopped")
    answer = subprocess.run(
        runtime.argv("delete", identifier), env=bare, capture_output=True, text=True, timeout=30
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_spec_makes_a_bundle_that_runs(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """The template, with nothing changed but the program, is a container."""
    (bundle.path / "config.json").unlink()
    runtime("spec", "--rootless", "--bundle", str(bundle.path)).ok()
    config = json.loads((bundle.path / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["echo", "from the template"]
    (bundle.path / "config.json").write_text(json.dumps(config))
    result = runtime.run(identifier, bundle.path)
    assert (result.code, result.out) == (0, "from the template\n"), str(result)
    again = runtime("spec", "--bundle", str(bundle.path))
    assert again.code == 1 and "config.json" in again.err


def wait_for(path: Path, timeout: float = 10) -> None:
    """Until the file exists."""
    import time

    deadline = time.monotonic() + timeout
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)
