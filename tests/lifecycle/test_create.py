"""create: what is there afterwards, whose child it is, and that nothing stays when it fails."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from array import array
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import leaks, needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


def test_the_process_becomes_the_callers_child(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """A subreaper (conmon, buildah) inherits the process in the pid file and can wait for it."""
    bundle = make_bundle("sh", "-c", "exit 42")
    pid_file = tmp_path / "pid"
    runtime.create(identifier, bundle.path, "--pid-file", str(pid_file)).ok()
    text = pid_file.read_text()
    assert text.isdecimal(), repr(text)  # no newline: conmon takes it as it is
    pid = int(text)
    assert pid == runtime.state(identifier)["pid"]
    parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    assert int(parent) == os.getpid()
    runtime.start(identifier).ok()
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 42
    assert runtime.status(identifier) == "stopped"
    runtime.delete(identifier).ok()


def test_a_pid_file_that_is_there_is_replaced(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """Also what a killed create left of its own."""
    (tmp_path / "pid").write_text("old and longer")
    (tmp_path / ".pid").write_text("left")
    runtime.create(identifier, make_bundle().path, "--pid-file", "pid", cwd=tmp_path).ok()
    assert int((tmp_path / "pid").read_text()) == runtime.state(identifier)["pid"]
    assert not (tmp_path / ".pid").exists()


def test_the_waiting_process_is_the_gate(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """What waits in a created container is no Python: small, and no file of ours."""
    runtime.create(identifier, make_bundle().path).ok()
    pid = runtime.state(identifier)["pid"]
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
    resident = Path(f"/proc/{pid}/status").read_text()
    pages = int(resident.partition("VmRSS:")[2].split()[0])
    assert pages < 500, f"{pages} KiB"
    assert Path(f"/proc/{pid}/comm").read_text() != "python3\n"


@pytest.mark.parametrize("stage", [0.02, 0.05, 0.08, 0.12, 0.16, 0.2])
def test_a_killed_create_leaves_no_process(
    runtime: Runtime, make_bundle: Make, identifier: str, stage: float
) -> None:
    """kill -9 at any time: the children go too, and the id can be used again."""
    bundle = make_bundle()
    leaks.reap()
    before = leaks.processes()
    process = runtime.popen("create", "--bundle", str(bundle.path), identifier)
    time.sleep(stage)
    process.kill()
    process.wait()
    if runtime.status(identifier) in ("created", "stopped"):
        runtime.delete(identifier).ok()  # it was faster; stopped: all but the last word was said
    deadline = time.monotonic() + 5
    while left := leaks.processes() - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.02)
        leaks.reap()
    runtime.create(identifier, bundle.path).ok()
    assert runtime.status(identifier) == "created"


def test_a_killed_create_in_its_hook(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """The half-made container shows as creating or not at all, and delete --force clears it."""
    bundle = make_bundle()
    flag = tmp_path / "in-hook"
    bundle.config["hooks"] = {
        "createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", f"touch {flag}; exec sleep 1000 <&-"]}
        ]
    }
    bundle.write()
    process = runtime.popen("create", "--bundle", str(bundle.path), identifier)
    deadline = time.monotonic() + 10
    while not flag.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert runtime.status(identifier) == "creating"
    process.kill()
    process.wait()
    for pid in [int(line.split()[0]) for line in leaks.processes() if "sleep 1000" in line]:
        os.kill(pid, signal.SIGKILL)  # the hook itself is the host's business
    runtime.delete(identifier, force=True).ok()
    assert runtime.status(identifier) == ""


def test_a_pidfd_is_sent(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """--pidfd-socket: one message with a pidfd of the process."""
    path = tmp_path / "pidfd.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(10)
        runtime.create(identifier, make_bundle().path, "--pidfd-socket", str(path)).ok()
        connection, _ = listener.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(100, socket.CMSG_SPACE(4))
    pidfd = array("i", ancillary[0][2])[0]
    try:
        lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
        assert f"Pid:\t{runtime.state(identifier)['pid']}" in lines
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    runtime.wait_status(identifier, "stopped")


def test_start_only_once(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A second start is an error, of a running container and of a stopped one."""
    bundle = make_bundle("sleep", "1000")
    runtime.create(identifier, bundle.path).ok()
    runtime.start(identifier).ok()
    for status in ("running", "stopped"):
        runtime.wait_status(identifier, status)
        again = runtime.start(identifier)
        assert again.code == 1 and status in again.err, str(again)
        if status == "running":
            runtime.kill(identifier, "KILL").ok()
    pids = [runtime.popen("start", f"{identifier}x", stderr=subprocess.PIPE) for _ in range(2)]
    for process in pids:
        assert b"does not exist" in process.communicate()[1]


def test_two_starts_at_once(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """One wins, the other is refused, and the program runs once."""
    bundle = make_bundle("sh", "-c", "echo x >> /tmp/started; sleep 1000")
    runtime.create(identifier, bundle.path).ok()
    both = [runtime.popen("start", identifier, stderr=subprocess.PIPE) for _ in range(2)]
    codes = sorted((process.communicate(timeout=20), process.returncode)[1] for process in both)
    assert codes == [0, 1]
    deadline = time.monotonic() + 5
    while not (bundle.rootfs / "tmp/started").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (bundle.rootfs / "tmp/started").read_text() == "x\n"


def test_a_program_that_cannot_start(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """What only execve finds out is told by start, and the container is stopped then."""
    bundle = make_bundle("/script")
    (bundle.rootfs / "script").write_text("#!/no/such/interpreter\n")
    (bundle.rootfs / "script").chmod(0o755)
    runtime.create(identifier, bundle.path).ok()
    result = runtime.start(identifier)
    assert result.code == 1 and "no such file or directory" in result.err.lower(), str(result)
    runtime.wait_status(identifier, "stopped")
    runtime.delete(identifier).ok()


def test_a_gate_that_was_killed(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Somebody killed the waiting process: stopped, start says so, delete works."""
    runtime.create(identifier, make_bundle().path).ok()
    os.kill(runtime.state(identifier)["pid"], signal.SIGKILL)
    runtime.wait_status(identifier, "stopped")
    result = runtime.start(identifier)
    assert result.code == 1 and "stopped" in result.err
    runtime.delete(identifier).ok()


def rewrite(runtime: Runtime, identifier: str, **changes: object) -> None:
    path = runtime.root / identifier / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [{"bootId": "00000000-0000-0000-0000-000000000000"}, {"startTime": 12345}],
    ids=["another boot", "another process"],
)
def test_a_pid_that_means_somebody_else(
    runtime: Runtime, make_bundle: Make, identifier: str, changes: dict[str, object]
) -> None:
    """After a reboot, or when the pid was used again: stopped, nobody is signalled, delete works."""
    with subprocess.Popen(["sleep", "1000"]) as bystander:
        try:
            runtime.create(identifier, make_bundle("true").path).ok()
            runtime.start(identifier).ok()
            runtime.wait_status(identifier, "stopped")
            rewrite(runtime, identifier, pid=bystander.pid, **changes)
            assert runtime.status(identifier) == "stopped"
            assert runtime.state(identifier)["pid"] == 0
            for verb in (["kill"], ["kill", "--all"], ["exec"], ["pause"]):
                more = ["true"] if verb == ["exec"] else []
                options = verb[1:]
                runtime(verb[0], *options, identifier, *more)
            assert runtime.start(identifier).code == 1
            runtime.delete(identifier, force=True).ok()
            assert bystander.poll() is None
        finally:
            bystander.kill()


def test_rootless_false_insists_on_a_cgroup(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """--rootless=false: a container that would run without a cgroup is refused, and nothing is left."""
    runtime.options += ["--rootless=false"]
    result = runtime.create(identifier, busybox_bundle.path)
    if needs.delegated_cgroup() is not None:
        result.ok()
        return

    assert result.code == 1
    assert "no cgroup can be made" in result.err
    assert runtime.status(identifier) == ""
