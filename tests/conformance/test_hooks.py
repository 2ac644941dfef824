"""config.md, "POSIX-platform Hooks", and what runtime.md, "Lifecycle" says of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import World
from tests.support.bundles import Bundle

OUTSIDE = ("prestart", "createRuntime", "poststart", "poststop")
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
NAMESPACES = ("mnt", "pid", "net", "ipc", "uts")
# what a hook of each kind leaves in its own folder: its number, its state, its namespaces, its root
REPORT = (
    "d=$1/$2; mkdir -p $d; cat > $d/state; for n in mnt pid net ipc uts; do readlink /proc/self/ns/$n;"
    "done > $d/ns; ls / > $d/root; [ -e /tmp/ran ] && touch $d/ran; echo $2 >> $1/order; true"
)


def hook(folder: str, name: str, script: str = REPORT, **more: Any) -> dict[str, Any]:
    """The shell is found at the same place outside and inside."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script, "sh", folder, name],
            "env": ["PATH=/bin:/usr/bin"], **more}  # fmt: skip


class Lifetime:
    """What the hooks of one container have left, and what was seen from outside meanwhile."""

    def __init__(self, world: World) -> None:
        runtime = world.runtime
        self.bundle = bundle = world.bundle("sh", "-c", "touch /tmp/ran; sleep 1000")
        self.folder = bundle.rootfs / "tmp"
        bundle.config["annotations"] = {"org.example.key": "value"}
        bundle.config["hooks"] = {
            kind: [
                hook("/tmp" if kind == "startContainer" else str(self.folder), f"{kind}{n}")
                for n in (1, 2)
            ]
            for kind in KINDS
        }
        self.id = world.create(bundle)
        self.pid = runtime.state(self.id)["pid"]
        self.after_create = self.order()
        self.inside = [os.readlink(f"/proc/{self.pid}/ns/{name}") for name in NAMESPACES[1:]]
        runtime.start(self.id).ok()
        self.after_start = self.order()
        runtime.kill(self.id, "KILL").ok()
        runtime.wait_status(self.id, "stopped")
        runtime.delete(self.id).ok()
        self.after_delete = self.order()
        self.status_in_the_end = runtime.status(self.id)

    def order(self) -> list[str]:
        try:
            return (self.folder / "order").read_text().split()
        except FileNotFoundError:
            return []

    def state(self, kind: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / f"{kind}1/state").read_text())
        return found

    def lines(self, kind: str, name: str) -> list[str]:
        return (self.folder / f"{kind}1" / name).read_text().split()


@pytest.fixture(scope="module")
def lifetime(world: World) -> Lifetime:
    return Lifetime(world)


@pytest.mark.parametrize("kind", KINDS)
def test_paths_resolve_where_they_must(lifetime: Lifetime, kind: str) -> None:
    """config.md, "POSIX-platform Hooks": in the runtime's namespace, startContainer's in the container's.

    So also "Prestart", "CreateRuntime Hooks", "CreateContainer Hooks", "StartContainer Hooks",
    "Poststart" and "Poststop". Every hook is given a folder that is there under that name on its side only.
    """
    assert (lifetime.folder / f"{kind}1/root").exists()


@pytest.mark.parametrize("kind", OUTSIDE)
def test_hooks_of_the_runtime_namespace(lifetime: Lifetime, kind: str) -> None:
    """config.md, "POSIX-platform Hooks": these MUST be executed in the runtime namespace.

    So also "Prestart", "CreateRuntime Hooks", "Poststart" and "Poststop".
    """
    own = [os.readlink(f"/proc/self/ns/{name}") for name in NAMESPACES]
    assert lifetime.lines(kind, "ns") == own


@pytest.mark.parametrize("kind", ["createContainer", "startContainer"])
def test_hooks_of_the_container_namespace(lifetime: Lifetime, kind: str) -> None:
    """config.md, "POSIX-platform Hooks": these MUST be executed in the container namespace.

    So also "CreateContainer Hooks" and "StartContainer Hooks".
    """
    assert lifetime.lines(kind, "ns")[1:] == lifetime.inside


def test_the_root_of_hooks(lifetime: Lifetime) -> None:
    """config.md, "POSIX-platform Hooks": startContainer's run after pivot_root, the others before.

    "Prestart", "CreateRuntime Hooks", "CreateContainer Hooks": before pivot_root.
    """
    host = {name for name in os.listdir("/") if name[0] != "."}
    for kind in ("prestart", "createRuntime", "createContainer"):
        assert set(lifetime.lines(kind, "root")) == host, kind
    assert set(lifetime.lines("startContainer", "root")) == set(os.listdir(lifetime.bundle.rootfs))


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_comes_on_stdin(lifetime: Lifetime, kind: str) -> None:
    """config.md, "POSIX-platform Hooks": the state MUST be passed to hooks over stdin."""
    state = lifetime.state(kind)
    assert state["id"] == lifetime.id and state["bundle"] == str(lifetime.bundle.path)
    assert state["annotations"]["org.example.key"] == "value"
    statuses = dict(zip(KINDS, ["creating"] * 3 + ["created", "running", "stopped"], strict=True))
    assert state["status"] == statuses[kind]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer",
                                  "poststart"])  # fmt: skip
def test_the_pid_as_the_hook_sees_it(lifetime: Lifetime, kind: str) -> None:
    """runtime.md, "State": pid as seen by the runtime, or by the container for hooks inside."""
    inside = kind in ("createContainer", "startContainer")
    assert lifetime.state(kind)["pid"] == (1 if inside else lifetime.pid)


def test_listed_order(lifetime: Lifetime) -> None:
    """config.md, "POSIX-platform Hooks": hooks MUST be called in the listed order."""
    order = lifetime.after_delete
    for kind in KINDS:
        assert [name for name in order if name[:-1] == kind] == [f"{kind}1", f"{kind}2"]


def test_hooks_of_create(lifetime: Lifetime) -> None:
    """config.md, "Prestart", "CreateRuntime Hooks", "CreateContainer Hooks": part of create.

    prestart MUST come before createRuntime, and that before createContainer. runtime.md,
    "Lifecycle": they MUST be invoked.
    """
    kinds = ("prestart", "createRuntime", "createContainer")
    assert lifetime.after_create == [f"{kind}{n}" for kind in kinds for n in (1, 2)]


def test_hooks_of_create_find_the_environment(lifetime: Lifetime) -> None:
    """config.md, "CreateRuntime Hooks": after the runtime environment has been created."""
    assert lifetime.state("createRuntime")["pid"] == lifetime.pid
    assert not (lifetime.folder / "createRuntime1/ran").exists()


def test_hooks_of_start(lifetime: Lifetime) -> None:
    """config.md, "StartContainer Hooks", "Poststart": part of start, in this order.

    runtime.md, "Lifecycle": they MUST be invoked.
    """
    expected = ["startContainer1", "startContainer2", "poststart1", "poststart2"]
    assert lifetime.after_start[6:] == expected


def test_start_hooks_come_before_the_program(lifetime: Lifetime) -> None:
    """config.md, "StartContainer Hooks": before the user-specified process is executed."""
    assert not (lifetime.folder / "startContainer1/ran").exists()
    assert not (lifetime.folder / "startContainer2/ran").exists()


def test_poststart_hooks_come_after_the_program_is_executed(world: World, bundle: Bundle) -> None:
    """config.md, "Poststart": after the user-specified process is executed, before start returns."""
    out = bundle.path / "out"
    script = (
        f"pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); tr '\\0' ' ' < /proc/$pid/cmdline > {out}"
    )
    bundle.config["hooks"] = {"poststart": [hook("", "", script)]}
    id = world.create(bundle.args("sleep", "1000"))
    world.runtime.start(id).ok()
    assert out.read_text() == "sleep 1000 "


def test_hooks_of_delete(lifetime: Lifetime) -> None:
    """config.md, "Poststop", and runtime.md, "Lifecycle": after the deletion, before delete returns."""
    assert lifetime.after_delete[10:] == ["poststop1", "poststop2"]
    assert "pid" not in lifetime.state("poststop") or lifetime.state("poststop")["pid"] == 0
    assert lifetime.status_in_the_end == ""


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failure_while_creating(world: World, bundle: Bundle, kind: str, tmp_path: Path) -> None:
    """runtime.md, "Lifecycle": an error, the container is stopped and destroyed, poststop hooks run."""
    bundle.config["hooks"] = {
        kind: [hook("", "", "exit 7"), hook("", "", f"touch {tmp_path}/second")],
        "poststop": [hook("", "", f"touch {tmp_path}/poststop")],
    }
    world.refused(bundle, f"/hooks/{kind}/0")
    assert os.listdir(tmp_path) == ["poststop"]


@pytest.mark.parametrize("kind", ["startContainer", "poststart"])
def test_a_failure_while_starting(world: World, bundle: Bundle, kind: str, tmp_path: Path) -> None:
    """runtime.md, "Lifecycle": an error, the container is stopped and destroyed, poststop hooks run."""
    bundle.config["hooks"] = {
        kind: [hook("", "", "exit 7")],
        "poststop": [hook("", "", f"touch {tmp_path}/poststop")],
    }
    id = world.create(bundle)
    pid = world.runtime.state(id)["pid"]
    result = world.runtime.start(id)
    assert result.code != 0 and result.err, str(result)
    assert world.runtime.status(id) == "" and (tmp_path / "poststop").exists()
    assert (
        not os.path.exists(f"/proc/{pid}/cmdline") or not Path(f"/proc/{pid}/cmdline").read_bytes()
    )


def test_a_failure_after_the_end(world: World, bundle: Bundle, tmp_path: Path) -> None:
    """runtime.md, "Lifecycle": a warning MUST be logged, and all goes on as if the hook had succeeded.

    "Warnings": the operation MUST continue as if the warning had not been logged.
    """
    hooks = [hook("", "", "exit 7"), hook("", "", f"touch {tmp_path}/second")]
    bundle.config["hooks"] = {"poststop": hooks}
    id = world.create(bundle)
    runtime = world.runtime
    runtime.kill(id, "KILL").ok()
    runtime.wait_status(id, "stopped")
    result = runtime("--log-level", "warning", "delete", id).ok()
    assert "warning" in result.err and "poststop" in result.err
    assert (tmp_path / "second").exists() and runtime.status(id) == ""
