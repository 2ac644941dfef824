"""The D-Bus connection and systemd's user manager: what we take for granted of it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.cgroups import dbus
from tests.support import needs

pytestmark = pytest.mark.session

SYSTEMD = "org.freedesktop.systemd1"
MANAGER = (SYSTEMD, "/org/freedesktop/systemd1", f"{SYSTEMD}.Manager")
RULE = f"type='signal',sender='{SYSTEMD}',path='{MANAGER[1]}',interface='{MANAGER[2]}',member='JobRemoved'"


@pytest.fixture(params=["bus", "systemd/private"])
def manager(request: pytest.FixtureRequest) -> Iterator[dbus.Bus]:
    """A connection to the user's bus; one to the manager itself, which is there without a bus."""
    path = f"{os.environ.get('XDG_RUNTIME_DIR')}/{request.param}"
    needs.require(Path(path).is_socket(), f"there is no user manager at {path}")
    bus = dbus.connect(f"unix:path={path}", 10, direct=request.param != "bus")
    yield bus
    bus.close()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "1000"]) as process:
        yield process
        process.kill()


def start(bus: dbus.Bus, name: str, pid: int, *more: tuple[str, tuple[str, Any]]) -> int:
    properties = [("PIDs", ("au", [pid])), ("Description", ("s", "a test of pyoki's")), *more]
    signature = "ssa(sv)a(sa(sv))"
    return bus.send(*MANAGER, "StartTransientUnit", signature, name, "fail", properties, [])


def finished(bus: dbus.Bus, job: str) -> str:
    """The result of a job, when it is done."""
    return str(bus.signal(lambda one: one.body[1] == job).body[3])


def test_the_end_of_a_job_is_told_to_who_asked_for_it(
    manager: dbus.Bus, sleeper: subprocess.Popen[bytes], identifier: str
) -> None:
    """By JobRemoved, without Subscribe: the match was sent ahead; then the process has moved."""
    name = f"pyoki-{identifier}.scope"
    manager.match(RULE)
    (job,) = manager.reply(start(manager, name, sleeper.pid))
    assert finished(manager, job) == "done"
    assert f"/{name}\n" in Path(f"/proc/{sleeper.pid}/cgroup").read_text()
    (job,) = manager.call(*MANAGER, "StopUnit", "ss", name, "replace")
    assert finished(manager, job) == "done"
    assert sleeper.wait(10) == -15


def test_who_signals_is_who_answered(
    manager: dbus.Bus, sleeper: subprocess.Popen[bytes], identifier: str
) -> None:
    """The sender of the signal is the connection that answered the call."""
    manager.match(RULE)
    serial = start(manager, f"pyoki-{identifier}.scope", sleeper.pid)
    signal = manager.signal(lambda one: one.body[2] == f"pyoki-{identifier}.scope")
    assert manager.reply(serial) == (signal.body[1],)
    assert manager.peer == signal.sender


def test_a_property_that_systemd_does_not_know(
    manager: dbus.Bus, sleeper: subprocess.Popen[bytes], identifier: str
) -> None:
    """It is named in the error, and no unit is made."""
    name = f"pyoki-{identifier}.scope"
    with pytest.raises(dbus.BusError) as caught:
        manager.reply(start(manager, name, sleeper.pid, ("NoSuchThing", ("b", True))))
    assert "property NoSuchThing" in caught.value.text
    with pytest.raises(dbus.BusError) as caught:
        manager.call(*MANAGER, "StopUnit", "ss", name, "replace")
    assert caught.value.name == "org.freedesktop.systemd1.NoSuchUnit"
