"""What a container is doing, told from pid, start time, boot and lock."""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless_pyoki.kernel import procfs
from rootless_pyoki.record import replace
from rootless_pyoki.state import status, store


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[store.Handle]:
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    made = store.create_container(root, "c1")
    os.close(root)
    yield made
    made.close()


@pytest.fixture
def sleeper() -> Iterator[int]:
    """A process that lives for the test; the test may kill it before."""
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    yield pid
    os.kill(pid, signal.SIGKILL)
    try:
        os.waitpid(pid, 0)
    except ChildProcessError:
        pass


def state_of(pid: int, **changes: object) -> store.ContainerState:
    start = procfs.start_time(pid)
    assert start is not None
    state = store.new_state(id="c1", bundle="/b", rootfs="/r")
    return replace(state, **{"phase": "created", "pid": pid, "start_time": start, **changes})


def test_a_held_gate_lock_means_created(handle: store.Handle, sleeper: int, tmp_path: Path) -> None:
    """Released, it means running: the gate's execve does that."""
    state = state_of(sleeper)
    with (tmp_path / "c1" / "gate.lock").open("w") as gate:
        fcntl.flock(gate, fcntl.LOCK_EX)
        assert status.status(handle, state, frozen=lambda: False) == "created"
        assert status.status(handle, state, frozen=lambda: True) == "paused"
    assert status.status(handle, state) == "running"


def test_without_a_gate_lock_it_runs(handle: store.Handle, sleeper: int) -> None:
    """A foreground `run` has none."""
    assert status.status(handle, state_of(sleeper), frozen=lambda: False) == "running"


def test_a_frozen_cgroup_means_paused(handle: store.Handle, sleeper: int) -> None:
    """Asked only of what lives."""
    assert status.status(handle, state_of(sleeper), frozen=lambda: True) == "paused"
    gone = state_of(sleeper, start_time=1)
    assert status.status(handle, gone, frozen=lambda: pytest.fail("asked")) == "stopped"


def test_a_zombie_and_a_missing_process_are_stopped(handle: store.Handle, sleeper: int) -> None:
    """Also while nobody has waited for it."""
    state = state_of(sleeper)
    os.kill(sleeper, signal.SIGKILL)
    os.waitid(os.P_PID, sleeper, os.WEXITED | os.WNOWAIT)
    assert status.status(handle, state) == "stopped"
    assert not status.alive(state)


@pytest.mark.parametrize("changes", [{"start_time": 1}, {"boot_id": "another"}, {"pid": 0}])
def test_another_process_with_the_pid_is_not_the_container(
    handle: store.Handle, sleeper: int, changes: dict[str, object]
) -> None:
    """Pids are used again, and after a reboot all of them are somebody else's."""
    state = replace(state_of(sleeper), **changes)
    assert status.status(handle, state) == "stopped"


def test_a_container_in_the_making_is_creating_while_somebody_makes_it(
    handle: store.Handle, sleeper: int
) -> None:
    """What a dead creator left is stopped, unless its process lives still."""
    being_made = replace(state_of(sleeper), phase="creating", pid=0)
    assert status.status(handle, being_made) == "creating"
    left = replace(being_made, creator_start_time=1)
    assert status.status(handle, left) == "stopped"
    assert status.status(handle, replace(left, pid=sleeper)) == "creating"


def test_looking_leaves_nothing_open(handle: store.Handle, sleeper: int, tmp_path: Path) -> None:
    """And takes no lock away from anybody."""
    state = state_of(sleeper)
    (tmp_path / "c1" / "gate.lock").touch()
    status.status(handle, state)  # opens /proc once and for all
    before = os.listdir("/proc/self/fd")
    with (tmp_path / "c1" / "gate.lock").open() as gate:
        for _ in range(3):
            status.status(handle, state)
        fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert os.listdir("/proc/self/fd") == before
