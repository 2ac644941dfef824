"""The other runtimes of this machine, to compare with."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.support import needs
from tests.support.runtime import Runtime, find


def version(name: str) -> str:
    """The first line of --version, "" when it is not installed."""
    path = find(name)
    if path is None:
        return ""
    answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    return answer.stdout.partition("\n")[0]


def peer(name: str, root: Path, options: Sequence[str] = ()) -> Runtime:
    """crun or runc with a state root of its own; skips when it is not installed."""
    return Runtime([needs.require_program(name)], root, name=name, options=options)
