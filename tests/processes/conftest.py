"""Fixtures for processes that become gates."""

from __future__ import annotations

import shutil
import tempfile

import pytest

from tests.processes.gate_stage import Stage


@pytest.fixture
def stage():
    """Makes gates; whatever of them is left at the end is killed."""
    folder = tempfile.mkdtemp(prefix="gate-", dir="/tmp")  # short: it holds sockets
    made = Stage(folder)
    yield made
    made.close()
    shutil.rmtree(folder)
