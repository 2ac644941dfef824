"""Runs filter programs outside the kernel: a C interpreter, built when first asked for."""

from __future__ import annotations

import array
import ctypes
import functools
import struct
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("interpreter.c")


@functools.cache
def _library() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "interpreter.so"
        subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", built, SOURCE], check=True)
        return ctypes.CDLL(str(built))


def in_our_order(program: bytes, big: bool) -> bytes:
    """The program with this machine's byte order, if it was made for one of the other."""
    if not big:
        return program
    return b"".join(struct.pack("<HBBI", *one) for one in struct.iter_unpack(">HBBI", program))


def check(program: bytes) -> int:
    """-1, or the index of the first instruction that the kernel would refuse."""
    return int(_library().check(program, len(program) // 8))


def run(
    program: bytes,
    arch: int,
    numbers: Iterable[int],
    vectors: Sequence[Sequence[int]],
    *,
    big: bool = False,
) -> list[int]:
    """Verdicts of all numbers with all argument vectors, in that order."""
    wanted = array.array("I", numbers)
    arguments = array.array("Q", [value for vector in vectors for value in vector])
    out = (ctypes.c_uint32 * (len(wanted) * len(vectors)))()
    _library().run(
        program,
        int(big),
        ctypes.c_uint32(arch),
        ctypes.c_void_p(wanted.buffer_info()[0]),
        len(wanted),
        ctypes.c_void_p(arguments.buffer_info()[0]),
        len(vectors),
        out,
    )
    return list(out)
