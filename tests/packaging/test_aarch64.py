"""The C compiles for aarch64 without a warning, and what needs no libc runs there."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from rootless_pyoki.native import build

CROSS = "aarch64-linux-gnu-gcc"
EMULATOR = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")

pytestmark = pytest.mark.skipif(not shutil.which(CROSS), reason=f"{CROSS} is not installed")
emulated = pytest.mark.skipif(not EMULATOR, reason="qemu-aarch64 is not installed")


@pytest.fixture(autouse=True)
def cross_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", CROSS)


@emulated
def test_launcher(tmp_path: Path) -> None:
    """The launcher becomes the interpreter beside it, with the arguments in order."""
    (tmp_path / "bin").mkdir()
    launcher = build.build_launcher(tmp_path / "bin/pyoki")
    interpreter = tmp_path / "bin" / build.PYTHON
    interpreter.write_text('#!/bin/sh\necho "$@"\n')
    interpreter.chmod(0o755)
    done = subprocess.run(
        [str(EMULATOR), launcher, "state", "x"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "-X utf8 -E -P -m rootless_pyoki state x\n"


@emulated
def test_gate(tmp_path: Path) -> None:
    """The gate that is started by hand, without its record, refuses as it does natively."""
    gate = build.build_gate(tmp_path / "gate")
    there = subprocess.run([str(EMULATOR), gate], capture_output=True, check=False)
    if platform.machine() == "x86_64":
        native = tmp_path / "native"
        build_native = ["cc", *build.FREESTANDING, "-o", native, build.NATIVE / "gate.c"]
        subprocess.run(build_native, check=True)
        here = subprocess.run([native], capture_output=True, check=False)
        assert there.returncode == here.returncode
    assert there.returncode > 0


def test_extension(tmp_path: Path) -> None:
    """The extension's C, as cffi emits it, is free of warnings there too."""
    include = Path(sysconfig.get_path("include"))
    own = include.parent / sysconfig.get_config_var("MULTIARCH") / include.name
    if not own.exists():
        pytest.skip("Python's headers are not laid out as on Debian")
    # pyconfig.h of this machine stands in for the other's: both are 64 bits wide
    (tmp_path / "aarch64-linux-gnu").mkdir()
    (tmp_path / "aarch64-linux-gnu" / include.name).symlink_to(own)
    recipe = build.extension_recipe()
    recipe.emit_c_code(str(tmp_path / "_syscalls.c"))
    options = recipe._assigned_source[3]
    command = [*options["extra_compile_args"], f"-I{tmp_path}", f"-I{include}"]
    command += [f"-I{folder}" for folder in options["include_dirs"]]
    command += [f"-D{name}={value}" for name, value in options["define_macros"]]
    build.run_compiler(
        [*command, "-fPIC", "-c", "-o", str(tmp_path / "x.o"), str(tmp_path / "_syscalls.c")]
    )
