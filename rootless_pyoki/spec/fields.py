"""Typed getters over objects read from JSON: the value, its default, or a SpecError with a pointer.

Every getter takes the object, the key, what to return when the key is missing or null, and the JSON
pointer (RFC 6901) of the *object*; the error names the member's own pointer.
Strings with a NUL or half of a surrogate pair are refused: no path, argument or variable holds one.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

UINT32 = 2**32 - 1
INT64 = 2**63 - 1
UINT64 = 2**64 - 1
HIGHEST_ID = 2**32 - 2  # 2**32-1 means "no id" to setresuid(2) and chown(2)


def join(pointer: str, *keys: str | int) -> str:
    """The pointer of a member below `pointer`: `join("/mounts", 3, "a/b")` is `/mounts/3/a~1b`."""
    for key in keys:
        token = str(key)
        if "~" in token or "/" in token:
            token = token.replace("~", "~0").replace("/", "~1")
        pointer = f"{pointer}/{token}"
    return pointer


def describe(value: object) -> str:
    """What a JSON value is, with its article."""
    if value is None:
        return "null"
    return _NAMES.get(type(value), "something else")


_NAMES: dict[type, str] = {
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def wrong_type(wanted: str, value: object, pointer: str) -> SpecError:
    """`must be a string, not a number`."""
    if type(value) is float and wanted == "a whole number":
        return SpecError(f"must be a whole number, not {value!r}", pointer=pointer)
    return SpecError(f"must be {wanted}, not {describe(value)}", pointer=pointer)


def out_of_range(value: int, low: int, high: int, pointer: str) -> SpecError:
    return SpecError(f"must be from {low} to {high}, not {value}", pointer=pointer)


def check_text(value: str, pointer: str) -> None:
    """Refuse what no C string and no UTF-8 file name can hold."""
    if "\0" in value:
        raise SpecError("must not contain a NUL character", pointer=pointer)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise SpecError("must not contain half of a surrogate pair", pointer=pointer) from None


def get_str(object: Mapping[str, Any], key: str, default: str = "", *, pointer: str = "") -> str:
    value = object.get(key)
    if value is None:
        return default
    if type(value) is not str:
        raise wrong_type("a string", value, join(pointer, key))
    check_text(value, join(pointer, key))
    return value


def get_int(
    object: Mapping[str, Any],
    key: str,
    default: int = 0,
    *,
    low: int = -INT64 - 1,
    high: int = UINT64,
    pointer: str = "",
) -> int:
    """A whole number from low to high. Booleans and 1.0 are none."""
    value = object.get(key)
    if value is None:
        return default
    if type(value) is not int:
        raise wrong_type("a whole number", value, join(pointer, key))
    if not low <= value <= high:
        raise out_of_range(value, low, high, join(pointer, key))
    return value


def get_bool(
    object: Mapping[str, Any], key: str, default: bool = False, *, pointer: str = ""
) -> bool:
    value = object.get(key)
    if value is None:
        return default
    if type(value) is not bool:
        raise wrong_type("true or false", value, join(pointer, key))
    return value


def get_list(object: Mapping[str, Any], key: str, *, pointer: str = "") -> list[Any]:
    """The list as it stands in the object, or a new empty one."""
    value = object.get(key)
    if value is None:
        return []
    if type(value) is not list:
        raise wrong_type("a list", value, join(pointer, key))
    return value


def get_strings(object: Mapping[str, Any], key: str, *, pointer: str = "") -> list[str]:
    values = get_list(object, key, pointer=pointer)
    for index, value in enumerate(values):
        if type(value) is not str:
            raise wrong_type("a string", value, join(pointer, key, index))
        check_text(value, join(pointer, key, index))
    return values


def get_object(object: Mapping[str, Any], key: str, *, pointer: str = "") -> dict[str, Any]:
    """The member object, or a new empty one."""
    value = object.get(key)
    if value is None:
        return {}
    if type(value) is not dict:
        raise wrong_type("an object", value, join(pointer, key))
    return value


def get_objects(object: Mapping[str, Any], key: str, *, pointer: str = "") -> list[dict[str, Any]]:
    """A list whose every item is an object."""
    values = get_list(object, key, pointer=pointer)
    for index, value in enumerate(values):
        if type(value) is not dict:
            raise wrong_type("an object", value, join(pointer, key, index))
    return values


def require(object: Mapping[str, Any], key: str, *, pointer: str = "") -> Any:
    """The member, of whatever type; missing or null is an error."""
    value = object.get(key)
    if value is None:
        raise SpecError("is required", pointer=join(pointer, key))
    return value


def require_str(object: Mapping[str, Any], key: str, *, pointer: str = "") -> str:
    """A string with at least one character."""
    require(object, key, pointer=pointer)
    value = get_str(object, key, pointer=pointer)
    if not value:
        raise SpecError("must not be empty", pointer=join(pointer, key))
    return value
