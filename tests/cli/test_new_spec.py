"""The verb `spec`: a configuration that this user can run here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rootless_pyoki.cli import entry
from rootless_pyoki.spec import validate


def test_writes_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Into the bundle; it passes our own validation and is never overwritten."""
    assert entry.answer(["spec", "--rootless", "-b", str(tmp_path)]) == 0
    written = tmp_path / "config.json"
    config = json.loads(written.read_bytes())
    validate.validate(config)
    assert {"type": "user"} in config["linux"]["namespaces"]
    before = written.read_bytes()
    assert entry.answer(["spec", "--bundle", str(tmp_path)]) == 1
    assert capsys.readouterr().err == f"error: {written} exists: remove it first\n"
    assert written.read_bytes() == before


def test_to_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """-f - prints it; --net host and --terminal show."""
    monkeypatch.chdir(tmp_path)
    assert entry.answer(["spec", "-f", "-", "--net", "host", "--terminal"]) == 0
    config = json.loads(capsys.readouterr().out)
    assert {"type": "network"} not in config["linux"]["namespaces"]
    assert config["process"]["terminal"] is True
    assert not list(tmp_path.iterdir())


def test_another_file(tmp_path: Path) -> None:
    """--file names it, below the bundle when relative."""
    assert entry.answer(["spec", "-b", str(tmp_path), "--file", "other.json"]) == 0
    assert entry.answer(["spec", "--file", str(tmp_path / "third.json")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.json", "third.json"]


def test_no_such_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A bundle that is not there is named."""
    assert entry.answer(["spec", "-b", str(tmp_path / "no")]) == 1
    assert f"{tmp_path}/no/config.json: no such file" in capsys.readouterr().err
