"""kernel.syscalls: sockets, waiting, signals."""

from __future__ import annotations

import array
import os
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, syscalls
from tests.kernel.conftest import InChild, open_fds

SEQPACKET = constants.SOCK_SEQPACKET


def pair(type: int = SEQPACKET) -> tuple[int, int]:
    ends = syscalls.socketpair(type)
    assert not any(os.get_inheritable(fd) for fd in ends)
    return ends


def close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


def test_messages_and_descriptors(no_leak: None) -> None:
    """Data and fds arrive together, the fds close-on-exec and in order; the end is b""."""
    a, b = pair()
    null, zero = os.open("/dev/null", os.O_RDONLY), os.open("/dev/zero", os.O_RDONLY)
    assert syscalls.sendmsg(a, b"hello", (null, zero)) == 5
    assert syscalls.send(a, b"again") == 5
    data, fds = syscalls.recvmsg(b, 100, 4)
    assert data == b"hello"
    assert [os.path.sameopenfile(*each) for each in zip(fds, (null, zero), strict=True)] == [
        True
    ] * 2
    assert not any(map(os.get_inheritable, fds))
    assert syscalls.recvmsg(b, 100, 0) == (b"again", [])
    with socket.socket(fileno=os.dup(a)) as ours:
        ours.shutdown(socket.SHUT_WR)
    assert syscalls.recvmsg(b, 100, 4) == (b"", [])
    assert syscalls.recv(b, 100) == b""
    close(a, b, null, zero, *fds)


@pytest.mark.parametrize(("sent", "room"), [(2, 1), (3, 2), (1, 0), (5, 4), (253, 252)])
def test_too_many_descriptors(sent: int, room: int, no_leak: None) -> None:
    """More fds than there is room for: EMSGSIZE, and none stays open."""
    a, b = pair()
    syscalls.sendmsg(a, b"x", [a] * sent)
    before = open_fds()
    with pytest.raises(SyscallError) as caught:
        syscalls.recvmsg(b, 10, room)
    assert caught.value.errno == constants.EMSGSIZE
    assert open_fds() == before
    close(a, b)


def test_as_many_descriptors_as_there_may_be(no_leak: None) -> None:
    """253 pass, 254 are EINVAL on either side."""
    a, b = pair()
    syscalls.sendmsg(a, b"x", [a] * 253)
    data, fds = syscalls.recvmsg(b, 10, 253)
    assert (data, len(fds)) == (b"x", 253)
    close(*fds)
    for call in (lambda: syscalls.sendmsg(a, b"x", [a] * 254), lambda: syscalls.recvmsg(b, 1, 254)):
        with pytest.raises(SyscallError) as caught:
            call()
        assert caught.value.errno == constants.EINVAL
    close(a, b)


def test_a_datagram_is_not_cut(no_leak: None) -> None:
    """Longer than the buffer: EMSGSIZE and no half message, its fds closed."""
    a, b = pair()
    syscalls.sendmsg(a, b"0123456789", [a])
    with pytest.raises(SyscallError) as caught:
        syscalls.recvmsg(b, 4, 1)
    assert caught.value.errno == constants.EMSGSIZE
    syscalls.send(a, b"next")
    assert syscalls.recv(b, 4) == b"next"
    close(a, b)


def test_other_control_messages_do_not_confuse(no_leak: None) -> None:
    """Credentials beside the fds are passed over."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        rights = array.array("i", [ours.fileno()])
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        data, fds = syscalls.recvmsg(theirs.fileno(), 10, 16)
        assert (data, len(fds)) == (b"x", 1)
        close(*fds)


def test_nobody_listens_is_an_error_and_no_signal(in_child: InChild) -> None:
    """EPIPE even where SIGPIPE would kill."""

    def child() -> int:
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        a, b = pair()
        os.close(b)
        for call in (lambda: syscalls.send(a, b"x"), lambda: syscalls.sendmsg(a, b"x", [a])):
            try:
                call()
            except SyscallError as error:
                assert error.errno == constants.EPIPE
            else:
                return 0
        return 1

    assert in_child(child) == 1


def test_named_sockets(tmp_path: Path, no_leak: None) -> None:
    """A long path is refused, the same through a descriptor works; the peer's credentials."""
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    fd = os.open(folder, os.O_PATH)
    server, client = syscalls.socket(SEQPACKET), syscalls.socket(SEQPACKET)
    for call in (syscalls.bind, syscalls.connect):
        with pytest.raises(SyscallError) as caught:
            call(server, str(folder / "gate.sock"))
        assert caught.value.errno == constants.ENAMETOOLONG
    short = f"/proc/self/fd/{fd}/gate.sock"
    syscalls.bind(server, short)
    with pytest.raises(SyscallError) as caught:
        syscalls.connect(client, short)
    assert (caught.value.errno, caught.value.filename) == (constants.ECONNREFUSED, short)
    syscalls.listen(server, 1)
    syscalls.connect(client, short)
    accepted = syscalls.accept(server)
    assert not os.get_inheritable(accepted)
    syscalls.send(client, b"S")
    assert syscalls.recv(accepted, 1) == b"S"
    close(fd, server, client, accepted)


def test_the_longest_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """107 bytes are taken whole, 108 are not."""
    monkeypatch.chdir(tmp_path)
    server = syscalls.socket(SEQPACKET)
    syscalls.bind(server, "x" * 107)
    assert os.listdir() == ["x" * 107]
    close(server)
    server = syscalls.socket(SEQPACKET)
    with pytest.raises(SyscallError):
        syscalls.bind(server, "x" * 108)
    close(server)


def test_poll(no_leak: None) -> None:
    """Only what happened is returned; nothing in time is []; POLLHUP comes unasked."""
    a, b = pair(constants.SOCK_STREAM)
    assert syscalls.poll([], 0) == []
    assert syscalls.poll([(a, constants.POLLIN)], 0) == []
    syscalls.send(b, b"x")
    assert syscalls.poll([(b, constants.POLLIN), (a, constants.POLLIN)]) == [(a, constants.POLLIN)]
    close(b)
    ((fd, events),) = syscalls.poll([(a, 0)])
    assert fd == a and events & constants.POLLHUP
    close(a)
    assert syscalls.poll([(a, constants.POLLIN)]) == [(a, constants.POLLNVAL)]
    with pytest.raises(SyscallError):
        syscalls.poll([(0, 0)] * 257, 0)


def test_poll_keeps_its_time_through_signals(in_child: InChild) -> None:
    """Signals every 20 ms neither end the wait early nor prolong it."""

    def child() -> list[Any]:
        hits: list[int] = []
        signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        start = time.monotonic()
        result = syscalls.poll([], 300)
        return [result, time.monotonic() - start, len(hits)]

    result, elapsed, hits = in_child(child)
    assert result == []
    assert 0.3 <= elapsed < 1.5
    assert hits > 3


def test_a_handler_may_end_a_wait(in_child: InChild) -> None:
    """EINTR is retried, but an exception from a handler (Ctrl-C) gets through."""

    def child() -> str:
        def interrupt(*_: object) -> None:
            raise KeyboardInterrupt

        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        a, _ = pair()
        try:
            syscalls.recvmsg(a, 1, 0)
        except KeyboardInterrupt:
            return "interrupted"
        return "not"

    assert in_child(child) == "interrupted"


def test_waiting_does_not_stop_other_threads() -> None:
    """The extension gives the GIL away while it waits."""
    a, b = pair()
    threading.Timer(0.05, lambda: os.write(b, b"x")).start()
    assert syscalls.recv(a, 1) == b"x"
    close(a, b)


def test_signalfd(in_child: InChild) -> None:
    """Blocked signals come as (number, sender, status); None when none waits."""

    def child() -> list[Any]:
        mask = (1 << 16) | (1 << 9)  # SIGCHLD, SIGUSR1
        old = syscalls.sigprocmask(constants.SIG_BLOCK, mask)
        fd = syscalls.signalfd(mask)
        answers: list[Any] = [syscalls.read_signal(fd)]
        os.kill(os.getpid(), signal.SIGUSR1)
        answers.append(syscalls.read_signal(fd) == (signal.SIGUSR1, os.getpid(), 0))
        pid = syscalls.clone(0)
        if pid == 0:
            os._exit(17)
        syscalls.poll([(fd, constants.POLLIN)])
        answers.append(syscalls.read_signal(fd) == (signal.SIGCHLD, pid, 17))
        syscalls.waitpid(pid)
        syscalls.sigprocmask(constants.SIG_SETMASK, 2**64 - 1)
        everything = syscalls.sigprocmask(constants.SIG_SETMASK, old)
        unblockable = 1 << (signal.SIGKILL - 1) | 1 << (signal.SIGSTOP - 1)
        answers.append(everything == (2**64 - 1) & ~unblockable)
        answers.append(syscalls.sigprocmask(constants.SIG_BLOCK, 0) == old)
        return answers

    assert in_child(child) == [None, True, True, True, True]


def test_dispositions(in_child: InChild) -> None:
    """signal_ignore and signal_default do what /proc shows; SIGKILL cannot be."""

    def ignored() -> int:
        status = Path("/proc/self/status").read_text()
        return int(
            next(line for line in status.splitlines() if line.startswith("SigIgn")).split()[1], 16
        )

    def child() -> list[Any]:
        syscalls.signal_ignore(signal.SIGTERM)
        before = ignored() >> (signal.SIGTERM - 1) & 1
        syscalls.signal_default(signal.SIGTERM)
        try:
            syscalls.signal_ignore(signal.SIGKILL)
        except SyscallError as error:
            return [before, ignored() >> (signal.SIGTERM - 1) & 1, error.errno]
        return []

    assert in_child(child) == [1, 0, constants.EINVAL]


def test_abstract_names(no_leak: None) -> None:
    """connect_abstract() reaches exactly the name, without padding; nobody there is ECONNREFUSED."""
    name = f"pyoki-{os.getpid()}"
    client = syscalls.socket(constants.SOCK_DGRAM)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(f"\0{name}")
        with pytest.raises(SyscallError) as caught:
            syscalls.connect_abstract(client, f"{name}x")
        assert (caught.value.errno, caught.value.filename) == (
            constants.ECONNREFUSED,
            f"@{name}x",
        )
        syscalls.connect_abstract(client, name)
        syscalls.send(client, b"hello")
        assert server.recv(10) == b"hello"
    os.close(client)


def test_peer_pid() -> None:
    """Who made the pair; somebody outside of our pid namespace is 0, which tests of systemd show."""
    ours, theirs = syscalls.socketpair(constants.SOCK_STREAM)
    try:
        assert syscalls.peer_pid(ours) == os.getpid()
    finally:
        syscalls.close(ours)
        syscalls.close(theirs)
    with pytest.raises(SyscallError) as caught:
        syscalls.peer_pid(ours)
    assert (caught.value.call, caught.value.errno) == ("getsockopt", constants.EBADF)
