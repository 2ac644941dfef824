"""systemd's manager, when it does what it seldom does: a fake one, on a bus of the test's own."""

from __future__ import annotations

import errno
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.cgroups import dbus, systemd_bus, systemd_scope, systemd_user
from rootless_pyoki.cgroups.manager import Cgroup
from rootless_pyoki.errors import HostError, StateError, UnsupportedError
from tests.support import buses

pytest.importorskip("jeepney")
from tests.support import fake_systemd
from tests.support.fake_systemd import JOB, UNIT, Systemd

UNIT_NAME = "pyoki-x.scope"
Fake = Callable[..., Systemd]


@pytest.fixture
def bus(tmp_path: Path) -> Iterator[str]:
    with buses.dbus_daemon(tmp_path) as address:
        yield address
    systemd_bus.close()


@pytest.fixture
def fake(bus: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """fake(Method=function, ...): a manager, which is also the only one to be found."""
    made: list[Systemd] = []
    monkeypatch.setattr(systemd_bus.here, "bus_addresses", list)

    def make(**answers: Any) -> Systemd:
        made.append(Systemd(bus, **answers))
        return made[-1]

    yield make
    for one in made:
        one.close()


def chosen(bus: str) -> Cgroup:
    return Cgroup(manager="systemd", unit=UNIT_NAME, slice="a.slice", bus=bus, mark="(m)")


def start(bus: str, *files: tuple[str, str, str], properties: Any = ()) -> systemd_scope.Start:
    made = systemd_scope.Start(chosen(bus), "x", files, properties)
    made.begin(os.getpid())
    return made


def test_what_is_asked_for(bus: str, fake: Fake) -> None:
    """The properties, those of the annotations over ours; limits of memory and tasks come later."""
    manager = fake()
    files = (("memory.max", "1000000", "/m"), ("cpu.weight", "50", "/c"), ("pids.max", "5", "/p"))
    asked = (("TimeoutStopUSec", "t", 7), ("Description", "s", "mine"))
    found = start(bus, *files, properties=asked).finish()
    (unit, mode, _, others) = manager.called("StartTransientUnit")[0]
    assert (unit, mode, others) == (UNIT_NAME, "fail", [])
    told = manager.properties()
    accounting = {name: ("b", True) for name in told if name.endswith("Accounting")}
    assert len(accounting) == 4
    assert told == {
        "Description": ("s", "mine (m)"),
        "Slice": ("s", "a.slice"),
        "PIDs": ("au", [os.getpid()]),
        "Delegate": ("b", True),
        "DefaultDependencies": ("b", False),
        "CollectMode": ("s", "inactive-or-failed"),
        "TimeoutStopUSec": ("t", 7),
        "CPUWeight": ("t", 50),
        **accounting,
    }
    # no scope is there, so where its cgroup lies cannot be told
    assert found.path == "" and "cannot be seen from here" in found.reason


@pytest.mark.parametrize("result", ["failed", "timeout", "canceled", "dependency", "skipped"])
def test_a_job_that_fails(bus: str, fake: Fake, result: str) -> None:
    """systemd's word for it is told, and where more may be read."""
    fake().result = result
    with pytest.raises(HostError, match=f"{UNIT_NAME}: the job's result is {result}") as caught:
        start(bus).finish()
    assert "journalctl" in caught.value.hint


def test_a_failed_unit_is_forgotten(bus: str, fake: Fake) -> None:
    """UnitExists: ResetFailedUnit, and one retry."""
    manager = fake()
    manager.answers["StartTransientUnit"] = lambda *a: (
        manager.refuse("UnitExists") if not manager.called("ResetFailedUnit") else manager.start(*a)
    )
    start(bus).finish()
    assert manager.called("ResetFailedUnit") == [(UNIT_NAME,)]
    assert len(manager.called("StartTransientUnit")) == 2


def test_a_unit_that_is_going(bus: str, fake: Fake) -> None:
    """It is waited for."""
    states = ["deactivating", "deactivating"]
    manager = fake(Get=lambda interface, name: ("v", (("s", states.pop()),)))
    manager.answers["GetUnit"] = lambda unit: (
        ("o", (UNIT,)) if states else manager.refuse("NoSuchUnit")
    )
    manager.answers["StartTransientUnit"] = lambda *a: (
        manager.refuse("UnitExists") if states else manager.start(*a)
    )
    start(bus).finish()
    assert states == []


def test_a_unit_that_lives(bus: str, fake: Fake) -> None:
    """It is somebody else's: an error that names it; nothing is stopped, also by abandon()."""
    values = {"ActiveState": "active", "ControlGroup": "/nowhere.slice/x.scope"}
    manager = fake(
        StartTransientUnit=lambda *a: manager.refuse("UnitExists"),
        GetUnit=lambda unit: ("o", (UNIT,)),
        Get=lambda interface, name: ("v", (("s", values[name]),)),
    )
    made = start(bus)
    with pytest.raises(StateError, match=f"{UNIT_NAME} exists, and is active") as caught:
        made.finish()
    assert caught.value.pointer == "/linux/cgroupsPath"
    made.abandon()
    assert manager.called("StopUnit") == []


def test_a_unit_that_always_exists(bus: str, fake: Fake) -> None:
    """One retry only."""
    manager = fake(StartTransientUnit=lambda *a: manager.refuse("UnitExists", "it is there"))
    with pytest.raises(HostError, match=r"it is there.*UnitExists"):
        start(bus).finish()
    assert len(manager.called("StartTransientUnit")) == 2


def test_unknown_properties(bus: str, fake: Fake) -> None:
    """An older systemd's "unknown property" costs the property, and the call is repeated."""
    unknown = ["IOAccounting", "CollectMode"]

    def begin(unit: str, mode: str, properties: Any, others: Any) -> Any:
        for name, _ in properties:
            if name in unknown:
                text = f"Cannot set property {name}, or unknown property."
                manager.refuse("org.freedesktop.DBus.Error.PropertyReadOnly", text)
        return manager.start(unit, mode, properties, others)

    manager = fake(StartTransientUnit=begin)
    start(bus).finish()
    assert len(manager.called("StartTransientUnit")) == 3
    assert not {"IOAccounting", "CollectMode"} & set(manager.properties())

    unknown.append("Bogus")
    systemd_bus.close()
    with pytest.raises(UnsupportedError, match="does not know the property Bogus") as caught:
        start(bus, properties=(("Bogus", "s", "x"),)).finish()
    assert caught.value.pointer == "/annotations/org.systemd.property.Bogus"

    unknown.append("Delegate")
    systemd_bus.close()
    with pytest.raises(HostError, match="Delegate"):
        start(bus).finish()


@pytest.mark.parametrize("silent", ["StartTransientUnit", "JobRemoved"])
def test_no_answer(bus: str, fake: Fake, silent: str) -> None:
    """It ends when the time is over, and says what was waited for."""
    answer = None if silent == "StartTransientUnit" else ("o", (JOB,))
    fake(StartTransientUnit=lambda *a: answer)
    made = start(bus)
    made.link.timeout = 0.2
    begin = time.monotonic()
    with pytest.raises(HostError, match="has not answered") as caught:
        made.finish()
    assert caught.value.errno == errno.ETIMEDOUT
    assert time.monotonic() - begin < 2


def test_a_bus_that_hangs(
    bus: str, fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not let us in is passed over for the next address, and not asked again."""
    manager = fake()
    monkeypatch.setattr(dbus, "PATIENCE", 0.05)
    with buses.listener(str(tmp_path / "deaf")):
        for starts in (True, False):
            systemd_bus.close()
            link = systemd_bus.link([f"unix:path={tmp_path}/deaf", bus])
            begin = time.monotonic()
            if starts:
                start(bus).finish()
            else:
                systemd_bus.stop(link, UNIT_NAME)
            assert link.address == bus and 0.05 < time.monotonic() - begin < 2
    assert [name for name, _ in manager.calls] == [
        "StartTransientUnit",
        "StopUnit",
        "ResetFailedUnit",
    ]


def test_a_connection_that_breaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bus goes away while we wait."""
    monkeypatch.setattr(systemd_bus.here, "bus_addresses", list)
    with buses.dbus_daemon(tmp_path) as address:
        manager = Systemd(address, StartTransientUnit=lambda *a: None)
        made = start(address)
        deadline = time.monotonic() + 5
        while not manager.calls:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with pytest.raises(HostError, match=f"systemd does not make {UNIT_NAME}"):
        made.finish()
    made.abandon()
    systemd_bus.close()


def test_a_bus_without_systemd(bus: str, fake: Fake, tmp_path: Path) -> None:
    """The next address is taken, and is the one that the state remembers."""
    (tmp_path / "other").mkdir()
    with buses.dbus_daemon(tmp_path / "other") as other:
        manager = fake()
        link = systemd_bus.link([other, bus])
        assert link.address == other
        found = start(other).finish()
    assert found.bus == bus and len(manager.calls) == 1


def test_abandon_stops_what_was_made(bus: str, fake: Fake) -> None:
    """Also where nobody has waited for it yet."""
    manager = fake()
    made = start(bus)
    made.abandon()
    assert manager.called("StopUnit") == [(UNIT_NAME, "replace")]
    assert manager.called("ResetFailedUnit") == [(UNIT_NAME,)]


def test_limits_are_set(bus: str, fake: Fake) -> None:
    """At create those that come later; at update all that can be changed; unknown ones are left out."""

    def set_them(unit: str, runtime: bool, properties: Any) -> Any:
        if any(name == "MemorySwapMax" for name, _ in properties):
            manager.refuse("x.y", "Cannot set property MemorySwapMax, or unknown property.")
        return "", ()

    manager = fake(SetUnitProperties=set_them)
    files = (
        ("memory.max", "1000000", "/m"),
        ("memory.swap.max", "5", "/s"),
        ("cpu.weight", "50", "/c"),
    )
    systemd_user.set_properties(chosen(bus), files, started=True)
    assert manager.calls[-1] == (
        "SetUnitProperties", (UNIT_NAME, True, [("MemoryMax", ("t", 1000000))])
    )  # fmt: skip
    systemd_user.set_properties(chosen(bus), files, started=False)
    properties = manager.calls[-1][1][2]
    assert dict(properties) == {"CPUWeight": ("t", 50), "MemoryMax": ("t", 1000000)}
    manager.calls.clear()
    systemd_user.set_properties(chosen(bus), files[2:], started=True)
    assert manager.calls == []


def test_processes_are_moved(bus: str, fake: Fake) -> None:
    """By systemd, into the unit or below it; its refusal is told."""
    manager = fake(AttachProcessesToUnit=lambda *a: ("", ()))
    systemd_user.attach(chosen(bus), 7)
    systemd_user.attach(chosen(bus), 8, "a/b")
    assert manager.called("AttachProcessesToUnit") == [
        (UNIT_NAME, "", [7]),
        (UNIT_NAME, "/a/b", [8]),
    ]
    manager.answers["AttachProcessesToUnit"] = lambda *a: manager.refuse(
        "org.freedesktop.DBus.Error.AccessDenied", "not yours"
    )
    with pytest.raises(HostError, match=f"move process 9 into {UNIT_NAME}/a: .*not yours"):
        systemd_user.attach(chosen(bus), 9, "a")


@pytest.mark.parametrize("ours", [True, False])
def test_the_end_of_a_unit_that_cannot_be_seen(bus: str, fake: Fake, ours: bool) -> None:
    """KillUnit and StopUnit, if its description bears our mark; else it is let be."""
    text = "pyoki container x (m)" if ours else "pyoki container x (n)"
    manager = fake(
        Get=lambda interface, name: ("v", (("s", text),)),
        KillUnit=lambda *a: ("", ()),
    )
    systemd_user.end(chosen(bus))
    assert manager.called("KillUnit") == ([(UNIT_NAME, "all", 9)] if ours else [])
    assert manager.called("StopUnit") == ([(UNIT_NAME, "replace")] if ours else [])


def test_the_managers_cgroup(bus: str, fake: Fake, tmp_path: Path) -> None:
    """Where who listens on the bus is in no user@UID.service, the manager is asked."""
    if "/user@" in Path("/proc/self/cgroup").read_text():
        pytest.skip("we are in a user manager's cgroup ourselves")
    manager = fake(Get=lambda interface, name: ("v", (("s", "/x/"),)))
    assert systemd_user._manager_cgroup(systemd_bus.link([bus])) == "/x"
    assert manager.called("Get") == [("org.freedesktop.systemd1.Manager", "ControlGroup")]


def test_the_connection_reaches_no_child(bus: str, fake: Fake) -> None:
    """It is closed on exec."""
    fake()
    fd = systemd_bus.link([bus]).bus.fd
    listing = subprocess.run(
        ["ls", "/proc/self/fd"], capture_output=True, text=True, close_fds=False
    )
    assert str(fd) not in listing.stdout.split()
    assert fake_systemd.NAME == systemd_bus.NAME
