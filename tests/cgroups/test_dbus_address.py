"""D-Bus addresses: which are understood, and what is said of those that are not."""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless_pyoki.cgroups import dbus_address
from rootless_pyoki.errors import HostError
from tests.support.buses import listener


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("unix:path=/run/user/1000/bus", ("/run/user/1000/bus", False)),
        ("unix:path=/run/bus,guid=2a", ("/run/bus", False)),
        ("unix:guid=2a,path=/run/bus", ("/run/bus", False)),
        ("unix:abstract=/tmp/dbus-x", ("/tmp/dbus-x", True)),
        ("unix:path=/a%20b%2c%3B%25", ("/a b,;%", False)),
        ("unix:path=/%c3%a4%ff", ("/ä\udcff", False)),
    ],
)
def test_addresses_that_are_understood(address: str, meant: tuple[str, bool]) -> None:
    """Paths and abstract names, escapes, keys that do not matter."""
    assert dbus_address.parse(address) == meant


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("unixexec:path=/bin/true", "pyoki starts no program to reach a bus"),
        ("tcp:host=localhost,port=1", "only unix: is supported, not tcp:"),
        ("autolaunch:", "only unix: is supported, not autolaunch:"),
        ("/run/user/1000/bus", "it is no D-Bus address"),
        ("unix:", "it needs either path= or abstract="),
        ("unix:path=", "it needs either path= or abstract="),
        ("unix:path=/a,abstract=b", "it needs either path= or abstract="),
        ("unix:path=/a%zz", "%zz is no escape"),
        ("unix:path=/a%2", "%2 is no escape"),
        ("unix:path=/a%00b", "EINVAL"),
        ("", "it names no server"),
        (";;", "it names no server"),
        ("a\nb", "it is no D-Bus address"),
    ],
)
def test_addresses_that_are_refused(address: str, reason: str) -> None:
    """Each with a sentence of its own, on one line, that names the address."""
    with pytest.raises(HostError) as caught:
        dbus_address.connect(address, 1)
    assert reason in caught.value.message
    assert caught.value.message.startswith("connect to the bus at ")
    assert address.replace("\n", "?") in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.errno


def test_nobody_is_there(tmp_path: Path) -> None:
    """No such file, nobody who listens, and no permission: the errno, and all alternatives' reasons."""
    closed = tmp_path / "closed"
    with listener(str(closed)):
        os.link(closed, tmp_path / "left")
    address = f"unix:path={tmp_path}/none;tcp:host=a;unix:path={tmp_path}/left"
    with pytest.raises(HostError) as caught:
        dbus_address.connect(address, 1)
    assert caught.value.errno == errno.ECONNREFUSED
    for reason in ("ENOENT", "not tcp:", "ECONNREFUSED"):
        assert reason in caught.value.message


def accepted(server: socket.socket, address: str) -> None:
    """Whoever connects there reaches this server."""
    fd = dbus_address.connect(address, 1)
    try:
        assert not os.get_inheritable(fd)
        assert not os.get_blocking(fd)
        peer, _ = server.accept()
        with peer:
            os.write(fd, b"here")
            assert peer.recv(10) == b"here"
    finally:
        os.close(fd)


def test_the_first_alternative_that_answers_is_taken(tmp_path: Path) -> None:
    """Those before it are passed over."""
    with listener(f"{tmp_path}/bus") as server:
        accepted(
            server, f"unixexec:path=/bin/false;unix:path={tmp_path}/none;unix:path={tmp_path}/bus;"
        )


def test_abstract_sockets() -> None:
    """A name without a file."""
    name = f"pyoki-test-{os.getpid()}"
    with listener(f"@{name}") as server:
        accepted(server, f"unix:abstract={name}")


def test_escaped_path(tmp_path: Path) -> None:
    """Any byte of a path can be written with a percent sign."""
    with listener(f"{tmp_path}/a b") as server:
        escaped = "".join([f"%{byte:02x}" for byte in f"{tmp_path}/a b".encode()])
        accepted(server, f"unix:path={escaped}")


def test_path_of_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sun_path holds 107 bytes: more go through an open directory."""
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    monkeypatch.chdir(folder)
    with listener("bus") as server:
        accepted(server, f"unix:path={folder}/bus")


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    """As long as the timeout says, and taken when there is room."""
    with listener(f"{tmp_path}/bus") as server:
        server.listen(0)
        first = dbus_address.connect(f"unix:path={tmp_path}/bus", 1)
        start = time.monotonic()
        with pytest.raises(HostError) as caught:
            dbus_address.connect(f"unix:path={tmp_path}/bus", 0.05)
        assert caught.value.errno == errno.EAGAIN
        assert 0.05 <= time.monotonic() - start < 5
        server.accept()[0].close()
        accepted(server, f"unix:path={tmp_path}/bus")
        os.close(first)


@settings(max_examples=100, deadline=None)
@given(st.text("unix:path=,;%abstract02fF/\0\n\xe4\udcff\udd00", max_size=40))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    """Nothing but HostError."""
    for one in (text, f"unix:path={text}"):
        try:
            where, _ = dbus_address.parse(one)
        except HostError:
            continue
        assert where
