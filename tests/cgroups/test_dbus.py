"""The D-Bus connection: against dbus-daemon, dbus-broker, the user's own, and servers that misbehave."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from signal import SIGKILL
from typing import Any

import pytest
from jeepney import DBusAddress, new_error, new_method_call, new_method_return, new_signal
from jeepney.io.blocking import DBusConnection, open_dbus_connection
from jeepney.low_level import Message as Theirs
from jeepney.low_level import Parser

from rootless_pyoki.cgroups import dbus
from rootless_pyoki.errors import HostError
from tests.support import buses
from tests.support.buses import listener

BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
USERNS = Path(__file__).parents[1] / "support" / "userns"
OK = b"DATA\r\nOK 0123456789abcdef0123456789abcdef\r\n"


@pytest.fixture(
    scope="module",
    params=["dbus-daemon", "dbus-broker", pytest.param("session", marks=pytest.mark.session)],
)
def address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A message bus that everybody of this user may speak on."""
    start = {
        "dbus-daemon": buses.dbus_daemon,
        "dbus-broker": buses.dbus_broker,
        "session": buses.session,
    }[request.param]
    with start(tmp_path_factory.mktemp("bus")) as address:
        yield address


@pytest.fixture
def bus(address: str) -> Iterator[dbus.Bus]:
    bus = dbus.connect(address, 10)
    yield bus
    bus.close()


@pytest.fixture
def other(address: str) -> Iterator[DBusConnection]:
    """Somebody else on the bus, by jeepney."""
    with open_dbus_connection(bus=address) as connection:
        yield connection


def ping() -> Theirs:
    return new_method_call(DBusAddress(BUS[1], BUS[0], "org.freedesktop.DBus.Peer"), "Ping")


def signal(path: str, member: str, signature: str = "", body: tuple[Any, ...] = ()) -> Theirs:
    return new_signal(DBusAddress(path, interface="a.b"), member, signature, body)


# --- real message buses


def test_a_call_is_answered(bus: dbus.Bus) -> None:
    """By the bus itself: it has given us a name, and knows who we are by the kernel's word."""
    (names,) = bus.call(*BUS, "ListNames")
    assert "org.freedesktop.DBus" in names
    (name,) = [name for name in names if name.startswith(":")][-1:]
    assert bus.call(*BUS, "GetConnectionUnixUser", "s", name) == (os.getuid(),)
    assert bus.peer == "org.freedesktop.DBus"


def test_answers_are_matched_to_their_calls(bus: dbus.Bus) -> None:
    """Many calls in flight, asked for backwards."""
    serials = [
        bus.send(*BUS, "NameHasOwner", "s", name) for name in ("org.freedesktop.DBus", "a.b")
    ]
    assert [bus.reply(serial) for serial in reversed(serials)] == [(False,), (True,)]


def test_an_error_is_an_answer(bus: dbus.Bus) -> None:
    """It has a name and a text, and the connection lives on."""
    with pytest.raises(dbus.BusError) as caught:
        bus.call("no.such.service", "/", "a.b", "C")
    assert caught.value.name == "org.freedesktop.DBus.Error.ServiceUnknown"
    assert caught.value.message.startswith("C: ")
    assert bus.call(*BUS, "GetId")


def test_signals_that_were_asked_for_come(bus: dbus.Bus, other: DBusConnection) -> None:
    """In any order: those that come too early are kept, those of no rule are passed over."""
    bus.match("type='signal',path='/p',interface='a.b',member='Done'")
    bus.call(*BUS, "GetId")
    for path, number in (("/p", 1), ("/q", 2), ("/p", 3)):
        other.send(signal(path, "Done", "u", (number,)))
        other.send(signal(path, "Other"))
    assert bus.signal(lambda one: one.body == (3,)).sender == other.unique_name
    assert bus.signal(lambda one: True, 0).body == (1,)
    with pytest.raises(HostError) as caught:
        bus.signal(lambda one: True, 0.05)
    assert caught.value.errno == errno.ETIMEDOUT


def test_signals_come_between_answers(bus: dbus.Bus, other: DBusConnection) -> None:
    """A signal that comes while an answer is awaited is there afterwards."""
    bus.match("type='signal',member='Done'")
    bus.call(*BUS, "GetId")
    other.send(signal("/p", "Done"))
    other.send_and_get_reply(ping())
    bus.call(*BUS, "GetId")
    assert bus.signal(lambda one: one.member == "Done", 0).path == "/p"


def test_signals_that_nobody_asked_for_are_passed_over(bus: dbus.Bus) -> None:
    """The bus itself tells everybody of the name it has given: NameAcquired."""
    bus.call(*BUS, "GetId")
    with pytest.raises(HostError) as caught:
        bus.signal(lambda one: True, 0.05)
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.message.startswith("a signal: the bus at unix:")


def test_a_rule_that_is_refused_is_told(bus: dbus.Bus) -> None:
    """At the next wait, once; everything else goes on."""
    bus.match("nonsense")
    with pytest.raises(dbus.BusError, match=r"AddMatch: .*MatchRuleInvalid"):
        bus.signal(lambda one: False)
    assert bus.call(*BUS, "GetId")


def test_long_messages_go_through(bus: dbus.Bus, other: DBusConnection) -> None:
    """More than the socket takes at once, there and back."""
    data = bytes(range(256)) * 3000
    serial = bus.send(other.unique_name, "/", "a.b", "Echo", "ay", data)
    while True:
        call = other.receive(timeout=10)
        if call.header.fields.get(3) == "Echo":
            break
    other.send(new_method_return(call, "ay", call.body))
    assert bus.reply(serial) == (data,)
    assert bus.peer == other.unique_name


def test_as_root_of_a_user_namespace(address: str, all_ids: None) -> None:
    """Our uid there is 0, which the bus must not be told: it asks the kernel."""
    program = (
        "from rootless_pyoki.cgroups import dbus\n"
        f"bus = dbus.connect({address!r}, 10)\n"
        f"(names,) = bus.call(*{BUS!r}, 'ListNames')\n"
        f"print(*bus.call(*{BUS!r}, 'GetConnectionUnixUser', 's', max(names)), __import__('os').getuid())\n"
    )
    done = subprocess.run(
        [str(USERNS), sys.executable, "-B", "-c", program],
        capture_output=True, text=True, check=False, cwd=USERNS.parents[2],
    )  # fmt: skip
    assert (done.stdout, done.stderr) == (f"{os.getuid()} 0\n", "")


def test_a_bus_that_takes_no_word_of_the_kernel(tmp_path: Path) -> None:
    """One that knows its users by something else says so: REJECTED."""
    with (
        buses.dbus_daemon(tmp_path, auth="DBUS_COOKIE_SHA1") as address,
        pytest.raises(HostError) as caught,
    ):
        dbus.connect(address).call(*BUS, "GetId")
    assert caught.value.errno == errno.EACCES
    assert "it does not let us in (REJECTED DBUS_COOKIE_SHA1)" in caught.value.message


# --- servers that say what the test makes them say


class Server:
    """The other end of one connection."""

    def __init__(self, folder: Path, *, timeout: float = 10, direct: bool = False) -> None:
        path = f"{folder}/server"
        with listener(path) as door:
            self.bus = dbus.connect(f"unix:path={path}", timeout, direct=direct)
            self.end, _ = door.accept()
        self.address = f"unix:path={path}"
        self.end.settimeout(10)
        self.first = self.end.recv(1 << 16)

    def calls(self, count: int) -> list[Theirs]:
        """What has been asked, Hello first."""
        parser = Parser()
        found = parser.feed(self.first[len(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n") :])
        while len(found) < count:
            found += parser.feed(self.end.recv(1 << 16))
        return found

    def say(self, *words: bytes) -> None:
        self.end.sendall(b"".join(words))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.bus.close()
    server.end.close()


def bytes_of(message: Theirs) -> bytes:
    return message.serialise(serial=99)


def answer(call: Theirs, *body: str) -> bytes:
    return bytes_of(new_method_return(call, "s" * len(body), body))


def test_handshake_and_hello_are_one_write(server: Server) -> None:
    """With an empty identity; and what follows is an ordinary call."""
    assert server.first.startswith(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\nl\1\0\1")
    serial = server.bus.send(*BUS, "GetId")
    hello, call = server.calls(2)
    assert (hello.header.fields[3], call.header.fields[3]) == ("Hello", "GetId")
    server.say(OK, answer(hello, ":1.0"), answer(call, "yes"))
    assert server.bus.reply(serial) == ("yes",)


def test_a_peer_that_is_no_bus_hears_no_hello(tmp_path: Path) -> None:
    """systemd's private socket: no Hello, no destination, no AddMatch; signals come all the same.

    And no call before it has let us in: it would let that lie until the next.
    """
    server = Server(tmp_path, timeout=0.05, direct=True)
    assert server.first == b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
    server.bus.match("type='signal',member='Done'")
    with pytest.raises(HostError, match=r"C: .* has not answered"):
        server.bus.send("a.b", "/", "a.b", "C")
    server.say(OK)
    serial = server.bus.send("a.b", "/", "a.b", "C")
    (call,) = server.calls(1)
    assert (call.header.fields[3], 6 in call.header.fields) == ("C", False)
    server.say(bytes_of(signal("/", "Other")), bytes_of(signal("/", "Done")), answer(call))
    assert server.bus.reply(serial) == ()
    assert server.bus.signal(lambda one: True, 0).member == "Done"
    server.bus.close()
    server.end.close()


@pytest.mark.parametrize("said", [b"", b"DATA\r\n", OK, OK + b"l\2\0\1"])
def test_silence_has_an_end(server: Server, said: bytes) -> None:
    """Whatever was said before; the method and the address are named."""
    server.say(said)
    serial = server.bus.send(*BUS, "GetId")
    start = time.monotonic()
    with pytest.raises(HostError) as caught:
        server.bus.reply(serial, 0.05)
    assert 0.05 <= time.monotonic() - start < 5
    assert caught.value.errno == errno.ETIMEDOUT
    assert caught.value.message == (
        f"GetId: the bus at {server.address} has not answered for 0.05 s"
    )


def test_the_handshake_has_less_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who listens and never lets us in holds us up for a moment; an answer may take its time."""
    monkeypatch.setattr(dbus, "PATIENCE", 0.05)
    server = Server(tmp_path, timeout=0.3)
    serial = server.bus.send(*BUS, "GetId")
    for said, seconds in ((b"", 0.05), (OK, 0.3)):
        server.say(said)
        start = time.monotonic()
        with pytest.raises(HostError, match=rf"has not answered for {seconds:g} s"):
            server.bus.reply(serial)
        assert seconds <= time.monotonic() - start < seconds + 0.2
    server.bus.close()
    server.end.close()


def test_a_late_answer_can_still_be_had(server: Server) -> None:
    """It comes in pieces, the first before the wait has ended and the rest after."""
    serial = server.bus.send(*BUS, "GetId")
    said = OK + answer(server.calls(2)[1], "late")
    server.say(said[:-3])
    with pytest.raises(HostError):
        server.bus.reply(serial, 0.02)
    server.say(said[-3:])
    assert server.bus.reply(serial) == ("late",)


def test_single_bytes_are_put_together(server: Server) -> None:
    """However the answer is cut."""
    serial = server.bus.send(*BUS, "GetId")
    for byte in OK + answer(server.calls(2)[1], "yes"):
        server.say(bytes((byte,)))
        with pytest.raises(HostError, match="has not answered"):
            server.bus.signal(lambda one: True, 0)
    assert server.bus.reply(serial, 0) == ("yes",)


def test_chatter_does_not_lengthen_the_wait(server: Server) -> None:
    """The deadline is that of the call, whatever else keeps coming."""
    serial = server.bus.send(*BUS, "GetId")
    pid = os.fork()
    if pid == 0:  # the server: says the same until it is killed
        server.say(OK)
        while True:
            server.say(bytes_of(signal("/", "Other")) * 100)
    start = time.monotonic()
    try:
        with pytest.raises(HostError, match=r"has not answered for 0.1 s"):
            server.bus.reply(serial, 0.1)
        assert 0.1 <= time.monotonic() - start < 5
    finally:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("said", "when"), [(b"", " before it knew us"), (OK, ""), (OK + b"l\2\0\1", "")]
)
def test_the_end_of_the_connection(server: Server, said: bytes, when: str) -> None:
    """Wherever it comes: ECONNRESET, again and again, at once."""
    serial = server.bus.send(*BUS, "GetId")
    server.calls(2)
    server.say(said)
    server.end.close()
    for _ in range(2):
        with pytest.raises(HostError) as caught:
            server.bus.reply(serial)
        assert caught.value.errno == errno.ECONNRESET
        assert caught.value.message == (
            f"GetId: the bus at {server.address}: it has closed the connection{when}"
        )
    with pytest.raises(HostError, match=r"C: .*closed the connection"):
        server.bus.send("a.b", "/", "a.b", "C")


@pytest.mark.parametrize("line", [b"REJECTED EXTERNAL\r\n", b'ERROR "no"\r\n', b"REJECTED\r\n"])
def test_nobody_is_let_in(server: Server, line: bytes) -> None:
    """The server's words, and what to look at; also when it has closed the connection meanwhile."""
    server.say(line)
    server.end.close()
    for _ in range(2):
        with pytest.raises(HostError) as caught:
            server.bus.call(*BUS, "GetId")
        assert caught.value.errno == errno.EACCES
        assert f"it does not let us in ({line.decode().strip()})" in caught.value.message
        assert caught.value.message.startswith("GetId: ")
        assert "DBUS_SESSION_BUS_ADDRESS" in caught.value.hint


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"x" * 20000,
        b"\0\xff\r\n",
        OK + b"HTTP/1.1 400 Bad",
        OK + b"l\2\0\1" + b"\xff" * 12,
        OK + b"l\2\0\1\4\0\0\0\1\0\0\0\0\0\0\0" + b"abcd",
        OK + b"l\2\0\2\0\0\0\0\1\0\0\0\0\0\0\0",
    ],
)
def test_garbage(server: Server, said: bytes) -> None:
    """No handshake, no message, one of a gigabyte: an error that names the address, every time."""
    server.say(said)
    serial = server.bus.send(*BUS, "GetId")
    for _ in range(2):
        with pytest.raises(HostError) as caught:
            server.bus.reply(serial)
        assert caught.value.errno in (errno.EPROTO, errno.EBADMSG, errno.EMSGSIZE)
        assert caught.value.message.startswith(f"GetId: the bus at {server.address}: ")
        assert caught.value.message.isprintable()


def test_hello_is_refused(server: Server) -> None:
    """A bus with too many connections says so, then hangs up: that is told, not the hang-up."""
    hello = server.calls(1)[0]
    name = "org.freedesktop.DBus.Error.LimitsExceeded"
    server.say(OK, bytes_of(new_error(hello, name, "s", ("too many",))))
    server.end.close()
    with pytest.raises(dbus.BusError, match="Hello: too many") as caught:
        server.bus.call(*BUS, "GetId")
    assert caught.value.errno == errno.ENOBUFS
    with pytest.raises(HostError, match="closed the connection"):
        server.bus.call(*BUS, "GetId")


def test_answers_to_nothing_are_passed_over(server: Server) -> None:
    """And calls to us: we serve nobody."""
    serial = server.bus.send(*BUS, "GetId")
    hello, call = server.calls(2)
    stray = answer(call, "stray").replace(
        serial.to_bytes(4, sys.byteorder), (77).to_bytes(4, sys.byteorder)
    )
    server.say(OK, answer(hello, ":1.0"), stray, bytes_of(ping()), answer(call, "yes"))
    assert server.bus.reply(serial) == ("yes",)


def test_a_server_that_takes_nothing(tmp_path: Path) -> None:
    """Writing has an end, too; half a message has gone, and so nothing can follow."""
    server = Server(tmp_path, timeout=0.1)
    for _ in range(2):
        with pytest.raises(HostError, match=r"C: .*it has taken nothing for 0.1 s") as caught:
            server.bus.send("a.b", "/", "a.b", "C", "ay", bytes(900_000))
        assert caught.value.errno == errno.ETIMEDOUT
    server.bus.close()
    server.end.close()


def test_who_writes_listens(server: Server) -> None:
    """A server that is busy answering reads when we have taken what it says: no deadlock."""
    server.end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pid = os.fork()
    if pid == 0:  # the server: writes all it has before it reads
        try:
            server.say(OK, bytes_of(signal("/", "Other")) * 5000)
            left = 900_000
            while left > 0:
                left -= len(server.end.recv(1 << 16))
        finally:
            os._exit(0)
    server.bus.send("a.b", "/", "a.b", "C", "ay", bytes(900_000))
    assert os.waitpid(pid, 0)[1] == 0


def test_signals_without_end(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody takes is not kept for ever."""
    monkeypatch.setattr(dbus, "MOST_KEPT", 10)
    server.bus.match("type='signal',member='Done'")
    server.say(OK, bytes_of(signal("/", "Done")) * 11)
    with pytest.raises(HostError, match="too many signals") as caught:
        server.bus.call(*BUS, "GetId")
    assert caught.value.errno == errno.ENOBUFS


def test_a_closed_connection(server: Server) -> None:
    """Closing twice is fine, using it is an error; the descriptor was not inheritable."""
    assert not os.get_inheritable(server.bus.fd)
    serial = server.bus.send(*BUS, "GetId")
    server.bus.close()
    server.bus.close()
    assert server.bus.fd == -1
    with pytest.raises(HostError, match="the connection is closed"):
        server.bus.reply(serial)
    with pytest.raises(HostError, match="the connection is closed"):
        server.bus.send(*BUS, "GetId")


def test_values_that_cannot_be_sent_leave_no_trace(server: Server) -> None:
    """The call is refused here, and the next one goes out."""
    with pytest.raises(HostError, match="cannot be sent"):
        server.bus.send(*BUS, "GetId", "u", -1)
    serial = server.bus.send(*BUS, "GetId")
    server.say(OK, answer(server.calls(2)[1], "yes"))
    assert server.bus.reply(serial) == ("yes",)
