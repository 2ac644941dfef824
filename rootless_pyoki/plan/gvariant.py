"""A value in GVariant text format, as D-Bus has it.

https://docs.gtk.org/glib/gvariant-text-format.html says how values are written; what has no
counterpart in D-Bus (maybe types), handles and dictionaries are not known here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    # ("number" | "string" | "bool" | "bytes", text or value), ("array" | "tuple", nodes),
    # ("variant", node), ("typed", (signature, node))
    Node = tuple[str, Any]

_KEYWORDS = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
# type → (signed?, bits of the amount)
_BITS = {
    "y": (0, 8),
    "n": (1, 15),
    "q": (0, 16),
    "i": (1, 31),
    "u": (0, 32),
    "x": (1, 63),
    "t": (0, 64),
}
_ESCAPES = {"a": 7, "b": 8, "f": 12, "n": 10, "r": 13, "t": 9, "v": 11}
_QUOTES = ("'", '"')
_DEPTH = 16


class BadValue(ValueError):
    """What is wrong with the text."""


def value_of(text: str) -> tuple[str, Any]:
    """(signature, value); BadValue says what is wrong.

    Strings are str, an array of bytes is bytes, other arrays are lists, structures tuples; a variant
    is the tuple (signature, value).
    """
    reader = _Reader(text)
    node = reader.node(0)
    reader.skip_space()
    if reader.at < len(text):
        raise BadValue(f"{text[reader.at :]!r} is too much")
    signature = _signature(node)
    return signature, _build(node, signature)


class _Reader:
    """Text to nodes, whose types are settled later: an element's may follow from its neighbour's."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def skip_space(self) -> None:
        while self.text[self.at : self.at + 1] in (" ", "\t", "\n", "\r"):
            self.at += 1

    def node(self, depth: int) -> Node:
        if depth > _DEPTH:
            raise BadValue("nested too deeply")
        self.skip_space()
        mark = self.text[self.at : self.at + 1]
        if mark in _QUOTES or (mark == "b" and self.text[self.at + 1 : self.at + 2] in _QUOTES):
            return self._quoted()
        if mark == "[":
            return "array", self._list("]", depth)
        if mark == "(":
            return "tuple", self._list(")", depth)
        if mark == "<":
            self.at += 1
            inner = self.node(depth + 1)
            self._expect(">")
            return "variant", inner
        if mark == "@":
            self.at += 1
            return "typed", (self._word("types"), self.node(depth + 1))
        word = self._word("a value")
        if word in ("true", "false"):
            return "bool", word == "true"
        if word in _KEYWORDS:
            return "typed", (_KEYWORDS[word], self.node(depth + 1))
        if word[0] in "+-.0123456789" or word in ("inf", "nan"):
            return "number", word
        raise BadValue(f"{word!r} is not known")

    def _word(self, wanted: str) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in " \t\n\r,[]<>'\"{}:":
            if self.text[self.at] == ")" and wanted != "types":
                break
            self.at += 1
        if start == self.at:
            raise BadValue(f"{wanted} is missing at {self.text[start:]!r}")
        return self.text[start : self.at]

    def _expect(self, mark: str) -> None:
        self.skip_space()
        if self.text[self.at : self.at + 1] != mark:
            raise BadValue(f"{mark!r} is missing at {self.text[self.at :]!r}")
        self.at += 1

    def _list(self, end: str, depth: int) -> list[Node]:
        """Elements up to the closing mark; (x,) is a structure of one."""
        self.at += 1
        found: list[Node] = []
        while True:
            self.skip_space()
            if self.text[self.at : self.at + 1] == end and (not found or end == ")"):
                break
            found.append(self.node(depth + 1))
            self.skip_space()
            if self.text[self.at : self.at + 1] == end:
                break
            self._expect(",")
        self.at += 1
        return found

    def _quoted(self) -> Node:
        raw = self.text[self.at] == "b"
        self.at += raw
        quote = self.text[self.at]
        self.at += 1
        out: list[str] = []
        while True:
            letter = self.text[self.at : self.at + 1]
            if not letter:
                raise BadValue(f"the closing {quote} is missing")
            self.at += 1
            if letter == quote:
                break
            out.append(self._escaped(raw) if letter == "\\" else letter)
        text = "".join(out)
        if not raw:
            return "string", text
        try:
            return "bytes", text.encode("latin-1") + b"\0"
        except UnicodeEncodeError:
            raise BadValue("bytes above 127 are written as \\NNN") from None

    def _escaped(self, raw: bool) -> str:
        letter = self.text[self.at : self.at + 1]
        self.at += 1
        digits = {"u": 4, "U": 8}.get(letter, 0) if not raw else 0
        if digits:
            text = self.text[self.at : self.at + digits]
            self.at += digits
            known = len(text) == digits and all(one in "0123456789abcdefABCDEF" for one in text)
            number = int(text, 16) if known else -1
            if 0 < number < 0xD800 or 0xDFFF < number <= 0x10FFFF:
                return chr(number)
            raise BadValue(f"\\{letter}{text} is not a character")
        if raw and letter in tuple("01234567"):
            start = self.at - 1
            while self.at < start + 3 and self.text[self.at : self.at + 1] in tuple("01234567"):
                self.at += 1
            return chr(int(self.text[start : self.at], 8) & 0xFF)
        return chr(_ESCAPES[letter]) if letter in _ESCAPES else letter


def _signature(node: Node) -> str:
    """The type that the value has by itself: int32 for a number, double for one with a fraction."""
    kind, inner = node
    if kind == "typed":
        signature: str = inner[0]
        if any(letter in "mrvh{}?*" for letter in signature) or not _is_type(signature):
            raise BadValue(f"{signature!r} is not a type that is known here")
        return signature
    if kind == "number":
        return "d" if _is_double(inner) else "i"
    if kind == "array":
        return "a" + _common(inner)
    if kind == "tuple":
        if not inner:
            raise BadValue("D-Bus has no empty structure")
        return "(" + "".join([_signature(one) for one in inner]) + ")"
    return {"string": "s", "bool": "b", "bytes": "ay", "variant": "v"}[kind]


def _common(elements: list[Node]) -> str:
    """The one type of an array: an element whose type is written down speaks for bare numbers."""
    if not elements:
        raise BadValue("an empty array needs its type, as in @as []")
    told = [(one, _signature(one)) for one in elements]
    bare = [signature for one, signature in told if one[0] == "number"]
    others = {signature for one, signature in told if one[0] != "number"}
    if others:
        (first, *more) = sorted(others)
        if more or (bare and first not in (*_BITS, "d")):
            raise BadValue("the elements of an array are of one type")
        return first
    return "d" if "d" in bare else "i"


def _is_type(signature: str) -> bool:
    """Is it one complete type?"""
    return bool(signature) and not _rest_of_type(signature, 0)


def _rest_of_type(signature: str, depth: int) -> str:
    """What follows the first complete type; "?" where there is none."""
    first, rest = signature[:1], signature[1:]
    if first == "a" and rest and depth < _DEPTH:
        return _rest_of_type(rest, depth + 1)
    if first == "(" and depth < _DEPTH:
        while rest[:1] not in ("", ")"):
            rest = _rest_of_type(rest, depth + 1)
        return rest[1:] if rest and signature[1:2] != ")" else "?"  # D-Bus has no empty structure
    return rest if first and first in "bynqiuxtdsogv" else "?"


def _build(node: Node, signature: str) -> Any:
    """The value of this type."""
    kind, inner = node
    first = signature[:1]
    if kind == "typed":
        if inner[0] != signature:
            raise BadValue(f"{inner[0]} where {signature} is wanted")
        return _build(inner[1], signature)
    if kind == "number" and first in _BITS:
        return _integer(inner, signature)
    if kind == "number" and first == "d":
        return _double(inner)
    if kind == "bytes" and signature == "ay":
        return inner
    if kind == "array" and first == "a":
        built = [_build(one, signature[1:]) for one in inner]
        return bytes(built) if signature == "ay" else built
    if kind == "tuple" and first == "(":
        return _structure(inner, signature[1:-1])
    if kind == "variant" and first == "v":
        own = _signature(inner)
        return own, _build(inner, own)
    if (kind == "bool" and first == "b") or (kind == "string" and first in ("s", "o", "g")):
        if kind == "string" and "\0" in inner:
            raise BadValue("a string holds no NUL")
        return inner
    raise BadValue(f"a {kind} is not of type {signature}")


def _structure(elements: list[Node], signatures: str) -> tuple[Any, ...]:
    values = []
    for one in elements:
        rest = _rest_of_type(signatures, 0) if signatures else "?"
        if rest == "?":
            raise BadValue("a structure has more elements than its type")
        values.append(_build(one, signatures[: len(signatures) - len(rest)]))
        signatures = rest
    if signatures:
        raise BadValue("a structure has fewer elements than its type")
    return tuple(values)


def _is_double(text: str) -> bool:
    bare = text.lstrip("+-").lower()
    return bare in ("inf", "nan") or (bare[:2] != "0x" and any(mark in bare for mark in ".e"))


def _integer(text: str, signature: str) -> int:
    """As in C: 0x is hexadecimal, a leading 0 octal."""
    bare = text.lstrip("+-").lower()
    base = 16 if bare[:2] == "0x" else 8 if bare[:1] == "0" and len(bare) > 1 else 10
    try:
        number = int(text, base)
    except ValueError:
        raise BadValue(f"{text!r} is not a whole number") from None
    signed, bits = _BITS[signature]
    if "_" in text or not text.isascii() or not -(signed << bits) <= number < 1 << bits:
        raise BadValue(f"{text} is out of range: write its type, as in uint64 {text}")
    return number


def _double(text: str) -> float:
    try:
        if "_" in text:
            raise ValueError
        return float(int(text, 16)) if "x" in text.lower() else float(text)
    except ValueError:
        raise BadValue(f"{text!r} is not a number") from None
