"""The typed getters over JSON objects."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec import fields


def unescape(pointer: str) -> list[str]:
    """RFC 6901, section 4: evaluation of the reference tokens."""
    return [t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:]]


@given(st.lists(st.text()))
def test_a_pointer_leads_back_to_its_keys(keys: list[str]) -> None:
    """RFC 6901 escaping loses nothing, whatever the keys are."""
    assert unescape(fields.join("", *keys)) == keys


@pytest.mark.parametrize(
    ("getter", "value", "message"),
    [
        (fields.get_str, 1, "must be a string, not a number"),
        (fields.get_str, True, "must be a string, not a boolean"),
        (fields.get_str, "a\0b", "must not contain a NUL character"),
        (fields.get_str, "\ud800", "must not contain half of a surrogate pair"),
        (fields.get_int, True, "must be a whole number, not a boolean"),
        (fields.get_int, 1.0, "must be a whole number, not 1.0"),
        (fields.get_int, "1", "must be a whole number, not a string"),
        (fields.get_int, 2**64, "must be from -9223372036854775808 to 18446744073709551615"),
        (fields.get_bool, 0, "must be true or false, not a number"),
        (fields.get_list, {}, "must be a list, not an object"),
        (fields.get_object, [], "must be an object, not a list"),
    ],
)
def test_a_wrong_value_is_refused_at_its_pointer(getter, value, message) -> None:
    """The message says what is wanted and what is there, the pointer says where."""
    with pytest.raises(SpecError, match=message) as caught:
        getter({"a/b": value}, "a/b", pointer="/x")
    assert caught.value.pointer == "/x/a~1b"


@pytest.mark.parametrize("object", [{}, {"key": None}])
def test_missing_and_null_give_the_default(object) -> None:
    """Go programs write null for what they leave out."""
    assert fields.get_str(object, "key", "d") == "d"
    assert fields.get_int(object, "key", 7) == 7
    assert fields.get_bool(object, "key", True) is True
    assert fields.get_list(object, "key") == []
    assert fields.get_strings(object, "key") == []
    assert fields.get_object(object, "key") == {}
    with pytest.raises(SpecError, match="is required") as caught:
        fields.require(object, "key", pointer="/x")
    assert caught.value.pointer == "/x/key"


@pytest.mark.parametrize(
    ("getter", "value", "message"),
    [
        (fields.get_strings, ["a", 1], "must be a string, not a number"),
        (fields.get_strings, ["a", "\0"], "NUL"),
        (fields.get_objects, [{}, None], "must be an object, not null"),
    ],
)
def test_an_item_is_refused_at_its_index(getter, value, message) -> None:
    """Items of lists have pointers of their own."""
    with pytest.raises(SpecError, match=message) as caught:
        getter({"list": value}, "list")
    assert caught.value.pointer == "/list/1"


def test_a_number_has_its_range() -> None:
    """Both ends belong to the range."""
    assert fields.get_int({"n": 5}, "n", low=5, high=5) == 5
    with pytest.raises(SpecError, match="must be from 5 to 5, not 6"):
        fields.get_int({"n": 6}, "n", low=5, high=5)


def test_an_empty_string_is_not_what_require_str_wants() -> None:
    """A path that is empty names nothing."""
    assert fields.require_str({"p": "x"}, "p") == "x"
    with pytest.raises(SpecError, match="must not be empty"):
        fields.require_str({"p": ""}, "p")
