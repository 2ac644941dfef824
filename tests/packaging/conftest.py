"""A wheel built once, and environments to install it into."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
CACHE_TAG = sys.implementation.cache_tag
BUNDLE = f"lib/pyoki/{CACHE_TAG}/pyoki.pyc"


def run(
    *command: str | Path, env: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run to success; its output is in the assertion's message."""
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done


def pip(*arguments: str | Path, into: Path | str = sys.executable, **more: str) -> None:
    """pip of this environment working on the interpreter `into`; more: environment variables."""
    quiet = ("-q", "--disable-pip-version-check")
    run(
        sys.executable, "-m", "pip", "--python", into, *quiet, *arguments,
        env={**os.environ, **more},
    )  # fmt: skip


def version_of(launcher: Path, *lines: str) -> str:
    """`pyoki --version` with nothing in the environment: the first line."""
    done = run(launcher, "--version", env={}, cwd=Path("/"))
    assert done.stderr == ""
    return done.stdout.splitlines()[0]


def is_hot(launcher: Path, package: Path) -> bool:
    """Does the launcher answer without the package's sources, so from the hot bundle?"""
    entry = package / "cli" / "entry.py"
    away = entry.with_suffix(".away")
    entry.rename(away)
    try:
        done = subprocess.run([launcher, "--version"], env={}, capture_output=True, check=False)
    finally:
        away.rename(entry)
    return done.returncode == 0


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that tests/run.sh has built, else one built now."""
    given = os.environ.get("PYOKI_WHEEL")
    if given:
        return Path(given)
    pytest.importorskip("build", reason="builds a wheel with pypa/build")
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.whl"))


@pytest.fixture
def make_venv(tmp_path: Path) -> Callable[..., Path]:
    def make(*options: str, name: str = "venv") -> Path:
        run(f"/usr/bin/{PYTHON}", "-m", "venv", "--without-pip", *options, tmp_path / name)
        return tmp_path / name

    return make


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources without anything built."""
    copy = tmp_path / "checkout"
    copy.mkdir()
    shutil.copytree(
        ROOT / "rootless_pyoki",
        copy / "rootless_pyoki",
        ignore=shutil.ignore_patterns("*.so", "gate", "__pycache__", ".build-*"),
    )
    for name in ("pyproject.toml", "LICENSE", "README.md", ".gitignore"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    return copy
