"""Reading a bundle."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from rootless_pyoki.errors import PyokiError, SpecError
from rootless_pyoki.spec import bundle


def test_a_bundle_has_its_path_its_object_and_its_bytes(tmp_path: Path) -> None:
    """The bytes are kept as they were, however they are laid out."""
    raw = b'\n{ "a" : [1,\t"\xc3\xa9"] }\n'
    (tmp_path / "config.json").write_bytes(raw)
    loaded = bundle.load(str(tmp_path))
    assert loaded.path == str(tmp_path)
    assert loaded.config == {"a": [1, "é"]}
    assert loaded.raw == raw


def test_a_relative_directory_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the empty one, which is where we are."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert bundle.load("./b/").path == f"{tmp_path}/b"
    monkeypatch.chdir(tmp_path / "b")
    assert bundle.load("").path == f"{tmp_path}/b"
    assert bundle.load(".").path == f"{tmp_path}/b"


def test_another_configuration_is_relative_to_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--config names a file of the caller's, not of the bundle's."""
    (tmp_path / "b").mkdir()
    (tmp_path / "other.json").write_text('{"which": "other"}')
    monkeypatch.chdir(tmp_path)
    assert bundle.load("b", "other.json").config == {"which": "other"}


def test_no_bundle_and_no_configuration_say_so(tmp_path: Path) -> None:
    """Callers look for these words."""
    with pytest.raises(PyokiError, match=r"open the bundle .*/gone: no such file or directory"):
        bundle.load(f"{tmp_path}/gone")
    with pytest.raises(PyokiError, match=r"read .*/config.json: no such file or directory"):
        bundle.load(str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(PyokiError, match="not a directory"):
        bundle.load(f"{tmp_path}/file")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{\n  "a": tru\n}', r"config.json is not JSON: .* line 2 column 8"),
        (b"", "is not JSON: .* line 1 column 1"),
        (b'{"a": "\xff"}', "is not JSON: not UTF-8: line 1 column 8"),
        (b"{} {}", "is not JSON: .* line 1 column 4"),
        (b"[]", "must be an object, not a list"),
        (b"[" * 100_000, "is not JSON: nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_refused_with_its_place(
    tmp_path: Path, raw: bytes, message: str
) -> None:
    """Line and column, so that an editor finds it."""
    (tmp_path / "config.json").write_bytes(raw)
    with pytest.raises(SpecError, match=message):
        bundle.load(str(tmp_path))


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    """Neither when it went well nor when it failed."""
    (tmp_path / "config.json").write_text(json.dumps({}))
    before = os.listdir("/proc/self/fd")
    bundle.load(str(tmp_path))
    with pytest.raises(PyokiError):
        bundle.load(str(tmp_path), f"{tmp_path}/none.json")
    assert os.listdir("/proc/self/fd") == before


def test_a_process_file_is_an_object_of_its_own(tmp_path: Path) -> None:
    """What exec --process reads."""
    (tmp_path / "p.json").write_text('{"cwd": "/"}')
    assert bundle.load_process(f"{tmp_path}/p.json") == {"cwd": "/"}
    with pytest.raises(PyokiError, match="no such file or directory"):
        bundle.load_process(f"{tmp_path}/gone.json")


def test_a_member_that_is_there_twice(tmp_path: Path) -> None:
    """glossary.md, "JSON": objects MUST NOT include duplicate names; which one counts is not guessed."""
    (tmp_path / "config.json").write_text('{"root": {"path": "a", "path": "b"}}')
    with pytest.raises(SpecError, match='two members named "path"'):
        bundle.load(str(tmp_path))
