"""Who is faster must not matter."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from rootless_pyoki.processes import channel, main, protocol
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


def _calls(cloned: list[int]) -> main.Calls:
    def never(*_: object) -> Any:
        raise AssertionError("not asked for")

    return main.Calls(
        cgroup=never,
        settle=lambda pid: None,
        cloned=cloned.append,
        runtime_hooks=never,
        note=never,
        console=never,
    )


def test_init_is_ready_before_intermediate_tells_its_pid() -> None:
    """main waits for the pid: 0 would mean its own process group to kill(2)."""
    a_main, a_child = channel.pair()
    b_main, b_child = channel.pair()
    cloned: list[int] = []
    birth = main.Birth(_calls(cloned))
    os.write(a_child, protocol.ENTERED)
    os.write(b_child, protocol.READY)
    pid = os.fork()
    if pid == 0:
        time.sleep(0.2)
        channel.send(a_child, protocol.INIT, {"pid": 4711})
        os._exit(0)
    main._serve(birth, None, None, [a_main, b_main])  # type: ignore[arg-type]
    os.waitpid(pid, 0)
    for fd in (a_main, a_child, b_main, b_child):
        os.close(fd)
    assert birth.pid == 4711 and cloned == [4711]


def test_three_starts_at_once(runtime: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """One starts it, the others hear that it runs."""
    runtime.create(identifier, busybox_bundle.path).ok()
    starts = [runtime.popen("start", identifier, stderr=subprocess.PIPE) for _ in range(3)]
    words = sorted((start.communicate(timeout=20)[1], start.returncode) for start in starts)
    refusal = f"error: cannot start container {identifier}: it is running, not created\n".encode()
    assert words == [(b"", 0), (refusal, 1), (refusal, 1)]
    runtime.delete(identifier, force=True).ok()


def test_a_killed_foreground_run_leaves_what_delete_clears(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """The container outlives its run, and is a container like any other."""
    process = runtime.popen("run", "--bundle", str(busybox_bundle.path), identifier)
    runtime.wait_status(identifier, "running")
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=10)
    assert runtime.status(identifier) == "running"
    assert runtime.delete(identifier).code == 1
    runtime.delete(identifier, force=True).ok()
    assert os.listdir(runtime.root) == []


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
def test_delete_of_a_container_that_is_being_created(
    runtime: Runtime, make_bundle: Make, identifier: str, force: bool
) -> None:
    """It waits, and nothing is left; with --force the create is told what ended it."""
    bundle = make_bundle()
    bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "1"]}]}
    create = runtime.popen(
        "create", "--bundle", str(bundle.write().path), identifier, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 10
    while runtime.status(identifier) != "creating" and time.monotonic() < deadline:
        time.sleep(0.02)
    runtime.delete(identifier, force=force).ok()
    _, words = create.communicate(timeout=10)
    if create.returncode == 0:
        assert words == b""
    else:
        assert force and words.count(b"\n") == 1 and b"killed by signal 9" in words
    assert os.listdir(runtime.root) == []
