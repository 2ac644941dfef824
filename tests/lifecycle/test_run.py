"""run in the foreground and detached."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


def test_keep(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """--keep: the container is there, stopped, when run has ended."""
    assert runtime.run(identifier, make_bundle("false").path, "--keep").code == 1
    assert runtime.status(identifier) == "stopped"
    runtime.delete(identifier).ok()


@pytest.mark.parametrize("name", ["SIGINT", "SIGUSR1", "SIGHUP", "SIGQUIT", "SIGWINCH"])
def test_signals_are_forwarded(
    runtime: Runtime, make_bundle: Make, identifier: str, name: str
) -> None:
    """What run is sent, its program gets; the window's signal belongs to a terminal."""
    if name == "SIGWINCH":
        pytest.skip("only a terminal has a window, see test_terminal.py")
    bundle = make_bundle(
        "sh", "-c", f"trap 'echo got; exit 5' {name[3:]}; echo up; while :; do sleep 0.05; done"
    )
    process = runtime.popen("run", "--bundle", str(bundle.path), identifier, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    process.send_signal(getattr(signal, name))
    assert process.communicate(timeout=10)[0] == b"got\n"
    assert process.returncode == 5


def test_the_program_ends_by_a_signal(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """128 and the number, also of KILL; run clears the container away."""
    process = runtime.popen("run", "--bundle", str(make_bundle().path), identifier)
    runtime.wait_status(identifier, "running")
    runtime.kill(identifier, "KILL").ok()
    assert process.wait(10) == 128 + signal.SIGKILL
    assert runtime.status(identifier) == ""


def test_the_callers_blocked_signals(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """run works where its caller blocks everything, SIGCHLD included."""

    def block() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))

    assert runtime.run(identifier, make_bundle("sh", "-c", "exit 3").path, preexec=block).code == 3

    def ignore() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)

    assert runtime.run(identifier, make_bundle("sh", "-c", "exit 3").path, preexec=ignore).code == 3


def test_big_output(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A megabyte through our stdout."""
    bundle = make_bundle("sh", "-c", "dd if=/dev/zero bs=1024 count=1024 2>/dev/null; exit 4")
    result = runtime.run(identifier, bundle.path)
    assert (result.code, len(result.out)) == (4, 1 << 20)


def test_a_reader_that_leaves(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """The program gets SIGPIPE, not we."""
    bundle = make_bundle("sh", "-c", "yes; echo $? >&2; exit 0")
    process = runtime.popen(
        "run",
        "--bundle",
        str(bundle.path),
        identifier,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() in (b"141\n", b"1\n")
    process.stderr.close()
    assert process.wait(10) == 0


def test_orphans_are_reaped(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Where the pid namespace is shared run inherits the program's orphans, and kills what stays."""
    bundle = make_bundle("sh", "-c", "(sleep 1001 &); (true &); exit 6").without_namespace("pid")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "proc"]
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    assert runtime.run(identifier, bundle.write().path).code == 6


def test_a_closed_stdin(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Without a stdin, stdout or stderr of the caller's nothing else takes their numbers."""

    def close() -> None:
        os.close(0)

    bundle = make_bundle("sh", "-c", "ls -l /proc/self/fd/0 | grep -c state; echo fine")
    result = runtime.run(identifier, bundle.path, preexec=close)
    assert result.out == "0\nfine\n", str(result)


def test_run_that_is_killed(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """kill -9 of a foreground run: the container runs on, and delete --force ends it."""
    process = runtime.popen("run", "--bundle", str(make_bundle().path), identifier)
    runtime.wait_status(identifier, "running")
    process.kill()
    process.wait()
    time.sleep(0.05)
    assert runtime.status(identifier) == "running"
    runtime.delete(identifier, force=True).ok()
    assert runtime.status(identifier) == ""
    leaks.reap()


@pytest.mark.parametrize("script", ["/no/such/program", "/etc/passwd"])
def test_run_of_nothing(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, script: str
) -> None:
    """One line, and nothing is left."""
    result = runtime.run(identifier, make_bundle(script).path)
    assert result.code == 1 and result.err.count("\n") == 1, str(result)
    assert runtime.status(identifier) == ""


def test_detach_writes_the_pid_file(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """run --detach --pid-file."""
    runtime.run(identifier, make_bundle().path, "--detach", "--pid-file", str(tmp_path / "p")).ok()
    assert int((tmp_path / "p").read_text()) == runtime.state(identifier)["pid"]


def test_concurrent_runs(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Six of one bundle at the same time."""
    bundle = make_bundle("sh", "-c", "echo out; exit 2")
    started = [
        runtime.popen(
            "run", "--bundle", str(bundle.path), f"{identifier}-{n}", stdout=subprocess.PIPE
        )
        for n in range(6)
    ]
    assert [p.communicate(timeout=40)[0] for p in started] == [b"out\n"] * 6
    assert [p.returncode for p in started] == [2] * 6
