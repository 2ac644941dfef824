"""Namespaces to join, looked at before anything is made."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rootless_pyoki.errors import HostError, PyokiError, SpecError
from rootless_pyoki.host import joined

LINKS = {
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "pid": "pid",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
KINDS = [kind for kind, link in LINKS.items() if os.path.exists(f"/proc/self/ns/{link}")]


def check(kind: str, path: str) -> None:
    joined.check({"namespaces": [{"type": "pid"}, {"type": kind, "path": path}]})


@pytest.mark.parametrize("kind", KINDS)
def test_its_own_type(kind: str) -> None:
    """Fine, but the caller's own user and mount namespaces, which cannot be entered."""
    path = f"/proc/self/ns/{LINKS[kind]}"
    if kind not in ("user", "mount"):
        check(kind, path)
        return
    with pytest.raises(HostError) as caught:
        check(kind, path)
    assert caught.value.pointer == "/linux/namespaces/1/path"
    assert "the caller's own" in caught.value.message and caught.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_another_type(kind: str) -> None:
    """Names what it is."""
    other = "uts" if kind != "uts" else "network"
    with pytest.raises(SpecError) as caught:
        check(kind, f"/proc/self/ns/{LINKS[other]}")
    assert caught.value.pointer == "/linux/namespaces/1/path"
    assert f"it is the {other} namespace {LINKS[other]}:[" in caught.value.message


def test_a_namespace_under_another_name() -> None:
    """Engines keep network namespaces as bind mounts, whose path tells nothing of the type."""
    here = Path(__file__).parents[2]
    check = f"""
import sys
sys.path.insert(0, {str(here)!r})
from rootless_pyoki.host import joined
joined.check({{"namespaces": [{{"type": "network", "path": "/mnt/kept"}}]}})
try:
    joined.check({{"namespaces": [{{"type": "ipc", "path": "/mnt/kept"}}]}})
except Exception as error:
    print(error)
"""
    script = (
        "mount -t tmpfs none /mnt && touch /mnt/kept && mount --bind /proc/self/ns/net /mnt/kept && "
        'exec "$0" -c "$1"'
    )
    line = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(
        [*line, sys.executable, check], capture_output=True, text=True, check=True, timeout=30
    )
    assert "it is the network namespace net:[" in done.stdout


def test_for_children() -> None:
    """What a process has in store for its children is of the same type."""
    check("pid", "/proc/self/ns/pid_for_children")
    if "time" in KINDS:
        check("time", "/proc/self/ns/time_for_children")


@pytest.mark.parametrize("what", ["file", "directory", "fifo", "socket", "device"])
def test_no_namespace_at_all(tmp_path: Path, what: str) -> None:
    """Whatever lies there; it is not opened, which might never end."""
    path = tmp_path / "there"
    if what == "file":
        path.write_text("net:[1]")
    elif what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path = Path("/dev/null")
    with pytest.raises(SpecError) as caught:
        check("network", str(path))
    assert caught.value.pointer == "/linux/namespaces/1/path"
    assert caught.value.errno == errno.EINVAL


def test_nothing_there() -> None:
    """The kernel's own reason."""
    with pytest.raises(PyokiError) as caught:
        check("network", "/no/such/namespace")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.pointer == "/linux/namespaces/1/path"
