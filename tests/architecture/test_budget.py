"""How many system calls a hot verb makes: a budget that does not depend on how busy a machine is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import Runtime, hot_command

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

# Beyond what the same interpreter needs to start, run a script of one line and end. Of these, the
# extensions (ours, cffi's with libpthread, _json) take 41 to be loaded, the launcher 5, our own code
# and its memory 10; a script's file costs the bare interpreter 31, which we do not spend.
BUDGET = {"--version": 36, "state": 52, "kill": 60, "start": 62, "delete": 90}
IMPORTER = 20 << 10  # bytes: what the launcher's bootstrap reads of it


@pytest.fixture
def hot() -> Path:
    """The installed launcher."""
    command = hot_command()
    if not command or len(command) != 1:
        pytest.skip("PYOKI_HOT does not name an installed launcher (tests/run.sh does that)")
    return Path(command[0]).resolve()


@pytest.fixture
def count(tmp_path: Path) -> Callable[..., int]:
    """A function: how many system calls a command makes in all its processes and threads."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"

    def count_calls(*command: str | Path, code: int = 0) -> int:
        done = subprocess.run(
            [strace, "-f", "-qq", "--signal=none", "-o", trace, *command],
            env={}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
        if "ptrace" in done.stderr:
            pytest.skip(f"strace cannot trace here: {done.stderr.strip()}")
        assert done.returncode == code, done.stderr
        lines = trace.read_text(errors="replace").splitlines()
        return sum("resumed>" not in line for line in lines)

    return count_calls


def test_system_calls(
    hot: Path,
    count: Callable[..., int],
    make_bundle: Callable[..., Bundle],
    state_root: Path,
    tmp_path: Path,
) -> None:
    """On a real container each short verb stays within its number of calls beyond the bare
    interpreter's.
    """
    script = tmp_path / "exit.py"
    script.write_text("import posix\nposix._exit(0)\n")
    bare = count(hot.parent / PYTHON, "-X", "utf8", "-I", "-S", script)
    runtime = Runtime([str(hot)], state_root)
    bundle = make_bundle()
    spent = {"--version": count(hot, "--version") - bare}
    try:
        runtime.create("budget", bundle.path).ok()
        for verb, *arguments in (["start"], ["state"], ["kill", "KILL"], ["delete", "--force"]):
            line = [verb, *[word for word in arguments if word[0] == "-"], "budget"]
            line += [word for word in arguments if word[0] != "-"]
            spent[verb] = count(hot, "--root", state_root, *line) - bare
    finally:
        runtime.clear()
    over = {verb: calls for verb, calls in spent.items() if calls > BUDGET[verb]}
    assert over == {}, f"{spent}, bare {bare}"


def test_nobody_is_moved(
    hot: Path,
    count: Callable[..., int],
    make_bundle: Callable[..., Bundle],
    state_root: Path,
    tmp_path: Path,
    v2: Path,
) -> None:
    """A container is born in its cgroup: a move would wait for an RCU grace period."""
    bundle = make_bundle("true").single_map()  # helpers with a setuid bit cannot be traced
    count(hot, "--root", state_root, "run", "--bundle", bundle.path, "born")
    calls = (tmp_path / "trace").read_text(errors="replace")
    assert "CLONE_INTO_CGROUP" in calls
    assert "cgroup.procs" not in [
        word.strip('",') for line in calls.splitlines() if "openat" in line for word in line.split()
    ]


def test_the_importer_is_small(hot: Path) -> None:
    """The launcher's bootstrap reads all of it at once; the modules lie in another file."""
    folder = hot.parent.parent / "lib/pyoki" / str(sys.implementation.cache_tag)
    assert (folder / "pyoki.pyc").stat().st_size <= IMPORTER
    assert (folder / "pyoki.code").stat().st_size > IMPORTER
