"""Terminals: the console socket, the foreground, exec, and ours given back whatever happens."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import ConsoleSocket, Runtime, Terminal, resize

Make = Callable[..., Bundle]


def on_terminal(bundle: Bundle) -> Bundle:
    bundle.process["terminal"] = True
    return bundle.write()


def settings(fd: int) -> list[object]:
    return list(termios.tcgetattr(fd))


class Pty:
    """A command on a terminal whose slave we keep open, to look at its settings."""

    def __init__(self, argv: list[str]) -> None:
        self.master, self.slave = pty.openpty()
        resize(self.slave, 33, 101)
        self.before = settings(self.slave)
        self.process = subprocess.Popen(
            argv,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: __import__("fcntl").ioctl(0, termios.TIOCSCTTY, 0),
        )
        self.seen = ""

    def expect(self, text: str, timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while text not in self.seen:
            ready = select.select([self.master], [], [], max(0, deadline - time.monotonic()))[0]
            assert ready, f"{text!r} did not come, only {self.seen!r}"
            self.seen += os.read(self.master, 65536).decode(errors="replace")
        self.seen = self.seen.partition(text)[2]

    def is_raw(self) -> bool:
        return not settings(self.slave)[3] & termios.ICANON  # type: ignore[operator]

    def wait_raw(self, raw: bool) -> None:
        deadline = time.monotonic() + 5
        while self.is_raw() != raw:
            assert time.monotonic() < deadline, f"raw is not {raw}"
            time.sleep(0.01)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


LOOP = "while :; do sleep 0.05; done"


@pytest.fixture
def start(runtime: Runtime, make_bundle: Make, identifier: str):  # type: ignore[no-untyped-def]
    started = []

    def run(script: str) -> Pty:
        bundle = on_terminal(make_bundle("sh", "-c", script))
        started.append(Pty(runtime.argv("run", "--bundle", str(bundle.path), identifier)))
        return started[-1]

    yield run
    for terminal in started:
        terminal.close()


@pytest.mark.parametrize("how", ["exit", "TERM", "a failing program"])
def test_the_terminal_is_given_back(start: Callable[[str], Pty], how: str) -> None:
    """Raw while the program runs, exactly as before when run has ended, however it ends."""
    script = {
        "exit": "echo up; read line; exit 5",
        "TERM": f"trap 'exit 6' TERM; echo up; {LOOP}",
        "a failing program": "echo up; kill -9 $$; read line; exec /no/such",
    }[how]
    terminal = start(script)
    terminal.expect("up")
    if how == "TERM":
        terminal.process.terminate()
    else:
        os.write(terminal.master, b"\n")
    code = terminal.process.wait(10)
    assert code == {"exit": 5, "TERM": 6, "a failing program": 127}[how]
    assert settings(terminal.slave) == terminal.before


def test_raw_meanwhile(start: Callable[[str], Pty]) -> None:
    """Characters pass at once and unechoed by our side: the program's terminal does that."""
    terminal = start("stty raw -echo; echo up; dd bs=1 count=1 2>/dev/null; echo; echo end")
    terminal.expect("up")
    assert terminal.is_raw()
    os.write(terminal.master, b"q")
    terminal.expect("q")
    terminal.expect("end")
    assert terminal.process.wait(10) == 0


def test_stop_and_continue(start: Callable[[str], Pty], runtime: Runtime) -> None:
    """SIGTSTP to run: the terminal is given back, we stop; SIGCONT: raw again, with the new size."""
    terminal = start(f"echo up; trap 'stty size' WINCH; {LOOP}")
    terminal.expect("up")
    terminal.process.send_signal(signal.SIGTSTP)
    terminal.wait_raw(False)
    assert settings(terminal.slave) == terminal.before
    pid = terminal.process.pid
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    resize(terminal.slave, 20, 60)
    terminal.process.send_signal(signal.SIGCONT)
    terminal.wait_raw(True)
    terminal.expect("20 60")


def test_the_window_follows(start: Callable[[str], Pty]) -> None:
    """A resized window reaches the program, with its signal."""
    terminal = start(f"trap 'stty size' WINCH; stty size; {LOOP}")
    terminal.expect("33 101")
    resize(terminal.slave, 50, 120)
    terminal.expect("50 120")


def test_job_control(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """An interactive shell has a controlling terminal: ^C ends the job and not the shell."""
    bundle = on_terminal(make_bundle("sh", "-i"))
    terminal = Terminal(runtime.argv("run", "--bundle", str(bundle.path), identifier))
    terminal.expect("#")
    terminal.send("sleep 1000\n")
    time.sleep(0.3)
    terminal.send("\x03")
    terminal.send("echo still $((40+2)); tty; ls -l /dev/console\n")
    terminal.expect("still 42")
    terminal.expect("/dev/")
    assert "turned off" not in terminal.seen
    terminal.send("exit 3\n")
    assert terminal.wait() == 3


def test_the_console(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """/dev/console and /dev/tty are the program's terminal."""
    bundle = on_terminal(
        make_bundle(
            "sh",
            "-c",
            "echo one > /dev/console; echo two > /dev/tty; tty; grep console /proc/self/mountinfo",
        )
    )
    terminal = Terminal(runtime.argv("run", "--bundle", str(bundle.path), identifier))
    terminal.expect("one")
    terminal.expect("two")
    assert terminal.wait() == 0
    assert "/dev/console" in terminal.seen and "devpts" in terminal.seen


def test_console_size(runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path) -> None:
    """consoleSize stands before the program runs; the name of the terminal is sent with it."""
    bundle = make_bundle("sh", "-c", "stty size; exit 0")
    bundle.process["consoleSize"] = {"height": 12, "width": 34}
    console = ConsoleSocket(tmp_path / "c")
    try:
        runtime.create(
            identifier, on_terminal(bundle).path, "--console-socket", str(console.path)
        ).ok()
        console.receive()
        assert console.name
        runtime.start(identifier).ok()
        console.expect("12 34")
    finally:
        console.close()


def test_nobody_listens(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """A console socket without a listener fails create, and nothing is left."""
    bundle = on_terminal(make_bundle())
    for path, word in (("there", "ECONNREFUSED"), ("not/there", "ENOENT")):
        if path == "there":
            console = ConsoleSocket(tmp_path / "there")
            console.close()
        result = runtime.create(identifier, bundle.path, "--console-socket", str(tmp_path / path))
        assert result.code == 1 and word in result.err, str(result)
    assert runtime.status(identifier) == ""


def test_much_output(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A megabyte through a terminal: not a byte is lost, also of what comes last."""
    bundle = on_terminal(
        make_bundle(
            "sh",
            "-c",
            "stty -opost; dd if=/dev/zero bs=1024 count=1024 2>/dev/null | tr '\\0' x; echo END",
        )
    )
    result = runtime.run(identifier, bundle.path, timeout=60)
    assert result.code == 0
    text = result.out.replace("\r", "")
    assert len(text) == (1 << 20) + 4 and text.endswith("xEND\n")


def test_end_of_input(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Input from a pipe ends for the program too."""
    bundle = on_terminal(make_bundle("sh", "-c", "stty -echo; cat; echo end"))
    result = runtime.run(identifier, bundle.path, input="one\ntwo\n", timeout=15)
    words = result.out.split()
    assert result.code == 0 and words[-3:] == ["one", "two", "end"], str(result)


def test_a_reader_that_leaves(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Our stdout closed early: the program goes on to its end, and we return its code."""
    bundle = on_terminal(
        make_bundle(
            "sh", "-c", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line; done; exit 7"
        )
    )
    process = runtime.popen("run", "--bundle", str(bundle.path), identifier, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(20) == 7


def test_the_window_is_there_before_the_program_asks(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Our window's size is the program's from its first instruction, also when we are held up after it
    has started (here by a poststart hook)."""
    bundle = on_terminal(make_bundle("sh", "-c", "stty size; read l"))
    bundle.config["hooks"] = {"poststart": [{"path": "/bin/sleep", "args": ["sleep", "0.5"]}]}
    bundle.write()
    terminal = Terminal(runtime.argv("run", "--bundle", str(bundle.path), identifier))
    assert terminal.expect("33 101") == ""
    terminal.send("\n")
    assert terminal.wait() == 0


def test_exec_with_a_terminal(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """exec -t: a terminal of the container's devpts, controlling, with our size, and the exit code."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    terminal = Terminal(
        runtime.argv(
            "exec", "-t", identifier, "sh", "-c", "tty; stty size; echo x >/dev/tty; read l; exit 8"
        )
    )
    assert "/dev/pts/" in terminal.expect("33 101")
    terminal.expect("x")
    terminal.send("\n")
    assert terminal.wait() == 8


def test_exec_with_a_console_socket(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """The form of engines: detached, the terminal through the socket."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    console = ConsoleSocket(tmp_path / "c")
    try:
        result = runtime(
            *("exec", "-d", "-t", "--console-socket", str(console.path), identifier),
            *("sh", "-c", "tty; read line; echo got $line"),
        )
        assert (result.code, result.err) == (0, "")
        console.receive()
        console.expect("/dev/pts/")
        console.send("words\n")
        console.expect("got words")
    finally:
        console.close()


@pytest.mark.parametrize("verb", ["create", "run -d", "exec -d -t"])
def test_a_terminal_needs_a_place(
    runtime: Runtime, make_bundle: Make, identifier: str, verb: str
) -> None:
    """Nobody would hold the master of a detached terminal: the words of runc."""
    bundle = make_bundle()
    if verb.startswith("exec"):
        runtime.run(identifier, bundle.path, "--detach").ok()
        result = runtime("exec", "-d", "-t", identifier, "true")
    else:
        on_terminal(bundle)
        result = runtime(*verb.split(), "--bundle", str(bundle.path), identifier)
    assert result.code != 0 and "without setting console socket" in result.err


def test_no_devpts(leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Without a devpts a terminal cannot be had, and the error says what is missing."""
    bundle = on_terminal(make_bundle("true"))
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "devpts"]
    (bundle.rootfs / "dev/pts").mkdir(parents=True)
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "/process/terminal" in result.err, str(result)
