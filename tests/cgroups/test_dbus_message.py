"""D-Bus messages: jeepney reads ours and we read jeepney's; what is broken is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jeepney.low_level import (
    Endianness,
    Header,
    HeaderFields,
    MessageFlag,
    MessageType,
    Parser,
)
from jeepney.low_level import Message as Theirs

from rootless_pyoki.cgroups import dbus_message
from rootless_pyoki.cgroups.dbus_message import BusError, Message
from rootless_pyoki.errors import HostError

MANAGER = (
    "org.freedesktop.systemd1",
    "/org/freedesktop/systemd1",
    "org.freedesktop.systemd1.Manager",
)
SIGNATURE = "ssa(sv)a(sa(sv))"
VALUES: tuple[Any, ...] = (
    "pyoki-c1.scope",
    "replace",
    [
        ("Description", ("s", "pyoki container c1")),
        ("Slice", ("s", "user.slice")),
        ("PIDs", ("au", [4711])),
        ("Delegate", ("b", True)),
        ("CPUWeight", ("t", 100)),
        ("AllowedCPUs", ("ay", b"\3")),
        ("DeviceAllow", ("a(ss)", [("/dev/null", "rwm")])),
    ],
    [],
)
HEADER = {
    HeaderFields.path: "/a",
    HeaderFields.interface: "a.b",
    HeaderFields.member: "C",
    HeaderFields.sender: ":1.5",
    HeaderFields.destination: ":1.6",
    HeaderFields.signature: "su",
}


def theirs(
    type: MessageType,
    fields: dict[HeaderFields, Any],
    body: tuple[Any, ...] = (),
    *,
    order: Endianness = Endianness.little,
    version: int = 1,
    serial: int = 9,
) -> bytes:
    """A message as jeepney writes it."""
    header = Header(order, type, MessageFlag(0), version, -1, -1, fields)
    return Theirs(header, body).serialise(serial)


def test_a_call_of_ours_is_what_jeepney_reads() -> None:
    """StartTransientUnit, with every header field and every property."""
    raw = dbus_message.method_call(7, *MANAGER, "StartTransientUnit", SIGNATURE, VALUES)
    assert dbus_message.length(raw[:16]) == len(raw)
    (message,) = Parser().feed(raw)
    assert message.header.message_type is MessageType.method_call
    assert message.header.serial == 7
    assert message.header.fields == {
        HeaderFields.destination: MANAGER[0],
        HeaderFields.path: MANAGER[1],
        HeaderFields.interface: MANAGER[2],
        HeaderFields.member: "StartTransientUnit",
        HeaderFields.signature: SIGNATURE,
    }
    assert message.body == VALUES


def test_a_call_without_destination_and_values() -> None:
    """To systemd itself: no bus that would need to know whom it is for."""
    raw = dbus_message.method_call(1, "", "/", "a.b", "C")
    (message,) = Parser().feed(raw)
    assert HeaderFields.destination not in message.header.fields
    assert HeaderFields.signature not in message.header.fields
    assert len(raw) % 8 == 0


@pytest.mark.parametrize("order", list(Endianness))
@pytest.mark.parametrize(
    ("type", "more"),
    [
        (MessageType.signal, {}),
        (MessageType.method_call, {}),
        (MessageType.method_return, {HeaderFields.reply_serial: 3}),
        (MessageType.error, {HeaderFields.reply_serial: 3, HeaderFields.error_name: "a.b.D"}),
    ],
)
def test_messages_of_jeepneys_are_what_we_read(
    type: MessageType, more: dict[HeaderFields, Any], order: Endianness
) -> None:
    """Every type of message, every header field, both byte orders."""
    raw = theirs(type, {**HEADER, **more}, ("x", 5), order=order)
    assert dbus_message.parse(raw) == Message(
        type=type.value,
        serial=9,
        reply_serial=more.get(HeaderFields.reply_serial, 0),
        error_name=more.get(HeaderFields.error_name, ""),
        path="/a",
        interface="a.b",
        member="C",
        sender=":1.5",
        destination=":1.6",
        signature="su",
        body=("x", 5),
    )


def test_a_type_that_nobody_knows_is_passed_over() -> None:
    """Types 5 and up may come some day: they must be ignored."""
    raw = bytearray(theirs(MessageType.signal, HEADER, ("x", 5)))
    raw[1] = 5
    assert dbus_message.parse(bytes(raw)) is None


def test_a_header_field_that_nobody_knows_is_passed_over() -> None:
    """As UNIX_FDS, which we never asked for."""
    raw = theirs(MessageType.signal, {**HEADER, HeaderFields.unix_fds: 0}, ("x", 5))
    message = dbus_message.parse(raw)
    assert message is not None and message.member == "C"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({0: 0x4C}, "begins with the byte 0x4c"),
        ({1: 0}, "type 0"),
        ({3: 2}, "version 2"),
        ({8: 0}, "serial 0"),
        ({4: 1}, "length"),
        ({4: 7}, "length"),
        ({16: 0}, "header field 0"),
        ({16: 3}, "header field 3 has the type o"),
        ({16: 200}, "no path"),
    ],
)
def test_headers_that_are_none(change: dict[int, int], reason: str) -> None:
    """A byte order, version, serial or length that cannot be; a required field of another type."""
    raw = bytearray(theirs(MessageType.signal, HEADER, ("x", 5)))
    for place, value in change.items():
        raw[place] = value
    with pytest.raises(HostError, match=reason):
        dbus_message.parse(bytes(raw))


@pytest.mark.parametrize(
    ("type", "lacking"),
    [
        (MessageType.signal, "interface"),
        (MessageType.method_return, "reply_serial"),
        (MessageType.error, "reply_serial"),
    ],
)
def test_header_fields_that_must_be_there(type: MessageType, lacking: str) -> None:
    """An answer to nothing and a signal of no interface are malformed."""
    fields = {HeaderFields.path: "/", HeaderFields.member: "C", HeaderFields.error_name: "a.b"}
    with pytest.raises(HostError, match=f"no {lacking}"):
        dbus_message.parse(theirs(type, fields))


def test_a_body_that_is_longer_than_its_signature() -> None:
    """What the signature does not tell of is not skipped."""
    raw = bytearray(theirs(MessageType.signal, HEADER, ("x", 5)))
    raw[4] += 8
    with pytest.raises(HostError, match="longer than its signature"):
        dbus_message.parse(bytes(raw) + bytes(8))


def test_a_message_too_long_is_refused_by_its_first_bytes() -> None:
    """Nobody waits for a gigabyte; nor do we send so much."""
    start = b"l\1\0\1" + (1 << 30).to_bytes(4, "little") + b"\1\0\0\0" + bytes(4)
    with pytest.raises(HostError, match="longer than the 1048576"):
        dbus_message.length(start)
    with pytest.raises(HostError, match="too long"):
        dbus_message.method_call(1, "a.b", "/", "a.b", "C", "ay", (bytes(1 << 20),))


def test_the_length_needs_16_bytes() -> None:
    """Fewer say nothing yet."""
    raw = theirs(MessageType.signal, HEADER, ("x", 5))
    assert [dbus_message.length(raw[:size]) for size in range(16)] == [0] * 16
    assert dbus_message.length(raw[:16]) == len(raw)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_changed_message_is_a_message_or_an_error(data: st.DataObject) -> None:
    """Any bytes of a good message changed, any number cut off: a Message or HostError."""
    raw = bytearray(theirs(MessageType.signal, HEADER, ("text", 5)))
    for place, value in data.draw(
        st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), max_size=6)
    ):
        raw[place] = value
    kept = data.draw(st.integers(0, len(raw)) | st.just(len(raw)))
    try:
        dbus_message.length(bytes(raw[:16]))
        dbus_message.parse(bytes(raw[:kept]))
    except HostError as error:
        assert "\n" not in error.message


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_an_error(tail: bytes) -> None:
    """As above, with everything after a plausible start made up."""
    fields = len(tail) // 2
    start = b"l\4\0\1" + (len(tail) - fields).to_bytes(4, "little") + b"\1\0\0\0"
    raw = start + fields.to_bytes(4, "little") + tail + bytes(-fields % 8)
    try:
        dbus_message.parse(raw)
    except HostError:
        pass


@pytest.mark.parametrize(
    ("name", "errno"),
    [
        ("org.freedesktop.DBus.Error.AccessDenied", 13),
        ("System.Error.EPERM", 1),
        ("System.Error.errorcode", 0),
        ("org.freedesktop.systemd1.NoSuchUnit", 0),
    ],
)
def test_an_error_says_its_errno(name: str, errno: int) -> None:
    """Where its name stands for one."""
    error = BusError("StopUnit", name, "it is gone")
    assert (error.name, error.text, error.errno) == (name, "it is gone", errno)
    assert error.message == f"StopUnit: it is gone ({name})"


def test_an_errors_text_is_one_line() -> None:
    """Control characters come from whoever named a unit; they do not reach a terminal."""
    fields = {HeaderFields.error_name: "a.b", HeaderFields.reply_serial: 1}
    fields[HeaderFields.signature] = "s"
    raw = theirs(MessageType.error, fields, ("no\n\x1b[2Jsuch\tunit" + "x" * 5000,))
    message = dbus_message.parse(raw)
    assert message is not None
    told = dbus_message.failure(message, "StopUnit").message
    assert told.startswith("StopUnit: no??[2Jsuch?unitx")
    assert len(told) < 1100
    silent = dbus_message.parse(
        theirs(MessageType.error, {**fields, HeaderFields.signature: "u"}, (3,))
    )
    assert silent is not None
    assert dbus_message.failure(silent, "StopUnit").message == "StopUnit: a.b"
