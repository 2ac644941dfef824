"""The program as callers run it: exit codes, one line of error, the log."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rootless_pyoki
from rootless_pyoki import log
from rootless_pyoki.cli import entry, show
from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.lifecycle import inspect

MAIN = Path(rootless_pyoki.__file__).with_name("__main__.py")


def pyoki(
    run_dir: Path, *words: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run the program as podman does: nothing but XDG_RUNTIME_DIR in the environment.

    --root besides, since the machine's root has a place of its own.
    """
    return subprocess.run(
        [sys.executable, "-B", str(MAIN), "--root", str(run_dir / "state"), *words],
        env={"XDG_RUNTIME_DIR": str(run_dir)},
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=30,
    )


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def quiet_log() -> None:
    log.configure("", "text", "error", os.open)


@pytest.mark.parametrize("option", ["--version", "-v", "-V"])
def test_version(run_dir: Path, option: str) -> None:
    """Callers read three lines: name and version, commit, spec."""
    done = pyoki(run_dir, option)
    first, second, third, *_ = done.stdout.splitlines()
    assert first == f"pyoki version {rootless_pyoki.__version__}"
    assert second.startswith("commit: ")
    assert third == "spec: 1.3.0"
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["state", "nobody"], 1),
        (["start", "nobody"], 1),
        (["kill", "nobody"], 1),
        (["delete", "nobody"], 1),
        (["pause", "nobody"], 1),
        (["ps", "nobody"], 1),
        (["exec", "nobody", "true"], 255),
    ],
)
def test_missing_container(run_dir: Path, words: list[str], code: int) -> None:
    """The words that podman and containerd look for, on one line; nothing on stdout."""
    done = pyoki(run_dir, *words)
    assert done.stderr == "error: container nobody does not exist\n"
    assert (done.returncode, done.stdout) == (code, "")


def test_delete_force_of_nobody(run_dir: Path) -> None:
    """delete --force of a container that is gone is no error."""
    done = pyoki(run_dir, "delete", "--force", "nobody")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    "words",
    [
        ["create", "--nope", "x"],
        ["create"],
        ["create", "x", "--bundle"],
        ["state", "a", "b"],
        ["nope"],
        ["checkpoint", "--help"],
        ["restore", "--lsm-mount-context"],
        ["--nope", "state", "x"],
        ["--log-format", "xml", "state", "x"],
        ["kill", "x", "NOPE"],
        ["exec", "-u", "root", "x", "true"],
        ["--log", "journald:x", "state", "x"],
    ],
)
def test_refused(run_dir: Path, words: list[str]) -> None:
    """A wrong command line: exit code 1 and one line, also where a verb does not exist."""
    done = pyoki(run_dir, *words)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert "flag needs an argument" not in done.stderr


@pytest.mark.parametrize("words", [["state", "nobody"], ["create"], ["nope"], ["list", "--nope"]])
def test_json_log(run_dir: Path, words: list[str]) -> None:
    """The log holds exactly one object on failure, whoever refused; stderr has one line besides."""
    path = run_dir / "oci-log"
    done = pyoki(run_dir, "--log", str(path), "--log-format=json", *words)
    line = json.loads(path.read_bytes())
    assert line["level"] == "error"
    assert done.stderr == f"error: {line['msg']}\n"


def test_json_log_of_bad_globals(run_dir: Path) -> None:
    """A refused global option is told in the log that was named before it."""
    path = run_dir / "oci-log"
    pyoki(run_dir, "--log", str(path), "--log-format", "json", "--nope", "state", "x")
    assert "--nope" in json.loads(path.read_bytes())["msg"]


def test_relative_log(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative --log is relative to where the caller stood."""
    monkeypatch.chdir(run_dir)
    pyoki(run_dir, "--log", "here", "state", "nobody")
    assert "does not exist" in (run_dir / "here").read_text()


def test_success_leaves_no_log(run_dir: Path) -> None:
    """Nothing is logged, and nothing on stderr, when all goes well."""
    path = run_dir / "oci-log"
    done = pyoki(run_dir, "--log", str(path), "--log-format=json", "list", "--format=json")
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert not path.exists()


def test_list_of_nothing(run_dir: Path) -> None:
    """The header alone; no ids for -q."""
    header = pyoki(run_dir, "list").stdout
    assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert pyoki(run_dir, "list", "-q").stdout == ""


def test_closed_stdio(run_dir: Path) -> None:
    """With 0, 1 and 2 closed the program works, and opens nothing in their place."""
    line = f'exec {sys.executable} -B {MAIN} "$@" <&- >&- 2>&-'
    environment = {"XDG_RUNTIME_DIR": str(run_dir)}
    for words, code in ((["list"], 0), (["--version"], 0), (["state", "nobody"], 1)):
        done = subprocess.run(["/bin/sh", "-c", line, "sh", *words], env=environment)
        assert done.returncode == code


def test_reader_that_left(run_dir: Path) -> None:
    """EPIPE on stdout is quiet: no traceback, no error line."""
    reader, writer = os.pipe()
    os.close(reader)
    done = pyoki(run_dir, "--version", stdout=writer)
    os.close(writer)
    assert done.stderr == ""


def test_full_disk(run_dir: Path) -> None:
    """Output that cannot be written is an error."""
    with open("/dev/full", "w") as full:
        done = pyoki(run_dir, "--version", stdout=full.fileno())
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no space left" in done.stderr.lower()


def test_help_and_completion(run_dir: Path) -> None:
    """People get help on stdout and exit code 0."""
    done = pyoki(run_dir, "run", "--help")
    assert done.returncode == 0
    assert "--console-socket" in done.stdout
    assert pyoki(run_dir).stdout.startswith("Usage: pyoki")


def test_completion(run_dir: Path) -> None:
    """The shell's completion, which runs us without arguments, is answered with the verbs."""
    environment = {
        "XDG_RUNTIME_DIR": str(run_dir),
        "_PYOKI_COMPLETE": "complete_bash",
        "COMP_WORDS": "pyoki st",
        "COMP_CWORD": "1",
    }
    done = subprocess.run(
        [sys.executable, "-B", str(MAIN)], env=environment, capture_output=True, text=True
    )
    assert done.stdout.split() == ["start", "state"]


def raising(error: BaseException) -> object:
    def function(**_: object) -> None:
        raise error

    return function


@pytest.mark.usefixtures("quiet_log")
@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 1, ""),
        (KeyError("x"), 1, "error: internal error: KeyError: 'x'\n"),
        (MemoryError(), 1, "error: internal error: MemoryError: \n"),
        (HostError("no\nway", hint="go"), 1, "error: no; way; hint: go\n"),
        (
            SyscallError(1, "Operation not permitted", "mknodat", "dev/x"),
            1,
            "error: mknodat dev/x: operation not permitted (EPERM); hint: devices cannot be made "
            "in a user namespace: bind the host's device instead\n",
        ),
    ],
)
def test_whatever_is_raised(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    line: str,
) -> None:
    """Every exception becomes at most one line and an exit code; a traceback never."""
    monkeypatch.setattr(inspect, "state", raising(error))
    assert entry.answer(["state", "x"]) == code
    assert capsys.readouterr().err == line


def test_debug_tells_where(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --debug the way to the error is shown, notes and cause included."""
    error = HostError("no way")
    error.__cause__ = KeyError("why")
    error.add_note("a note")
    monkeypatch.setattr(inspect, "state", raising(error))
    assert entry.answer(["--debug", "state", "x"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: no way"
    assert "debug: a note" in lines
    assert any("show.py" in line and "in state" in line for line in lines)
    assert any("caused by KeyError" in line for line in lines)
    log.configure("", "text", "error", os.open)


def test_table() -> None:
    """Columns are 12 wide or 3 wider than their longest cell, the last is left as it is."""
    text = show.table([("ID", "PID", "OWNER"), ("a" * 20, "1", "me")])
    assert text == f"ID{' ' * 21}PID{' ' * 9}OWNER\n{'a' * 20}   1{' ' * 11}me\n"


FORBIDDEN = (
    "os re json typing enum dataclasses contextlib subprocess socket pathlib signal argparse "
    "logging traceback functools collections struct typer rich"
)


@pytest.mark.parametrize("line", ["--version", "state nobody", "list", "kill nobody"])
def test_imports(run_dir: Path, line: str) -> None:
    """A hot verb loads nothing of the standard library that a bare interpreter has not loaded."""
    import _cffi_backend

    words = line.split()
    places = [str(MAIN.parents[1]), str(Path(_cffi_backend.__file__).parent)]
    script = (
        "import sys; before = set(sys.modules)\n"
        f"sys.path += {places!r}\n"
        "from rootless_pyoki.cli import entry\n"
        f"entry.answer({words!r})\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", script],
        env={"XDG_RUNTIME_DIR": str(run_dir)},
        capture_output=True,
        text=True,
    )
    loaded = set(done.stderr.splitlines()[-1].split())
    assert not loaded & set(FORBIDDEN.split())
    if words[0] in ("state", "kill"):
        assert not {name for name in loaded if ".plan" in name or ".processes" in name}
