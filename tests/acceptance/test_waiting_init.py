"""What a created container's waiting process costs, and what the container can do to it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

PSS_LIMIT = 100  # KiB


@pytest.fixture
def created(runtime: Runtime, busybox_bundle: Bundle, identifier: str, tmp_path: Path) -> int:
    """A created container with an intruder in its root; returns its pid on the host."""
    compiler = needs.require_program("cc")
    source = Path(__file__).parent / "intruder.c"
    program = busybox_bundle.rootfs / "intruder"
    subprocess.run([compiler, "-static", "-O1", "-o", program, source], check=True)
    runtime.create(identifier, busybox_bundle.path).ok()
    return int(runtime.state(identifier)["pid"])


def test_its_memory_is_kibibytes(created: int) -> None:
    """The proportional set size of the waiting process is under 100 KiB."""
    try:
        text = Path(f"/proc/{created}/smaps_rollup").read_text()
    except PermissionError:
        needs.require(os.geteuid() == 0, "the gate is undumpable: only root may look")
        raise
    pss = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:"))

    assert 0 < pss < PSS_LIMIT


def test_it_is_not_the_interpreter(created: int) -> None:
    """What /proc shows of it is a sealed file without a name, no Python."""
    try:
        exe = os.readlink(f"/proc/{created}/exe")
    except PermissionError:
        needs.require(os.geteuid() == 0, "the gate is undumpable: only root may look")
        raise

    assert exe.startswith("/memfd:pyoki-gate")
    assert "python" not in exe


def test_an_intruder_cannot_reach_it(created: int, runtime: Runtime, identifier: str) -> None:
    """A process of the same container, uid 0 in the same user namespace, can neither trace it nor
    read its memory, environment, descriptors or program.
    """
    result = runtime.exec(identifier, "/intruder").ok()
    answers = dict(line.split(None, 1) for line in result.out.splitlines())

    assert "POSSIBLE" not in result.out, result.out
    assert len(answers) == 13
    assert set(answers.values()) <= {"EPERM", "EACCES"}, answers
    assert runtime.status(identifier) == "created"


def test_the_intruder_can_reach_an_ordinary_process(
    created: int, runtime: Runtime, identifier: str
) -> None:
    """The same attempts succeed where nothing is in their way: once the program runs."""
    runtime.start(identifier).ok()
    result = runtime.exec(identifier, "/intruder").ok()

    assert "POSSIBLE" in result.out
