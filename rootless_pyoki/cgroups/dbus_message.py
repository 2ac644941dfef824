"""D-Bus messages: what a method call becomes, and what an answer says.

D-Bus Specification, "Message Protocol"; the values in them are dbus_values.py's.
"""

from __future__ import annotations

import errno as e
from sys import byteorder

from rootless_pyoki.cgroups.dbus_values import Reader, append, bad, marshal, pad, split
from rootless_pyoki.errors import HostError
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.cgroups.dbus_values import Order

METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL = 1, 2, 3, 4
FIXED = 16  # bytes at the start of every message, which tell how long it is
LONGEST_MESSAGE = 1 << 20  # bytes; the specification has 128 MiB, systemd's answers take few KiB

# header fields: code -> (name in Message, type)
_FIELDS = {
    1: ("path", "o"),
    2: ("interface", "s"),
    3: ("member", "s"),
    4: ("error_name", "s"),
    5: ("reply_serial", "u"),
    6: ("destination", "s"),
    7: ("sender", "s"),
    8: ("signature", "g"),
}
BUS, BUS_PATH = "org.freedesktop.DBus", "/org/freedesktop/DBus"
_ERRNO = {  # of the errors that stand for one; systemd's System.Error.EPERM and so on say it
    f"{BUS}.Error.AccessDenied": e.EACCES,
    f"{BUS}.Error.InvalidArgs": e.EINVAL,
    f"{BUS}.Error.NoReply": e.ETIMEDOUT,
    f"{BUS}.Error.Timeout": e.ETIMEDOUT,
    f"{BUS}.Error.LimitsExceeded": e.ENOBUFS,
    f"{BUS}.Error.ServiceUnknown": e.ESRCH,
}
_REQUIRED = {
    METHOD_CALL: ("path", "member"),
    METHOD_RETURN: ("reply_serial",),
    ERROR: ("reply_serial", "error_name"),
    SIGNAL: ("path", "interface", "member"),
}


class Message(Record):
    """A message that has come; what its header does not have is "" or 0."""

    type: int  # METHOD_CALL, METHOD_RETURN, ERROR, SIGNAL
    serial: int
    reply_serial: int = 0
    path: str = ""
    interface: str = ""
    member: str = ""
    error_name: str = ""
    destination: str = ""
    sender: str = ""  # the unique name, which the bus vouches for
    signature: str = ""
    body: tuple[Any, ...] = ()


class BusError(HostError):
    """A call was answered with an error: its D-Bus name, and its text on one line."""

    def __init__(self, method: str, name: str, text: str) -> None:
        errno = _ERRNO.get(name, 0)
        if name.startswith("System.Error."):
            errno = getattr(e, name[13:], 0)
        told = f"{method}: {text} ({name})" if text else f"{method}: {name}"
        super().__init__(told, errno=errno if isinstance(errno, int) else 0)
        self.name = name
        self.text = text


def method_call(
    serial: int,
    destination: str,
    path: str,
    interface: str,
    member: str,
    signature: str = "",
    values: tuple[Any, ...] = (),
) -> bytes:
    """A whole METHOD_CALL message; without a destination for a peer that is no bus."""
    body = marshal(signature, values)
    fields = [(1, ("o", path)), (2, ("s", interface)), (3, ("s", member))]
    if destination:
        fields.append((6, ("s", destination)))
    if signature:
        fields.append((8, ("g", signature)))
    start = (b"l" if byteorder == "little" else b"B") + bytes((METHOD_CALL, 0, 1))
    out = bytearray(start)
    append(out, "uua(yv)", (len(body), serial, fields))
    pad(out, 8)
    out += body
    if len(out) > LONGEST_MESSAGE:
        raise HostError(f"D-Bus: a message of {len(out)} bytes is too long", errno=e.EMSGSIZE)
    return bytes(out)


def length(start: bytes) -> int:
    """Bytes of the whole message of which these are the first; 0: fewer than FIXED are here."""
    if not start:
        return 0
    order = _order(start)
    if len(start) < FIXED:
        return 0
    fields = int.from_bytes(start[12:16], order)
    body = int.from_bytes(start[4:8], order)
    size = FIXED + fields + -fields % 8 + body
    if size > LONGEST_MESSAGE:
        raise HostError(
            f"D-Bus: a message of {size} bytes is longer than the {LONGEST_MESSAGE} that we take",
            errno=e.EMSGSIZE,
        )
    return size


def _order(start: bytes) -> Order:
    if start[0] == 0x6C:
        return "little"
    if start[0] != 0x42:
        bad(f"it begins with the byte {start[0]:#04x}")
    return "big"


def parse(raw: bytes) -> Message | None:
    """A whole message; None for a type that nobody knows, to be passed over. Raises HostError."""
    if length(raw) != len(raw) or len(raw) < FIXED:
        bad("its length is not what it says")
    reader = Reader(raw, _order(raw))
    type, version = raw[1], raw[3]
    reader.at = 8
    serial = reader.integer(4, False)
    if version != 1 or not type or not serial:
        bad(f"type {type}, version {version}, serial {serial}")
    values: dict[str, Any] = {"type": type, "serial": serial}
    for code, (signature, value) in reader.value("a(yv)", 0):
        name, kind = _FIELDS.get(code, ("", signature))
        if not code or signature != kind:
            bad(f"header field {code} has the type {signature}")
        if name:
            values[name] = value
    reader.pad(8)
    lacking = [name for name in _REQUIRED.get(type, ()) if not values.get(name)]
    if lacking:
        bad(f"its header has no {lacking[0]}")
    if type not in _REQUIRED:
        return None
    kinds = split(values.get("signature", ""))
    reader = Reader(raw[reader.at :], reader.order)
    values["body"] = tuple([reader.value(kind, 0) for kind in kinds])
    if reader.at != len(reader.raw):
        bad("its body is longer than its signature says")
    return Message(**values)


def failure(message: Message, method: str) -> BusError:
    """An ERROR message's text is its first value, if that is a string."""
    text = message.body[0] if message.signature[:1] == "s" else ""
    return BusError(method, one_line(message.error_name), one_line(text))


def one_line(text: str) -> str:
    """For a message: nothing that moves the cursor, and not without end."""
    shown = "".join([letter if letter.isprintable() else "?" for letter in text.strip()])
    return shown if len(shown) <= 1000 else f"{shown[:1000]}..."
