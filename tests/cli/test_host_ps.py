"""ps as a table: the host's ps, reduced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootless_pyoki.cli import host_ps
from rootless_pyoki.errors import HostError, UsageError
from tests.support import leaks

TEXT = "UID  PID PPID CMD\nroot   1    0 init 12\nroot  12    1 a\n\nme   121   12 b\n"


def test_only() -> None:
    """The header and the lines of the pids; numbers in other columns do not count."""
    assert host_ps.only(TEXT, [12, 7]) == "UID  PID PPID CMD\nroot  12    1 a\n"
    assert host_ps.only(TEXT, []) == "UID  PID PPID CMD\n"


@pytest.mark.parametrize("text", ["", "USER CMD\nroot sh\n"])
def test_no_pid_column(text: str) -> None:
    """Options that hide the pids cannot be used."""
    with pytest.raises(UsageError, match="no PID column"):
        host_ps.only(text, [1])


@pytest.mark.skipif(not Path("/usr/bin/ps").exists(), reason="no ps on this machine")
def test_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real ps is found without a PATH, sees us, and is waited for."""
    monkeypatch.delenv("PATH")
    before = leaks.children()
    lines = host_ps.only(host_ps.output(["-e", "-o", "pid,comm"]), [os.getpid()]).splitlines()
    assert lines[0].split() == ["PID", "COMMAND"]
    assert lines[1].split()[0] == str(os.getpid())
    assert leaks.children() <= before


@pytest.mark.skipif(not Path("/usr/bin/ps").exists(), reason="no ps on this machine")
def test_bad_options() -> None:
    """What ps refuses is an error of the command line."""
    with pytest.raises(UsageError, match="ps --no-such-option failed"):
        host_ps.output(["--no-such-option"])


def test_no_ps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without ps: the package is named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HostError, match="procps"):
        host_ps.output([])
