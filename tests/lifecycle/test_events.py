"""events: runc's objects, one a line, every so often and whenever something happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.cgroups.stats import UNLIMITED, HugePages, Pressure, Stall, Stats
from rootless_pyoki.lifecycle import event_stats
from rootless_pyoki.lifecycle import events as source
from tests.support.bundles import Bundle
from tests.support.runtime import TIMEOUT, Runtime

Make = Callable[..., Bundle]

# types/events.go of runc 1.5, the members that cgroup v2 can fill
SHAPE = {
    "cpu": {
        "usage": {"total", "kernel", "user"},
        "throttling": {"periods", "throttledPeriods", "throttledTime"},
        "psi": {"some", "full"},
    },
    "cpuset": {"cpus", "mems"},
    "memory": {
        "cache": {},
        "usage": {"limit", "usage", "max", "failcnt"},
        "swap": {"limit", "usage", "failcnt"},
        "kernel": {"limit", "usage", "failcnt"},
        "kernelTCP": {"limit", "usage", "failcnt"},
        "raw": {},
        "psi": {"some", "full"},
    },
    "pids": {"current", "limit"},
    "blkio": {"ioServiceBytesRecursive": {}, "ioServicedRecursive": {}, "psi": {"some", "full"}},
    "hugetlb": {},
    "intel_rdt": {},
    "network_interfaces": {},
}
STALL = Stall(avg10=1.0, avg60=2.0, avg300=3.0, total=4)
FULL = Stats(
    cpu_stat={
        "usage_usec": 3, "user_usec": 1, "system_usec": 2,
        "nr_periods": 4, "nr_throttled": 5, "throttled_usec": 6,
    },
    cpu_pressure=Pressure(some=STALL, full=STALL),
    cpuset_cpus_effective=(0, 1),
    cpuset_mems_effective=(0,),
    memory_current=100, memory_max=200, memory_peak=150,
    memory_swap_current=10, memory_swap_max=20,
    memory_stat={"file": 7, "kernel": 8, "sock": 9},
    memory_events={"max": 11, "oom_kill": 0},
    memory_pressure=Pressure(some=STALL, full=STALL),
    pids_current=2, pids_max=UNLIMITED,
    io_stat={"8:16": {"rbytes": 1, "wbytes": 2, "rios": 3, "wios": 4, "dios": 5}},
    io_pressure=Pressure(some=STALL, full=STALL),
    hugetlb={"2MB": HugePages(current=1, max=2, failures=3)},
)  # fmt: skip


def shaped(data: Any, shape: Any, full: bool) -> None:
    """The members are those of the shape: all of them, or none that it does not have."""
    if not shape:
        return
    assert set(data) <= set(shape) and (not full or set(data) == set(shape)), data
    if isinstance(shape, dict):
        for name in data:
            shaped(data[name], shape[name], full)


def test_shape() -> None:
    """Each figure stands where runc has it, in runc's units."""
    data = event_stats.data(FULL)
    shaped(data, SHAPE, True)
    view: Any = json.loads(json.dumps(data))
    assert view["cpu"]["usage"] == {"total": 3000, "kernel": 2000, "user": 1000}
    assert view["cpu"]["throttling"] == {
        "periods": 4, "throttledPeriods": 5, "throttledTime": 6000
    }  # fmt: skip
    stall = {"avg10": 1.0, "avg60": 2.0, "avg300": 3.0, "total": 4}
    assert view["cpu"]["psi"] == view["blkio"]["psi"] == {"some": stall, "full": stall}
    assert view["memory"]["usage"] == {"limit": 200, "usage": 100, "max": 150, "failcnt": 11}
    assert view["memory"]["swap"] == {"limit": 220, "usage": 110, "failcnt": 0}
    assert view["memory"]["raw"] == {"file": 7, "kernel": 8, "sock": 9}
    assert view["pids"] == {"current": 2, "limit": 0}
    assert view["blkio"]["ioServiceBytesRecursive"] == [
        {"major": 8, "minor": 16, "op": "Read", "value": 1},
        {"major": 8, "minor": 16, "op": "Write", "value": 2},
    ]
    assert view["hugetlb"] == {"2MB": {"usage": 1, "failcnt": 3}}


def test_swap_without_a_limit() -> None:
    """No limit of either is none of both together, and no sum that is too large for a Go uint64."""
    unlimited = Stats(
        memory_current=1, memory_max=UNLIMITED, memory_swap_current=1, memory_swap_max=5,
        memory_stat={},
    )  # fmt: skip
    view: Any = event_stats.data(unlimited)
    assert view["memory"]["swap"]["limit"] == 2**64 - 1


def test_nothing_known() -> None:
    """Of a cgroup that tells nothing there is the frame and no figure."""
    assert event_stats.data(Stats()) == {
        "cpu": {"usage": {}, "throttling": {}}, "cpuset": {}, "memory": {}, "pids": {},
        "blkio": {}, "hugetlb": {}, "intel_rdt": {}, "network_interfaces": [],
    }  # fmt: skip


@pytest.fixture
def running(v2: Path, runtime: Runtime, make_bundle: Make, identifier: str) -> str:
    """A container that sleeps."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    return identifier


def follow(runtime: Runtime, *words: str) -> subprocess.Popen[bytes]:
    return runtime.popen("events", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def sleeping(pid: int) -> bool:
    """In poll, with the cgroup's events open."""
    opened = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            opened.append(os.readlink(entry))
        except FileNotFoundError:
            pass  # closed meanwhile
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return state == "S" and any(path.endswith("/cgroup.events") for path in opened)


def listening(process: subprocess.Popen[bytes]) -> None:
    """Wait until it watches the cgroup's events."""
    deadline = time.monotonic() + TIMEOUT
    while not sleeping(process.pid):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)


def ended(process: subprocess.Popen[bytes]) -> list[dict[str, Any]]:
    """Its lines, when it has ended well."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, err) == (0, b"")
    return [json.loads(line) for line in out.splitlines()]


def test_stats(both_ways: Runtime, v2: Path, make_bundle: Make, identifier: str) -> None:
    """--stats: one object, of a created container too; all that it has is in runc's table."""
    both_ways.create(identifier, make_bundle().path).ok()
    lines = both_ways("events", "--stats", identifier).ok().out.splitlines()
    assert len(lines) == 1
    event = json.loads(lines[0])
    assert list(event) == ["type", "id", "data"]
    assert (event["type"], event["id"]) == ("stats", identifier)
    shaped(event["data"], SHAPE, False)
    assert event["data"]["cpu"]["usage"]["total"] > 0


def test_every_interval(running: str, runtime: Runtime) -> None:
    """A line when the interval has passed, and again; the end of the container is the end."""
    process = follow(runtime, "--interval=100ms", running)
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    second = json.loads(process.stdout.readline())
    assert (first["type"], second["type"]) == ("stats", "stats")
    runtime.kill(running, "KILL").ok()
    assert all(event["type"] == "stats" for event in ended(process))


def test_it_wakes(running: str, runtime: Runtime) -> None:
    """What happens is told at once, not at the next interval: frozen, thawed, and the end, with
    what is known of it.
    """
    process = follow(runtime, "--all", "--interval", "1h", running)
    listening(process)
    runtime("pause", running).ok()
    runtime("resume", running).ok()
    runtime.kill(running, "KILL").ok()
    events = ended(process)
    assert [event["type"] for event in events] == ["freeze", "thaw", "exit"]
    assert events[2]["data"]["code"] == "unknown" and events[2]["data"]["cpuUsage"] > 0


def test_only_runcs_types(running: str, runtime: Runtime) -> None:
    """Without --all nothing comes that runc would not have said."""
    process = follow(runtime, "--interval", "1h", running)
    listening(process)
    runtime("pause", running).ok()
    runtime("resume", running).ok()
    runtime.kill(running, "KILL").ok()
    assert ended(process) == []


def test_the_reader_leaves(running: str, runtime: Runtime) -> None:
    """When nobody reads any more it ends at once and quietly, though nothing is to be said."""
    process = follow(runtime, "--interval", "1h", running)
    assert process.stdout is not None and process.stderr is not None
    listening(process)
    process.stdout.close()
    assert process.wait(5) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


@pytest.mark.parametrize("options", [[], ["--stats"]])
def test_a_stopped_one(
    runtime: Runtime, make_bundle: Make, identifier: str, options: list[str]
) -> None:
    """runc's words, whether or not the container has a cgroup."""
    runtime.run(identifier, make_bundle("true").path, "--keep").ok()
    result = runtime("events", *options, identifier)
    assert (result.code, result.out) == (1, "")
    assert f"container with id {identifier} is not running" in result.err


def test_without_a_cgroup(state_root: Path, make_bundle: Make, identifier: str) -> None:
    """Nothing can be measured: it is said, with the reason."""
    from tests.support.runtime import default_command

    runtime = Runtime(default_command(), state_root, options=["--cgroup-manager", "disabled"])
    try:
        runtime.run(identifier, make_bundle().path, "--detach").ok()
        result = runtime("events", "--stats", identifier)
        assert result.code == 1 and "has no cgroup" in result.err and "disabled" in result.err
    finally:
        runtime.clear()


def test_interrupted(running: str, runtime: Runtime) -> None:
    """SIGTERM ends it as any program."""
    process = follow(runtime, "--interval", "1h", running)
    listening(process)
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM
    process.communicate()


def test_counters(tmp_path: Path) -> None:
    """A counter that has risen is an event, once; "oom" is runc's name for an OOM kill."""
    counters = tmp_path / "memory.events"
    counters.write_text("low 0\nhigh 0\nmax 1\noom 1\noom_kill 1\n")
    (tmp_path / "pids.events").write_text("max 0\n")
    fd = os.open(tmp_path, os.O_RDONLY)
    plain, every = source.Watch("x", fd, False), source.Watch("x", fd, True)
    os.close(fd)
    assert list(plain.changes()) == list(every.changes()) == []
    counters.write_text("low 0\nhigh 0\nmax 4\noom 2\noom_kill 3\n")
    (tmp_path / "pids.events").write_text("max 2\n")
    assert list(plain.changes()) == [{"type": "oom", "id": "x"}]
    assert list(every.changes()) == [
        {"type": "oom", "id": "x"},
        {"type": "oom_kill", "id": "x", "data": {"count": 3}},
        {"type": "max", "id": "x", "data": {"count": 4}},
        {"type": "pids_max", "id": "x", "data": {"count": 2}},
    ]
    assert list(plain.changes()) == list(every.changes()) == []


def hog(make_bundle: Make, megabytes: int, limit: int) -> Bundle:
    """A program whose child takes memory for ever, and that says when it has ended."""
    bundle = make_bundle(
        "sh", "-c", f"head -c {megabytes}m /dev/zero | tail >/dev/null; sleep 0.3; exit 5"
    )
    bundle.linux["resources"] = {"memory": {"limit": limit, "swap": limit}}
    return bundle.write()


@pytest.mark.controllers
def test_oom(
    memory: None, leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The OOM killer's work is told while the container still runs."""
    runtime.create(identifier, hog(make_bundle, 200, 20 << 20).path).ok()
    process = follow(runtime, "--interval", "1h", identifier)
    listening(process)
    runtime.start(identifier).ok()
    assert {"type": "oom", "id": identifier} in ended(process)
    runtime.delete(identifier).ok()
