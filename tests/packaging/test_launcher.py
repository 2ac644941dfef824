"""native/launcher.c: which interpreter it becomes, with which arguments."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from rootless_pyoki.native import build

TELL = '#!/bin/sh\necho "$0"\nfor word; do echo "[$word]"; done\n'
SLOW = ["[-X]", "[utf8]", "[-E]", "[-P]", "[-m]", "[rootless_pyoki]"]


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built for a Python that is nowhere on this machine."""
    output = tmp_path_factory.mktemp("launcher") / "pyoki"
    names = ['-DCACHE_TAG="cpython-399"', '-DPYTHON="python3.99"']
    source = build.NATIVE / "launcher.c"
    build.run_compiler([*build.FREESTANDING, *names, "-o", str(output), str(source)])
    return output


@pytest.fixture
def prefix(launcher: Path, tmp_path: Path) -> Path:
    (tmp_path / "bin").mkdir()
    shutil.copy(launcher, tmp_path / "bin/pyoki")
    return tmp_path


def interpreter(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(TELL)
    path.chmod(0o755)


def answer(prefix: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [prefix / "bin/pyoki", *arguments], env={}, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_no_interpreter(prefix: Path) -> None:
    """Where there is no such Python, one line says where it was looked for; exit code 1."""
    done = subprocess.run([prefix / "bin/pyoki"], env={}, capture_output=True, check=False)
    line = f"error: pyoki: no python3.99 in /usr/bin, /usr/local/bin or {prefix}/bin/\n"
    assert (done.returncode, done.stderr.decode(), done.stdout) == (1, line, b"")


def test_slow_way(prefix: Path) -> None:
    """Without a bundle it is `-m rootless_pyoki`, and argv[0] is the interpreter's full path."""
    interpreter(prefix / "bin/python3.99")
    assert answer(prefix, "a b", "", "-x") == [
        f"{prefix}/bin/python3.99", *SLOW, "[a b]", "[]", "[-x]",
    ]  # fmt: skip


def test_hot_bundle(prefix: Path) -> None:
    """With a bundle of its own cache tag it is `-I -S -c BOOTSTRAP BUNDLE`, the text a short one."""
    interpreter(prefix / "bin/python3.99")
    bundle = prefix / "lib/pyoki/cpython-399/pyoki.pyc"
    bundle.parent.mkdir(parents=True)
    bundle.touch()
    flags = ["[-X]", "[utf8]", "[-I]", "[-S]"]
    words = "\n".join(answer(prefix, "x")[1:])
    before, text = words.split("\n[-c]\n")
    assert before.splitlines() == flags
    assert text.startswith("[import sys")
    assert text.endswith(f"\n]\n[{bundle}]\n[x]")
    assert len(text) < 600 + len(str(bundle))


def test_python3_beside(prefix: Path) -> None:
    """python3 beside the launcher counts only where it is the same X.Y behind its links."""
    interpreter(prefix / "python3.98")
    (prefix / "bin/python3").symlink_to("../python3.98")
    done = subprocess.run([prefix / "bin/pyoki"], env={}, capture_output=True, check=False)
    assert done.returncode == 1

    interpreter(prefix / "elsewhere/python3.99")
    (prefix / "bin/python3").unlink()
    (prefix / "bin/python").symlink_to("../elsewhere/python3.99")
    (prefix / "bin/python3").symlink_to("python")
    assert answer(prefix)[0] == f"{prefix}/bin/python3"


def test_closed_stdio(prefix: Path) -> None:
    """Closed standard fds become /dev/null, so that no file of ours ever lands there."""
    script = '#!/bin/sh\nfor fd in 0 1 2; do readlink /proc/$$/fd/$fd; done > "${0%/*}/told"\n'
    interpreter(prefix / "bin/python3.99")
    (prefix / "bin/python3.99").write_text(script)
    subprocess.run(
        ["/bin/sh", "-c", 'exec "$0" <&- >&- 2>&-', prefix / "bin/pyoki"], env={}, check=True
    )
    told = (prefix / "bin/told").read_text().splitlines()
    assert told[0] == "/dev/null"
    assert told[2] == "/dev/null"


def test_other_fds_stay(prefix: Path) -> None:
    """Every other fd passes through, and none is added."""
    interpreter(prefix / "bin/python3.99")
    (prefix / "bin/python3.99").write_text("#!/bin/sh\necho /proc/self/fd/*\n")
    script = 'exec 7</dev/zero; exec "$0"'
    done = subprocess.run(
        ["/bin/sh", "-c", script, prefix / "bin/pyoki"],
        env={}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = {int(path.rpartition("/")[2]) for path in done.stdout.split()}
    assert {0, 1, 2, 7} <= told
    assert told - {0, 1, 2, 7} <= {3, 10, 255}  # the shell's own: its script, the folder it lists


def test_long_path(launcher: Path, tmp_path: Path) -> None:
    """A prefix that fills a path is followed or refused, never cut."""
    deep = tmp_path
    while len(str(deep)) < 3500:
        deep = deep / ("d" * 200)
    (deep / "bin").mkdir(parents=True)
    shutil.copy(launcher, deep / "bin/pyoki")
    interpreter(deep / "bin/python3.99")
    assert answer(deep)[0] == f"{deep}/bin/python3.99"
