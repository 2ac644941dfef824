"""D-Bus values as bytes, and back: D-Bus Specification, "Type System", "Marshaling (Wire Format)".

In Python a value is what its type says: y n q i u x t h int, b bool, d float, s o g str, an array a
list (of bytes: bytes; of dict entries: dict), a struct a tuple, a variant the tuple (signature, value).
h is an index and no descriptor: we never ask a peer to pass any. We write in this machine's byte
order and read both. Whatever cannot be written or read raises HostError.
"""

from __future__ import annotations

import errno as e
from sys import byteorder

from rootless_pyoki.errors import HostError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal, NoReturn

    Order = Literal["little", "big"]

LONGEST_ARRAY = 1 << 26  # bytes
DEEPEST = 32  # arrays in arrays, and structs in structs; 64 together with the variants
LONGEST_SIGNATURE = 255

_INTEGERS = {  # (bytes, signed)
    "y": (1, False),
    "n": (2, True),
    "q": (2, False),
    "i": (4, True),
    "u": (4, False),
    "x": (8, True),
    "t": (8, False),
    "h": (4, False),
}
_BASIC = "ybnqiuxtdsogh"
_ALIGNMENT = {"b": 4, "d": 8, "s": 4, "o": 4, "g": 1, "a": 4, "(": 8, "{": 8, "v": 1}
_ALIGNMENT |= {letter: size for letter, (size, _) in _INTEGERS.items()}
_types: dict[str, tuple[str, ...]] = {}  # signatures that split() has seen


def marshal(signature: str, values: tuple[Any, ...]) -> bytes:
    """The values as a message's body; raises HostError for what does not fit its type."""
    out = bytearray()
    append(out, signature, values)
    return bytes(out)


def append(out: bytearray, signature: str, values: tuple[Any, ...]) -> None:
    kinds = split(signature)
    if len(kinds) != len(values):
        _unfit(f"{len(values)} values for the signature {signature!r}")
    try:
        for kind, value in zip(kinds, values, strict=True):
            _put(out, kind, value, 0)
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        _unfit(f"{error} (signature {signature!r})")


def pad(out: bytearray, alignment: int) -> None:
    over = -len(out) & (alignment - 1)
    if over:
        out += bytes(over)


def _put(out: bytearray, kind: str, value: Any, depth: int) -> None:
    """Append a value of one complete type; raises what append() catches."""
    letter = kind[0]
    if letter == "s" or letter == "o":
        if letter == "o" and not _is_path(value):
            _unfit(f"{value!r} is no object path")
        raw = value.encode()
        if b"\0" in raw:
            _unfit("a string has a NUL")
        pad(out, 4)
        out += len(raw).to_bytes(4, byteorder) + raw + b"\0"
    elif letter == "v":
        signature, inner = value
        if len(split(signature)) != 1:
            _unfit(f"a variant has one complete type, not {signature!r}")
        out += b"%c%b\0" % (len(signature), signature.encode())
        _put(out, signature, inner, _deeper(depth))
    elif letter == "(":
        pad(out, 8)
        depth = _deeper(depth)
        for one, inner in zip(split(kind[1:-1]), value, strict=True):
            _put(out, one, inner, depth)
    elif letter == "a":
        _put_array(out, kind[1:], value, _deeper(depth))
    elif letter == "b":
        if value is not True and value is not False:
            _unfit(f"{value!r} is no boolean")
        pad(out, 4)
        out += int(value).to_bytes(4, byteorder)
    elif letter in _INTEGERS:
        size, signed = _INTEGERS[letter]
        pad(out, size)
        out += value.to_bytes(size, byteorder, signed=signed)
    elif letter == "g":
        split(value)
        out += b"%c%b\0" % (len(value), value.encode())
    else:  # d
        pad(out, 8)
        eight = bytearray(8)
        memoryview(eight).cast("d")[0] = value
        out += eight


def _deeper(depth: int) -> int:
    if depth == 2 * DEEPEST:
        _unfit("a value is nested too deep")
    return depth + 1


def _put_array(out: bytearray, element: str, value: Any, depth: int) -> None:
    pad(out, 4)
    place = len(out)
    out += b"\0\0\0\0"
    pad(out, _ALIGNMENT[element[0]])
    start = len(out)
    if element == "y":
        if isinstance(value, int):  # bytes(5) are five zeros
            _unfit(f"{value!r} is no array of bytes")
        out += bytes(value)
    elif element[0] == "{":
        for key, inner in value.items():
            pad(out, 8)
            _put(out, element[1], key, depth)
            _put(out, element[2:-1], inner, depth)
    else:
        for inner in value:
            _put(out, element, inner, depth)
    if len(out) - start > LONGEST_ARRAY:
        _unfit(f"an array of {len(out) - start} bytes is too long")
    out[place : place + 4] = (len(out) - start).to_bytes(4, byteorder)


def _is_path(path: str) -> bool:
    """An object path: "/" or "/a/b_2"."""
    names = path.replace("_", "a")
    if path == "/":
        return True
    return names[:1] == "/" and all(
        name.isascii() and name.isalnum() for name in names[1:].split("/")
    )


def split(signature: str) -> tuple[str, ...]:
    """The single complete types of a signature: "sa{sv}u" is ("s", "a{sv}", "u"); HostError."""
    known = _types.get(signature)
    if known is None:
        if len(signature) > LONGEST_SIGNATURE:
            _wrong(signature[:32], "is longer than 255 bytes")
        at, found = 0, []
        while at < len(signature):
            end = _end(signature, at, 0, 0)
            found.append(signature[at:end])
            at = end
        known = tuple(found)
        if len(_types) < 256:  # there are never so many but in a hostile peer's messages
            _types[signature] = known
    return known


def _end(signature: str, at: int, arrays: int, structs: int) -> int:
    """Where the single complete type ends that begins at `at`, inside so many arrays and structs."""
    letter = signature[at : at + 1]
    if not letter:
        _wrong(signature, "is not complete")
    if letter in _BASIC or letter == "v":
        return at + 1
    if arrays + (letter == "a") > DEEPEST or structs + (letter == "(") > DEEPEST:
        _wrong(signature, "is nested too deep")
    if letter == "a" and signature[at + 1 : at + 2] == "{":
        key = signature[at + 2 : at + 3]
        end = _end(signature, at + 3, arrays + 1, structs + 1)
        if not key or key not in _BASIC or signature[end : end + 1] != "}":
            _wrong(signature, "has a dict entry that is none")
        return end + 1
    if letter == "a":
        return _end(signature, at + 1, arrays + 1, structs)
    if letter != "(" or signature[at + 1 : at + 2] == ")":
        _wrong(signature, f"has no type at {at}")
    at += 1
    while signature[at : at + 1] != ")":
        at = _end(signature, at, arrays, structs + 1)
    return at + 1


class Reader:
    """Reads values one after the other; the bytes begin where an 8-byte value might."""

    def __init__(self, raw: bytes, order: Order) -> None:
        self.raw = raw
        self.order: Order = order
        self.at = 0

    def take(self, size: int) -> bytes:
        self.at += size
        if self.at > len(self.raw):
            bad("a value reaches beyond its end")
        return self.raw[self.at - size : self.at]

    def pad(self, alignment: int) -> None:
        over = -self.at % alignment
        if over and any(self.take(over)):
            bad("the padding is not zero")

    def integer(self, size: int, signed: bool) -> int:
        self.pad(size)
        return int.from_bytes(self.take(size), self.order, signed=signed)

    def text(self, width: int) -> str:
        """width: bytes of the length before it."""
        size = self.integer(width, False)
        raw = self.take(size + 1)
        if raw.find(0) != size:
            bad("a string does not end with its only NUL")
        try:
            return raw[:size].decode()
        except UnicodeDecodeError:
            bad("a string is not UTF-8")

    def value(self, kind: str, depth: int) -> Any:
        """One value of one complete type."""
        letter = kind[0]
        if depth > 2 * DEEPEST:
            bad("a value is nested too deep")
        if letter in _INTEGERS:
            return self.integer(*_INTEGERS[letter])
        if letter == "s":
            return self.text(4)
        if letter == "v":
            signature = self.text(1)
            if len(split(signature)) != 1:
                bad(f"a variant has the signature {signature!r}")
            return signature, self.value(signature, depth + 1)
        if letter == "a":
            return self.array(kind[1:], depth + 1)
        if letter == "(":
            self.pad(8)
            return tuple([self.value(one, depth + 1) for one in split(kind[1:-1])])
        return self.rare(letter)

    def rare(self, letter: str) -> Any:
        if letter == "b":
            number = self.integer(4, False)
            if number > 1:
                bad(f"a boolean is {number}")
            return number == 1
        if letter == "d":
            self.pad(8)
            raw = self.take(8)
            return memoryview(raw if self.order == byteorder else raw[::-1]).cast("d")[0]
        text = self.text(1 if letter == "g" else 4)
        if letter == "g":
            split(text)
        elif not _is_path(text):
            bad(f"{text!r} is no object path")
        return text

    def array(self, element: str, depth: int) -> Any:
        size = self.integer(4, False)
        self.pad(_ALIGNMENT[element[0]])
        end = self.at + size
        if size > LONGEST_ARRAY or end > len(self.raw):
            bad(f"an array of {size} bytes does not fit")
        if element == "y":
            return self.take(size)
        found: Any
        if element[0] == "{":
            found = {}
            while self.at < end:
                self.pad(8)
                key = self.value(element[1], depth + 1)
                found[key] = self.value(element[2:-1], depth + 1)
        else:
            found = []
            while self.at < end:
                found.append(self.value(element, depth))
        if self.at != end:
            bad("an array's last element reaches beyond it")
        return found


def _wrong(signature: str, reason: str) -> NoReturn:
    raise HostError(f"D-Bus: the signature {signature!r} {reason}", errno=e.EBADMSG)


def bad(reason: str) -> NoReturn:
    raise HostError(f"D-Bus: malformed message: {reason}", errno=e.EBADMSG)


def _unfit(reason: str) -> NoReturn:
    raise HostError(f"D-Bus: cannot be sent: {reason}", errno=e.EINVAL)
