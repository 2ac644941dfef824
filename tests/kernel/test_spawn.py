"""kernel.syscalls.spawn: helpers started beside us, in our memory, without vfork."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, syscalls
from tests.kernel.conftest import InChild
from tests.support import leaks

ENVIRONMENT = ["PATH=/usr/bin:/bin", "LC_ALL=C"]


def finish(spawned: syscalls.Spawned) -> int:
    """Wait for the program; its wait status."""
    try:
        syscalls.spawn_result(spawned)
    finally:
        _, status = syscalls.waitpid(spawned.pid)
        os.close(spawned.pidfd)
    return status


def output_of(script: str, **options: object) -> bytes:
    reader, writer = syscalls.pipe()
    spawned = syscalls.spawn("/bin/sh", ["sh", "-c", script], ENVIRONMENT, stdout=writer, **options)  # type: ignore[arg-type]
    os.close(writer)
    with open(reader, "rb") as stream:
        out = stream.read()
    assert finish(spawned) == 0
    return out


def test_two_hundred_in_a_loop(no_leak: None) -> None:
    """Each runs with its own arguments and environment; no fd, zombie or memory is left."""

    def mappings() -> int:
        with open("/proc/self/maps") as maps:
            return len(maps.readlines())

    output_of("true")
    born_before = leaks.children()
    before = mappings()
    for number in range(200):
        reader, writer = syscalls.pipe()
        spawned = syscalls.spawn(
            "/bin/sh",
            ["sh", "-c", 'echo "$1 $V"', "sh", str(number)],
            [f"V={number * 2}"],
            stdout=writer,
        )
        os.close(writer)
        syscalls.spawn_result(spawned)
        with open(reader, "rb") as stream:
            assert stream.read() == b"%d %d\n" % (number, number * 2)
        assert syscalls.waitpid(spawned.pid) == (spawned.pid, 0)
        os.close(spawned.pidfd)
    assert mappings() <= before + 2
    assert leaks.children() <= born_before


def test_many_at_once(no_leak: None) -> None:
    """Children that share our memory at the same time do not disturb each other."""
    running = [syscalls.spawn("/bin/sh", ["sh", "-c", f"exit {n}"], ENVIRONMENT) for n in range(20)]
    assert [finish(one) >> 8 for one in running] == list(range(20))


def test_missing_program(no_leak: None) -> None:
    """ENOENT comes from spawn_result() with call and path; the child is there to be reaped."""
    spawned = syscalls.spawn("/nonexistent/helper", ["helper"], [])
    with pytest.raises(SyscallError) as caught:
        syscalls.spawn_result(spawned)
    assert (caught.value.errno, caught.value.call) == (constants.ENOENT, "execve")
    assert caught.value.filename == "/nonexistent/helper"
    assert os.waitstatus_to_exitcode(syscalls.waitpid(spawned.pid)[1]) == 127
    os.close(spawned.pidfd)


def test_bad_working_directory(tmp_path: Path, no_leak: None) -> None:
    """A cwd_fd that is no directory: ENOTDIR from fchdir, and the program does not run."""
    (tmp_path / "file").touch()
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    spawned = syscalls.spawn("/bin/true", ["true"], [], cwd_fd=fd)
    os.close(fd)
    with pytest.raises(SyscallError) as caught:
        syscalls.spawn_result(spawned)
    assert (caught.value.errno, caught.value.call) == (constants.ENOTDIR, "fchdir")
    syscalls.waitpid(spawned.pid)
    os.close(spawned.pidfd)


def test_stderr_is_captured(no_leak: None) -> None:
    """What a helper complains about comes through the pipe it was given."""
    reader, writer = syscalls.pipe()
    spawned = syscalls.spawn(
        "/bin/sh", ["sh", "-c", "echo no >&2; exit 3"], ENVIRONMENT, stderr=writer
    )
    os.close(writer)
    with open(reader, "rb") as stream:
        assert stream.read() == b"no\n"
    assert finish(spawned) >> 8 == 3


def test_only_the_named_descriptors_arrive(no_leak: None) -> None:
    """0-2 and the preserved ones under their own numbers; an inheritable fd of ours does not."""
    kept = os.open("/etc", os.O_RDONLY)
    other = os.open("/", os.O_RDONLY)
    os.set_inheritable(other, True)
    high = syscalls.dup(kept, 40)
    seen = "n=0; while [ $n -lt 60 ]; do [ -e /proc/self/fd/$n ] && echo $n; n=$((n+1)); done; true"
    try:
        listed = output_of(seen, preserve=[kept, high]).split()
        target = output_of(f"readlink /proc/self/fd/{high}", preserve=[high])
        standard_input = output_of("readlink /proc/self/fd/0")
    finally:
        for fd in (kept, other, high):
            os.close(fd)
    assert {b"0", b"1", b"2", b"%d" % kept, b"%d" % high} == set(listed)
    assert target == b"/etc\n"
    assert standard_input == b"/dev/null\n"


def test_standard_descriptors_may_be_swapped(in_child: InChild) -> None:
    """stdin=1 with stdout=0 and nothing at 2 work: sources are moved aside first."""

    def child() -> list[str]:
        read_end, write_end = os.pipe()
        os.dup2(write_end, 0)
        os.dup2(read_end, 1)
        os.close(2)  # so that the status pipe may land there
        spawned = syscalls.spawn(
            "/bin/sh", ["sh", "-c", "echo out; exec 1>&-"], ENVIRONMENT, stdin=1, stdout=0
        )
        status = finish(spawned)
        return [os.read(read_end, 10).decode(), str(status)]

    assert in_child(child) == ["out\n", "0"]


def test_working_directory(tmp_path: Path, no_leak: None) -> None:
    """cwd_fd may be an O_PATH descriptor."""
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert output_of("pwd -P", cwd_fd=fd).decode().strip() == os.path.realpath(tmp_path)
    finally:
        os.close(fd)


def test_signals_are_reset(in_child: InChild) -> None:
    """What we ignore, block or handle is nothing to the helper, and our own mask comes back."""

    def child() -> list[object]:
        signal.signal(signal.SIGUSR1, lambda *_: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        mask = 1 << 11 | 1 << 40  # SIGUSR2 and a real-time one
        syscalls.sigprocmask(constants.SIG_BLOCK, mask)
        before = syscalls.sigprocmask(constants.SIG_BLOCK, 0)
        out = output_of("cat /proc/self/status").decode().splitlines()
        out = [
            word for line in out if line[:4] in ("SigB", "SigI", "SigC") for word in line.split()
        ]
        return [out, before == syscalls.sigprocmask(constants.SIG_BLOCK, 0), before & mask == mask]

    out, same_mask, was_blocked = in_child(child)
    assert out[0::2] == ["SigBlk:", "SigIgn:", "SigCgt:"]
    assert [int(value, 16) for value in out[1::2]] == [0, 0, 0]
    assert same_mask and was_blocked


def test_does_not_wait_for_the_exec(tmp_path: Path, no_leak: None) -> None:
    """spawn() is back long before the program ends, and so is spawn_result()."""
    started = time.monotonic()
    spawned = syscalls.spawn("/bin/sleep", ["sleep", "0.3"], ENVIRONMENT)
    returned = time.monotonic() - started
    syscalls.spawn_result(spawned)
    running = time.monotonic() - started
    assert syscalls.waitpid(spawned.pid) == (spawned.pid, 0)
    os.close(spawned.pidfd)
    assert returned <= running < 0.3 <= time.monotonic() - started


def test_strings_of_all_kinds(no_leak: None) -> None:
    """Empty arguments, bytes that are no UTF-8, and a long environment arrive unchanged."""
    reader, writer = syscalls.pipe()
    long = "x" * 100_000
    spawned = syscalls.spawn(
        "/usr/bin/env", ["env"], [b"A=", b"B=\xff", f"C={long}"], stdout=writer
    )
    os.close(writer)
    with open(reader, "rb") as stream:
        out = stream.read()
    assert finish(spawned) == 0
    assert out == b"A=\nB=\xff\nC=" + long.encode() + b"\n"
    arguments = ["printf", "[%s]", "", "a b", b"\xfe", ""]
    reader, writer = syscalls.pipe()
    spawned = syscalls.spawn("/usr/bin/printf", arguments, [], stdout=writer)
    os.close(writer)
    with open(reader, "rb") as stream:
        assert stream.read() == b"[][a b][\xfe][]"
    assert finish(spawned) == 0
