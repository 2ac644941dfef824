"""The gate's C: it builds for both architectures, and its parser survives rubbish."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.native import build
from rootless_pyoki.plan.plan import Capabilities, Hook
from rootless_pyoki.processes import gate
from rootless_pyoki.record import replace
from tests.processes.gate_stage import all_caps, bpf, every_capability, record

HERE = Path(__file__).parent
ROUNDS = int(os.environ.get("PYOKI_FUZZ_ROUNDS", "200000"))
ARM, QEMU = "aarch64-linux-gnu-gcc", "qemu-aarch64-static"


def records():
    """Records that between them use every part of the layout."""
    hooks = (
        Hook(path="/bin/a", args=("a", "", "c"), env=("A=1", "B="), timeout=3, pointer=""),
        Hook(path="/b", args=(), env=(), timeout=0, pointer=""),
    )
    yield record()
    yield record(
        fork=True, controlling_tty=True, cwd=b"/tmp", uid=1000, gid=1000, groups=(1, 2, 3),
        no_new_privileges=True, capabilities=all_caps(), filter=bpf({"read": 1}, 2), nofile=(4, 5),
        channel=9, socket=10, lock=11, proc_dir=12, listener=13, listener_state=14, preserve=4,
        label=("apparmor/exec", b"exec x"), peer_uids=(0, 65534), start_hooks=hooks, state=b"{}",
    )  # fmt: skip
    yield record(mode=gate.EXEC, label=("exec", b"a:b:c"), proc_dir=8, start_hooks=hooks[1:])


@pytest.fixture(scope="session")
def parser(tmp_path_factory):
    """The parser built hosted with AddressSanitizer and UndefinedBehaviorSanitizer."""
    folder = tmp_path_factory.mktemp("parser")
    output = folder / "fuzz"
    flags = ["-g", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined"]
    source = HERE / "fuzz_gate_record.c"
    done = subprocess.run(
        [*build.compiler(), *flags, "-fno-sanitize-recover=all", "-o", output, source],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "cannot find" in done.stderr and "san" in done.stderr:
        pytest.skip("this compiler has no sanitizer libraries")
    assert done.returncode == 0, done.stderr
    return output


def run_parser(parser, folder, rounds, made):
    files = []
    for number, data in enumerate(made):
        files.append(folder / str(number))
        files[-1].write_bytes(data)
    seed = str(time.time_ns())
    done = subprocess.run(
        [parser, str(rounds), seed, *files], capture_output=True, text=True, check=False
    )
    return done, f"seed {seed}: exit {done.returncode}: {done.stderr}"


def test_the_parser_survives_mutated_records(parser, tmp_path):
    """No truncation is accepted; no mutation reads out of bounds; some are still valid."""
    made = [gate.encode(one) if one.channel > 3 else _with_fds(one) for one in records()]
    done, told = run_parser(parser, tmp_path, ROUNDS, made)
    assert done.returncode == 0, told
    accepted, refused = map(int, done.stdout.split())
    assert accepted + refused == ROUNDS
    assert accepted > ROUNDS // 100 and refused > ROUNDS // 10, told


def _with_fds(made):
    return gate.encode(replace(made, channel=6, socket=7 if made.mode == gate.CREATE else -1))


@pytest.mark.parametrize(
    "change",
    [
        {"path": b"bin/x"},
        {"path": b""},
        {"cwd": b"tmp"},
        {"mode": 0},
        {"mode": 4},
        {"channel": -1},
        {"channel": 5, "preserve": 3},
        {"lock": 2},
        {"lock": -2},
        {"mode": gate.CREATE, "socket": -1},
        {"filter": b"1234567"},
        {"filter": bytes(8 * 4097)},
        {"groups": tuple(range(65537))},
        {"label": ("exec", b"x"), "proc_dir": -1},
        {"label": ("current", b"x"), "proc_dir": 8},
        {"label": ("exe", b"x"), "proc_dir": 8},
        {"label": ("../../exec", b"x"), "proc_dir": 8},
        {"listener": 9, "listener_state": 10, "filter": b""},
        {"listener": 9, "filter": bytes(8)},
        {"listener_state": 9, "filter": bytes(8)},
        {"start_hooks": (Hook(path="x", args=(), env=(), timeout=0, pointer=""),)},
    ],
)
def test_the_parser_refuses(parser, tmp_path, change):
    """Each of these alone makes a record unacceptable."""
    fields = {"mode": gate.RUN, "channel": 6, **change}
    done, told = run_parser(parser, tmp_path, 0, [gate.encode(record(**fields))])
    assert done.returncode == 1, told
    assert "refused as it is" in done.stderr, told


def test_the_parser_refuses_what_follows_the_record(parser, tmp_path):
    """One byte too many, in the file or by the header's `size`."""
    data = gate.encode(record(mode=gate.RUN, channel=6))
    longer = data[:8] + (len(data) + 1).to_bytes(4, "little") + data[12:]
    for bad in (data + b"\0", longer, longer + b"\0"):
        assert run_parser(parser, tmp_path, 0, [bad])[0].returncode == 1


def test_the_gate_is_one_segment_without_an_interpreter_or_writable_data(tmp_path):
    """A static ELF whose only loaded segment is readable and executable."""
    output = build.build_gate(tmp_path / "gate")
    data = output.read_bytes()
    offset, size, count = (
        int.from_bytes(data[32:40], "little"),
        int.from_bytes(data[54:56], "little"),
        int.from_bytes(data[56:58], "little"),
    )
    segments = [data[offset + i * size :][:size] for i in range(count)]
    kinds = [int.from_bytes(one[:4], "little") for one in segments]
    assert 3 not in kinds and 2 not in kinds  # PT_INTERP, PT_DYNAMIC
    loads = [int.from_bytes(one[4:8], "little") for one in segments if one[0] == 1]
    assert loads == [5]  # PF_R | PF_X
    assert len(data) < 12 << 10


@pytest.fixture(scope="session")
def arm_gate(tmp_path_factory):
    if not shutil.which(ARM):
        pytest.skip(f"{ARM} is not installed")
    output = tmp_path_factory.mktemp("arm") / "gate"
    subprocess.run([ARM, *build.FREESTANDING, "-o", output, build.NATIVE / "gate.c"], check=True)
    return output


def test_the_gate_builds_for_aarch64(arm_gate):
    """Without a warning, for the other architecture."""
    assert arm_gate.read_bytes()[18] == 183  # EM_AARCH64


@pytest.mark.parametrize("mode", [gate.EXEC, gate.RUN, gate.CREATE])
def test_the_aarch64_gate_runs_in_emulation(arm_gate, tmp_path, mode):
    """From reading its record to the hook and the program, as far as qemu's user mode goes.

    The emulator opens the program by its name, so it is called /dev/fd/E there as the kernel would
    call it; the clone of CLONE_PARENT and the loading of filters are not emulated.
    """
    if not shutil.which(QEMU):
        pytest.skip(f"{QEMU} is not installed")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(str(tmp_path / "s"))
    listener.listen(1)
    first = 100
    hook = Hook(
        path="/bin/sh",
        args=("sh", "-c", "wc -c"),
        env=("PATH=/bin:/usr/bin",),
        timeout=9,
        pointer="",
    )
    made = record(
        mode=mode, path=b"/bin/sh", channel=first + 2, uid=os.getuid(), gid=os.getgid(),
        socket=first + 3 if mode == gate.CREATE else -1, peer_uids=(os.getuid(),),
        capabilities=every_held(), new_session=False,
        start_hooks=(hook,), state=b"x" * 100_000, nofile=(64, 128), cwd=b"/usr",
    )  # fmt: skip
    written = os.memfd_create("record")
    os.write(written, gate.encode(made))
    output, program_output = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(program_output, 1)
        image = os.open(arm_gate, os.O_RDONLY)
        for number, fd in enumerate((image, written, theirs.fileno(), listener.fileno())):
            os.dup2(fd, first + number)
        argv = [QEMU, "-0", "sh", f"/dev/fd/{first}", "-c", "pwd; ulimit -n; ls /proc/self/fd"]
        os.execvpe(QEMU, argv, {"PATH": "/usr/bin:/bin"})
    os.close(program_output)
    theirs.close()
    told = ours
    assert told.recv(10) == b"R"
    if mode != gate.EXEC:
        told.send(b"C")
    if mode == gate.CREATE:
        told = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        told.settimeout(10)
        told.connect(str(tmp_path / "s"))
    told.send(b"S" if mode == gate.CREATE else b"G")
    assert told.recv(10) == b""
    with open(output) as file:
        assert file.read() == "100000\n/usr\n64\n0\n1\n2\n3\n"
    assert os.waitpid(child, 0)[1] == 0
    for one in (ours, listener, told):
        one.close()
    os.close(written)


def every_held():
    """What this process may keep: its own capability sets."""
    effective, permitted, inheritable = syscalls.capget()
    bounding = sum(
        1 << number
        for number in range(64)
        if every_capability() >> number & 1 and syscalls.prctl(c.PR_CAPBSET_READ, number)
    )
    return Capabilities(
        bounding=bounding,
        effective=effective,
        permitted=permitted,
        inheritable=inheritable,
        ambient=0,
    )
