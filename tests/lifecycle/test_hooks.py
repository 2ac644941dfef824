"""Hooks: when, where, with what, and what their failure means (runtime.md, config.md)."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
KINDS = (
    *("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"),
)
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
    """startContainer: start fails, the program never runs, the container is destroyed."""
    bundle = make_bundle("touch", "/tmp/never")
    bundle.config["hooks"] = {
        "startContainer": [shell("exit 3")],
        "poststop": [shell(f"cat > {tmp_path}/after")],
    }
    runtime.create(identifier, bundle.write().path).ok()
    result = runtime.start(identifier)
    assert result.code == 1 and "exit status 3" in result.err
    assert "/hooks/startContainer" in result.err
    assert runtime.status(identifier) == ""
    assert not (bundle.rootfs / "tmp/never").exists()
    assert json.loads((tmp_path / "after").read_text())["status"] == "stopped"


def test_failing_poststart(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """An error since 1.3: the container is stopped and destroyed."""
    bundle = make_bundle()
    bundle.config["hooks"] = {
        "poststart": [shell("exit 3")],
        "poststop": [shell(f"cat > {tmp_path}/after")],
    }
    runtime.create(identifier, bundle.write().path).ok()
    result = runtime.start(identifier)
    assert result.code == 1 and "/hooks/poststart/0" in result.err
    assert runtime.status(identifier) == ""
    assert json.loads((tmp_path / "after").read_text())["status"] == "stopped"


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


@pytest.mark.parametrize("kind", KINDS)
def test_the_state(runtime: Runtime, make_bundle: Make, identifier: str, kind: str) -> None:
    """Exactly the members of runtime.md, "State", with the status that the hook's kind has."""
    bundle = make_bundle()
    bundle.config["annotations"] = {"org.example": "a/b~c"}
    where = bundle.rootfs / "tmp/state"
    bundle.config["hooks"] = {
        kind: [shell(f"cat > {'/tmp/state' if kind == 'startContainer' else where}")]
    }
    runtime.create(identifier, bundle.write().path).ok()
    pid = runtime.state(identifier)["pid"]
    runtime.start(identifier).ok()
    runtime.delete(identifier, force=True).ok()
    expected: dict[str, Any] = {
        "ociVersion": "1.3.0",
        "id": identifier,
        "status": {"startContainer": "created", "poststart": "running", "poststop": "stopped"}.get(
            kind, "creating"
        ),
        "pid": 1 if kind in INSIDE else pid,
        "bundle": str(bundle.path),
        "annotations": {"org.example": "a/b~c"},
    }
    if kind == "poststop":
        del expected["pid"]
    assert json.loads(where.read_text()) == expected


def test_directory_and_environment(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """They stand in the bundle, startContainer hooks in the container's /. Without env they have the
    environment of the runtime, inside that of the program; an empty env is empty.
    """
    bundle = make_bundle("true")
    read = 'echo "$PWD:$MARK"'
    outside = [kind for kind in KINDS if kind != "startContainer"]
    bundle.config["hooks"] = {
        kind: [
            shell(f"{read} > {bundle.rootfs}/tmp/{kind}"),
            shell(f"{read} > {bundle.rootfs}/tmp/{kind}.empty", env=[]),
        ]
        for kind in outside
    }
    bundle.config["hooks"]["startContainer"] = [
        shell(f"{read} > /tmp/startContainer"),
        shell(f"{read} > /tmp/startContainer.empty", env=[]),
    ]
    bundle.process["env"] = ["PATH=/bin", "MARK=program"]
    runtime.run(identifier, bundle.write().path, env={"MARK": "runtime"}).ok()
    for kind in KINDS:
        place, mark = (
            ("/", "program") if kind == "startContainer" else (str(bundle.path), "runtime")
        )
        assert (bundle.rootfs / f"tmp/{kind}").read_text() == f"{place}:{mark}\n", kind
        assert (bundle.rootfs / f"tmp/{kind}.empty").read_text() == f"{place}:\n", kind


def test_where_the_path_is_looked_up(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """Of a createContainer hook on the host, of a startContainer hook in the container."""
    for name in ("host", "inside"):
        bundle = make_bundle("true")
        program = (tmp_path if name == "host" else bundle.rootfs) / "only"
        program.write_text(f"#!/bin/sh\nexec echo {name} > {bundle.rootfs}/tmp/out\n")
        program.chmod(0o755)
        path = str(program) if name == "host" else "/only"
        for kind, works in (
            ("createContainer", name == "host"),
            ("startContainer", name == "inside"),
        ):
            if kind == "startContainer" and works:
                program.write_text("#!/bin/sh\nexec echo inside > /tmp/out\n")
            (bundle.rootfs / "tmp/out").unlink(missing_ok=True)
            bundle.config["hooks"] = {kind: [{"path": path}]}
            result = runtime.run(f"{identifier}{name}{kind}", bundle.write().path)
            assert (result.code == 0) == works, str(result)
            assert (bundle.rootfs / "tmp/out").exists() == works


@pytest.mark.parametrize(
    "kind", ["createRuntime", "createContainer", "startContainer", "poststart"]
)
def test_run_is_ended_meanwhile(
    leak_check: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    tmp_path: Path,
    kind: str,
) -> None:
    """SIGTERM to a foreground run whose hook takes its time: it ends at once, and clears up."""
    bundle = make_bundle()
    up = bundle.rootfs / "tmp/up"
    mark = "/tmp/up" if kind == "startContainer" else str(up)
    bundle.config["hooks"] = {
        kind: [shell(f"touch {mark}; exec sleep 1001")],
        "poststop": [shell(f"touch {tmp_path}/after")],
    }
    process = runtime.popen("run", "--bundle", str(bundle.write().path), identifier)
    deadline = time.monotonic() + 10
    while not up.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.terminate()
    assert process.wait(5) == 128 + signal.SIGTERM
    assert runtime.status(identifier) == "" and (tmp_path / "after").exists()


def test_a_failing_poststop_after_a_failure(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """The first error is the one that is told; each poststop hook's own is a warning beside it."""
    bundle = make_bundle()
    bundle.config["hooks"] = {
        "createRuntime": [shell("echo first >&2; exit 3")],
        "poststop": [shell("exit 4"), shell(f"touch {tmp_path}/second")],
    }
    runtime.options = ["--log-level", "warning"]
    result = runtime.create(identifier, bundle.write().path)
    assert result.code == 1 and "/hooks/createRuntime/0" in result.err and "first" in result.err
    assert "poststop hook /bin/sh: exit status 4" in result.err and (tmp_path / "second").exists()
