"""Message buses of a test's own, as the user that runs it: dbus-daemon, and dbus-broker without systemd."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import leaks, needs

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>{address}</listen>
  <auth>{auth}</auth>
  <policy context="default">
    <allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/>
  </policy>
</busconfig>
"""

# dbus-broker-launch wants the bus's socket from systemd and a journal to write to. The second can be
# had by whoever owns a mount namespace: a socket that nobody reads.
BROKER = """
import os, socket, sys
os.dup2(int(sys.argv[3]), 3)  # SD_LISTEN_FDS_START
os.makedirs("/run/systemd/journal")
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
os.set_inheritable(journal.fileno(), True)
os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), DBUS_SESSION_BUS_ADDRESS=sys.argv[2])
words = ["dbus-broker-launch", "--scope", "user", "--config-file", sys.argv[1]]
os.execvp(words[0], words)
"""


@contextmanager
def dbus_daemon(folder: Path, auth: str = "EXTERNAL") -> Iterator[str]:
    """The address of a dbus-daemon; auth: the mechanism. Skips where the program is not."""
    program = needs.require_program("dbus-daemon")
    config = folder / "daemon.conf"
    config.write_text(CONFIG.format(address=f"unix:path={folder}/bus", auth=auth))
    words = [program, f"--config-file={config}", "--print-address=1", "--nofork", "--nosyslog"]
    daemon = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert daemon.stdout is not None
    try:
        found = daemon.stdout.readline().strip()
        assert found, daemon.communicate()[1]
        yield found
    finally:
        daemon.kill()
        daemon.communicate()


@contextmanager
def dbus_broker(folder: Path) -> Iterator[str]:
    """The address of a dbus-broker. Skips where the program is not.

    No test asks for its package to be installed: Debian's would make it the machine's system bus.
    """
    needs.require_program("dbus-broker")
    needs.require_program("dbus-broker-launch")
    address = f"unix:path={folder}/bus"
    config = folder / "broker.conf"
    config.write_text(CONFIG.format(address=address, auth="EXTERNAL"))
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(f"{folder}/bus")
        door.listen()
        inside = 'mount -t tmpfs none /run && exec "$@"'
        words = ["unshare", "--user", "--map-current-user", "--keep-caps", "--mount"]
        words += ["sh", "-c", inside, "sh"]
        words += [sys.executable, "-c", BROKER, str(config), address, str(door.fileno())]
        launcher = subprocess.Popen(
            words, pass_fds=[door.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
    try:
        yield address
    finally:
        ended = launcher.poll()
        launcher.send_signal(signal.SIGTERM)  # it takes the broker along
        said = launcher.communicate()[1]
        assert ended is None, said
        deadline = time.monotonic() + 5
        while any("dbus-broker" in line for line in leaks.processes()):
            assert time.monotonic() < deadline, "dbus-broker does not end"
            time.sleep(0.01)
        leaks.reap()


@contextmanager
def session(folder: Path) -> Iterator[str]:
    """The address of this user's own bus, which systemd's user manager is on."""
    path = f"{os.environ.get('XDG_RUNTIME_DIR')}/bus"
    needs.require(Path(path).is_socket(), "this user has no session bus")
    yield f"unix:path={path}"


@contextmanager
def listener(path: str) -> Iterator[socket.socket]:
    """A socket that listens at the path, abstract with an @: the test says what it answers."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0" + path[1:] if path[0] == "@" else path)
        server.listen()
        server.settimeout(10)
        try:
            yield server
        finally:
            if path[0] != "@":
                os.unlink(path)
