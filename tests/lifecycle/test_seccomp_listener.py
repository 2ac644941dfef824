"""linux.seccomp with SCMP_ACT_NOTIFY: an agent decides; config-linux.md "Seccomp"."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import UnsupportedError
from rootless_pyoki.lifecycle import seccomp_listener
from rootless_pyoki.plan import plan
from tests.lifecycle.agent import Agent
from tests.support.bundles import Bundle
from tests.support.leaks import nothing_left
from tests.support.runtime import Runtime

NOTIFIED = ["mkdir", "mkdirat"]
# The errno that the agent of these tests chooses: nothing else would say so.
WORDS = os.strerror(errno.EOWNERDEAD)
FLAGS = [
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
]


def profile(path: Path | str | None, *names: str, **more: Any) -> dict[str, Any]:
    notify = {"names": list(names or NOTIFIED), "action": "SCMP_ACT_NOTIFY"}
    made: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [notify], **more}
    if path is not None:
        made["listenerPath"] = str(path)
    return made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
def bundle(make_bundle: Callable[..., Bundle], place: Path) -> Bundle:
    """Makes a directory and says how that went; its agent listens at `place`."""
    bundle = make_bundle("sh", "-c", "mkdir /tmp/made; echo $?; test -d /tmp/made; echo $?")
    bundle.linux["seccomp"] = profile(place)
    return bundle.write()


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_create_and_start(
    leak_check: None,
    runtime: Runtime,
    bundle: Bundle,
    identifier: str,
    place: Path,
    no_new_privileges: bool,
) -> None:
    """One message with the state, the metadata and the fd, when the program starts; then the agent
    chooses what mkdir returns."""
    bundle.linux["seccomp"]["listenerMetadata"] = "for the agent ☃"
    bundle.config["annotations"] = {"a": "b"}
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.shell("mkdir /tmp/made; sleep 1000")
    with Agent(place) as agent:
        created = runtime.create(identifier, bundle.path).ok()
        pid = runtime.state(identifier)["pid"]
        assert agent.states == []
        runtime.start(identifier).ok()
        deadline = time.monotonic() + 10
        while WORDS not in created.err:
            assert time.monotonic() < deadline, created.err
            time.sleep(0.01)
        assert len(agent.pids) == 1
        runtime.delete(identifier, force=True).ok()
    (told,) = agent.states
    assert told == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": "for the agent ☃",
        "state": {
            "ociVersion": "1.3.0",
            "id": identifier,
            "status": "created",
            "pid": pid,
            "bundle": str(bundle.path),
            "annotations": {"a": "b"},
        },
    }
    assert not (bundle.rootfs / "tmp/made").exists()


def test_run(
    leak_check: None, runtime: Runtime, bundle: Bundle, identifier: str, place: Path
) -> None:
    """run's program is answered too; `continue` lets the kernel do what was asked for. Nothing of
    the listener is left with the program."""
    bundle.shell("mkdir /tmp/made; echo $?; ls /proc/self/fd | wc -l")
    with Agent(place, lambda number: 0) as agent:
        done = runtime.run(identifier, bundle.path).ok()
    assert done.out == "0\n4\n"  # its stdio and the directory that it lists
    assert "metadata" not in agent.states[0]
    assert agent.states[0]["pid"] == agent.states[0]["state"]["pid"]
    assert (bundle.rootfs / "tmp/made").is_dir()


def test_exec_has_a_listener_of_its_own(
    leak_check: None, runtime: Runtime, bundle: Bundle, identifier: str, place: Path
) -> None:
    """The agent hears of an exec with its own pid and the running container's state."""
    bundle.args("sleep", "1000")
    with Agent(place, lambda number: errno.ENOSPC if number == 1 else 0) as agent:
        runtime.run(identifier, bundle.path, "--detach").ok()
        pid = runtime.state(identifier)["pid"]
        first = runtime.exec(identifier, "mkdir", "/tmp/made")
        second = runtime.exec(identifier, "mkdir", "/tmp/made")
    place.unlink()
    alone = runtime.exec(identifier, "true")
    runtime.delete(identifier, force=True).ok()
    assert (first.code, second.code) == (1, 0)
    assert alone.code not in (0, 1)
    assert "/linux/seccomp/listenerPath" in alone.err
    assert os.strerror(errno.ENOSPC) in first.err
    own, *others = agent.states
    assert [told["pid"] for told in others] == agent.pids
    assert pid == own["pid"] not in agent.pids
    for told in others:
        assert told["state"] == {**own["state"], "status": "running"}


def test_calls_of_the_launch_itself(
    leak_check: None, runtime: Runtime, bundle: Bundle, identifier: str, place: Path
) -> None:
    """Where the launch itself calls what is notified (capset, execve, sendmsg), the agent has its
    listener already and is asked."""
    bundle.process["noNewPrivileges"] = False
    bundle.linux["seccomp"] = profile(place, "capset", "execve", "sendmsg", "close", "sched_yield")
    bundle.args("true")
    with Agent(place, lambda number: 0) as agent:
        runtime.run(identifier, bundle.path).ok()
    assert len(agent.pids) >= 2


def test_large_states_and_long_paths(
    leak_check: None, runtime: Runtime, bundle: Bundle, identifier: str, tmp_path: Path
) -> None:
    """A path beyond what sockaddr_un holds; a state beyond what a socket's buffer holds."""
    place = tmp_path / ("d" * 100) / ("s" * 200)
    place.parent.mkdir()
    text = "m" * 600_000
    bundle.linux["seccomp"] = profile(place, listenerMetadata=text)
    bundle.write()
    with Agent(place) as agent:
        runtime.run(identifier, bundle.path).ok()
    assert agent.states[0]["metadata"] == text


@pytest.mark.parametrize("flags", [[], *[[flag] for flag in FLAGS], FLAGS])
def test_flags(runtime: Runtime, bundle: Bundle, identifier: str, place: Path, flags: Any) -> None:
    """Every flag of the specification goes with a listener."""
    bundle.linux["seccomp"]["flags"] = flags
    bundle.write()
    with Agent(place):
        done = runtime.run(identifier, bundle.path).ok()
    assert done.out == "1\n1\n"
    assert WORDS in done.err


def test_a_receiver_named_elsewhere(
    runtime: Runtime, bundle: Bundle, identifier: str, place: Path, tmp_path: Path
) -> None:
    """Without listenerPath the annotation names the socket, without that the environment."""
    bundle.linux["seccomp"] = profile(None)
    variable = {"RUN_OCI_SECCOMP_RECEIVER": str(tmp_path / "from-environment")}
    with Agent(tmp_path / "from-environment"):
        done = runtime.run(identifier, bundle.write().path, env=variable).ok()
    assert done.out == "1\n1\n"
    bundle.config["annotations"] = {"run.oci.seccomp.receiver": str(place)}
    with Agent(place):
        done = runtime.run(identifier, bundle.write().path, env=variable).ok()
    assert done.out == "1\n1\n"
    bundle.config["annotations"]["run.oci.seccomp.receiver"] = str(tmp_path / "missing")
    refused(runtime, bundle, identifier, "/annotations/run.oci.seccomp.receiver", "ENOENT")


def refused(
    runtime: Runtime,
    bundle: Bundle,
    identifier: str,
    pointer: str,
    words: str,
    verb: str = "create",
) -> None:
    """Refused with this pointer, before anything is made."""
    bundle.write()
    options = ["--log", str(bundle.path / "log"), "--log-format", "json"]
    with nothing_left([runtime.root]):
        argv = (*options, verb, "--bundle", str(bundle.path), identifier)
        assert runtime(*argv).code == 1
    told = json.loads((bundle.path / "log").read_text().splitlines()[-1])
    assert told["pointer"] == pointer
    assert words in told["msg"]
    (bundle.path / "log").unlink()


def test_nobody_listens(runtime: Runtime, bundle: Bundle, identifier: str, place: Path) -> None:
    """No socket, a file that is none, a socket that nobody listens on: an error before anything."""
    pointer = "/linux/seccomp/listenerPath"
    refused(runtime, bundle, identifier, pointer, "ENOENT")
    place.touch()
    refused(runtime, bundle, identifier, pointer, "ECONNREFUSED")
    place.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as deaf:
        deaf.bind(str(place))
        refused(runtime, bundle, identifier, pointer, "ECONNREFUSED", "run")
    place.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wrong:
        wrong.bind(str(place))
        refused(runtime, bundle, identifier, pointer, "EPROTOTYPE")


def test_what_a_profile_must_not_say(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """No listener, a relative path, `write`, the default action, a flag without a listener."""
    for change, pointer in (
        (profile(None), "/linux/seccomp/listenerPath"),
        (profile("agent.sock"), "/linux/seccomp/listenerPath"),
        (profile("/a", "read", "write"), "/linux/seccomp/syscalls/0/names/1"),
        (profile("/a") | {"defaultAction": "SCMP_ACT_NOTIFY"}, "/linux/seccomp/defaultAction"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "flags": FLAGS[3:]}, "/linux/seccomp/flags/0"),
    ):
        bundle.linux["seccomp"] = change
        refused(runtime, bundle, identifier, pointer, "")


def test_a_listener_path_that_no_rule_needs(
    runtime: Runtime, bundle: Bundle, identifier: str
) -> None:
    """Without SCMP_ACT_NOTIFY nobody is connected."""
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/nowhere"}
    assert runtime.run(identifier, bundle.write().path).ok().out == "0\n0\n"


def test_an_agent_that_leaves_early(
    leak_check: None, runtime: Runtime, bundle: Bundle, identifier: str, place: Path
) -> None:
    """It hangs up between create and start: start fails and names the field."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(place))
        agent.listen(1)
        runtime.create(identifier, bundle.path).ok()
        connection, _ = agent.accept()
        connection.close()
    started = runtime.start(identifier)
    assert started.code == 1
    assert "listener: broken pipe (EPIPE)" in started.err
    assert "/linux/seccomp/listenerPath" in started.err
    runtime.wait_status(identifier, "stopped")
    runtime.delete(identifier).ok()


def test_an_agent_that_never_reads(
    leak_check: None, runtime: Runtime, bundle: Bundle, identifier: str, place: Path
) -> None:
    """The program starts and waits at its first notified call; what is left can be deleted."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as agent:
        agent.bind(str(place))
        agent.listen(1)
        created = runtime.create(identifier, bundle.path).ok()
        runtime.start(identifier).ok()
        assert runtime.status(identifier) == "running"
        assert created.out == ""
        runtime.delete(identifier, force=True).ok()


def test_an_older_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flag that the kernel does not know is refused before anybody is connected."""
    monkeypatch.setattr(seccomp_listener.syscalls, "seccomp_has_flags", lambda flags: False)
    agent = plan.Agent(path="/nowhere", metadata="", pointer="/linux/seccomp/listenerPath")
    with pytest.raises(UnsupportedError) as caught:
        seccomp_listener.connect(agent, 1 << 5)
    assert caught.value.pointer == "/linux/seccomp/flags"
