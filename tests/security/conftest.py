"""A runtime to attack and a directory to spare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.security import attack
from tests.support.runtime import default_command


@pytest.fixture
def runtime(request: pytest.FixtureRequest, state_root: Path) -> Iterator[attack.Victim]:
    """pyoki as it is, unless attack.versus says otherwise."""
    weak, names = getattr(request, "param", (False, ()))
    victim = attack.make_victim(state_root, weak, names, default_command())
    yield victim
    victim.clear()


@pytest.fixture
def outside(tmp_path: Path) -> attack.Outside:
    """A directory of the host that no container has any business with."""
    return attack.Outside(tmp_path / "outside")
