"""The making of a scope around a process that lives: StartTransientUnit, org.freedesktop.systemd1(5)."""

from __future__ import annotations

import time

from rootless_pyoki import log
from rootless_pyoki.cgroups import here, systemd_bus, tree, unit_name, unit_properties
from rootless_pyoki.cgroups.dbus import BusError
from rootless_pyoki.errors import HostError, StateError, SyscallError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.cgroups.systemd_bus import Link

    Files = tuple[tuple[str, str, str], ...]
    Property = tuple[str, str, Any]  # name, D-Bus signature, value

GOING = 5.0  # seconds for a unit of this name that is about to go
UNIT_EXISTS = f"{systemd_bus.NAME}.UnitExists"
# Without these it would be no scope of ours.
_ESSENTIAL = ("PIDs", "Delegate", "Slice", "Description")  # a systemd without these is none


class Start:
    """A scope in the making: begin() asks for it, finish() waits until it is there."""

    def __init__(
        self, chosen: Cgroup, id: str, files: Files, properties: Sequence[Property] = ()
    ) -> None:
        """properties: what annotations ask for; they win over ours."""
        self.chosen = chosen
        self.link = systemd_bus.link([chosen.bus])
        self.serial = 0
        self.refused: HostError | None = None  # why it could not be asked
        self.job = ""  # once systemd has said that it makes the unit
        self.pid = 0
        self.asked = {
            name: f"/annotations/org.systemd.property.{name}" for name, _, _ in properties
        }
        self.properties = _properties(chosen, id, files, properties)

    def begin(self, pid: int) -> None:
        """Ask for a scope around this process; nothing is awaited."""
        self.pid = pid
        try:
            self.link.expect("JobRemoved")
            self._send()
        except HostError as error:  # finish() tries the next address
            self.refused = error

    def _send(self) -> None:
        values = [(name, (signature, value)) for name, signature, value in self.properties.values()]
        values.append(("PIDs", ("au", [self.pid])))
        self.serial = self.link.send(
            "StartTransientUnit", "ssa(sv)a(sa(sv))", self.chosen.unit, "fail", values, []
        )

    def finish(self) -> Cgroup:
        """The scope as it is, with the process in it. Raises HostError, StateError with its name."""
        try:
            self.job = self._accepted()
            result = self.link.result(self.job)
        except HostError as error:
            if not self.link.bus.let_in:
                self.serial = 0  # nobody has heard of it
                raise systemd_bus.no_manager(error) from None
            raise self._failed(error.message, error.errno, error.hint) from None
        if result != "done":
            raise self._failed(f"the job's result is {result}")
        return located(replace(self.chosen, bus=self.link.address), self.pid)

    def _failed(self, reason: str, errno: int = 0, hint: str = "") -> HostError:
        unit = self.chosen.unit
        user = "" if here.is_real_root() else "--user "
        return HostError(
            f"systemd does not make {unit}: {reason}",
            errno=errno,
            hint=hint or f"`journalctl {user}-u {unit}` may tell why",
        )

    def _accepted(self) -> str:
        """The job's path; what systemd does not know is left out, what is in the way awaited."""
        made_room = False
        while True:
            try:
                if self.refused:
                    raise self.refused
                return str(self.link.reply(self.serial)[0])
            except BusError as error:
                if error.name == UNIT_EXISTS and not made_room:
                    made_room = True
                    _make_room(self.link, self.chosen.unit)
                elif name := systemd_bus.unknown_property(error, self.properties):
                    self._do_without(name, error)
                else:
                    self._elsewhere(error)
            except HostError as error:
                self._elsewhere(error)
            self._send()

    def _elsewhere(self, error: HostError) -> None:
        self.link.next(error)
        self.refused = None

    def _do_without(self, name: str, error: BusError) -> None:
        if name in _ESSENTIAL:
            raise error
        if name in self.asked:
            raise UnsupportedError(
                f"systemd does not know the property {name} of a scope", pointer=self.asked[name]
            )
        log.debug(f"systemd does not know the property {name}")
        del self.properties[name]

    def abandon(self) -> None:
        """Leave nothing of it: its processes are dead. Of a unit that is not ours nothing is touched."""
        if not self.serial:
            return
        try:
            if not self.job:
                self.link.timeout = GOING
                self.job = str(self.link.reply(self.serial)[0])
            systemd_bus.stop(systemd_bus.link_to(self.chosen), self.chosen.unit)
        except (HostError, KeyError) as error:  # KeyError: it was answered, with a refusal
            log.debug(f"undo {self.chosen.unit}: {error}")

    def close(self) -> None:
        """The connection is not needed while the container lives."""
        systemd_bus.close()


def _properties(
    chosen: Cgroup, id: str, files: Files, asked: Sequence[Property]
) -> dict[str, Property]:
    """All but the processes. DefaultDependencies would stop the scope before other units at
    shutdown, and order it behind basic.target; CollectMode spares us ResetFailedUnit."""
    found: list[Property] = [
        ("Description", "s", f"pyoki container {id}"),
        ("Slice", "s", chosen.slice),
        ("Delegate", "b", True),
        ("CPUAccounting", "b", True),
        ("IOAccounting", "b", True),
        ("MemoryAccounting", "b", True),
        ("TasksAccounting", "b", True),
        ("DefaultDependencies", "b", False),
        ("CollectMode", "s", "inactive-or-failed"),
        *unit_properties.of(files)[0],
        *asked,
    ]
    named = {entry[0]: entry for entry in found}
    name, signature, text = named["Description"]
    named["Description"] = (name, signature, f"{text} {chosen.mark}")
    return named


def _make_room(link: Link, unit: str) -> None:
    """A failed unit of this name is forgotten, an empty one stopped, one that is going awaited.

    Raises StateError for one that is alive: it is somebody else's.
    """
    link.expect("UnitRemoved")
    link.send("Subscribe")
    try:
        link.call("ResetFailedUnit", "s", unit)
    except BusError as error:
        if error.name == systemd_bus.NO_SUCH_UNIT:
            return
    deadline = time.monotonic() + GOING
    while True:
        try:
            path = link.call("GetUnit", "s", unit)[0]
            state = link.get(path, systemd_bus.UNIT, "ActiveState")
        except BusError as error:
            if error.name != systemd_bus.NO_SUCH_UNIT:
                raise
            return
        alive = state in ("active", "activating", "reloading")
        if alive and _is_empty(link, path):
            alive = False
            systemd_bus.stop(link, unit)
        if alive or not link.pause(unit, deadline):
            raise StateError(
                f"systemd unit {unit} exists, and is {state}",
                pointer=unit_name.POINTER,
                hint="another container, or another root of containers, has a unit of this name",
            )


def _is_empty(link: Link, path: str) -> bool:
    """Whether nobody lives in a scope, which systemd may not have heard of yet. Only where we see
    the slice, and so would see the scope as well."""
    inner = str(link.get(path, f"{systemd_bus.NAME}.Scope", "ControlGroup"))
    place = f"{here.find_mount()}{inner}"
    slice = place.rpartition("/")[0]
    if not inner or place == inner or not syscalls.faccessat(c.AT_FDCWD, slice, c.F_OK):
        return False
    fd = tree.enter(c.AT_FDCWD, place)
    try:
        return fd < 0 or "populated 0" in tree.events(fd)
    finally:
        fds.close_quietly(fd)


def located(cgroup: Cgroup, pid: int) -> Cgroup:
    """With its path, which the process tells; without one where nothing can be done to it from here.

    It is not seen in another cgroup namespace's mount, and seen only, where that is read-only.
    """
    lines = procfs.read(pid, "cgroup").decode("utf-8", "surrogateescape").splitlines()
    inner = next((line[3:] for line in lines if line.startswith("0::/")), "")
    inner = inner.removesuffix(" (deleted)")
    if cgroup.mount and inner.rpartition("/")[2] == cgroup.unit:
        path = cgroup.mount + inner
        try:
            inode = syscalls.fstatat(c.AT_FDCWD, path).st_ino
        except SyscallError:
            pass
        else:
            if syscalls.faccessat(c.AT_FDCWD, path, c.W_OK):
                return replace(cgroup, path=path, inode=inode)
            return replace(cgroup, reason=f"{path} cannot be written from here")
    return replace(cgroup, reason=f"the cgroup of {cgroup.unit} cannot be seen from here")
