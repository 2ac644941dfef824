"""What the checks of config.json have in common: JSON pointers (RFC 6901), and a SpecError's words.

Strings with a NUL or half of a surrogate pair are refused: no path, argument or variable holds one.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError

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
