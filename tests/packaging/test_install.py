"""Every way to install: the launcher answers without an environment, and by the hot bundle."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless_pyoki import __version__
from rootless_pyoki.native import build
from tests.packaging.conftest import BUNDLE, PYTHON, is_hot, pip, run, version_of

VERSION = f"pyoki version {__version__}"
SITE = f"lib/{PYTHON}/site-packages"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and all that it needs."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    run(f"/usr/bin/{PYTHON}", "-m", "venv", "--without-pip", venv)
    pip("install", wheel, into=venv / "bin/python")
    return venv


def test_venv(installed: Path) -> None:
    """In a virtual environment the launcher uses the hot bundle."""
    assert version_of(installed / "bin/pyoki") == VERSION
    assert is_hot(installed / "bin/pyoki", installed / SITE / "rootless_pyoki")


def test_a_link_is_followed(installed: Path, tmp_path: Path) -> None:
    """The launcher finds its own folder through links to it, wherever they lie."""
    (tmp_path / "pyoki").symlink_to(installed / "bin/pyoki")
    (tmp_path / "again").symlink_to("pyoki")
    assert version_of(tmp_path / "again") == VERSION


def test_no_bundle(installed: Path, tmp_path: Path) -> None:
    """Without a bundle the launcher goes the slow way, which answers the same."""
    bundle = installed / BUNDLE
    bundle.rename(tmp_path / "pyoki.pyc")
    try:
        assert version_of(installed / "bin/pyoki") == VERSION
        assert not is_hot(installed / "bin/pyoki", installed / SITE / "rootless_pyoki")
    finally:
        shutil.move(tmp_path / "pyoki.pyc", bundle)


@pytest.mark.parametrize("content", [b"", b"\xa7\r\r\n", b"\0\0\r\n" + bytes(96), bytes(9000)])
def test_bundle_of_another_python(installed: Path, tmp_path: Path, content: bytes) -> None:
    """A bundle that is cut off, or that this interpreter cannot read, is passed over."""
    bundle = installed / BUNDLE
    shutil.move(bundle, tmp_path / "away")
    try:
        bundle.write_bytes(content)
        assert version_of(installed / "bin/pyoki") == VERSION
        assert not is_hot(installed / "bin/pyoki", installed / SITE / "rootless_pyoki")
    finally:
        shutil.move(tmp_path / "away", bundle)


def test_nothing_of_the_current_directory(installed: Path, tmp_path: Path) -> None:
    """No module that lies where pyoki is started is imported in place of one of its own."""
    for name in ("posix", "marshal", "_json", "_cffi_backend", "rootless_pyoki", "os", "re"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(99)")
    done = run(installed / "bin/pyoki", "--version", env={}, cwd=tmp_path)
    assert done.stdout.splitlines()[0] == VERSION


@pytest.mark.parametrize("content", [None, b"", b"another build's"])
def test_code_of_another_build(installed: Path, tmp_path: Path, content: bytes | None) -> None:
    """An importer whose file of modules is gone, or not its own, goes the slow way."""
    code = (installed / BUNDLE).with_suffix(".code")
    shutil.move(code, tmp_path / "away")
    try:
        if content is not None:
            code.write_bytes(content)
        assert version_of(installed / "bin/pyoki") == VERSION
        assert not is_hot(installed / "bin/pyoki", installed / SITE / "rootless_pyoki")
    finally:
        shutil.move(tmp_path / "away", code)


@pytest.mark.parametrize("missing", ["rootless_pyoki/native/_syscalls", "_cffi_backend"])
def test_useless_extension(installed: Path, tmp_path: Path, missing: str) -> None:
    """A bundle that cannot load an extension hands over to the slow way, which says why."""
    (extension,) = (installed / SITE).glob(f"{missing}.*.so")
    shutil.move(extension, tmp_path / "away")
    extension.touch()
    try:
        done = subprocess.run(
            [installed / "bin/pyoki", "list"], env={}, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert f"{extension}: file too short" in done.stderr
        assert "<frozen importlib" not in done.stderr.partition("__main__.py")[0]
    finally:
        shutil.move(tmp_path / "away", extension)


def test_help_comes_the_slow_way(installed: Path) -> None:
    """What needs typer starts again with site-packages, also under a uid without a home."""
    done = run(installed / "bin/pyoki", "--help", env={"HOME": "/nonexistent"})
    assert "create" in done.stdout


def test_arguments_arrive(installed: Path) -> None:
    """Every byte of the arguments survives both ways in: empty, spaces, not UTF-8."""
    name = b"/no such\xff dir"
    for way in ((), ("--no-such-option",)):
        done = subprocess.run(
            [installed / "bin/pyoki", "--root", name, *way, "state", ""],
            env={"LC_ALL": "POSIX"}, capture_output=True, check=False,
        )  # fmt: skip
        assert done.returncode == 1
        assert b"Traceback" not in done.stderr


def test_system_site_packages(wheel: Path, make_venv: Callable[..., Path]) -> None:
    """An environment that shares the system's cffi finds it in Debian's own place."""
    if not list(Path("/usr/lib/python3/dist-packages").glob("_cffi_backend.*")):
        pytest.skip("Debian's python3-cffi-backend is not installed")
    venv = make_venv("--system-site-packages")
    pip("install", "--no-deps", wheel, into=venv / "bin/python")
    assert version_of(venv / "bin/pyoki") == VERSION
    assert is_hot(venv / "bin/pyoki", venv / SITE / "rootless_pyoki")


def test_user_install(wheel: Path, tmp_path: Path) -> None:
    """`pip install --user`: launcher, bundle and package below ~/.local, found without HOME."""
    if os.geteuid() == 0:
        pytest.skip("for unprivileged users; root's way is test_root_on_debian")
    pip(
        "install", "--user", "--break-system-packages", "--no-warn-script-location", wheel,
        into=f"/usr/bin/{PYTHON}", HOME=str(tmp_path),
    )  # fmt: skip
    local = tmp_path / ".local"
    assert version_of(local / "bin/pyoki") == VERSION
    assert is_hot(local / "bin/pyoki", local / SITE / "rootless_pyoki")


def test_pipx(wheel: Path, tmp_path: Path) -> None:
    """pipx links to the launcher from its bin folder."""
    if not shutil.which("pipx"):
        pytest.skip("pipx is not installed")
    homes = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    run("pipx", "install", wheel, env={**os.environ, "HOME": str(tmp_path), **homes})
    assert (tmp_path / "bin/pyoki").is_symlink()
    assert version_of(tmp_path / "bin/pyoki") == VERSION
    (package,) = tmp_path.glob(f"pipx/venvs/*/{SITE}/rootless_pyoki")
    assert is_hot(tmp_path / "bin/pyoki", package)


@pytest.mark.root
def test_root_on_debian(wheel: Path) -> None:
    """root's `pip install` on Debian goes to /usr/local (here: one that nobody else sees), where
    the hot bundle finds its extensions among dist-packages.
    """
    script = """
        mount -t tmpfs -o mode=755 none /usr/local
        "$1" -m pip --python "/usr/bin/$2" install -q --break-system-packages "$3" 2>/dev/null
        env -i /usr/local/bin/pyoki --version
        rm "/usr/local/lib/$2/dist-packages/rootless_pyoki/cli/entry.py"
        env -i /usr/local/bin/pyoki --version
    """
    done = run(
        "unshare", "--mount", "--propagation", "private", "sh", "-ec", script, "sh",
        sys.executable, PYTHON, wheel,
    )  # fmt: skip
    assert done.stdout.splitlines().count(VERSION) == 2


def test_editable(checkout: Path, make_venv: Callable[..., Path]) -> None:
    """An editable install has no bundle and follows the sources."""
    venv = make_venv("--system-site-packages")
    pip(
        "install", "--no-deps", "--no-build-isolation", "-e", checkout,
        into=venv / "bin/python", PYTHONPATH=os.pathsep.join(sys.path),
    )  # fmt: skip
    assert not (venv / BUNDLE).exists()
    init = checkout / "rootless_pyoki/__init__.py"
    init.write_text(init.read_text().replace(__version__, "9.9"))
    pip("install", "cffi", into=venv / "bin/python")
    assert version_of(venv / "bin/pyoki") == "pyoki version 9.9"


def test_the_launcher_travels_unchanged(wheel: Path, installed: Path, tmp_path: Path) -> None:
    """Neither the wheel nor pip changes a byte of the ELF file."""
    built = build.build_launcher(tmp_path / "pyoki").read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".data/scripts/pyoki")]
        assert archive.read(name) == built
    assert (installed / "bin/pyoki").read_bytes() == built
    assert os.access(installed / "bin/pyoki", os.X_OK)


def test_wheel_is_for_one_interpreter(wheel: Path) -> None:
    """The tag names interpreter and ABI: the bundle is code of this very Python."""
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert f"-{tag}-{tag}-linux_" in wheel.name


@pytest.mark.parametrize("hidden", ["compiler", "headers"])
def test_no_compiler(checkout: Path, tmp_path: Path, hidden: str) -> None:
    """Without a compiler, or its headers, one sentence says which packages are missing."""
    empty = tmp_path / "bin"
    empty.mkdir()
    if hidden == "headers":
        (empty / "cc").write_text("#!/bin/sh\necho 'fatal error: stdio.h' >&2\nexit 1\n")
        (empty / "cc").chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation",
         "-w", tmp_path / "out", checkout],
        env={**os.environ, "PATH": str(empty), "CC": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert said.count("(Debian: gcc libc6-dev python3-dev)") == 1
    assert "Traceback" not in said
