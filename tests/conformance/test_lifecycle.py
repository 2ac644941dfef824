"""runtime.md: the operations, and what an error leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conformance.conftest import World
from tests.support import leaks
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

SCHEMA_MEMBERS = {"ociVersion": str, "id": str, "status": str, "pid": int, "bundle": str}


def program(bundle: Bundle) -> Bundle:
    """It leaves a file, and answers SIGUSR1 with another.

    No process comes or goes in it of itself: other tests count processes meanwhile.
    """
    return bundle.shell(
        "trap 'touch /tmp/usr1' USR1; touch /tmp/ran; while :; do sleep 1000 & wait; done"
    )


def stopped(world: World, bundle: Bundle) -> str:
    id = world.create(bundle)
    world.runtime.kill(id, "KILL").ok()
    world.runtime.wait_status(id, "stopped")
    return id


@pytest.mark.parametrize("verb", ["state", "create", "start", "kill", "delete"])
def test_an_operation_needs_an_id(world: World, bundle: Bundle, verb: str) -> None:
    """runtime.md, "Query State", "Create", "Start", "Kill", "Delete": without an id, an error."""
    options = ("--bundle", str(bundle.path)) if verb == "create" else ()
    result = world.runtime(verb, *options)
    assert result.code != 0 and result.err, str(result)


def test_create_needs_a_bundle(world: World, tmp_path: Path) -> None:
    """runtime.md, "Create": an error without a path to the bundle; ours defaults to the cwd."""
    id = world.id()
    result = world.runtime("create", id, cwd=tmp_path)
    assert result.code != 0 and "config.json" in result.err
    assert world.runtime.status(id) == ""


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete"])
def test_a_container_that_does_not_exist(world: World, verb: str) -> None:
    """runtime.md, "Query State": to query a container that does not exist MUST be an error."""
    result = world.runtime(verb, "nobody", *(("KILL",) if verb == "kill" else ()))
    assert result.code != 0 and "nobody" in result.err


@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_the_state(world: World, bundle: Bundle, status: str) -> None:
    """runtime.md, "State" and "Query State": the REQUIRED members, with what is true of them.

    The format MUST adhere to the JSON schema (tests/spec/test_schema_examples.py has the original).
    """
    bundle.config["annotations"] = {"org.example.key": "value"}
    id = world.create(bundle)
    if status != "created":
        world.runtime.start(id).ok()
    if status == "stopped":
        world.runtime.kill(id, "KILL").ok()
        world.runtime.wait_status(id, "stopped")
    state = world.runtime.state(id)
    assert {key: type(state[key]) for key in SCHEMA_MEMBERS} == SCHEMA_MEMBERS
    assert state["id"] == id and state["status"] == status
    assert state["bundle"] == str(bundle.path) and state["annotations"] == {
        "org.example.key": "value"
    }
    assert state["ociVersion"].split(".")[0] == "1"
    if status != "stopped":
        assert os.path.isdir(f"/proc/{state['pid']}")


def test_more_statuses_are_of_more_states(world: World, bundle: Bundle, v2: Path) -> None:
    """runtime.md, "State": another status MUST be of a state that is not defined there: paused."""
    id = world.create(bundle)
    world.runtime.start(id).ok()
    world.runtime("pause", id).ok()
    assert world.runtime.status(id) == "paused"
    world.runtime("resume", id).ok()
    assert world.runtime.status(id) == "running"


def test_ids_are_unique(world: World, bundle: Bundle) -> None:
    """runtime.md, "State" and "Create": an id that is taken MUST be an error, and change nothing."""
    id = world.create(bundle)
    before = world.runtime.state(id)
    assert world.runtime.create(id, world.bundle().path).code != 0
    assert world.runtime.state(id) == before


@pytest.mark.parametrize("id", ["", ".", "..", "a/b", "a b", "x" * 1025, "é"])
def test_ids_are_valid(world: World, bundle: Bundle, id: str) -> None:
    """runtime.md, "Create": an id that is not valid MUST be an error, and no container is made."""
    before = set(os.listdir(world.runtime.root)) if world.runtime.root.exists() else set()
    result = world.runtime.create(id, bundle.path)
    assert result.code != 0 and result.err, str(result)
    after = set(os.listdir(world.runtime.root)) if world.runtime.root.exists() else set()
    assert after == before


def test_create_makes_all_but_the_program(world: World, bundle: Bundle) -> None:
    """runtime.md, "Lifecycle" and "Create": everything MUST be made, the program MUST NOT run yet."""
    bundle.process["rlimits"] = [{"type": "RLIMIT_CPU", "soft": 1000, "hard": 2000}]
    id = world.create(program(bundle))
    state = world.runtime.state(id)
    assert state["status"] == "created"
    pid = state["pid"]
    own = os.readlink("/proc/self/ns/net")
    assert os.readlink(f"/proc/{pid}/ns/net") != own
    assert not (bundle.rootfs / "tmp/ran").exists()
    limits = next(x for x in Path(f"/proc/{pid}/limits").read_text().splitlines() if "cpu" in x)
    assert limits.split()[3:5] == ["1000", "2000"]


def test_changes_after_create_have_no_effect(world: World, bundle: Bundle) -> None:
    """runtime.md, "Lifecycle" and "Create": changes to config.json MUST NOT affect the container."""
    marks = bundle.path / "after"
    bundle.config["hooks"] = {"poststop": [{"path": "/bin/sh", "args": ["sh", "-c", f">{marks}"]}]}
    id = world.create(program(bundle))
    bundle.args("touch", "/tmp/other")
    bundle.config["hooks"] = {"poststart": [{"path": "/bin/false"}]}
    bundle.write()
    world.runtime.start(id).ok()
    wait_for(bundle.rootfs / "tmp/ran")
    world.runtime.delete(id, force=True).ok()
    assert marks.exists() and not (bundle.rootfs / "tmp/other").exists()


def wait_for(path: Path) -> None:
    import time

    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.01)


def test_start_runs_the_program(world: World, bundle: Bundle) -> None:
    """runtime.md, "Lifecycle" and "Start": the user-specified program MUST run."""
    id = world.create(program(bundle))
    world.runtime.start(id).ok()
    wait_for(bundle.rootfs / "tmp/ran")
    assert world.runtime.status(id) == "running"


@pytest.mark.parametrize("status", ["running", "stopped"])
def test_start_of_what_is_not_created(world: World, bundle: Bundle, status: str) -> None:
    """runtime.md, "Start": of a container that is not created, no effect, and an error."""
    if status == "running":
        id = world.create(bundle)
        world.runtime.start(id).ok()
    else:
        id = stopped(world, bundle)
    before = world.runtime.state(id)
    result = world.runtime.start(id)
    assert result.code != 0 and status in result.err
    assert world.runtime.state(id) == before


def test_start_needs_a_process(world: World, bundle: Bundle) -> None:
    """runtime.md, "Start", and config.md, "Process": an error if process was not set.

    "Create": all the rest of the configuration MUST be applied all the same.
    """
    del bundle.config["process"]
    id = world.create(bundle)
    before = world.runtime.state(id)
    assert before["status"] == "created"
    result = world.runtime.start(id)
    assert result.code != 0 and "/process" in result.err, str(result)
    assert world.runtime.state(id) == before


def test_run_needs_a_process(world: World, bundle: Bundle) -> None:
    """config.md, "Process": REQUIRED when start is called, so by run too; nothing is made."""
    del bundle.config["process"]
    id = world.id()
    result = world.runtime.run(id, bundle.write().path)
    assert result.code != 0 and "/process" in result.err, str(result)
    assert world.runtime.status(id) == "" and not (world.runtime.root / id).exists()


def test_kill_sends_the_signal(world: World, bundle: Bundle) -> None:
    """runtime.md, "Kill": the signal MUST be sent to the container process."""
    id = world.create(program(bundle))
    world.runtime.start(id).ok()
    wait_for(bundle.rootfs / "tmp/ran")
    world.runtime.kill(id, "USR1").ok()
    wait_for(bundle.rootfs / "tmp/usr1")
    world.runtime.kill(id, str(int(signal.SIGKILL))).ok()
    world.runtime.wait_status(id, "stopped")


def test_kill_of_what_was_not_started(world: World, bundle: Bundle) -> None:
    """runtime.md, "Kill": a created container's process gets the signal as well."""
    id = world.create(bundle)
    world.runtime.kill(id, "KILL").ok()
    world.runtime.wait_status(id, "stopped")


def test_kill_of_what_has_stopped(world: World, bundle: Bundle) -> None:
    """runtime.md, "Kill": of a container that is neither created nor running, an error, no effect."""
    id = stopped(world, bundle)
    before = world.runtime.state(id)
    assert world.runtime.kill(id, "TERM").code != 0
    assert world.runtime.state(id) == before


def test_delete_of_what_runs(world: World, bundle: Bundle) -> None:
    """runtime.md, "Delete": of a container that is not stopped, an error, no effect.

    One that was merely created is deleted, as callers of all runtimes expect.
    """
    id = world.create(bundle)
    world.runtime.start(id).ok()
    before = world.runtime.state(id)
    result = world.runtime.delete(id)
    assert result.code != 0 and "running" in result.err
    assert world.runtime.state(id) == before


def test_delete_removes_what_create_made(world: World, bundle: Bundle) -> None:
    """runtime.md, "Lifecycle" and "Delete": the steps of create MUST be undone."""
    leaks.reap()
    before = leaks.snapshot([world.runtime.root])
    id = world.create(bundle)
    world.runtime.start(id).ok()
    world.runtime.kill(id, "KILL").ok()
    world.runtime.wait_status(id, "stopped")
    world.runtime.delete(id).ok()
    assert leaks.settle(before, [world.runtime.root]) == []


def test_delete_leaves_what_create_did_not_make(world: World, bundle: Bundle) -> None:
    """runtime.md, "Delete": resources that were not created by this container MUST NOT be deleted."""
    data = bundle.path / "data"
    data.mkdir()
    (data / "file").write_text("x")
    entry = {"destination": "/data", "source": str(data), "options": ["rbind"]}
    bundle.config["mounts"].append(entry)
    config = (bundle.write().path / "config.json").read_bytes()
    id = stopped(world, bundle)
    world.runtime.delete(id).ok()
    assert (data / "file").read_text() == "x" and (bundle.rootfs / "bin/busybox").exists()
    assert (bundle.path / "config.json").read_bytes() == config


def test_an_id_can_be_used_again(world: World, bundle: Bundle) -> None:
    """runtime.md, "Delete": once a container is deleted its id may be used again."""
    id = stopped(world, bundle)
    world.runtime.delete(id).ok()
    world.runtime.create(id, bundle.path).ok()


@pytest.mark.parametrize(
    ("pointer", "change"),
    [
        ("/process/args/0", {"process": {"args": ["no-such-program"]}}),
        ("/process/user/uid", {"process": {"user": {"uid": 4294967294, "gid": 0}}}),
        ("/mounts", {"mounts": [{"destination": "/x", "type": "nofs", "source": "x"}]}),
        ("/linux/sysctl", {"linux": {"sysctl": {"net.no.such.thing": "1"}}}),
    ],
)
def test_what_cannot_be_made_is_an_error(
    world: World, bundle: Bundle, pointer: str, change: dict[str, dict[str, object]]
) -> None:
    """runtime.md, "Lifecycle", "Create" and "Errors": an error that leaves all as it was."""
    for key, value in change.items():
        if isinstance(value, list):
            bundle.config[key] = bundle.config[key] + value
        else:
            bundle.config[key].update(value)
    if pointer == "/process/user/uid" and os.getuid() == 0 and "uidMappings" not in bundle.linux:
        bundle.linux["namespaces"].append({"type": "user"})
        for key in ("uidMappings", "gidMappings"):
            bundle.linux[key] = [{"containerID": 0, "hostID": 100000, "size": 1000}]
    leaks.reap()
    before = leaks.snapshot([world.runtime.root])
    world.refused(bundle, pointer)
    assert leaks.settle(before, [world.runtime.root]) == []


def test_who_creates_can_operate(world: World, bundle: Bundle) -> None:
    """runtime.md, "Scope of a Container" and "Operations": the creator MUST be able to use them all."""
    first = world.runtime
    id = world.create(bundle)
    again = Runtime(first.command, first.root)  # another process that knows nothing but the state
    assert again.status(id) == "created"
    again.start(id).ok()
    again.kill(id, "KILL").ok()
    again.wait_status(id, "stopped")
    again.delete(id).ok()


def test_two_ids_cannot_be_made_at_once(world: World, bundle: Bundle) -> None:
    """runtime.md, "Create": of two that create the same id at the same time one MUST fail."""
    id = world.id()
    racers = [
        world.runtime.popen("create", "--bundle", str(bundle.path), id, stderr=subprocess.DEVNULL)
        for _ in range(2)
    ]
    codes = sorted(racer.wait(30) for racer in racers)
    assert codes[0] == 0 and codes[1] != 0
    assert json.loads(world.runtime("state", id).ok().out)["status"] == "created"
