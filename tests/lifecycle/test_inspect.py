"""state, list and ps of containers in a directory of ours, whose first process is a real one."""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rootless_pyoki.errors import NotFoundError, StateError
from rootless_pyoki.kernel import procfs, syscalls
from rootless_pyoki.lifecycle import inspect
from rootless_pyoki.record import replace
from rootless_pyoki.state import container_state, store
from rootless_pyoki.state import root as state_root

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def root(tmp_path: Path) -> str:
    return str(tmp_path / "state")


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def remember(root: str, id: str, pid: int, **extras: object) -> None:
    """A container as create leaves it, with `pid` for its first process."""
    place = state_root.open_root(root, create=True)
    handle = store.create_container(place, id)
    state = store.new_state(
        id=id,
        bundle="/bundle",
        rootfs="/bundle/rootfs",
        annotations={"a": "b"},
        notes=(container_state.StateNote(pointer="/mounts/0", text="bound instead"),),
        extras=extras,
    )
    start_time = procfs.start_time(pid) or 1
    handle.write(replace(state, phase="created", pid=pid, start_time=start_time))
    handle.close()
    syscalls.close(place)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill it and wait until it is a zombie."""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)


def test_state_of_running(root: str, sleeper: subprocess.Popen[bytes]) -> None:
    """runc's members, in its order."""
    remember(root, "one", sleeper.pid)
    view = inspect.state(root=root, id="one")
    assert list(view) == [
        "ociVersion",
        "id",
        "pid",
        "status",
        "bundle",
        "rootfs",
        "created",
        "annotations",
        "owner",
    ]
    assert (view["id"], view["pid"], view["status"]) == ("one", sleeper.pid, "running")
    assert (view["bundle"], view["rootfs"]) == ("/bundle", "/bundle/rootfs")
    assert view["annotations"] == {"a": "b"}
    assert str(view["created"]).startswith(time.strftime("%Y-"))


def test_state_of_created(root: str, sleeper: subprocess.Popen[bytes]) -> None:
    """Whoever holds gate.lock has not been started."""
    remember(root, "one", sleeper.pid)
    with (Path(root) / "one" / "gate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert inspect.state(root=root, id="one")["status"] == "created"
    assert inspect.state(root=root, id="one")["status"] == "running"


def test_state_of_stopped(root: str, sleeper: subprocess.Popen[bytes]) -> None:
    """A zombie is stopped, and so is what is gone: pid 0."""
    remember(root, "one", sleeper.pid)
    end(sleeper)
    for _ in range(2):
        view = inspect.state(root=root, id="one")
        assert (view["status"], view["pid"]) == ("stopped", 0)
        sleeper.wait()


def test_verbose(root: str, sleeper: subprocess.Popen[bytes]) -> None:
    """What was changed or left out, and the cgroup, under a member of our own."""
    remember(root, "one", sleeper.pid, cgroup_reason="not writable")
    assert inspect.state(root=root, id="one", verbose=True)["pyoki"] == {
        "notes": [{"pointer": "/mounts/0", "text": "bound instead"}],
        "cgroup": {"manager": "none", "path": "", "reason": "not writable"},
    }


def test_missing(root: str) -> None:
    """With and without a state directory: the words that callers look for."""
    for _ in range(2):
        with pytest.raises(NotFoundError, match=r"^container one does not exist$"):
            inspect.state(root=root, id="one")
        Path(root).mkdir(mode=0o700, exist_ok=True)


def test_list(root: str, sleeper: subprocess.Popen[bytes]) -> None:
    """By id; leftovers and what cannot be read are no containers."""
    assert inspect.list_containers(root=root) == []
    remember(root, "two", sleeper.pid)
    remember(root, "one", 2**22 + 1)
    remember(root, "bad", sleeper.pid)
    (Path(root) / "bad" / "state.json").write_text("{")
    (Path(root) / "leftover").mkdir()
    views = inspect.list_containers(root=root)
    assert [(view["id"], view["status"]) for view in views] == [
        ("one", "stopped"),
        ("two", "running"),
    ]


def test_ps_without_cgroup(root: str, sleeper: subprocess.Popen[bytes]) -> None:
    """A shared pid namespace and no cgroup: only the first process is known to be its."""
    remember(root, "one", sleeper.pid)
    assert inspect.ps(root=root, id="one") == [sleeper.pid]
    end(sleeper)
    with pytest.raises(StateError, match="container not running"):
        inspect.ps(root=root, id="one")


def test_ps_by_pid_namespace(root: str) -> None:
    """No cgroup but a pid namespace of its own: every process in it, by host pid."""
    command = "sleep 100 & echo ready; exec sleep 100"
    line = ["unshare", "-Urpf", "--kill-child", "sh", "-c", command]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            pytest.skip("no user and pid namespaces here")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        first = int(children.read_text())
        second = int(Path(f"/proc/{first}/task/{first}/children").read_text())
        remember(root, "one", first, own_pid_namespace=True)
        assert inspect.ps(root=root, id="one") == sorted((first, second))
        process.kill()
