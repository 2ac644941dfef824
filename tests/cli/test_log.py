"""What errors look like in the log and on stderr."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING

import pytest

from rootless_pyoki import log
from rootless_pyoki.host import hints

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def opener(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    yield
    log.configure("", "text", "error", opener)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object with the callers' keys and ours; one line on stderr besides."""
    path = tmp_path / "log"
    log.configure(str(path), "json", "error", opener)
    log.error('no "x"\n\x1b é', pointer="/mounts/3", errno=1, hint="do y", id="Z")
    found = json.loads(path.read_bytes())
    assert found.pop("time").endswith("Z")
    assert found == {
        "level": "error",
        "msg": 'no "x"\n\x1b é (at /mounts/3)',
        "pointer": "/mounts/3",
        "errno": 1,
        "hint": "do y",
        "id": "Z",
    }
    assert path.read_bytes().count(b"\n") == 1
    assert path.stat().st_mode & 0o777 == 0o600
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == 'error: no "x"; \\x1b é (at /mounts/3); hint: do y\n'


def test_appends(tmp_path: Path) -> None:
    """A log that has lines keeps them."""
    path = tmp_path / "log"
    path.write_text("before\n")
    log.configure(f"file:{path}", "text", "error", opener)
    log.error("it broke")
    first, second = path.read_text().splitlines()
    assert first == "before"
    assert second.endswith('level=error msg="it broke"')


def test_silent_below_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without --debug neither debug lines nor warnings leave a trace, not even a file."""
    path = tmp_path / "log"
    log.configure(str(path), "json", "error", opener)
    log.debug("x")
    log.debug(lambda: pytest.fail("was called"))
    log.warning("x")
    assert not path.exists()
    assert capsys.readouterr() == ("", "")


def test_debug_lines(tmp_path: Path) -> None:
    """With debug each line is an object of its own; the file is held from the beginning."""
    path = tmp_path / "log"
    log.configure(str(path), "json", "debug", opener)
    path.rename(tmp_path / "moved")
    log.debug(lambda: "one")
    log.warning("two")
    log.error("three")
    lines = [json.loads(line) for line in (tmp_path / "moved").read_text().splitlines()]
    assert [(line["level"], line["msg"]) for line in lines] == [
        ("debug", "one"),
        ("warning", "two"),
        ("error", "three"),
    ]


def test_json_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """--log-format json without --log: the object goes to stderr, and nothing else does."""
    log.configure("", "json", "error", opener)
    log.error("it broke", errno=2)
    assert json.loads(capsys.readouterr().err)["msg"] == "it broke"


def test_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A person gets error, field and hint on lines of their own."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    log.configure("", "text", "error", opener)
    log.error("it broke", pointer="/mounts/3", hint="mend it: permission denied")
    assert screen.getvalue().splitlines() == [
        "error: it broke",
        "  while applying /mounts/3 of config.json",
        "hint: mend it: permission denied",
    ]


def test_hint_with_callers_words_stays_out(capsys: pytest.CaptureFixture[str]) -> None:
    """A hint that would mislead callers who search our text is not on the one line."""
    log.configure("", "text", "error", opener)
    log.error("it broke", hint="see whether Permission denied")
    assert capsys.readouterr().err == "error: it broke\n"


def test_unwritable_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A log that cannot be written does not hide the error."""
    log.configure(str(tmp_path / "no" / "log"), "json", "error", opener)
    log.error("it broke")
    assert capsys.readouterr().err.startswith("error: it broke (the log ")


@pytest.mark.parametrize("path", ["journald:x", "syslog:x"])
def test_other_destinations(path: str) -> None:
    """crun's other destinations are refused by name."""
    with pytest.raises(ValueError, match="only files"):
        log.configure(path, "text", "error", opener)


def test_closed_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a stderr there is nothing to say and nothing to fail."""
    monkeypatch.setattr("sys.stderr", None)
    log.configure("", "text", "error", opener)
    log.error("it broke")


def test_surrogates(tmp_path: Path) -> None:
    """A path that is no UTF-8 does not break the JSON."""
    log.configure(str(tmp_path / "log"), "json", "error", opener)
    log.error("open a\udcff: no")
    assert json.loads((tmp_path / "log").read_bytes())["msg"] == "open a?: no"


def test_hints_do_not_mislead() -> None:
    """No hint of the table contains the words that callers look for."""
    for _, _, _, _, text in hints._HINTS:
        assert not [words for words in log.CALLERS_WORDS if words in text.lower()], text


def test_hints_found() -> None:
    """By call and errno, and by the path where that decides."""
    found = hints.find("unshare", 1)
    assert found is not None
    assert found.id == "USERNS-DENIED"
    proc = hints.find("fsmount", 1, "proc")
    assert proc is not None
    assert proc.id == "NEST-PROC"
    assert hints.find("mount", 1, "/proc/self/fd/12") is None
    assert hints.find("read", 5) is None
