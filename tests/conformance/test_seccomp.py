"""config-linux.md, "Seccomp" and "The Container Process State"."""

from __future__ import annotations

import array
import json
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import World
from tests.support.bundles import Bundle


def profile(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_KILL",
                                    "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])  # fmt: skip
def test_an_errno_for_an_action_without(world: World, action: str) -> None:
    """config-linux.md, "Seccomp": defaultErrnoRet or errnoRet where it has no meaning MUST fail."""
    bundle = world.bundle()
    bundle.linux["seccomp"] = profile({"names": ["mkdir"], "action": action, "errnoRet": 5})
    world.refused(bundle, "/linux/seccomp/syscalls/0")
    bundle.linux["seccomp"] = {"defaultAction": action, "defaultErrnoRet": 5}
    world.refused(bundle, "/linux/seccomp/default")


def test_an_errno_is_returned(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Seccomp": errnoRet is what the system call fails with, EPERM by default."""
    errno = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    default = {"names": ["unlink", "unlinkat", "rmdir"], "action": "SCMP_ACT_ERRNO"}
    bundle.linux["seccomp"] = profile(errno, default)
    seen = world.observe(bundle, {"mkdir": "mkdir /tmp/x; true", "rmdir": "rmdir /home/user; true"})
    assert "No space left" in seen["mkdir"] and "not permitted" in seen["rmdir"]


class Agent(threading.Thread):
    """Takes one connection: the parts that came, the fds with each, and whether it was then closed."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.parts: list[bytes] = []
        self.fds: list[list[int]] = []
        self.closed = False
        self.more = 0  # connections after the first
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        cwd = os.getcwd()
        os.chdir(path.parent)  # for an address that is short
        self.socket.bind(path.name)
        os.chdir(cwd)
        self.socket.listen(4)
        self.socket.settimeout(15)

    def run(self) -> None:
        connection, _ = self.socket.accept()
        connection.settimeout(15)
        with connection:
            while True:
                part, controls, _, _ = connection.recvmsg(1 << 16, 64)
                if not part:
                    self.closed = True
                    break
                self.parts.append(part)
                fds = array.array("i")
                for level, kind, content in controls:
                    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                    fds.frombytes(content)
                self.fds.append(list(fds))
        self.socket.settimeout(0.2)
        try:
            self.socket.accept()[0].close()
            self.more += 1
        except TimeoutError:
            pass

    def finish(self) -> None:
        self.join(20)
        self.socket.close()
        for fds in self.fds:
            for fd in fds:
                os.close(fd)


NOTIFY = {"names": ["acct"], "action": "SCMP_ACT_NOTIFY"}  # which nothing here ever calls


@pytest.fixture(scope="module")
def sent(world: World) -> tuple[Agent, Bundle, str]:
    """What an agent was sent by one container that runs to its end."""
    bundle = world.bundle("true")
    path = bundle.path / "agent.sock"
    agent = Agent(path)
    agent.start()
    bundle.linux["seccomp"] = profile(NOTIFY, listenerPath=str(path), listenerMetadata="opaque")
    id = world.id()
    world.runtime.run(id, bundle.write().path).ok()
    agent.finish()
    return agent, bundle, id


def test_the_listener_is_sent(sent: tuple[Agent, Bundle, str]) -> None:
    """config-linux.md, "The Container Process State": JSON as payload, the fd as SCM_RIGHTS.

    "Seccomp": over an AF_UNIX socket of type SOCK_STREAM; seccompFd is REQUIRED.
    """
    agent, _, _ = sent
    state = json.loads(b"".join(agent.parts))
    assert state["fds"] == ["seccompFd"] and len(agent.fds[0]) == 1


def test_fds_come_first(sent: tuple[Agent, Bundle, str]) -> None:
    """config-linux.md, "The Container Process State": fds MUST be sent in the first call only."""
    agent, _, _ = sent
    assert len(agent.fds[0]) == 1 and not any(agent.fds[1:])


def test_the_process_state(sent: tuple[Agent, Bundle, str]) -> None:
    """config-linux.md, "The Container Process State": ociVersion, pid and state are REQUIRED."""
    agent, bundle, id = sent
    told = json.loads(b"".join(agent.parts))
    assert told["ociVersion"].split(".")[0] == "1" and told["metadata"] == "opaque"
    assert told["pid"] > 1 and told["state"]["pid"] == told["pid"]
    assert told["state"]["id"] == id and told["state"]["bundle"] == str(bundle.path)
    assert {"ociVersion", "status"} <= told["state"].keys()


def test_one_state_a_connection(sent: tuple[Agent, Bundle, str]) -> None:
    """config-linux.md, "Seccomp": exactly one state a connection, which is closed and not reused."""
    agent, _, _ = sent
    json.loads(b"".join(agent.parts))  # two states would not parse
    assert agent.closed and agent.more == 0


def test_a_listener_that_is_not_there(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Seccomp": if sending to the socket fails, it MUST be an error."""
    path = bundle.path / "agent.sock"
    bundle.linux["seccomp"] = profile(NOTIFY, listenerPath=str(path))
    result = world.run(bundle.shell("touch /tmp/ran"))
    assert result.code != 0 and result.err, str(result)
    assert not (bundle.rootfs / "tmp/ran").exists()


def test_a_listener_of_another_type(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Seccomp": the socket MUST be of type SOCK_STREAM; another is an error."""
    path = bundle.path / "agent.sock"
    cwd = os.getcwd()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
        os.chdir(path.parent)
        agent.bind(path.name)
        os.chdir(cwd)
        bundle.linux["seccomp"] = profile(NOTIFY, listenerPath=str(path))
        result = world.run(bundle.shell("touch /tmp/ran"))
    assert result.code != 0 and not (bundle.rootfs / "tmp/ran").exists(), str(result)


def test_a_listener_without_the_action(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Seccomp": listenerPath is ignored where SCMP_ACT_NOTIFY is not used."""
    bundle.linux["seccomp"] = profile(listenerPath="/no/such/socket")
    world.run(bundle.args("true")).ok()
