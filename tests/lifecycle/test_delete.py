"""delete: of whatever there is, whole or damaged."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


@pytest.mark.parametrize("force", [False, True])
def test_stopped(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, force: bool
) -> None:
    """A stopped container goes; a second delete finds nothing."""
    runtime.run(identifier, make_bundle("true").path, "--keep").ok()
    runtime.delete(identifier, force=force).ok()
    again = runtime.delete(identifier, force=force)
    assert again.code == (0 if force else 1)
    assert force or "does not exist" in again.err


def test_running(leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Only with --force, and then with all its processes."""
    runtime.run(
        identifier, make_bundle("sh", "-c", "sleep 1001 & sleep 1002").path, "--detach"
    ).ok()
    refused = runtime.delete(identifier)
    assert refused.code == 1 and "not stopped: running" in refused.err
    runtime.delete(identifier, force=True).ok()


def test_two_at_once(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Both are content with --force, whoever was first."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    both = [runtime.popen("delete", "--force", identifier) for _ in range(3)]
    assert [process.wait(20) for process in both] == [0, 0, 0]


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "cut": lambda path: path.write_text(path.read_text()[:100]),
    "no object": lambda path: path.write_text("[1]"),
    "binary": lambda path: path.write_bytes(b"\0\xff" * 50),
    "wrong types": lambda path: path.write_text(
        json.dumps({**json.loads(path.read_text()), "pid": "many"})
    ),
    "a newer form": lambda path: path.write_text(
        json.dumps({**json.loads(path.read_text()), "format": 99})
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGES))
def test_a_damaged_state(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, damage: str
) -> None:
    """delete says what is wrong; delete --force clears the directory, and the waiting process with it."""
    runtime.create(identifier, make_bundle().path).ok()
    DAMAGES[damage](runtime.root / identifier / "state.json")
    for verb in (["state"], ["delete"], ["start"]):
        result = runtime(*verb, identifier)
        assert result.code == 1 and identifier in result.err, str(result)
        assert result.err.count("\n") == 1 and "Traceback" not in result.err
    assert runtime("list").code == 0
    runtime.delete(identifier, force=True).ok()
    assert not (runtime.root / identifier).exists()


def test_a_damaged_state_of_a_running_container(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """What still can be read of the state is used to end its process."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    path = runtime.root / identifier / "state.json"
    members = json.loads(path.read_text())
    members["created"] = 5
    path.write_text(json.dumps(members))
    assert "damaged" in runtime.delete(identifier).err
    runtime.delete(identifier, force=True).ok()
    deadline = time.monotonic() + 5
    while any("sleep 1000" in line for line in leaks.processes()):
        assert time.monotonic() < deadline
        leaks.reap()


def test_an_empty_directory(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """What a create leaves that was killed at once: no container, and no obstacle."""
    runtime.run(f"{identifier}0", make_bundle("true").path).ok()  # makes the root
    (runtime.root / identifier).mkdir(mode=0o700)
    assert runtime.delete(identifier).code == 1
    runtime.delete(identifier, force=True).ok()
    assert not (runtime.root / identifier).exists()
    (runtime.root / identifier).mkdir(mode=0o700)
    runtime.run(identifier, make_bundle("true").path).ok()


def test_regex_of_nothing(runtime: Runtime, make_bundle: Make) -> None:
    """No match, or no state root at all: nothing to do."""
    runtime("delete", "--regex", "x").ok()
    runtime.run("a", make_bundle().path, "--detach").ok()
    runtime("delete", "--force", "--regex", "x").ok()
    assert runtime.status("a") == "running"


def test_a_zombie_of_exec(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """Who called exec may never wait for its process: the container ends all the same, and at once."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    pid_file = tmp_path / "pid"
    runtime("exec", "-d", "--pid-file", str(pid_file), identifier, "true").ok()
    began = time.monotonic()
    runtime.kill(identifier, "KILL").ok()
    runtime.wait_status(identifier, "stopped")
    runtime.delete(identifier, force=True).ok()
    assert time.monotonic() - began < 5
    os.waitpid(int(pid_file.read_text()), 0)


def test_a_zombie_of_exec_and_delete_alone(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """delete --force of what runs; and where the state is damaged."""
    for number in range(2):
        id = f"{identifier}-{number}"
        runtime.run(id, make_bundle().path, "--detach").ok()
        pid_file = tmp_path / "pid"
        runtime("exec", "-d", "--pid-file", str(pid_file), id, "true").ok()
        if number:
            path = runtime.root / id / "state.json"
            path.write_text(json.dumps({**json.loads(path.read_text()), "created": 5}))
        began = time.monotonic()
        runtime.delete(id, force=True).ok()
        assert time.monotonic() - began < 5
        os.waitpid(int(pid_file.read_text()), 0)
