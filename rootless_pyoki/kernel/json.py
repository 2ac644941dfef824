"""JSON through the standard library's own C scanner and encoder, without its Python (8 ms of `re`).

RFC 8259, strictly: UTF-8 without byte order mark, no NaN or Infinity, nothing after the value. Of
equal names in an object the last one counts, as in Go and C, unless they are to be refused.
"""

from __future__ import annotations

import _json
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SPACE = " \t\n\r"


class DecodeError(ValueError):
    """What the C scanner raises; same arguments as json.JSONDecodeError."""

    def __init__(self, message: str, text: str, position: int) -> None:
        line = text.count("\n", 0, position) + 1
        column = position - text.rfind("\n", 0, position)
        super().__init__(f"{message[:1].lower()}{message[1:]}: line {line} column {column}")


class _Decoder:
    """Stands in for the module json.decoder, where the scanner looks for the exception's class."""

    JSONDecodeError = DecodeError


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Settings:
    strict = True
    object_hook = None
    object_pairs_hook: Any = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in made if names.count(name) > 1)
        raise ValueError(f"an object has two members named {dumps(twice).decode()}")
    return made


class _UniqueSettings(_Settings):
    object_pairs_hook = staticmethod(_unique)


_settings: Any = _Settings
_scan = _json.make_scanner(_settings)


def loads(data: bytes | bytearray, *, unique: bool = False) -> Any:
    """Raises ValueError with line and column where there is one. unique: two members of an object
    with the same name are an error.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise ValueError(f"not UTF-8: line {line} column {column} (byte)") from None
    start = len(text) - len(text.lstrip(_SPACE))
    try:
        value, end = _scan_once(text, start, unique)
    except StopIteration as stop:
        raise DecodeError("value expected", text, stop.value) from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    rest = text[end:].lstrip(_SPACE)
    if rest:
        raise DecodeError("unexpected data after the value", text, len(text) - len(rest))
    return value


def _scan_once(text: str, start: int, unique: bool) -> tuple[Any, int]:
    settings: Any = _UniqueSettings
    scan = _json.make_scanner(settings) if unique else _scan
    modules: dict[str, Any] = sys.modules
    if "json.decoder" in modules:  # the standard library's own is loaded: leave it alone
        try:
            return scan(text, start)
        except modules["json.decoder"].JSONDecodeError as error:
            raise DecodeError(error.msg, text, error.pos) from None
    modules["json.decoder"] = _Decoder
    try:
        return scan(text, start)
    finally:
        del modules["json.decoder"]


def _refuse_type(value: object) -> NoReturn:
    raise TypeError(f"{type(value).__name__} is not JSON")


def dumps(value: object) -> bytes:
    """Compact, ASCII. Raises ValueError for NaN, Infinity and cycles, TypeError for other types."""
    encoder = _json.make_encoder(
        {}, _refuse_type, _json.encode_basestring_ascii, None, ":", ",", False, False, False
    )
    try:
        return "".join(encoder(value, 0)).encode("ascii")
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dumps_pretty(value: object, step: str = "  ") -> str:
    """As runc prints it: `step` a level, [] and {} when empty, no newline at the end."""
    try:
        return _pretty(value, "\n", step)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _pretty(value: object, newline: str, step: str) -> str:
    inner = newline + step
    if isinstance(value, dict) and value:
        members = [f"{_key(key)}: {_pretty(item, inner, step)}" for key, item in value.items()]
        return "{" + inner + ("," + inner).join(members) + newline + "}"
    if isinstance(value, (list, tuple)) and value:
        items = [_pretty(item, inner, step) for item in value]
        return "[" + inner + ("," + inner).join(items) + newline + "]"
    return dumps(value).decode("ascii")


def _key(key: object) -> str:
    if not isinstance(key, str):
        raise TypeError(f"{type(key).__name__} is no key of a JSON object")
    return _json.encode_basestring_ascii(key)
