"""Hooks: when, where, with what, and what their failure means (runtime.md, config.md)."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
INSIDE = ("createContainer", "startContainer")


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net", "user")}


READ = "for n in mnt pid net user; do readlink /proc/self/ns/$n; done"


def test_namespaces(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """The runtime's for prestart, createRuntime, poststart and poststop; the container's for the rest."""
    bundle = make_bundle()
    log = {kind: tmp_path / kind for kind in ("prestart", "createRuntime", "poststart", "poststop")}
    bundle.config["hooks"] = {kind: [shell(f"({READ}) > {path}")] for kind, path in log.items()}
    created = bundle.rootfs / "tmp/createContainer"
    bundle.config["hooks"]["createContainer"] = [shell(f"({READ}) > {created}")]
    bundle.config["hooks"]["startContainer"] = [shell(f"({READ}; ls /) > /tmp/startContainer")]
    runtime.create(identifier, bundle.write().path).ok()
    pid = runtime.state(identifier)["pid"]
    theirs = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("pid", "net", "user")]
    runtime.start(identifier).ok()
    theirs.insert(0, os.readlink(f"/proc/{pid}/ns/mnt"))
    runtime.delete(identifier, force=True).ok()
    for kind, path in log.items():
        assert path.read_text().split() == list(namespaces().values()), kind
    assert created.read_text().split() == theirs
    started = (bundle.rootfs / "tmp/startContainer").read_text().split()
    assert started[:4] == theirs and "bin" in started[4:]


def test_args_env_and_order(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """In the listed order, with their argv, and with their environment and nothing else."""
    bundle = make_bundle("true")
    out = tmp_path / "out"
    bundle.config["hooks"] = {
        "createRuntime": [
            {
                "path": "/bin/sh",
                "args": ["name", "-c", f"echo $0 $1 >> {out}; env >> {out}", "zero", "one two"],
                "env": ["A=b c", "PATH=/bin:/usr/bin"],
            },
            shell(f"echo second >> {out}"),
        ]
    }
    runtime.run(identifier, bundle.write().path).ok()
    lines = out.read_text().splitlines()
    assert lines[0] == "zero one two" and lines[-1] == "second"
    env = {line for line in lines[1:-1] if not line.startswith(("PWD=", "_=", "SHLVL=", "OLDPWD="))}
    assert env == {"A=b c", "PATH=/bin:/usr/bin"}


def test_the_pid_is_the_containers(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """createRuntime hooks set up networks through /proc/PID/ns: the pid must be right by then."""
    bundle = make_bundle()
    told = tmp_path / "told"
    script = (
        f"cat > {told}; P=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' {told});"
        f"readlink /proc/$P/ns/net > {tmp_path}/net; readlink /proc/$P/root > {tmp_path}/root"
    )
    bundle.config["hooks"] = {"createRuntime": [shell(script)]}
    runtime.create(identifier, bundle.write().path).ok()
    pid = runtime.state(identifier)["pid"]
    state = json.loads((tmp_path / "told").read_text())
    assert state["pid"] == pid and state["status"] == "creating"
    assert (tmp_path / "net").read_text().strip() == os.readlink(f"/proc/{pid}/ns/net")
    assert (tmp_path / "root").read_text().strip()


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
@pytest.mark.parametrize("how", ["exit 3", "kill -9 $$", "missing"])
def test_failing_create(
    leak_check: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    tmp_path: Path,
    kind: str,
    how: str,
) -> None:
    """The container is not made, the hook's words and status are told, poststop hooks run."""
    bundle = make_bundle()
    hook = shell(f"echo its words >&2; {how}")
    if how == "missing":
        hook["path"] = "/no/such/hook"
    after = tmp_path / "after"
    bundle.config["hooks"] = {
        kind: [hook, shell(f"touch {tmp_path}/never")],
        "poststop": [shell(f"cat > {after}")],
    }
    result = runtime.create(identifier, bundle.write().path)
    assert result.code == 1 and f"/hooks/{kind}/0" in result.err, str(result)
    assert ("its words" in result.err) == (how != "missing")
    assert {"exit 3": "exit status 3", "kill -9 $$": "signal 9", "missing": "ENOENT"}[
        how
    ] in result.err
    assert runtime.status(identifier) == ""
    assert not (tmp_path / "never").exists()
    assert json.loads(after.read_text())["status"] == "stopped"


def test_failing_start(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """startContainer: start fails, the program never runs, the container is stopped."""
    bundle = make_bundle("touch", "/tmp/never")
    bundle.config["hooks"] = {"startContainer": [shell("exit 3")]}
    runtime.create(identifier, bundle.write().path).ok()
    result = runtime.start(identifier)
    assert result.code == 1 and "exit status 3" in result.err
    runtime.wait_status(identifier, "stopped")
    assert not (bundle.rootfs / "tmp/never").exists()
    runtime.delete(identifier).ok()


def test_failing_poststart(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """An error since 1.3: the container is stopped."""
    bundle = make_bundle()
    bundle.config["hooks"] = {"poststart": [shell("exit 3")]}
    runtime.create(identifier, bundle.write().path).ok()
    result = runtime.start(identifier)
    assert result.code == 1 and "/hooks/poststart/0" in result.err
    runtime.wait_status(identifier, "stopped")
    runtime.delete(identifier).ok()


def test_failing_poststop(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """A warning: the rest run, the container is gone, delete succeeds."""
    bundle = make_bundle()
    bundle.config["hooks"] = {"poststop": [shell("exit 3"), shell(f"touch {tmp_path}/second")]}
    runtime.create(identifier, bundle.write().path).ok()
    result = runtime.delete(identifier)
    assert result.code == 0, str(result)
    assert (tmp_path / "second").exists() and runtime.status(identifier) == ""


@pytest.mark.parametrize(
    "kind", ["createRuntime", "createContainer", "startContainer", "poststart"]
)
def test_timeouts(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, kind: str
) -> None:
    """A hook that takes longer is killed, and that is its failure."""
    bundle = make_bundle()
    bundle.config["hooks"] = {kind: [shell("exec sleep 1001", timeout=1)]}
    began = time.monotonic()
    result = runtime.run(identifier, bundle.write().path, timeout=20)
    assert result.code == 1 and time.monotonic() - began < 8, str(result)
    assert "timeout" in result.err or "no end after 1 s" in result.err
    assert runtime.status(identifier) == ""


def test_a_hook_that_does_not_read(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Its stdin may be left alone, however long the state is; children that keep stdout do not hold us."""
    bundle = make_bundle("true")
    bundle.config["annotations"] = {"long": "x" * 300_000}
    bundle.config["hooks"] = {
        kind: [shell("exec <&-; (sleep 3 &); exit 0")]
        for kind in ("createRuntime", "createContainer", "poststart", "poststop")
    }
    began = time.monotonic()
    runtime.run(identifier, bundle.write().path, timeout=20).ok()
    assert time.monotonic() - began < 3


def test_hooks_of_run(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """A foreground run runs them all."""
    bundle = make_bundle("sh", "-c", "echo program >> /tmp/log")
    log = bundle.rootfs / "tmp/log"
    bundle.config["hooks"] = {
        kind: [shell(f"echo {kind} >> {log if kind != 'startContainer' else '/tmp/log'}")]
        for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststop")
    }
    runtime.run(identifier, bundle.write().path).ok()
    assert log.read_text().split() == [
        *("prestart", "createRuntime", "createContainer", "startContainer", "program", "poststop"),
    ]
