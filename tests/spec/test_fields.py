"""JSON pointers are made as RFC 6901 reads them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.spec import fields


def unescape(pointer: str) -> list[str]:
    """RFC 6901, section 4: evaluation of the reference tokens."""
    return [t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:]]


@given(st.lists(st.text()))
def test_a_pointer_leads_back_to_its_keys(keys: list[str]) -> None:
    """RFC 6901 escaping loses nothing, whatever the keys are."""
    assert unescape(fields.join("", *keys)) == keys
