"""kernel.json, with the standard library's json as the oracle."""

from __future__ import annotations

import json as oracle
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless_pyoki.kernel import json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=20,
)


def refuse(name: str) -> Any:
    raise ValueError(name)


def oracle_loads(data: bytes) -> Any:
    text = data.decode("utf-8")
    if text.startswith("\ufeff"):
        raise ValueError("byte order mark")
    return oracle.loads(text, parse_constant=refuse)


def same_type_and_value(ours: Any, theirs: Any) -> bool:
    return repr(ours) == repr(theirs)


@settings(max_examples=300)
@given(VALUES)
def test_round_trip(value: Any) -> None:
    """dumps() writes what the standard library writes, loads() reads it back."""
    data = json.dumps(value)
    assert data.decode("ascii") == oracle.dumps(value, separators=(",", ":"))
    assert same_type_and_value(json.loads(data), value)


@given(VALUES)
def test_pretty_is_the_indented_form(value: Any) -> None:
    """dumps_pretty() is the standard library's indent=2."""
    assert json.dumps_pretty(value) == oracle.dumps(value, indent=2)


SNIPPETS = st.sampled_from(
    ['{', '}', '[', ']', ',', ':', '"', '"a"', '1', '-', '0', '01', '1e5', '.5', '1.', 'true',
     'nul', 'null', 'NaN', '-Infinity', ' ', '\n', '\t', '\x0b', '\x00', '\\', '"\\ud800"',
     '"\\u12"', '"\x01"', '\ufeff', 'ä', "'a'"]
)  # fmt: skip


@settings(max_examples=500)
@given(st.lists(SNIPPETS, max_size=9).map("".join))
def test_accepts_what_the_oracle_accepts(text: str) -> None:
    """The same texts are JSON to both, with the same value; anything else is a ValueError."""
    data = text.encode()
    try:
        expected = oracle_loads(data)
    except ValueError:
        with pytest.raises(ValueError, match=r"line \d+ column \d+|not JSON"):
            json.loads(data)
    else:
        assert same_type_and_value(json.loads(data), expected)


@given(st.binary(max_size=12))
def test_any_bytes(data: bytes) -> None:
    """Arbitrary bytes are a value or a ValueError, never anything else."""
    try:
        expected = oracle_loads(data)
    except ValueError:
        with pytest.raises(ValueError):
            json.loads(data)
    else:
        assert same_type_and_value(json.loads(data), expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1,\n "b": }', "value expected: line 2 column 7"),
        (b'{"a" 1}', "line 1 column 6"),
        (b"{a: 1}", "line 1 column 2"),
        (b"", "value expected: line 1 column 1"),
        (b"{} x", "unexpected data after the value: line 1 column 4"),
        (b"\xef\xbb\xbf{}", "line 1 column 1"),
        (b'{}\n"\xff"', r"not UTF-8: line 2 column 2 \(byte\)"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ("{}".encode("utf-16"), "not UTF-8"),
        (b"NaN", "NaN is not JSON"),
        (b"[-Infinity]", "-Infinity is not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"9" * 5000, "4300"),
        (b'"abc', "line 1 column 1"),
        (b'"\t"', "control character"),
    ],
)
@pytest.mark.parametrize("standard_library", [True, False], ids=["stdlib-loaded", "stdlib-absent"])
def test_bad_input(
    data: bytes, message: str, standard_library: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each mistake is one ValueError that says where, whether json.decoder is loaded or not."""
    if not standard_library:
        monkeypatch.delitem(sys.modules, "json.decoder")
    with pytest.raises(ValueError, match=message):
        json.loads(data)
    assert ("json.decoder" in sys.modules) is standard_library


def test_big_numbers_and_surrogates() -> None:
    """Integers keep all digits, floats overflow as the oracle's, escapes may be lone surrogates."""
    for data in (
        b"123456789012345678901234567890",
        b"1e400",
        b"-0",
        b"-0.0",
        b'"\\ud83d\\ude00\\udc80"',
    ):
        assert same_type_and_value(json.loads(data), oracle.loads(data))


def test_last_of_equal_keys_counts() -> None:
    """As in the standard library."""
    assert json.loads(b'{"a":1,"b":2,"a":3}') == {"a": 3, "b": 2}


def test_what_cannot_be_written() -> None:
    """NaN, infinities, cycles and endless nesting: ValueError; other types: TypeError."""
    cycle: list[Any] = []
    cycle.append(cycle)
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for write in (json.dumps, json.dumps_pretty):
        for value in (float("nan"), [float("inf")], cycle, deep):
            with pytest.raises(ValueError):
                write(value)
        for other in (b"bytes", [object()], {1, 2}):
            with pytest.raises(TypeError):
                write(other)
    while deep:  # else its destruction nests as deeply
        deep = deep[0]


def test_a_mistake_imports_nothing() -> None:
    """In a bare interpreter a mistake loads neither json nor re, and leaves no stand-in."""
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from rootless_pyoki.kernel import json\n"
        "try: json.loads(b'[1,,2]')\n"
        "except ValueError as error: print(error)\n"
        "print([name for name in sys.modules if name.startswith('json') or name == 're'])\n"
    )
    root = json.__file__.rsplit("/", 3)[0]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, root], capture_output=True, text=True, check=True
    )
    assert done.stdout == "value expected: line 1 column 4\n[]\n"


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "b": 2, "a": 3}}]', '{"\\u0061": 1, "a": 2}']
)
def test_names_that_are_there_twice(text: str) -> None:
    """They are an error where that is asked for, and otherwise the last one counts."""
    with pytest.raises(ValueError, match='an object has two members named "a"'):
        json.loads(text.encode(), unique=True)
    assert json.loads(text.encode()) == oracle.loads(text)
    assert json.loads(b'[{"a": 1}, {"a": 2}]', unique=True) == [{"a": 1}, {"a": 2}]
