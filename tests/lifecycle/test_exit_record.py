"""How a container ended and what it had used: `exit` in its state."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import ChildError, HostError, KilledError
from rootless_pyoki.lifecycle import exit_record, oom
from rootless_pyoki.state import container_state
from tests.support import leaks
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime, default_command

Make = Callable[..., Bundle]
LIMITS = (("memory.max", "4096", "/linux/resources/memory/limit"),)
MEMBERS = ["code", "signal", "oomKilled", "memoryPeak", "cpuUsage", "at"]
BUSY = "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; "


def record(runtime: Runtime, id: str) -> dict[str, Any]:
    found: dict[str, Any] = runtime.state(id)["pyoki"]["exit"]
    assert list(found) == MEMBERS
    return found


def test_a_foreground_run(both_ways: Runtime, v2: Path, make_bundle: Make, identifier: str) -> None:
    """run --keep knows how the program ended, when, and what its cgroup has counted."""
    bundle = make_bundle("sh", "-c", BUSY + "exit 3")
    assert both_ways.run(identifier, bundle.path, "--keep").code == 3
    found = record(both_ways, identifier)
    assert (found["code"], found["signal"]) == (3, 0)
    assert 5_000 < found["cpuUsage"] < 20_000_000
    assert found["at"].startswith(time.strftime("%Y-%m-%dT", time.gmtime()))
    assert found["at"] > both_ways.state(identifier)["created"]
    if not Path(v2, "memory.events").exists():
        assert found["oomKilled"] == found["memoryPeak"] == "unknown"


def test_a_signal(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """The number of the signal, and the code as a shell counts it."""
    process = runtime.popen("run", "--keep", "--bundle", str(make_bundle().path), identifier)
    runtime.wait_status(identifier, "running")
    runtime.kill(identifier, "KILL").ok()
    assert process.wait(10) == 137
    assert record(runtime, identifier)["code"] == 137
    assert record(runtime, identifier)["signal"] == 9


def test_without_a_cgroup(state_root: Path, make_bundle: Make, identifier: str) -> None:
    """The program's own CPU time, as wait4 tells it; of memory nothing is known."""
    runtime = Runtime(default_command(), state_root, options=["--cgroup-manager", "disabled"])
    try:
        bundle = make_bundle("sh", "-c", BUSY)
        runtime.run(identifier, bundle.path, "--keep").ok()
        found = record(runtime, identifier)
        assert (found["code"], found["signal"]) == (0, 0)
        assert 5_000 < found["cpuUsage"] < 20_000_000
        assert found["memoryPeak"] == found["oomKilled"] == "unknown"
    finally:
        runtime.clear()


def test_somebody_elses_child(
    v2: Path, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """After create and start by others only the cgroup tells; --verbose shows the same."""
    runtime.create(identifier, make_bundle("sh", "-c", BUSY + "exit 3").path).ok()
    assert "pyoki" not in runtime.state(identifier)
    runtime.start(identifier).ok()
    runtime.wait_status(identifier, "stopped")
    leaks.reap()
    found = record(runtime, identifier)
    assert found["code"] == found["signal"] == found["at"] == "unknown"
    assert found["cpuUsage"] > 5_000
    verbose = json.loads(runtime("state", "--verbose", identifier).ok().out)["pyoki"]
    assert list(verbose) == ["notes", "cgroup", "exit"] and verbose["exit"] == found
    runtime.delete(identifier).ok()


def test_lists_stay_as_runcs(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """`list` has runc's members only; the state of a living container too."""
    runtime.run(identifier, make_bundle("true").path, "--keep").ok()
    listed = json.loads(runtime("list", "--format", "json").ok().out)
    assert "pyoki" not in listed[0]


def test_nothing_is_said(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A run that went well prints nothing; its figures are for --debug."""
    bundle = make_bundle("true").path
    assert runtime.run(identifier, bundle).ok().err == ""
    log = runtime.root.parent / "log"
    runtime.options[:] = ["--debug", "--log", str(log)]
    runtime.run(identifier, bundle).ok()
    assert "the program has ended: code 0, signal 0" in log.read_text()


def test_older_states_are_read(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A state without the member is as good; one that never ended does not write it."""
    runtime.create(identifier, make_bundle().path).ok()
    path = runtime.root / identifier / "state.json"
    assert "exit" not in json.loads(path.read_bytes())
    assert container_state.decode(path.read_bytes(), identifier).exit is None


def test_unknown() -> None:
    """No cgroup, or one that is gone: nothing is known, and nothing is an error."""
    unknown = dict.fromkeys(MEMBERS, "unknown")
    assert exit_record.observe("") == unknown
    assert exit_record.observe("/sys/fs/cgroup/nobody/made/this") == unknown
    witness = exit_record.Witness("/sys/fs/cgroup/nobody/made/this")
    assert witness.record == unknown and witness.interests() == []
    witness.ended(9, (100, 20))
    witness.close()
    assert (witness.record["code"], witness.record["signal"]) == (137, 9)
    assert witness.record["cpuUsage"] == 120


def test_the_cgroup_vanishes(v2: Path) -> None:
    """What was seen before the cgroup went is kept, and poll has nothing more to report of it."""
    path = v2 / "test-exit-record"
    path.mkdir()
    witness = exit_record.Witness(str(path))
    seen = dict(witness.record)
    path.rmdir()
    assert seen["cpuUsage"] == 0 and witness.empty
    witness.look()
    witness.ended(3 << 8, (7, 7))
    assert {**seen, "code": 3, "signal": 0, "at": witness.record["at"]} == witness.record
    witness.close()


def test_it_vanishes_unseen(v2: Path) -> None:
    """What was read while the program still ran is no figure of its end, but an OOM kill is one."""
    path = v2 / "test-exit-record"
    path.mkdir()
    witness = exit_record.Witness(str(path))
    path.rmdir()
    witness.empty = False
    witness.record.update(oomKilled=True, memoryPeak=5)
    witness.files.pop("memory.peak", -1)
    witness.look()
    assert witness.interests() == []
    witness.ended(9, (7, 8))
    assert (witness.record["oomKilled"], witness.record["memoryPeak"]) == (True, "unknown")
    assert witness.record["cpuUsage"] == 15


def test_a_peak_at_the_limit(tmp_path: Path) -> None:
    """The limit was reached before the cgroup vanished: the peak cannot have become more."""
    witness = exit_record.Witness("/sys/fs/cgroup/nobody/made/this")
    for oom_count, peak in ((0, "unknown"), (1, 4096)):
        for name, text in (
            ("memory.events", f"oom {oom_count}\noom_kill 0"),
            ("memory.peak", "4096"),
        ):
            (tmp_path / name).write_text(f"{text}\n")
            witness.files[name] = os.open(tmp_path / name, os.O_RDONLY)
        witness.look()
        witness.close()
        witness.ended(0, (0, 0))
        assert witness.record["memoryPeak"] == peak


def test_no_verdict_without_a_cgroup() -> None:
    """Whom nobody saw die of the OOM killer died as was said."""
    error = KilledError("start: killed")
    assert oom.explain("", error) is error
    assert oom.explain("/sys/fs/cgroup/nobody/made/this", error) is error
    assert oom.explain("", error, "4096") is error
    told = oom.explain("/sys/fs/cgroup/nobody/made/this", error, "4096")
    assert told.message.endswith("it seems by the kernel's OOM killer; memory.max is 4096 bytes")
    oom.Guard("/sys/fs/cgroup/nobody/made/this", LIMITS).require(os.getpid())
    assert isinstance(error, ChildError)


def test_the_verdict(tmp_path: Path) -> None:
    """A process that the limit has killed is told with the limit; one that lives is no error."""
    events = tmp_path / "memory.events"
    events.write_text("max 4\noom 0\noom_kill 0\n")
    oom.Guard(str(tmp_path), LIMITS).require(os.getpid())
    guard = oom.Guard(str(tmp_path), LIMITS)
    events.write_text("max 4\noom 1\noom_kill 1\n")
    with pytest.raises(
        HostError, match=r"already uses: killed by the .*memory\.max is 4096 bytes"
    ) as caught:
        guard.require(os.getpid())
    assert caught.value.pointer == "/linux/resources/memory/limit"


def test_the_verdict_when_the_cgroup_is_gone(v2: Path) -> None:
    """systemd removes an empty scope at once: then the death of the process alone must do."""
    for pid, killed in ((os.getpid(), False), (2**22 + 1, True)):
        path = v2 / "test-oom"
        path.mkdir()
        guard = oom.Guard(str(path), LIMITS)
        guard.events = os.open(
            path / "cgroup.events", os.O_RDONLY
        )  # memory.events may not be there
        path.rmdir()
        if killed:
            with pytest.raises(HostError, match="killed, it seems by the kernel's OOM killer"):
                guard.require(pid)
        else:
            guard.require(pid)


def limited(make_bundle: Make, limit: int, *args: str) -> Bundle:
    bundle = make_bundle(*args)
    bundle.linux["resources"] = {"memory": {"limit": limit, "swap": limit}}
    return bundle.write()


@pytest.mark.controllers
def test_oom_killed(
    memory: None, leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The OOM killer's verdict, and the peak at the limit; one line at level info."""
    log = runtime.root.parent / "log"
    runtime.options[:] = ["--log-level", "info", "--log", str(log)]
    bundle = limited(make_bundle, 20 << 20, "sh", "-c", "exec tail /dev/zero")
    assert runtime.run(identifier, bundle.path, "--keep").code == 137
    found = record(runtime, identifier)
    assert (found["code"], found["signal"], found["oomKilled"]) == (137, 9, True)
    assert 15 << 20 < found["memoryPeak"] <= 20 << 20
    assert log.read_text().count("OOM killer") == 1
    runtime.delete(identifier).ok()


@pytest.mark.controllers
def test_peak_of_one_that_ended_well(
    memory: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Not killed, and it used as much as it did."""
    bundle = limited(
        make_bundle, 60 << 20, "sh", "-c", "dd if=/dev/zero of=/dev/null bs=10M count=1"
    )
    runtime.run(identifier, bundle.path, "--keep").ok()
    found = record(runtime, identifier)
    assert found["oomKilled"] is False and 8 << 20 < found["memoryPeak"] < 60 << 20


@pytest.mark.controllers
@pytest.mark.parametrize("verb", ["create", "run"])
def test_a_limit_too_small_to_start(
    memory: None, leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, verb: str
) -> None:
    """The limit is named, not the signal, and nothing is left."""
    bundle = limited(make_bundle, 4096, "true")
    result = runtime(verb, "--bundle", str(bundle.path), identifier)
    assert result.code == 1
    assert "limit below what the container already uses: killed" in result.err
    assert "by the kernel's OOM killer; memory.max is 4096 bytes" in result.err
    assert "/linux/resources/memory/limit" in result.err
    assert runtime.status(identifier) == ""
