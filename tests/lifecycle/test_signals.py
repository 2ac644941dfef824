"""kill: which signals, to whom."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import leaks
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.01)


@pytest.fixture(params=["auto", "disabled"])
def manager(request: pytest.FixtureRequest, runtime: Runtime) -> Runtime:
    """With a cgroup where there is one, and without."""
    return Runtime(runtime.command, runtime.root, options=["--cgroup-manager", request.param])


@pytest.mark.parametrize(
    ("name", "number"), [("usr1", 10), ("SIGRTMIN+3", 37), ("rtmax-1", 63), ("34", 34)]
)
def test_signal_names(
    runtime: Runtime, make_bundle: Make, identifier: str, name: str, number: int
) -> None:
    """Real-time signals too, with offsets, in any case."""
    bundle = make_bundle(
        "sh", "-c", f"trap 'echo got; exit 5' {number}; touch /tmp/up; while :; do sleep 0.02; done"
    )
    created = runtime.run(identifier, bundle.path, "--detach").ok()
    wait_for(bundle.rootfs / "tmp/up")
    runtime.kill(identifier, name).ok()
    runtime.wait_status(identifier, "stopped")
    assert created.out == "got\n"


@pytest.mark.parametrize("name", ["NOSUCH", "0x9", "-1", "99", "SIG"])
def test_unknown_signals(runtime: Runtime, make_bundle: Make, identifier: str, name: str) -> None:
    """An error that repeats the word; nobody is signalled."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    result = runtime.kill(identifier, name)
    assert result.code == 1 and name in result.err
    assert runtime.status(identifier) == "running"


def test_all(manager: Runtime, make_bundle: Make, identifier: str) -> None:
    """--all reaches every process, by cgroup or by pid namespace, with any signal."""
    runtime = manager
    bundle = make_bundle(
        "sh",
        "-c",
        "for n in 1 2; do (trap 'echo $n >> /tmp/got; exit' USR1; touch /tmp/up$n;"
        " while :; do sleep 0.02; done) & done;"
        "trap 'echo 0 >> /tmp/got' USR1; touch /tmp/up; while :; do sleep 0.02; done",
    )
    bundle.without_namespace("cgroup")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    for name in ("up", "up1", "up2"):
        wait_for(bundle.rootfs / "tmp" / name)
    runtime("kill", "--all", identifier, "USR1").ok()
    deadline = time.monotonic() + 10
    got: list[str] = []
    while sorted(set(got)) != ["0", "1", "2"]:
        assert time.monotonic() < deadline, got
        time.sleep(0.02)
        if (bundle.rootfs / "tmp/got").exists():
            got = (bundle.rootfs / "tmp/got").read_text().split()
    assert runtime.status(identifier) == "running"
    runtime("kill", "--all", identifier, "KILL").ok()
    runtime.wait_status(identifier, "stopped")


def in_our_pid_namespace(bundle: Bundle) -> Bundle:
    """Without a procfs, which takes a pid namespace of its own."""
    bundle.without_namespace("pid")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "proc"]
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    return bundle


def test_all_with_a_shared_pid_namespace(
    v2: Path, leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Processes that outlive the first one are in its cgroup: kill --all finds them when it is gone."""
    bundle = in_our_pid_namespace(make_bundle("sh", "-c", "sleep 1001 & exec true"))
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    runtime.wait_status(identifier, "stopped")
    assert any("sleep 1001" in line for line in leaks.processes())
    runtime("kill", "--all", identifier, "KILL").ok()
    deadline = time.monotonic() + 5
    while any("sleep 1001" in line for line in leaks.processes()):
        assert time.monotonic() < deadline
        leaks.reap()
        time.sleep(0.02)
    runtime.delete(identifier).ok()


def test_delete_of_what_outlived_it(
    v2: Path, leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """A stopped container is deleted with all that is left of it, frozen or not."""
    bundle = in_our_pid_namespace(make_bundle("sh", "-c", "sleep 1002 & exec sleep 1003"))
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    deadline = time.monotonic() + 5
    while not any("sleep 1002" in line for line in leaks.processes()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    runtime("pause", identifier).ok()
    runtime.kill(identifier, "KILL").ok()
    runtime.wait_status(identifier, "stopped")
    assert any("sleep 1002" in line for line in leaks.processes())
    began = time.monotonic()
    runtime.delete(identifier).ok()
    assert time.monotonic() - began < 4
    leaks.reap()


def test_a_created_container(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """kill works on what was not started yet."""
    runtime.create(identifier, make_bundle().path).ok()
    runtime.kill(identifier, "KILL").ok()
    runtime.wait_status(identifier, "stopped")
    late = runtime.kill(identifier, "TERM")
    assert late.code == 1 and "container not running" in late.err


def test_regex(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """crun's --regex: every container whose id matches."""
    bundle = make_bundle()
    for name in ("a0", "a1", "a2", "b1"):
        runtime.run(name, bundle.path, "--detach").ok()
    runtime.kill("a0", "KILL").ok()
    runtime.wait_status("a0", "stopped")
    runtime("kill", "--regex", "^a[0-9]$", "KILL").ok()
    runtime.wait_status("a1", "stopped")
    runtime.wait_status("a2", "stopped")
    assert runtime.status("b1") == "running"
    listed = {e["id"]: e["status"] for e in json.loads(runtime("list", "-f", "json").ok().out)}
    assert listed == {"a0": "stopped", "a1": "stopped", "a2": "stopped", "b1": "running"}
    runtime("delete", "--regex", "^a").ok()
    assert [e["id"] for e in json.loads(runtime("list", "-f", "json").ok().out)] == ["b1"]
    runtime("delete", "--force", "--regex", ".").ok()
    assert runtime("list", "-q").ok().out == ""
    assert runtime("delete", "--regex", "(").code == 1
