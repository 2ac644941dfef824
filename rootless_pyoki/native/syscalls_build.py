"""How the extension `rootless_pyoki.native._syscalls` is built (cffi, API mode).

setuptools: `cffi_modules = ["rootless_pyoki/native/syscalls_build.py:ffibuilder"]`.
In a checkout: `python -m rootless_pyoki.native.syscalls_build` builds for this interpreter.
"""

from __future__ import annotations

import pathlib
import shutil
import tempfile

from cffi import FFI

HERE = pathlib.Path(__file__).resolve().parent

ffibuilder = FFI()
ffibuilder.cdef((HERE / "syscalls.h").read_text())
ffibuilder.set_source(
    "rootless_pyoki.native._syscalls",
    (HERE / "syscalls.c").read_text(),
    include_dirs=[str(HERE)],
    define_macros=[("_CFFI_NO_LIMITED_API", "1")],  # PyOS_BeforeFork and its like lie outside it
    extra_compile_args=[
        "-std=gnu11",
        "-O2",
        "-g0",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-fvisibility=hidden",
    ],
    py_limited_api=False,
)


def build_in_place() -> pathlib.Path:
    """Compile aside and rename into place, so that running interpreters keep the old file."""
    with tempfile.TemporaryDirectory() as scratch:
        built = pathlib.Path(ffibuilder.compile(tmpdir=scratch))
        target = HERE / built.name
        fresh = target.with_suffix(".new")
        shutil.copyfile(built, fresh)
        fresh.chmod(0o755)
        fresh.replace(target)
    return target


if __name__ == "__main__":
    print(build_in_place())
