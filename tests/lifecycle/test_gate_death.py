"""A gate that dies on its way to the program: its end of file must not pass for success."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless_pyoki.state import status
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


def with_slow_hook(bundle: Bundle) -> Bundle:
    """A startContainer hook that says so and stays."""
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "touch /tmp/hook; exec sleep 60"]}
    bundle.config["hooks"] = {"startContainer": [hook]}
    return bundle.write()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_start_tells_it(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Killed while a hook runs: `start` fails, and the container is stopped."""
    bundle = with_slow_hook(make_bundle())
    runtime.create(identifier, bundle.path).ok()
    pid = runtime.state(identifier)["pid"]
    with runtime.popen("start", identifier, stderr=subprocess.PIPE) as start:
        wait_for(bundle.rootfs / "tmp/hook")
        os.kill(pid, signal.SIGKILL)
        _, told = start.communicate(timeout=10)
    assert start.returncode == 1 and b"killed before it became the program" in told, told
    assert runtime.status(identifier) == "stopped"
    runtime.delete(identifier).ok()


def test_killed_before_it_has_heard(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """It dies with the word of `start` unread, which resets the connection: told all the same."""
    runtime.create(identifier, make_bundle().path).ok()
    pid = runtime.state(identifier)["pid"]
    os.kill(pid, signal.SIGSTOP)
    with runtime.popen("start", identifier, stderr=subprocess.PIPE) as start:
        time.sleep(0.5)
        os.kill(pid, signal.SIGKILL)
        _, told = start.communicate(timeout=10)
    assert start.returncode == 1 and b"killed before it became the program" in told, told
    runtime.delete(identifier).ok()


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_filter_that_kills_at_execve(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, verb: str
) -> None:
    """The program never ran, so it has no exit code."""
    bundle = make_bundle()
    if verb == "exec":
        runtime.run(identifier, bundle.path, "--detach").ok()
        process = dict(bundle.process)
    rule = {"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    bundle.write()
    if verb == "run":
        result = runtime.run(identifier, bundle.path)
    else:
        assert process
        stored = runtime.root / identifier / "config.json"
        stored.write_bytes((bundle.path / "config.json").read_bytes())
        result = runtime.exec(identifier, "true")
    assert result.code in (1, 255) and "killed before it became the program" in result.err, result
    if verb == "exec":
        runtime.delete(identifier, force=True).ok()


def test_a_program_that_ends_at_once(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Is none of that: `start` succeeds."""
    runtime.create(identifier, make_bundle("true").path).ok()
    runtime.start(identifier).ok()
    runtime.wait_status(identifier, "stopped")


def test_by_the_name_that_a_process_leaves() -> None:
    """A zombie with the gate's name never was the program; one that is gone is nobody's to judge."""
    for name, died in ((status.GATE.decode(), True), ("other", False)):
        pid = os.fork()
        if not pid:
            try:
                Path("/proc/self/comm").write_text(name)
            finally:
                os._exit(0)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert status.died_waiting(pid) is died
        os.waitpid(pid, 0)
        assert not status.died_waiting(pid)


def test_while_the_name_is_about_to_change() -> None:
    """execve closes the connection first and renames the process then: that is waited for."""
    go, told = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            Path("/proc/self/comm").write_text(status.GATE.decode())
            os.write(told, b".")
            time.sleep(0.05)
            Path("/proc/self/comm").write_text("program")
            time.sleep(10)
        finally:
            os._exit(0)
    os.read(go, 1)
    assert not status.died_waiting(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(go)
    os.close(told)


def test_a_program_that_calls_itself_so() -> None:
    """It is not waited for without end."""
    ready, told = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            Path("/proc/self/comm").write_text(status.GATE.decode())
            os.write(told, b".")
            time.sleep(10)
        finally:
            os._exit(0)
    os.read(ready, 1)
    assert not status.died_waiting(pid)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(ready)
    os.close(told)
