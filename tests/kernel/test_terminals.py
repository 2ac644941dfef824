"""kernel.syscalls: terminals, names, keyrings, the environment."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, syscalls
from tests.kernel.conftest import InChild


@pytest.fixture
def master() -> Any:
    fd = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    yield fd
    os.close(fd)


def test_pty_without_paths(master: int) -> None:
    """unlock, number and peer give the slave's own terminal, close-on-exec."""
    with pytest.raises(SyscallError):
        syscalls.open_pty_peer(master)
    syscalls.unlock_pty(master)
    slave = syscalls.open_pty_peer(master)
    assert os.ttyname(slave) == f"/dev/pts/{syscalls.pty_number(master)}"
    assert not os.get_inheritable(slave)
    assert syscalls.isatty(slave)
    os.close(slave)


def test_attributes_and_raw_mode(master: int) -> None:
    """What tcgetattr() gave can be set again; make_raw() changes a copy as cfmakeraw(3) does."""
    syscalls.unlock_pty(master)
    slave = syscalls.open_pty_peer(master)
    before = syscalls.tcgetattr(slave)
    assert termios.tcgetattr(slave)[3] & termios.ECHO
    raw = syscalls.make_raw(before)
    assert raw != before
    syscalls.tcsetattr(slave, raw)
    assert not termios.tcgetattr(slave)[3] & (termios.ECHO | termios.ICANON | termios.ISIG)
    syscalls.tcsetattr(slave, before)
    assert syscalls.tcgetattr(slave) == before
    os.close(slave)
    for call in (lambda: syscalls.tcsetattr(master, b"short"), lambda: syscalls.make_raw(b"")):
        with pytest.raises(ValueError):
            call()


def test_window_size(master: int) -> None:
    """(rows, columns), both ways."""
    syscalls.set_window(master, 33, 101)
    assert syscalls.get_window(master) == (33, 101)
    assert tuple(reversed(os.get_terminal_size(master))) == (33, 101)


def test_not_a_terminal() -> None:
    """ENOTTY names the request and the fd."""
    with open("/dev/null") as null, pytest.raises(SyscallError) as caught:
        syscalls.get_window(null.fileno())
    assert (caught.value.errno, caught.value.call) == (constants.ENOTTY, "ioctl TIOCGWINSZ")


def test_controlling_terminal(master: int, in_child: InChild) -> None:
    """A session leader gets it: /dev/tty opens."""
    syscalls.unlock_pty(master)

    def child() -> bool:
        syscalls.setsid()
        slave = syscalls.open_pty_peer(master)
        try:
            os.open("/dev/tty", os.O_RDWR)
            return False
        except OSError:
            pass
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
        os.close(os.open("/dev/tty", os.O_RDWR))
        return True

    assert in_child(child)


def test_host_and_domain_names(in_user_namespace: InChild) -> None:
    """Set in a uts namespace of our own, seen by uname(2), gone with it."""

    def child() -> list[str]:
        syscalls.sethostname("böx")
        syscalls.setdomainname("example.org")
        return [syscalls.uname().nodename, open("/proc/sys/kernel/domainname").read()]

    before = os.uname().nodename
    answer = in_user_namespace(child, constants.CLONE_NEWUTS)
    assert answer == ["böx", "example.org\n"]
    assert os.uname().nodename == before


SIOCGIFFLAGS, IFF_UP = 0x8913, 1  # netdevice(7)


def test_loopback_comes_up(in_user_namespace: InChild) -> None:
    """A new network namespace's lo is down until interface_up(); unknown names are ENODEV."""

    def child() -> list[Any]:
        def is_up() -> bool:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
                answer = fcntl.ioctl(any_socket, SIOCGIFFLAGS, struct.pack("16sh14x", b"lo", 0))
            return bool(struct.unpack("16sh14x", answer)[1] & IFF_UP)

        before = is_up()
        syscalls.interface_up("lo")
        try:
            syscalls.interface_up("nosuch0")
        except SyscallError as error:
            return [before, is_up(), error.errno, error.filename]
        return []

    answer = in_user_namespace(child, constants.CLONE_NEWNET)
    assert answer == [False, True, constants.ENODEV, "nosuch0"]


def test_session_keyring(in_child: InChild) -> None:
    """A keyring of that name becomes ours."""

    def child() -> list[Any]:
        serial = syscalls.join_session_keyring("_pyoki_test")
        with open("/proc/keys") as keys:
            return [line.split()[-2:] for line in keys if int(line.split()[0], 16) == serial]

    ((name, _),) = in_child(child)
    assert name == "_pyoki_test:"


def test_environment_as_bytes_in_disguise() -> None:
    """Values that are no UTF-8 survive."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from rootless_pyoki.kernel import syscalls\n"
        "print(ascii(syscalls.environ()['V']))\n"
    )
    root = syscalls.__file__.rsplit("/", 3)[0]
    done = subprocess.run(
        [sys.executable, "-c", script, root],
        capture_output=True,
        text=True,
        check=True,
        env={b"V": b"\xe9=\xc3\xa9"},
    )
    assert done.stdout == "'\\udce9=\\xe9'\n"


def test_small_things() -> None:
    """Words for errors, random bytes, clocks."""
    assert syscalls.strerror(2) == os.strerror(2)
    assert len(syscalls.getrandom(16)) == 16 and syscalls.getrandom(16) != syscalls.getrandom(16)
    assert syscalls.monotonic() <= syscalls.monotonic()
    assert syscalls.realtime_ns() > 1_600_000_000 * 10**9
