"""Compiles what is C: the extension, the gate, the launcher. Run by the build, never at run time.

`python rootless_pyoki/native/build.py` builds the extension and the gate in place, for a checkout
that is used without being installed.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cffi import FFI

NATIVE = Path(__file__).resolve().parent
CACHE_TAG = sys.implementation.cache_tag
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
EXTENSION = f"_syscalls{sysconfig.get_config_var('EXT_SUFFIX')}"

# Static programs without a libc. The loop option keeps the compiler from turning a loop into a
# call of memcpy or strlen, which do not exist there.
FREESTANDING = (
    "-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-fno-pie", "-no-pie",
    "-fno-tree-loop-distribute-patterns", "-fno-asynchronous-unwind-tables",
    "-O2", "-Wall", "-Wextra", "-Werror", "-s", "-Wl,--build-id=none", "-Wl,-z,noexecstack",
    "-Wl,-z,noseparate-code",
)  # fmt: skip
NEEDED = "a C compiler and the headers of libc and Python (Debian: gcc libc6-dev python3-dev)"


class BuildError(Exception):
    """Why there is nothing to install, in one sentence."""


def compiler() -> list[str]:
    """The compiler's command line: $CC, else the first of cc, gcc and clang that there is."""
    if not sys.platform.startswith("linux"):
        raise BuildError(
            "pyoki runs containers with Linux's own calls and cannot be built elsewhere"
        )
    command = shlex.split(os.environ.get("CC", ""))
    if not command:
        command = [name for name in ("cc", "gcc", "clang") if shutil.which(name)][:1]
    if not command or not shutil.which(command[0]):
        raise BuildError(f"pyoki is built from source and needs {NEEDED}")
    return command


def run_compiler(arguments: list[str]) -> None:
    done = subprocess.run([*compiler(), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise BuildError(f"pyoki's C did not compile (above): it needs {NEEDED}")


def build_gate(output: Path) -> Path:
    # -Os: two pages, which every created container has to itself
    run_compiler([*FREESTANDING, "-Os", "-o", str(output), str(NATIVE / "gate.c")])
    return output


def build_launcher(output: Path) -> Path:
    names = [f'-DCACHE_TAG="{CACHE_TAG}"', f'-DPYTHON="{PYTHON}"']
    run_compiler([*FREESTANDING, *names, "-o", str(output), str(NATIVE / "launcher.c")])
    return output


def extension_recipe() -> FFI:
    """`ffibuilder` of syscalls_build.py, which is no module of a package while we build."""
    path = NATIVE / "syscalls_build.py"
    names: dict[str, object] = {"__file__": str(path), "__name__": "syscalls_build"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    return names["ffibuilder"]


def build_extension(output: Path) -> Path:
    include = Path(sysconfig.get_path("include"))
    if not (include / "Python.h").exists():
        compiler()
        raise BuildError(f"pyoki is built from source and needs {NEEDED}")
    recipe = extension_recipe()
    _, _, _, options = recipe._assigned_source
    arguments = [*options["extra_compile_args"], f"-I{include}"]
    arguments += [f"-I{folder}" for folder in options["include_dirs"]]
    arguments += [f"-D{name}={value}" for name, value in options["define_macros"]]
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "_syscalls.c")
        with contextlib.redirect_stdout(io.StringIO()):  # cffi says that it does
            recipe.emit_c_code(str(source))
        # code and constants in one segment: two system calls less to load it
        arguments += ["-shared", "-fPIC", "-s", "-Wl,-z,noseparate-code"]
        run_compiler([*arguments, "-o", str(output), str(source)])
    return output


def commit() -> str:
    """The checkout's commit, "unknown" where this is no checkout or there is no git."""
    root = NATIVE.parent.parent
    command = ["git", "-C", str(root), "rev-parse", "--verify", "HEAD"]
    try:
        if not (root / ".git").exists():
            return "unknown"
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"


def build_in_place() -> None:
    """What a checkout needs to be imported from: the extension and the gate.

    Renamed into place when finished, so that running programs keep the old file.
    """
    with tempfile.TemporaryDirectory(dir=NATIVE, prefix=".build-") as folder:
        for made in (build_extension(Path(folder, EXTENSION)), build_gate(Path(folder, "gate"))):
            made.replace(NATIVE / made.name)


if __name__ == "__main__":
    try:
        build_in_place()
    except BuildError as error:
        sys.exit(f"error: {error}")
