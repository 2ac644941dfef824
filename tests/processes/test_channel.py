"""Frames between processes: kinds, bodies, descriptors, errors, and the end of the stream."""

from __future__ import annotations

import os

import pytest

from rootless_pyoki.errors import ChildError, HostError, SyscallError
from rootless_pyoki.kernel import fds
from rootless_pyoki.processes import channel, protocol


@pytest.fixture
def ends():
    a, b = channel.pair()
    yield a, b
    for fd in (a, b):
        fds.close_quietly(fd)


def test_a_frame_arrives_whole(ends) -> None:
    """Kind, JSON body and descriptors, one datagram each."""
    a, b = ends
    read, write = os.pipe()
    channel.send(a, protocol.NOTE, {"pointer": "/x", "text": "ü" * 20_000})
    channel.send(a, protocol.CONSOLE, fds=(write,))
    channel.send(a, protocol.READY)
    kind, body, handed = channel.receive(b)
    assert (kind, body["text"], handed) == (protocol.NOTE, "ü" * 20_000, [])
    kind, _, handed = channel.receive(b)
    assert kind == protocol.CONSOLE and len(handed) == 1
    os.write(handed[0], b"through")
    assert os.read(read, 10) == b"through"
    assert not os.get_inheritable(handed[0])
    assert channel.receive(b)[0] == protocol.READY
    for fd in (read, write, *handed):
        os.close(fd)


def test_the_gates_frames_are_bytes(ends) -> None:
    """PID and GATE_FAILED carry no JSON."""
    a, b = ends
    os.write(a, protocol.PID + b"\x01\x02\x03\x04")
    assert channel.receive(b)[:2] == (protocol.PID, b"\x01\x02\x03\x04")
    os.write(a, protocol.GATE_FAILED + b"\x12\x02\0\0\0")
    assert channel.receive(b)[:2] == (protocol.GATE_FAILED, b"\x12\x02\0\0\0")


def test_nobody_there(ends) -> None:
    """Gone, both for who sends and for who listens."""
    a, b = ends
    os.close(b)
    with pytest.raises(channel.Gone):
        channel.send(a, protocol.READY)
    with pytest.raises(channel.Gone):
        channel.receive(a)


def test_what_was_sent_before_the_end(ends) -> None:
    """A frame that was sent by somebody who has left since is still heard."""
    a, b = ends
    channel.send(a, protocol.FAILED, {"message": "last words"})
    os.close(a)
    assert channel.receive(b)[1] == {"message": "last words"}
    with pytest.raises(channel.Gone):
        channel.receive(b)


def test_a_wrong_answer(ends) -> None:
    """ask() takes the one answer that may come."""
    a, b = ends
    channel.send(b, protocol.HOOKS_DONE)
    channel.ask(a, protocol.RUNTIME_HOOKS, protocol.HOOKS_DONE)
    channel.send(b, protocol.SETTLED)
    with pytest.raises(protocol.ProtocolError):
        channel.ask(a, protocol.RUNTIME_HOOKS, protocol.HOOKS_DONE)


def test_an_error_keeps_what_it_says(ends) -> None:
    """Message, pointer, errno, hint, notes and the call pass through the channel."""
    a, b = ends
    error = HostError("make it: no", pointer="/mounts/3", errno=2, hint="do that", id="X-1")
    error.add_note("the kernel's words")
    channel.send(a, protocol.FAILED, channel.describe_error(error, "init"))
    with pytest.raises(ChildError) as caught:
        channel.raise_failure(channel.receive(b)[1])
    told = caught.value
    assert told.message == "init: make it: no"
    assert (told.pointer, told.errno, told.hint, told.id) == ("/mounts/3", 2, "do that", "X-1")
    assert told.__notes__ == ["the kernel's words"]


@pytest.mark.parametrize(
    ("error", "message", "number"),
    [
        (
            SyscallError(13, "Permission denied", "openat", "/x"),
            "openat /x: permission denied (EACCES)",
            13,
        ),
        (KeyError("name"), "internal error: KeyError: 'name'", 0),
    ],
)
def test_other_errors(error: Exception, message: str, number: int) -> None:
    """A failed call is told as it is; what is no error of ours is called an internal one."""
    body = channel.describe_error(error, "init")
    assert (body["message"], body["errno"]) == (message, number)
