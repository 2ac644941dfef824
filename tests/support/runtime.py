"""Driving a runtime's command line the way podman and people do: pyoki, crun and runc alike."""

from __future__ import annotations

import array
import fcntl
import json
import os
import pty
import select
import shutil
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

TIMEOUT = float(os.environ.get("PYOKI_TEST_TIMEOUT", "30"))
CHECKOUT = Path(__file__).parents[2]


class Result:
    """How a command ended; the output is read from files, for a container may still write there."""

    def __init__(self, argv: list[str], code: int, out: Path, err: Path) -> None:
        self.argv = argv
        self.code = code
        self._out = out
        self._err = err

    @property
    def out(self) -> str:
        return self._out.read_text(errors="surrogateescape")

    @property
    def err(self) -> str:
        return self._err.read_text(errors="surrogateescape")

    def ok(self) -> Result:
        """Itself, when the command succeeded; else a failure that shows everything."""
        assert self.code == 0, str(self)
        return self

    def __str__(self) -> str:
        return f"{' '.join(self.argv)}: exit {self.code}\nstdout: {self.out}\nstderr: {self.err}"


class Runtime:
    """One runtime with a state root of its own."""

    def __init__(
        self,
        command: Sequence[str],
        root: Path,
        *,
        name: str = "pyoki",
        options: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        """options: more global options, before the verb."""
        self.command = list(command)
        self.root = root
        self.name = name
        self.options = list(options)
        self.env = dict(env or {})
        self.output = root.parent / f"{root.name}.output"
        self.output.mkdir(parents=True, exist_ok=True)
        self._count = 0

    def argv(self, *args: str) -> list[str]:
        return [*self.command, "--root", str(self.root), *self.options, *args]

    def __call__(
        self,
        *args: str,
        input: str | None = None,
        timeout: float = TIMEOUT,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        prefix: Sequence[str] = (),
        preexec: Callable[[], object] | None = None,
    ) -> Result:
        """Run a verb and wait for it; the container may live on. prefix: strace and the like."""
        self._count += 1
        out = self.output / f"{self._count}.out"
        err = self.output / f"{self._count}.err"
        argv = [*prefix, *self.argv(*args)]
        with open(out, "wb") as stdout, open(err, "wb") as stderr:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env={**os.environ, **self.env, **(env or {})},
                pass_fds=pass_fds,
                preexec_fn=preexec,
            )
            try:
                process.communicate(None if input is None else input.encode(), timeout=timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"{' '.join(argv)}: still running after {timeout} s") from None
        return Result(argv, process.returncode, out, err)

    def popen(self, *args: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a verb without waiting for it."""
        return subprocess.Popen(self.argv(*args), env={**os.environ, **self.env}, **options)

    def create(self, id: str, bundle: Path, *options: str, **more: Any) -> Result:
        return self("create", "--bundle", str(bundle), *options, id, **more)

    def run(self, id: str, bundle: Path, *options: str, **more: Any) -> Result:
        return self("run", "--bundle", str(bundle), *options, id, **more)

    def start(self, id: str) -> Result:
        return self("start", id)

    def exec(self, id: str, *args: str, **more: Any) -> Result:
        return self("exec", id, *args, **more)

    def kill(self, id: str, *args: str) -> Result:
        return self("kill", id, *args)

    def delete(self, id: str, *, force: bool = False) -> Result:
        return self("delete", *(("--force",) if force else ()), id)

    def state(self, id: str) -> dict[str, Any]:
        """The state, parsed; fails when there is none."""
        state: dict[str, Any] = json.loads(self("state", id).ok().out)
        return state

    def status(self, id: str) -> str:
        """created, running, paused, stopped, or "" when there is no such container."""
        result = self("state", id)
        return str(json.loads(result.out)["status"]) if result.code == 0 else ""

    def wait_status(self, id: str, status: str, timeout: float = 10) -> None:
        """Wait until the container has this status."""
        deadline = time.monotonic() + timeout
        while (now := self.status(id)) != status:
            assert time.monotonic() < deadline, f"{id} is {now!r}, not {status!r}"
            time.sleep(0.02)

    def clear(self) -> None:
        """Delete by force whatever is in the state root."""
        if self.root.is_dir():
            for entry in sorted(self.root.iterdir()):
                if entry.is_dir():
                    self("delete", "--force", entry.name)


def hot_command() -> list[str] | None:
    """The installed launcher with its bundle of code objects; PYOKI_COMMAND stands in for it."""
    command = os.environ.get("PYOKI_COMMAND") or os.environ.get("PYOKI_HOT")
    return command.split() if command else None


def source_command() -> list[str]:
    """The modules of the checkout, imported the usual way."""
    slow = os.environ.get("PYOKI_COMMAND") or os.environ.get("PYOKI_SLOW")
    if slow:
        return slow.split()
    launch = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); sys.argv[0] = 'pyoki'; "
    return [sys.executable, "-c", launch + "from rootless_pyoki.cli.entry import main; main()"]


def default_command() -> list[str]:
    return hot_command() or source_command()


class Terminal:
    """A command on a pseudo terminal that we type into; what comes back is kept in `seen`."""

    def __init__(self, argv: Sequence[str], *, rows: int = 33, columns: int = 101) -> None:
        pid, master = pty.fork()
        if pid == 0:
            try:
                resize(0, rows, columns)
                os.execvp(argv[0], argv)
            finally:
                os._exit(127)
        self.pid = pid
        self.fd = master
        self.seen = ""

    def expect(self, text: str, timeout: float = 10) -> str:
        """Read until the text has come; returns everything before it and forgets it."""
        self.seen = read_until(self.fd, text, timeout, self.seen)
        before, _, self.seen = self.seen.partition(text)
        return before

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def wait(self, timeout: float = 10) -> int:
        """The exit code, 128+N for a signal; reads whatever is left into `seen`."""
        deadline = time.monotonic() + timeout
        pidfd = os.pidfd_open(self.pid)
        try:
            while True:
                ready, _, _ = select.select([pidfd, self.fd], [], [], deadline - time.monotonic())
                assert ready, f"still running after {timeout} s: {self.seen!r}"
                if self.fd in ready and (data := read_some(self.fd)):
                    self.seen += data
                elif pidfd in ready:
                    break
        finally:
            os.close(pidfd)
        _, status = os.waitpid(self.pid, 0)
        os.close(self.fd)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code


class ConsoleSocket:
    """The other end of --console-socket: takes the container's terminal."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self.socket.bind(str(path))
        self.socket.listen(1)
        self.fd = -1
        self.name = ""
        self.seen = ""

    def receive(self, timeout: float = 10) -> int:
        """The ptmx master; `name` is what the runtime called it."""
        self.socket.settimeout(timeout)
        connection, _ = self.socket.accept()
        with connection:
            connection.settimeout(timeout)
            size = array.array("i").itemsize
            data, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(size))
        self.name = data.decode()
        (level, kind, fds) = ancillary[0]
        assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
        self.fd = array.array("i", fds)[0]
        return self.fd

    def expect(self, text: str, timeout: float = 10) -> str:
        self.seen = read_until(self.fd, text, timeout, self.seen)
        before, _, self.seen = self.seen.partition(text)
        return before

    def send(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def close(self) -> None:
        self.socket.close()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def resize(fd: int, rows: int, columns: int) -> None:
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def read_some(fd: int) -> str:
    """What a terminal has for us; "" when the other end is closed (EIO)."""
    try:
        return os.read(fd, 65536).decode(errors="replace").replace("\r", "")
    except OSError:
        return ""


def read_until(fd: int, text: str, timeout: float, seen: str = "") -> str:
    """`seen` and everything read, once the text is in it."""
    deadline = time.monotonic() + timeout
    while text not in seen:
        left = deadline - time.monotonic()
        ready = select.select([fd], [], [], max(left, 0))[0]
        assert ready, f"{text!r} did not come within {timeout} s, only {seen!r}"
        data = read_some(fd)
        assert data, f"the terminal was closed before {text!r} came: {seen!r}"
        seen += data
    return seen


def find(name: str) -> str | None:
    """A program in PATH or in the system's folders."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")
