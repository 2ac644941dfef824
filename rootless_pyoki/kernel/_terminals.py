"""Terminals (termios(3), ioctl_tty(2)), names, and what fits nowhere else."""

from __future__ import annotations

import posix
from time import monotonic as monotonic
from time import time_ns as realtime_ns  # noqa: F401

from rootless_pyoki.kernel._call import NULL, check, decode, encode, failed, ffi, lib, retry

isatty = posix.isatty
strerror = posix.strerror
uname = posix.uname


def tcgetattr(fd: int) -> bytes:
    """tcgetattr(3): struct termios, opaque."""
    out = ffi.new("char[]", lib.pk_termios_size())
    check(lib.pk_tcgetattr(fd, out), "tcgetattr", f"fd {fd}")
    return bytes(ffi.buffer(out))


def tcsetattr(fd: int, attributes: bytes) -> None:
    """tcsetattr(3), TCSANOW; attributes: from tcgetattr() or make_raw()."""
    _check_termios(attributes)
    check(retry(lib.pk_tcsetattr, fd, attributes), "tcsetattr", f"fd {fd}")


def make_raw(attributes: bytes) -> bytes:
    """cfmakeraw(3) of a copy."""
    _check_termios(attributes)
    out = ffi.new("char[]", len(attributes))
    ffi.memmove(out, attributes, len(attributes))
    lib.pk_make_raw(out)
    return bytes(ffi.buffer(out))


def _check_termios(attributes: bytes) -> None:
    if len(attributes) != lib.pk_termios_size():
        raise ValueError("not a struct termios")


def get_window(fd: int) -> tuple[int, int]:
    """TIOCGWINSZ: (rows, columns)."""
    out = ffi.new("int[2]")
    check(lib.pk_get_window(fd, out), "ioctl TIOCGWINSZ", f"fd {fd}")
    return out[0], out[1]


def set_window(fd: int, rows: int, columns: int) -> None:
    """TIOCSWINSZ."""
    check(lib.pk_set_window(fd, rows, columns), "ioctl TIOCSWINSZ", f"fd {fd}")


def open_pty_peer(master: int) -> int:
    """TIOCGPTPEER, Linux 4.13: the slave, without any path; read-write, not our controlling tty."""
    return check(lib.pk_pty_peer(master, posix.O_RDWR | posix.O_NOCTTY), "ioctl TIOCGPTPEER")


def unlock_pty(master: int) -> None:
    """TIOCSPTLCK 0, as unlockpt(3)."""
    check(lib.pk_pty_unlock(master), "ioctl TIOCSPTLCK", f"fd {master}")


def pty_number(master: int) -> int:
    """TIOCGPTN: N of /dev/pts/N."""
    return check(lib.pk_pty_number(master), "ioctl TIOCGPTN", f"fd {master}")


def sethostname(name: str) -> None:
    """sethostname(2)."""
    raw = encode(name, "sethostname")
    check(lib.pk_sethostname(raw, len(raw)), "sethostname", name)


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    raw = encode(name, "setdomainname")
    check(lib.pk_setdomainname(raw, len(raw)), "setdomainname", name)


def interface_up(name: str) -> None:
    """SIOCSIFFLAGS with IFF_UP, see netdevice(7)."""
    check(lib.pk_interface_up(encode(name, "ioctl")), "ioctl SIOCSIFFLAGS", name)


_JOIN_SESSION_KEYRING, _SETPERM = 1, 5  # KEYCTL_*, the same on every architecture


def join_session_keyring(name: str | None) -> int:
    """KEYCTL_JOIN_SESSION_KEYRING, see keyctl(2): the keyring's id; None: an anonymous one."""
    text = NULL if name is None else ffi.new("char[]", encode(name, "keyctl"))
    pointer = int(ffi.cast("uintptr_t", text))
    return check(lib.pk_keyctl(_JOIN_SESSION_KEYRING, pointer, 0), "keyctl", name)


def keyctl_setperm(key: int, permissions: int) -> None:
    """KEYCTL_SETPERM, see keyctl_setperm(3): key_perm_t, a byte each for possessor, user, group, other."""
    check(lib.pk_keyctl(_SETPERM, key, permissions), "keyctl", f"key {key}")


def getrandom(size: int) -> bytes:
    """getrandom(2)."""
    try:
        return posix.getrandom(size)
    except OSError as error:
        raise failed(error, "getrandom") from None


def environ() -> dict[str, str]:
    """The environment at the interpreter's start, see environ(7)."""
    return {decode(name): decode(value) for name, value in posix.environ.items()}
