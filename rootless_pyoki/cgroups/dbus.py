"""A connection to a D-Bus server: a call, its answer, a signal; just enough for systemd.

D-Bus Specification, "Authentication Protocol", "Message Bus". Everything that need not be waited for
is sent ahead: the handshake, Hello and matches are never awaited, what they come to is seen when
the first answer is. No thread; every wait is one poll(2) with a deadline.
"""

from __future__ import annotations

import errno as e
import time

from rootless_pyoki.cgroups import dbus_address, dbus_message
from rootless_pyoki.cgroups.dbus_address import HANDSHAKE, LONGEST_LINE, let_in
from rootless_pyoki.cgroups.dbus_message import (
    BUS,
    BUS_PATH,
    ERROR,
    METHOD_RETURN,
    SIGNAL,
    BusError,
    Message,
    failure,
    method_call,
    one_line,
)
from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    T = TypeVar("T")

__all__ = ["BUS", "Bus", "BusError", "Message", "connect"]

TIMEOUT = 30.0  # seconds
PATIENCE = 1.0  # seconds for the handshake, for which a server need not ask anybody
MOST_KEPT = 4096  # signals
CHUNK = 1 << 14  # bytes; one recv(2)


def connect(address: str, timeout: float = TIMEOUT, *, direct: bool = False) -> Bus:
    """Connect, and send the handshake and Hello without waiting for an answer.

    address: as in DBUS_SESSION_BUS_ADDRESS. timeout: seconds for every wait of this connection that
    is given no other. direct: the peer is no bus but systemd itself (its private socket): there is
    no Hello, no destination, and all signals come unasked. Raises HostError naming the address.
    """
    bus = Bus(dbus_address.connect(address, timeout), address, timeout, direct)
    try:
        bus.start()
    except BaseException:
        bus.close()
        raise
    return bus


class Bus:
    """A connection; it can be used again after BusError and after a wait that took too long."""

    def __init__(self, fd: int, address: str, timeout: float, direct: bool) -> None:
        self.fd = fd  # non-blocking and close-on-exec
        self.address = one_line(address)
        self.timeout = timeout
        self.direct = direct
        self.peer = ""  # the unique name of who answered last: signals can be compared with it
        self.let_in = False  # it has answered the handshake
        self._serial = 0
        self._ended = ""  # why nothing more can come
        self._errno = 0
        self._hint = ""
        self._failure: BusError | None = None  # of a call that nobody asks for
        self._input = bytearray()
        self._methods: dict[int, str] = {}  # serial -> method; what has not been answered yet
        self._silent: set[int] = set()  # serials whose answer matters only if it is an error
        self._replies: dict[int, Message] = {}
        self._rules: list[dict[str, str]] = []
        self._signals: list[Message] = []

    def start(self) -> None:
        """The handshake, in one write(2)."""
        hello = b"" if self.direct else self._message(BUS, BUS_PATH, BUS, "Hello")
        self._silent.add(self._serial)
        self._write(HANDSHAKE + hello, "authenticate")

    def send(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *values: Any,
    ) -> int:
        """Send a method call, and await nothing; the serial is for reply(). Raises HostError."""
        raw = self._message(destination, path, interface, member, signature, values)
        serial = self._serial
        if self.direct and not self.let_in:
            # sd-bus, the peer, lets a message that comes together with the handshake lie.
            self._until(lambda: self.let_in or None, None, member)
        self._write(raw, member)
        return serial

    def reply(self, serial: int, timeout: float | None = None) -> tuple[Any, ...]:
        """What a method call came to: its values.

        Raises BusError, HostError with errno ETIMEDOUT (it may still be asked for again) or
        ECONNRESET.
        """
        method = self._methods[serial]
        message = self._until(lambda: self._replies.pop(serial, None), timeout, method)
        del self._methods[serial]
        self.peer = message.sender
        if message.type == ERROR:
            raise failure(message, method)
        return message.body

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        *values: Any,
        timeout: float | None = None,
    ) -> tuple[Any, ...]:
        """send() and reply()."""
        serial = self.send(destination, path, interface, member, signature, *values)
        return self.reply(serial, timeout)

    def match(self, rule: str) -> None:
        """Ask for signals, and keep what comes: "type='signal',interface='...',member='...'".

        Without waiting; where the bus refuses it, the next wait raises BusError. Only values without
        quotes, commas and backslashes. Signals that no rule asks for are passed over.
        """
        pairs = [part.partition("=") for part in rule.split(",")]
        wanted = {key: value.strip("'") for key, _, value in pairs}
        names = ("path", "interface", "member")
        self._rules.append({key: wanted[key] for key in names if key in wanted})
        if not self.direct:
            self._silent.add(self.send(BUS, BUS_PATH, BUS, "AddMatch", "s", rule))

    def signal(self, accept: Callable[[Message], bool], timeout: float | None = None) -> Message:
        """The first signal that is accepted, of those that have come and those that will.

        The others are kept. Raises HostError as reply() does.
        """
        seen = 0  # of self._signals, from which nobody else takes meanwhile

        def find() -> Message | None:
            nonlocal seen
            while seen < len(self._signals):
                if accept(self._signals[seen]):
                    return self._signals.pop(seen)
                seen += 1
            return None

        return self._until(find, timeout, "a signal")

    def close(self) -> None:
        """Fine when it is closed already."""
        fds.close_quietly(self.fd)
        self.fd = -1
        self._end("the connection is closed", e.ENOTCONN)

    def _message(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        values: tuple[Any, ...] = (),
    ) -> bytes:
        serial = self._serial + 1
        to = "" if self.direct else destination
        raw = method_call(serial, to, path, interface, member, signature, values)
        self._serial = serial
        self._methods[serial] = member
        return raw

    def _until(self, find: Callable[[], T | None], timeout: float | None, doing: str) -> T:
        """Hear what comes until something is found; even a timeout of 0 looks once."""
        timeout = self.timeout if timeout is None else timeout
        began, elapsed = time.monotonic(), 0.0
        while True:
            if not self._failure and (found := find()) is not None:
                return found
            if self._failure or self._ended:
                raise self._reason(doing)
            most = timeout if self.let_in else min(timeout, PATIENCE)
            if elapsed > most or not self._ready(c.POLLIN, most - elapsed):
                message = f"{doing}: the bus at {self.address} has not answered for {most:g} s"
                raise HostError(message, errno=e.ETIMEDOUT)
            self._hear()
            elapsed = time.monotonic() - began

    def _write(self, data: bytes, doing: str) -> None:
        """All of it; while the bus does not take it, what it says is heard."""
        deadline = time.monotonic() + self.timeout
        while data and not self._ended:
            try:
                data = data[syscalls.send(self.fd, data) :]
                continue
            except SyscallError as error:
                if error.errno != c.EAGAIN:
                    while not self._ended and time.monotonic() < deadline:
                        if not self._ready(c.POLLIN, 0):
                            break
                        self._hear()  # it may have told why it goes
                    self._lose(error)
                    break
            left = deadline - time.monotonic()
            ready = self._ready(c.POLLIN | c.POLLOUT, left) if left > 0 else 0
            if not ready:  # half a message may have gone: nothing can follow it
                self._end(f"it has taken nothing for {self.timeout:g} s", e.ETIMEDOUT)
            elif ready & ~c.POLLOUT:
                self._hear()
        if data:
            raise self._reason(doing)

    def _ready(self, events: int, seconds: float) -> int:
        """poll(2): what is there now, 0 after that time."""
        answer = syscalls.poll([(self.fd, events)], int(seconds * 1000) + (seconds > 0))
        return answer[0][1] if answer else 0

    def _hear(self) -> None:
        """Take what has come, which poll(2) said there is."""
        try:
            data = syscalls.recv(self.fd, CHUNK)
        except SyscallError as error:
            if error.errno != c.EAGAIN:
                self._lose(error)
            return
        if not data:
            return self._lose(None)
        self._input += data
        try:
            self._digest()
        except HostError as error:
            self._end(error.message, error.errno, error.hint)

    def _lose(self, error: SyscallError | None) -> None:
        """The other end is gone."""
        if error and error.errno not in (e.ECONNRESET, e.EPIPE):
            self._end(str(error), error.errno or 0)
        else:
            when = "" if self.let_in else " before it knew us"
            self._end(f"it has closed the connection{when}", e.ECONNRESET)

    def _end(self, reason: str, errno: int, hint: str = "") -> None:
        """Nothing more can be sent, and nothing will come; the first reason counts."""
        if not self._ended:
            self._ended, self._errno, self._hint = reason, errno, hint

    def _reason(self, doing: str) -> HostError:
        """Why it cannot go on."""
        error, self._failure = self._failure, None
        message = f"{doing}: the bus at {self.address}: {self._ended}"
        return error or HostError(message, errno=self._errno, hint=self._hint)

    def _digest(self) -> None:
        """Take whole lines, then whole messages, off the input."""
        data = self._input
        while not self.let_in:
            line, end, _ = data.partition(b"\r\n")
            if not end:
                if len(line) > LONGEST_LINE:
                    raise HostError("what it answers is no D-Bus handshake", errno=e.EPROTO)
                return
            del data[: len(line) + 2]
            self.let_in = let_in(bytes(line))
        while (size := dbus_message.length(bytes(data[:16]))) and size <= len(data):
            raw = bytes(data[:size])
            del data[:size]
            message = dbus_message.parse(raw)
            if message is not None:
                self._sort(message)

    def _sort(self, message: Message) -> None:
        if message.type == SIGNAL:
            if any(
                all(getattr(message, key) == value for key, value in rule.items())
                for rule in self._rules
            ):
                self._signals.append(message)
                if len(self._signals) > MOST_KEPT:
                    raise HostError("too many signals that nobody waits for", errno=e.ENOBUFS)
        elif message.type in (METHOD_RETURN, ERROR) and message.reply_serial in self._methods:
            if message.reply_serial not in self._silent:
                self._replies[message.reply_serial] = message
                return
            method = self._methods.pop(message.reply_serial)
            if message.type == ERROR:
                self._failure = failure(message, method)
