"""top: rows from two samples, one table without a terminal, the live one and its end."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from rootless_pyoki.cgroups.stats import UNLIMITED, Pressure, Stall, Stats
from rootless_pyoki.cli import render
from rootless_pyoki.lifecycle import usage
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime, Terminal

Make = Callable[..., Bundle]
STALL = Pressure(some=Stall(avg10=12.5, avg60=0.0, avg300=0.0, total=0))


def sampled(at: float, cpu: int, read: int, **more: object) -> usage.Sample:
    measured = Stats(
        cpu_stat={"usage_usec": cpu},
        io_stat={"8:0": {"rbytes": read, "wbytes": 0}, "8:16": {"rbytes": read}},
        **more,  # type: ignore[arg-type]
    )
    return usage.Sample(id="one", status="running", at=at, stats=measured)


def test_rates() -> None:
    """CPU is a part of one CPU, I/O is that of all devices; both since the sample before."""
    now = sampled(
        12.0, 4_000_000, 3000, memory_current=90, memory_max=100, pids_current=3, pids_max=UNLIMITED,
        cpu_pressure=STALL, memory_events={"oom_kill": 2},
    )  # fmt: skip
    assert usage.rows([sampled(10.0, 1_000_000, 1000)], [now]) == [
        usage.Row(
            id="one", status="running", cpu=150.0, memory=90, memory_limit=100, pids=3,
            io_read=2000.0, io_write=0.0, cpu_pressure=12.5, oom_kills=2,
        )
    ]  # fmt: skip


def test_no_rate() -> None:
    """There is none of a first sample, nor of one whose container is another by now."""
    now = sampled(12.0, 4_000_000, 3000)
    for before in ([], [sampled(10.0, 5_000_000, 4000)]):
        (row,) = usage.rows(before, [now])
        assert (row.cpu, row.io_read) == (None, None)


def test_cells() -> None:
    """What is not known is a dash; what is nearly full or stalled is red."""
    bare = render.cells(usage.Row(id="one", status="stopped"))
    assert [cell.plain for cell in bare] == [
        "one",
        "stopped",
        "-",
        "-/-",
        "-/-",
        "-",
        "-",
        "-/-/-",
        "-",
    ]
    full = render.cells(
        usage.Row(
            id="one", status="running", cpu=99.96, memory=95 << 20, memory_limit=100 << 20, pids=3,
            io_read=0.0, io_write=1500.0, cpu_pressure=50.0, memory_pressure=0.0, oom_kills=1,
        )
    )  # fmt: skip
    assert [cell.plain for cell in full[2:]] == [
        "100.0", "95M/100M", "3/-", "0B", "1.5K", "50/0/-", "1",
    ]  # fmt: skip
    assert [str(cell.style) for cell in full[3:]] == ["red", "", "", "", "red", "bold red"]


def test_a_narrow_terminal() -> None:
    """Eighty columns show every figure, and a good part of the id."""
    row = usage.Row(
        id="a" * 64, status="running", cpu=199.9, memory=999 << 20, memory_limit=999 << 20,
        pids=100, pids_limit=2048, io_read=999e6, io_write=999e6, cpu_pressure=99.0,
        memory_pressure=9.0, io_pressure=9.0, oom_kills=10,
    )  # fmt: skip
    console = Console(width=80, color_system=None)
    with console.capture() as capture:
        console.print(render.usage_table([row], hint=True))
    head, line, *_ = capture.get().splitlines()
    assert "…" not in head and "aaaaaaaa…" in line
    assert line.split()[1:] == [
        "running", "199.9", "999M/999M", "100/2048", "953M", "953M", "99/9/9", "10",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0B"), (999, "999B"), (1000, "1.0K"), (1 << 20, "1.0M"), (640 << 10, "640K"),
     (15 << 30, "15G"), (2**64 - 1, "16E")],
)  # fmt: skip
def test_sizes(count: int | None, text: str) -> None:
    """Short enough for a column."""
    assert render.size(count) == text


def test_once(both_ways: Runtime, v2: Path, make_bundle: Make) -> None:
    """Without a terminal: one table of all containers, one line each, no colours."""
    bundle = make_bundle()
    both_ways.run("alpha", bundle.path, "--detach").ok()
    both_ways.run("beta", make_bundle("true").path, "--keep").ok()
    lines = both_ways("top", "--interval", "50ms").ok().out.splitlines()
    assert len(lines) == 3 and lines[0].split()[:3] == ["ID", "STATUS", "CPU%"]
    alpha, beta = lines[1].split(), lines[2].split()
    assert alpha[:2] == ["alpha", "running"] and float(alpha[2]) < 100
    assert beta[:3] == ["beta", "stopped", "-"]
    assert "\x1b" not in "".join(lines)


def test_json(v2: Path, runtime: Runtime, make_bundle: Make) -> None:
    """--json: an array on a line; of the containers that are named."""
    for name in ("alpha", "beta"):
        runtime.run(name, make_bundle().path, "--detach").ok()
    out = runtime("top", "--json", "--once", "--interval", "50ms", "beta").ok().out
    (row,) = json.loads(out)
    assert out.count("\n") == 1 and (row["id"], row["status"]) == ("beta", "running")
    assert row["cpuPercent"] < 100
    memory = (v2 / "cgroup.controllers").read_text().split().count("memory")
    assert (row["memory"] is not None) == bool(memory)


def test_nobody(runtime: Runtime) -> None:
    """No containers are no error, a name that is none is."""
    assert runtime("top", "--interval", "1ms").ok().out.split()[:1] == ["ID"]
    result = runtime("top", "--interval", "1ms", "nope")
    assert result.code == 1 and "container nope does not exist" in result.err


def shown(runtime: Runtime) -> Terminal:
    """The live table on a terminal; a shell that says afterwards how the terminal is."""
    line = "unset COLUMNS LINES; TERM=xterm " + shlex.join(
        runtime.argv("top", "--interval", "100ms")
    )
    terminal = Terminal(["sh", "-c", f"{line}; echo code=$?; stty -a | tr ' ' '\\n'; echo done"])
    terminal.expect("\x1b[?1049h")  # the other screen
    terminal.expect("alpha")
    return terminal


@pytest.mark.parametrize(("key", "code"), [("q", 0), ("\x03", 130)])
def test_live(v2: Path, runtime: Runtime, make_bundle: Make, key: str, code: int) -> None:
    """It redraws until q or ^C; then the terminal is as it was."""
    runtime.run("alpha", make_bundle().path, "--detach").ok()
    terminal = shown(runtime)
    terminal.expect("running")
    runtime("pause", "alpha").ok()
    terminal.expect("paused")
    terminal.send(key)
    terminal.expect("\x1b[?1049l")
    terminal.expect(f"code={code}")
    settings = terminal.expect("done")
    assert {"echo", "icanon", "isig"} <= {word.strip(";") for word in settings.split()}
    assert terminal.wait() == 0


def test_terminated(v2: Path, runtime: Runtime, make_bundle: Make) -> None:
    """SIGTERM gives the terminal back as well."""
    runtime.run("alpha", make_bundle().path, "--detach").ok()
    terminal = shown(runtime)
    (child,) = Path(f"/proc/{terminal.pid}/task/{terminal.pid}/children").read_text().split()
    assert not termios.tcgetattr(terminal.fd)[3] & termios.ECHO
    os.kill(int(child), signal.SIGTERM)
    terminal.expect("\x1b[?1049l")
    terminal.expect("code=143")
    assert {"echo", "icanon"} <= {word.strip(";") for word in terminal.expect("done").split()}
    assert terminal.wait() == 0


def test_rich_is_for_top_only(runtime: Runtime) -> None:
    """No other verb loads it."""
    script = (
        "import sys; sys.argv[0] = 'pyoki'\n"
        "from rootless_pyoki.cli import entry\n"
        f"entry.answer(['--root', {str(runtime.root)!r}, 'list'])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'rich', 'typer'}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "[]"
