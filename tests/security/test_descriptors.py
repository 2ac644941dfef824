"""Nothing of pyoki or of its caller comes along: descriptors, signals, environment."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
BARE = "0\n1\n2\n3\n"  # 3 is ls's own


@pytest.fixture
def stray() -> object:
    """A directory of the host that the caller forgot to close (CVE-2024-21626)."""
    fd = os.open("/etc", os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    yield fd
    os.close(fd)


@pytest.mark.parametrize("logged", [False, True], ids=["plain", "debug-log"])
def test_the_program_gets_no_stray_descriptor(
    both_ways: Runtime,
    make_bundle: Make,
    identifier: str,
    tmp_path: Path,
    stray: int,
    logged: bool,
) -> None:
    """run and exec, with and without a log that stays open."""
    if logged:
        both_ways.options = ["--debug", "--log", str(tmp_path / "log")]
    bundle = make_bundle("ls", "/proc/self/fd")
    assert both_ways.run(identifier, bundle.path, pass_fds=[stray]).ok().out == BARE
    bundle.args("sleep", "1000")
    both_ways.run(identifier, bundle.path, "--detach", pass_fds=[stray]).ok()
    result = both_ways.exec(identifier, "ls", "/proc/self/fd", pass_fds=[stray])
    assert result.ok().out == BARE
    assert both_ways.exec(identifier, "ls", "/proc/1/fd").ok().out == "0\n1\n2\n"


def test_a_waiting_gate_holds_its_socket_and_its_lock_alone(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str, stray: int
) -> None:
    """No directory, no log, no procfs: nothing that a tracer in the container could use."""
    runtime.create(identifier, busybox_bundle.path, pass_fds=[stray]).ok()
    pid = runtime.state(identifier)["pid"]
    held = {fd: os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    others = sorted(held[fd].partition(":")[0] for fd in held if int(fd) > 2)
    assert len(others) == 2, held
    assert others[0].endswith("/gate.lock") and others[1] == "socket"
    assert os.readlink(f"/proc/{pid}/exe").startswith("/memfd:")
    runtime.delete(identifier, force=True).ok()


def test_preserved_descriptors_and_no_others(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """--preserve-fds 1: fd 3 and not fd 4."""
    (tmp_path / "given").write_text("given\n")

    def open_two() -> None:
        for fd, path in ((3, tmp_path / "given"), (4, Path("/etc"))):
            opened = os.open(path, os.O_RDONLY)
            if opened != fd:
                os.dup2(opened, fd)
            os.set_inheritable(fd, True)

    bundle = make_bundle("sh", "-c", "cat <&3; ls /proc/self/fd")
    result = runtime.run(
        identifier, bundle.path, "--preserve-fds", "1", pass_fds=[3, 4], preexec=open_two
    )
    assert result.ok().out == "given\n0\n1\n2\n3\n4\n"  # 4 is ls's own


def _block_and_ignore() -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def test_a_caller_that_ignores_and_blocks_every_signal(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """SIGCHLD too, for which waitpid(2) says ECHILD; the program sees none of it."""
    bundle = make_bundle("grep", "-E", "Sig(Blk|Ign|Cgt)", "/proc/self/status")
    out = runtime.run(identifier, bundle.path, preexec=_block_and_ignore).ok().out
    assert [line.split()[1] for line in out.splitlines()] == ["0" * 16] * 3
    bundle.args("sleep", "1000")
    runtime.create(identifier, bundle.path, preexec=_block_and_ignore).ok()
    runtime("start", identifier, preexec=_block_and_ignore).ok()
    assert runtime.exec(identifier, "true", preexec=_block_and_ignore).code == 0
    runtime("delete", "--force", identifier, preexec=_block_and_ignore).ok()


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_descriptors(
    runtime: Runtime, make_bundle: Make, identifier: str, closed: tuple[int, ...]
) -> None:
    """The program finds something there that is no file of ours."""

    def close() -> None:
        for fd in closed:
            os.close(fd)

    bundle = make_bundle("sh", "-c", "readlink /proc/self/fd/0; true")
    result = runtime.run(identifier, bundle.path, preexec=close)
    assert result.code == 0, str(result)
    assert result.err == "" and result.out in ("", "/dev/null\n")


def test_few_descriptors(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A limit of 32 passes; one that is too low is told in one line, and nothing stays."""
    bundle = make_bundle("true")

    def limit(number: int) -> Callable[[], None]:
        return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))

    runtime.run(identifier, bundle.path, preexec=limit(32)).ok()
    for number in (14, 15, 16, 17):
        result = runtime.run(identifier, bundle.path, preexec=limit(number))
        if result.code:
            assert result.code == 1 and result.err.count("\n") == 1, str(result)
            assert "EMFILE" in result.err
        assert os.listdir(runtime.root) == []
