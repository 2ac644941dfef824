"""What every wrapper needs: the extension, paths as bytes, and failures as SyscallError."""

from __future__ import annotations

import posix

import rootless_pyoki.native._syscalls as _syscalls
from rootless_pyoki.errors import SyscallError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

lib: Any = _syscalls.lib
ffi: Any = _syscalls.ffi
NULL: Any = ffi.NULL

EINVAL = 22
EINTR = 4
EILSEQ = 84


def failure(number: int, call: str, path: str | None = None) -> SyscallError:
    """The exception for errno `number`, to be raised by the caller."""
    return SyscallError(number, posix.strerror(number), call, path)


def failed(error: OSError, call: str, path: str | None = None) -> SyscallError:
    """What `posix` raised, as a SyscallError."""
    return failure(error.errno or EINVAL, call, path)


def check(result: int, call: str, path: str | None = None) -> int:
    """Pass a result of the extension on; raises SyscallError when it is a negative errno."""
    if result < 0:
        raise failure(-result, call, path)
    return result


def encode(path: str, call: str) -> bytes:
    """A str as the kernel's bytes: UTF-8, surrogateescape, whatever the locale says.

    Raises SyscallError EINVAL for an embedded NUL (C would stop reading there) and EILSEQ for a
    lone surrogate that stands for no byte.
    """
    try:
        raw = path.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise failure(EILSEQ, call, repr(path)) from None
    if b"\0" in raw:
        raise failure(EINVAL, call, repr(path))
    return raw


def encode_or_null(text: str | None, call: str) -> Any:
    """As encode(), and None becomes the null pointer."""
    return NULL if text is None else encode(text, call)


def decode(raw: bytes) -> str:
    """The inverse of encode()."""
    return raw.decode("utf-8", "surrogateescape")


def encode_all(strings: Iterable[bytes | str], call: str) -> list[bytes]:
    """argv or envp as bytes; raises as encode() does."""
    out = []
    for one in strings:
        if isinstance(one, str):
            one = encode(one, call)
        elif b"\0" in one:
            raise failure(EINVAL, call, repr(one))
        out.append(one)
    return out


def retry(function: Any, *arguments: Any) -> int:
    """Call until the answer is not EINTR; Python's own signal handlers run in between."""
    while True:
        result: int = function(*arguments)
        if result != -EINTR:
            return result
