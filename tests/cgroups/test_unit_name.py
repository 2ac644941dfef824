"""Names of units and slices."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.cgroups import unit_name
from rootless_pyoki.errors import SpecError, UnsupportedError


@pytest.mark.parametrize(
    ("path", "unit", "slice"),
    [
        ("", "pyoki-the.id_1.scope", "user.slice"),
        ("::c", "c.scope", "user.slice"),
        (":runc:c", "runc-c.scope", "user.slice"),
        ("system.slice:p:c", "p-c.scope", "system.slice"),
        ("a-b-c.slice:libpod:0123", "libpod-0123.scope", "a-b-c.slice"),
        ("-.slice:p:c", "p-c.scope", "-.slice"),
        ("a.slice::c.scope", "c.scope", "a.slice"),
        ("a.slice:p:c.scope", "p-c.scope.scope", "a.slice"),  # as runc
        ("a.slice:p:c.service", "p-c.service.scope", "a.slice"),
        ("a.slice::.scope", ".scope.scope", "a.slice"),
        ("a.slice:p:x y+ä@", "p-x\\x20y\\x2b\\xc3\\xa4\\x40.scope", "a.slice"),
    ],
)
def test_units(path: str, unit: str, slice: str) -> None:
    """slice:prefix:name, each with its default."""
    assert unit_name.of(path, "the.id_1", "user.slice") == (unit, slice)


@pytest.mark.parametrize(
    "path",
    [
        "/a/b", "a", "a:b", "a:b:c:d", "a.slice:p:", "a:p:c", "a.scope:p:c", "a--b.slice:p:c",
        "-a.slice:p:c", "a-.slice:p:c", ".slice:p:c", "--.slice:p:c", "a b.slice:p:c",
        "a/b.slice:p:c", "a.slice:p:" + 250 * "x",
    ],
)  # fmt: skip
def test_what_cannot_be(path: str) -> None:
    """Another form, a slice that is none, a name that is too long: errors at the field."""
    with pytest.raises(SpecError) as caught:
        unit_name.of(path, "id", "user.slice")
    assert caught.value.pointer == "/linux/cgroupsPath"


def test_a_slice_is_no_container() -> None:
    """runc would make one, and nothing could live in it."""
    with pytest.raises(UnsupportedError, match=r"c\.slice would be a slice") as caught:
        unit_name.of("a.slice:p:c.slice", "id", "user.slice")
    assert caught.value.pointer == "/linux/cgroupsPath"


@given(st.text(min_size=1, max_size=40))
def test_escaping(text: str) -> None:
    """Any text becomes a name that systemd allows, and another text another name."""
    escaped = unit_name.escape(text)
    assert escaped.isascii() and not set(escaped) & set("/@ \n+'\",")
    if "\\" not in text:
        back = escaped.encode().decode("unicode_escape").encode("latin-1")
        assert back == text.encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("text", ["a b", "a+b", "ä€", "x:y_z.w", "1,2;3=4"])
def test_systemd_escapes_the_same_way(text: str) -> None:
    """systemd-escape(1) is the oracle; but dashes part slices, so ours stay."""
    program = shutil.which("systemd-escape")
    if program is None:
        pytest.skip("systemd-escape is not installed")
    answer = subprocess.run([program, text], capture_output=True, text=True, check=True)
    assert unit_name.escape(text) == answer.stdout.strip()


@pytest.mark.parametrize(
    ("unit", "path"),
    [
        ("a.scope", "a_2escope"),
        ("a-b_c.scope", "a_2db_5fc_2escope"),
        ("1a.scope", "_31a_2escope"),
        ("a\\x2b.scope", "a_5cx2b_2escope"),
    ],
)
def test_object_paths(unit: str, path: str) -> None:
    """As busctl shows them."""
    assert unit_name.object_path(unit) == f"/org/freedesktop/systemd1/unit/{path}"
