"""AF_UNIX sockets, waiting, signals."""

from __future__ import annotations

import posix
import sys
from time import monotonic

from rootless_pyoki.kernel._call import check, encode, failed, ffi, lib, retry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_EAGAIN = 11
_SIGINFO = 128  # bytes of struct signalfd_siginfo


def socketpair(type: int) -> tuple[int, int]:
    """socketpair(2), AF_UNIX; type: SOCK_SEQPACKET, SOCK_STREAM, SOCK_DGRAM."""
    ends = ffi.new("int[2]")
    check(lib.pk_socketpair(type, ends), "socketpair")
    return ends[0], ends[1]


def socket(type: int) -> int:
    """socket(2), AF_UNIX."""
    return check(lib.pk_socket(type), "socket")


def bind(fd: int, path: str) -> None:
    """bind(2); ENAMETOOLONG beyond 107 bytes: go through /proc/self/fd/DIRFD/name."""
    raw = encode(path, "bind")
    check(lib.pk_bind(fd, raw, len(raw)), "bind", path)


def connect(fd: int, path: str) -> None:
    """connect(2); ENAMETOOLONG as bind()."""
    raw = encode(path, "connect")
    check(retry(lib.pk_connect, fd, raw, len(raw)), "connect", path)


def connect_abstract(fd: int, name: str) -> None:
    """connect(2) to a name in the abstract namespace, unix(7), without its leading NUL."""
    raw = b"\0" + encode(name, "connect")
    check(retry(lib.pk_connect, fd, raw, len(raw)), "connect", f"@{name}")


def listen(fd: int, backlog: int) -> None:
    """listen(2)."""
    check(lib.pk_listen(fd, backlog), "listen", f"fd {fd}")


def accept(fd: int) -> int:
    """accept4(2), EINTR retried."""
    return check(retry(lib.pk_accept, fd), "accept4", f"fd {fd}")


def peer_pid(fd: int) -> int:
    """SO_PEERCRED, unix(7): who called listen(2) or socketpair(2) at the other end of a connected
    socket; 0 for a process that our pid namespace does not see.
    """
    return check(lib.pk_peer_pid(fd), "getsockopt", f"fd {fd}")


def send(fd: int, data: bytes) -> int:
    """send(2) with MSG_NOSIGNAL, EINTR retried: EPIPE is an error and no signal."""
    return check(retry(lib.pk_sendmsg, fd, data, len(data), (), 0), "send", f"fd {fd}")


def recv(fd: int, size: int) -> bytes:
    """recv(2), EINTR retried; b"" at the end. Fds that come along: EMSGSIZE."""
    return recvmsg(fd, size, 0)[0]


def sendmsg(fd: int, data: bytes, fds: Sequence[int] = ()) -> int:
    """sendmsg(2) with SCM_RIGHTS and MSG_NOSIGNAL, EINTR retried."""
    result = retry(lib.pk_sendmsg, fd, data, len(data), fds, len(fds))
    return check(result, "sendmsg", f"fd {fd}")


def recvmsg(fd: int, size: int, maxfds: int) -> tuple[bytes, list[int]]:
    """recvmsg(2) with SCM_RIGHTS, EINTR retried: (data, fds); b"" at the end.

    A datagram longer than size, or more than maxfds fds: EMSGSIZE, and the message is lost.
    """
    data = ffi.new("char[]", size)
    fds = ffi.new("int[]", maxfds)
    count = ffi.new("size_t *", maxfds)
    while True:
        length = lib.pk_recvmsg(fd, data, size, fds, count)
        if length != -4:  # EINTR
            break
        count[0] = maxfds
    check(length, "recvmsg", f"fd {fd}")
    return bytes(ffi.buffer(data, length)), [fds[i] for i in range(count[0])]


def poll(entries: Iterable[tuple[int, int]], timeout_ms: int = -1) -> list[tuple[int, int]]:
    """poll(2), EINTR retried with what is left of the time: [(fd, revents)] where revents is not 0.

    entries: (fd, POLL*), 256 at most. [] when the time is over.
    """
    flat = [number for entry in entries for number in entry]
    deadline = monotonic() + timeout_ms / 1000
    while True:
        pairs = ffi.new("int[]", flat)
        result = lib.pk_poll(pairs, len(flat) // 2, timeout_ms)
        if result != -4:  # EINTR
            break
        if timeout_ms > 0:
            timeout_ms = max(0, int((deadline - monotonic()) * 1000) + 1)
    check(result, "poll")
    return [(pairs[i], pairs[i + 1]) for i in range(0, len(flat), 2) if pairs[i + 1]]


def sigprocmask(how: int, mask: int) -> int:
    """rt_sigprocmask(2): the old mask; bit N-1 stands for signal N, all 64 of them."""
    old = ffi.new("uint64_t *")
    check(lib.pk_sigprocmask(how, mask, old), "rt_sigprocmask")
    return int(old[0])


def signalfd(mask: int) -> int:
    """signalfd(2), non-blocking; mask as sigprocmask(), which must block the same signals."""
    return check(lib.pk_signalfd(mask), "signalfd4")


def read_signal(fd: int) -> tuple[int, int, int] | None:
    """One signal from signalfd(): (signal, sender or ended child, exit status); None: none."""
    try:
        info = posix.read(fd, _SIGINFO)
    except OSError as error:
        if error.errno == _EAGAIN:
            return None
        raise failed(error, "read", f"fd {fd}") from None
    order = sys.byteorder
    # struct signalfd_siginfo: ssi_signo at 0, ssi_pid at 12, ssi_status at 40
    return (
        int.from_bytes(info[:4], order),
        int.from_bytes(info[12:16], order),
        int.from_bytes(info[40:44], order, signed=True),
    )


def signal_default(signo: int) -> None:
    """signal(2), SIG_DFL."""
    check(lib.pk_signal(signo, 0), "signal", str(signo))


def signal_ignore(signo: int) -> None:
    """signal(2), SIG_IGN."""
    check(lib.pk_signal(signo, 1), "signal", str(signo))
