"""Frames, file descriptors and errors across forks: one SEQPACKET socket pair for each child.

Only Python's ends speak JSON; the gate's messages are a byte and at most five more (protocol.py).
"""

from __future__ import annotations

from rootless_pyoki.errors import ChildError, PyokiError, SyscallError
from rootless_pyoki.kernel import constants, json, syscalls
from rootless_pyoki.processes import protocol

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FRAME = 128 << 10  # bytes; the largest frame is an error with its notes
LONGEST = 1024  # characters of a message or a note; JSON makes at most twelve bytes of one
MOST_NOTES = 4


class Gone(Exception):
    """The other end is closed."""


def pair() -> tuple[int, int]:
    """(main's end, the child's end), both CLOEXEC."""
    return syscalls.socketpair(constants.SOCK_SEQPACKET)


def send(fd: int, kind: bytes, body: object = None, fds: tuple[int, ...] = ()) -> None:
    """One frame; raises Gone when nobody listens any more."""
    payload = kind if body is None else kind + json.dumps(body)
    try:
        syscalls.sendmsg(fd, payload, fds)
    except SyscallError as error:
        if error.errno in (constants.EPIPE, constants.ECONNRESET):
            raise Gone from None
        raise


def receive(fd: int) -> tuple[bytes, Any, list[int]]:
    """(kind, body or the gate's raw bytes, fds); raises Gone at the end of the stream."""
    try:
        frame, fds = syscalls.recvmsg(fd, FRAME, 4)
    except SyscallError as error:
        if error.errno == constants.ECONNRESET:
            raise Gone from None
        raise
    if not frame:
        raise Gone
    kind, rest = frame[:1], frame[1:]
    if kind in (protocol.PID, protocol.GATE_FAILED) or not rest:
        return kind, rest, fds
    return kind, json.loads(rest), fds


def ask(fd: int, kind: bytes, answer: bytes) -> None:
    """Send and wait for the one answer that may come; raises Gone when main has left."""
    send(fd, kind)
    wait_for(fd, answer)


def wait_for(fd: int, answer: bytes) -> None:
    kind, _, _ = receive(fd)
    if kind != answer:
        raise protocol.ProtocolError(f"heard {kind!r} while waiting for {answer!r}")


def describe_error(error: BaseException, process: str) -> dict[str, Any]:
    """An exception as the FAILED frame's body."""
    notes = [str(note) for note in getattr(error, "__notes__", ())]
    body: dict[str, Any] = {
        "process": process,
        "message": str(error),
        "notes": notes,
        "pointer": getattr(error, "pointer", ""),
        "errno": getattr(error, "errno", 0) or 0,
        "hint": getattr(error, "hint", ""),
        "id": getattr(error, "id", ""),
        "call": getattr(error, "call", ""),
        "filename": str(getattr(error, "filename", None) or ""),
    }
    if not isinstance(error, (PyokiError, OSError)):
        body["message"] = f"internal error: {type(error).__name__}: {error}"
    for key in ("message", "pointer", "hint"):
        body[key] = _shorten(body[key])
    body["notes"] = [_shorten(note) for note in notes[:MOST_NOTES]]
    return body


def _shorten(text: str) -> str:
    """So that the frame holds it: config.json may name a program or a path of any length."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def raise_failure(body: dict[str, Any]) -> None:
    """What a child reported, as main's own exception."""
    error = ChildError(
        f"{body['process']}: {body['message']}",
        pointer=body["pointer"],
        errno=body["errno"],
        hint=body["hint"],
        id=body["id"],
    )
    error.call = body["call"]
    error.filename = body["filename"]
    for note in body["notes"]:
        error.add_note(note)
    raise error
