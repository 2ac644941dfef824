"""Where a D-Bus server listens, and what it says at the door.

D-Bus Specification, "Server Addresses", "Authentication Protocol".
"""

from __future__ import annotations

import errno as e
import time

from rootless_pyoki.cgroups.dbus_message import one_line
from rootless_pyoki.errors import HostError, SyscallError, describe_errno
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls

# SASL EXTERNAL with an empty identity: who we are is what the kernel says (SO_PEERCRED), in the
# server's own user namespace. A number of ours would be wrong wherever we are uid 0 of another one.
HANDSHAKE = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n"
LONGEST_LINE = 1 << 14  # bytes, in the handshake
LONGEST_PATH = 107  # bytes, unix(7)
_RETRY = (
    0.002  # seconds; connect(2) says EAGAIN while the server's backlog is full, poll(2) nothing
)


def connect(address: str, timeout: float) -> int:
    """A non-blocking socket that is connected to the first of the alternatives that answers.

    Raises HostError with every alternative's reason, and the errno of the last.
    """
    deadline = time.monotonic() + timeout
    failures: list[str] = []
    errno = e.EINVAL
    for one in address.split(";"):
        if one:
            try:
                return _connect(*parse(one), deadline)
            except SyscallError as error:
                errno = error.errno or 0
                reason = describe_errno(errno, error.strerror or "")
            except HostError as error:
                errno, reason = error.errno, error.message
            failures.append(f"{one}: {reason}" if one != address else reason)
    reason = "; ".join(failures) or "it names no server"
    raise HostError(f"connect to the bus at {one_line(address)}: {one_line(reason)}", errno=errno)


def parse(address: str) -> tuple[str, bool]:
    """(path or abstract name, whether it is abstract) of one alternative; raises HostError."""
    transport, colon, rest = address.partition(":")
    if transport == "unixexec":
        raise HostError("pyoki starts no program to reach a bus", errno=e.EPROTONOSUPPORT)
    if transport != "unix" or not colon:
        reason = f"only unix: is supported, not {transport}:" if colon else "it is no D-Bus address"
        raise HostError(reason, errno=e.EPROTONOSUPPORT)
    pairs = [part.partition("=") for part in rest.split(",")]
    try:
        values = {key: _unescape(value) for key, _, value in pairs}
    except UnicodeEncodeError:
        raise HostError("it holds what stands for no byte", errno=e.EILSEQ) from None
    path, name = values.get("path", ""), values.get("abstract", "")
    if bool(path) == bool(name):
        raise HostError("it needs either path= or abstract=", errno=e.EINVAL)
    return path or name, not path


def _unescape(value: str) -> str:
    """%2f is a slash; bytes that are no UTF-8 become surrogates, as in all paths of ours."""
    first, *parts = value.split("%")
    raw = first.encode("utf-8", "surrogateescape")
    for part in parts:
        digits = part[:2]
        if len(digits) < 2 or digits.strip("0123456789abcdefABCDEF"):
            raise HostError(f"%{digits} is no escape", errno=e.EINVAL)
        raw += bytes((int(digits, 16),)) + part[2:].encode("utf-8", "surrogateescape")
    return raw.decode("utf-8", "surrogateescape")


def _connect(where: str, abstract: bool, deadline: float) -> int:
    socket = syscalls.socket(c.SOCK_STREAM | c.SOCK_NONBLOCK)
    try:
        while True:
            try:
                if abstract:
                    syscalls.connect_abstract(socket, where)
                elif len(where.encode("utf-8", "surrogateescape")) > LONGEST_PATH:
                    fds.connect(socket, where)
                else:
                    syscalls.connect(socket, where)
                return socket
            except SyscallError as error:
                if error.errno != c.EAGAIN or time.monotonic() > deadline:
                    raise
            time.sleep(_RETRY)
    except BaseException:
        fds.close_quietly(socket)
        raise


def let_in(line: bytes) -> bool:
    """What a line of the server's says: whether that was the last one. Raises HostError."""
    word = line.partition(b" ")[0]
    if word == b"OK":
        return True
    if word == b"DATA":
        return False
    if word in (b"REJECTED", b"ERROR"):
        raise HostError(
            f"it does not let us in ({one_line(line.decode('utf-8', 'replace'))})",
            errno=e.EACCES,
            hint="the bus must be this user's own: see DBUS_SESSION_BUS_ADDRESS",
        )
    raise HostError("what it answers is no D-Bus handshake", errno=e.EPROTO)
