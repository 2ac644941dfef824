"""The way to the systemd manager that answers for this user, and calls of its Manager object.

org.freedesktop.systemd1(5). A process has one connection, kept here until it ends; the children that
it forks shed it with its other descriptors, and programs never get it (CLOEXEC).
"""

from __future__ import annotations

import errno as e
import time

from rootless_pyoki.cgroups import dbus, here
from rootless_pyoki.cgroups.dbus import BusError
from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Sequence
    from typing import Any

    from rootless_pyoki.cgroups.dbus import Message
    from rootless_pyoki.cgroups.manager import Cgroup

NAME = "org.freedesktop.systemd1"
OBJECT = "/org/freedesktop/systemd1"
MANAGER = f"{NAME}.Manager"
UNIT = f"{NAME}.Unit"
PROPERTIES = "org.freedesktop.DBus.Properties"
NO_SUCH_UNIT = f"{NAME}.NoSuchUnit"
PRIVATE = "/systemd/private"  # where systemd itself listens, without a bus
TIMEOUT = 30.0  # seconds for a call, and for a job
# A bus without systemd on it says one of these; another address may lead to a better one.
_NOT_HERE = (
    "org.freedesktop.DBus.Error.ServiceUnknown",
    "org.freedesktop.DBus.Error.NameHasNoOwner",
    "org.freedesktop.DBus.Error.AccessDenied",
    "org.freedesktop.DBus.Error.Spawn.",
)
HINT = (
    "the user's systemd manager has to run (log in, or `loginctl enable-linger`), and its bus has to be "
    "reachable: XDG_RUNTIME_DIR, DBUS_SESSION_BUS_ADDRESS; --cgroup-manager cgroupfs does without"
)

_link: Link | None = None


class Link:
    """A connection to one of the addresses: the first that can be connected to."""

    def __init__(self, addresses: Iterable[str], timeout: float = TIMEOUT) -> None:
        self.waiting = list(addresses)
        self.timeout = timeout
        self.address = ""
        self.peer = 0  # who listens there: systemd itself, where it made the socket
        self.answered = False
        self.matched: set[str] = set()
        self.bus = self._connect("no address is known")

    def _connect(self, reason: str) -> dbus.Bus:
        while self.waiting:
            self.address = self.waiting.pop(0)
            try:
                direct = self.address.endswith(PRIVATE)
                bus = dbus.connect(self.address, self.timeout, direct=direct)
            except (HostError, SyscallError) as error:
                reason = f"{self.address}: {error}"
                continue
            self.peer = syscalls.peer_pid(bus.fd)
            if self.peer:
                return bus
            # Our process ids would be those of strangers there.
            bus.close()
            reason = f"{self.address}: it belongs to another pid namespace"
        raise HostError(f"no systemd manager answers ({reason})", errno=e.ENOTCONN, hint=HINT)

    def next(self, error: HostError) -> None:
        """Go to the next address, for a bus on which systemd is not; else raise the error."""
        silent = error.errno == e.ETIMEDOUT and not self.bus.let_in
        if self.answered or not self.waiting or not (silent or _elsewhere(error)):
            raise error
        self.bus.close()
        self.bus = self._connect(str(error))
        matched, self.matched = self.matched, set()
        for member in matched:
            self.expect(member)

    def send(self, member: str, signature: str = "", *values: Any) -> int:
        """Call a method of the manager; the answer is waited for by `reply`."""
        return self.bus.send(NAME, OBJECT, MANAGER, member, signature, *values)

    def reply(self, serial: int) -> tuple[Any, ...]:
        """BusError with systemd's word, HostError when there is none."""
        found = self.bus.reply(serial, self.timeout)
        self.answered = True
        return found

    def call(self, member: str, signature: str = "", *values: Any) -> tuple[Any, ...]:
        return self._ask(lambda: self.send(member, signature, *values))

    def get(self, path: str, interface: str, name: str) -> Any:
        """The value of a property."""
        words = (PROPERTIES, "Get", "ss", interface, name)
        return self._ask(lambda: self.bus.send(NAME, path, *words))[0][1]

    def _ask(self, send: Callable[[], int]) -> tuple[Any, ...]:
        """Send and await, at the next address where this one is not systemd's."""
        while True:
            try:
                return self.reply(send())
            except HostError as error:
                self.next(error)

    def expect(self, member: str) -> None:
        """Let the manager's signal come to us. JobRemoved comes for every job: dbus-broker does not
        look at an argument (arg2, the unit) that follows one which is no string."""
        if member not in self.matched:
            self.matched.add(member)
            self.bus.match(f"type='signal',path='{OBJECT}',interface='{MANAGER}',member='{member}'")

    def result(self, job: str) -> str:
        """What became of a job: "done", "failed", "canceled", "timeout", "dependency", "skipped"."""

        def is_it(message: Message) -> bool:
            return message.member == "JobRemoved" and message.body[1] == job

        return str(self.bus.signal(is_it, self.timeout).body[3])

    def pause(self, unit: str, deadline: float) -> bool:
        """Wait a moment, at most until UnitRemoved comes; False after the deadline."""

        def is_it(message: Message) -> bool:
            return message.member == "UnitRemoved" and message.body[0] == unit

        left = deadline - time.monotonic()
        if left <= 0:
            return False
        try:
            self.bus.signal(is_it, min(left, 0.05))
        except HostError as error:
            if error.errno != e.ETIMEDOUT:
                raise
        return True


def no_manager(error: HostError) -> HostError:
    """For an address where nobody lets us in: the reason, and what to do."""
    if error.hint == HINT:
        return error
    message = f"no systemd manager answers ({error.message})"
    return HostError(message, errno=error.errno, hint=HINT)


def _elsewhere(error: HostError) -> bool:
    if isinstance(error, BusError):
        return error.name.startswith(_NOT_HERE)
    return error.errno in (e.ECONNRESET, e.EPIPE, e.EACCES, e.EPERM, e.ECONNREFUSED, 0)


def link(addresses: Sequence[str]) -> Link:
    """The process's connection, made when first asked for. Raises HostError."""
    global _link
    if _link is None:
        _link = Link(addresses)
    return _link


def link_to(cgroup: Cgroup) -> Link:
    """To the manager that has made it; where its address leads nowhere, to that of our environment."""
    return link([*([cgroup.bus] if cgroup.bus else []), *here.bus_addresses()])


def close() -> None:
    """For a process that lives on without."""
    global _link
    if _link is not None:
        _link.bus.close()
        _link = None


def stop(link: Link, unit: str) -> None:
    """StopUnit, awaited, and forgotten where it has failed; fine when it is gone. Raises HostError."""
    link.expect("JobRemoved")
    for member, signature, values in (
        ("StopUnit", "ss", (unit, "replace")),
        ("ResetFailedUnit", "s", (unit,)),
    ):
        try:
            answer = link.call(member, signature, *values)
            if answer:
                link.result(answer[0])
        except BusError as error:
            if error.name != NO_SUCH_UNIT:
                raise


def unknown_property(error: BusError, known: Container[str]) -> str:
    """The name in "Cannot set property X, or unknown property.", of these; or ""."""
    _, found, rest = error.text.partition("Cannot set property ")
    name = rest.partition(",")[0] if found else ""
    return name if name in known else ""
