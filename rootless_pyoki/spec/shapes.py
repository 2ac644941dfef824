"""How config.json's types are checked: small functions, put together by the table in schema.py.

A shape is a function that returns when the value fits and raises SpecError when not. The pointer is
put together only on the way up, so a good document pays nothing for it. Members that the tables do
not name are ignored (config.md, "Extensibility"); a member that is null counts as not there and is
removed.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec.fields import check_text, join, out_of_range, wrong_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    Shape = Callable[[Any], None]


def check(shape: Shape, value: object, pointer: str) -> None:
    """Raise SpecError with its full pointer unless the value at `pointer` fits."""
    try:
        shape(value)
    except SpecError as error:
        error.pointer = pointer + error.pointer
        raise


def text(value: Any) -> None:
    if type(value) is not str:
        raise wrong_type("a string", value, "")
    if "\0" in value or not value.isascii():
        check_text(value, "")


def filled(value: Any) -> None:
    """A string with at least one character."""
    text(value)
    if not value:
        raise SpecError("must not be empty")


def absolute(value: Any) -> None:
    text(value)
    if value[:1] != "/":
        raise SpecError(f"must be an absolute path, not {value!r}")


def boolean(value: Any) -> None:
    if type(value) is not bool:
        raise wrong_type("true or false", value, "")


def integer(low: int, high: int) -> Shape:
    def shape(value: Any) -> None:
        if type(value) is not int:
            raise wrong_type("a whole number", value, "")
        if not low <= value <= high:
            raise out_of_range(value, low, high, "")

    return shape


def one_of(what: str, words: str, *more: str) -> Shape:
    """A string of a closed set: the words and whatever else; `what` names it in the error."""
    known = words.split()
    names = {*known, *more}

    def shape(value: Any) -> None:
        if type(value) is not str:
            raise wrong_type("a string", value, "")
        if value not in names:
            raise SpecError(f"{value!r} is no {what}: known are {', '.join(known)}")

    return shape


def made_of(characters: str, example: str) -> Shape:
    """A string of these characters only."""

    def shape(value: Any) -> None:
        text(value)
        if value.strip(characters):
            raise SpecError(f"{value!r} is not of the form {example}")

    return shape


def list_of(item: Shape) -> Shape:
    def shape(value: Any) -> None:
        if type(value) is not list:
            raise wrong_type("a list", value, "")
        index = 0
        try:
            for index, member in enumerate(value):  # noqa: B007 - the handler reads it
                item(member)
        except SpecError as error:
            error.pointer = f"/{index}{error.pointer}"
            raise

    return shape


def texts(value: Any) -> None:
    """list_of(text), in one pass of C when all is well: profiles hold hundreds of names."""
    if type(value) is list:
        try:
            joined = "".join(value)
        except TypeError:
            pass
        else:
            if "\0" not in joined and joined.isascii():
                return
    _texts(value)


_texts = list_of(text)


def map_of(item: Shape) -> Shape:
    """An object whose every member, of any name, fits `item`."""

    def shape(value: Any) -> None:
        if type(value) is not dict:
            raise wrong_type("an object", value, "")
        key = ""
        try:
            for key, member in value.items():  # noqa: B007 - the handler reads it
                item(member)
            for key in value:
                if not key or "\0" in key or not key.isascii():
                    _check_key(key)
        except SpecError as error:
            error.pointer = join("", key) + error.pointer
            raise

    return shape


def _check_key(key: str) -> None:
    if not key:
        raise SpecError("must not have an empty name")
    check_text(key, "")


def object_of(members: dict[str, Shape], required: Iterable[str] = ()) -> Shape:
    find = members.get

    def shape(value: Any) -> None:
        if type(value) is not dict:
            raise wrong_type("an object", value, "")
        if None in value.values():
            for key in [key for key, member in value.items() if member is None]:
                del value[key]
        for key in required:
            if key not in value:
                raise SpecError("is required", pointer=join("", key))
        key = ""
        try:
            for key, member in value.items():
                item = find(key)
                if item is not None:
                    item(member)
        except SpecError as error:
            error.pointer = join("", key) + error.pointer
            raise

    return shape
