"""pause and resume: the freezer, and nothing where there is none."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


@pytest.fixture
def counting(v2: Path, runtime: Runtime, make_bundle: Make, identifier: str) -> Path:
    """A container that counts in a file."""
    bundle = make_bundle(
        "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n > /tmp/n; usleep 2000; done"
    )
    runtime.run(identifier, bundle.path, "--detach").ok()
    return bundle.rootfs / "tmp/n"


def moves(path: Path) -> bool:
    before = path.read_text() if path.exists() else ""
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        time.sleep(0.02)
        if path.exists() and path.read_text() != before:
            return True
    return False


def test_it_stands_still(runtime: Runtime, counting: Path, identifier: str) -> None:
    """Paused at once when pause returns; goes on where it was."""
    assert moves(counting)
    runtime("pause", identifier).ok()
    assert runtime.status(identifier) == "paused" and not moves(counting)
    runtime("resume", identifier).ok()
    assert runtime.status(identifier) == "running" and moves(counting)


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_kill_reaches_it(
    runtime: Runtime, counting: Path, identifier: str, options: list[str]
) -> None:
    """SIGKILL ends a frozen container (the kernel lets it through)."""
    runtime("pause", identifier).ok()
    runtime("kill", *options, identifier, "KILL").ok()
    runtime.wait_status(identifier, "stopped")
    runtime.delete(identifier).ok()


def test_delete_of_a_paused_one(
    leak_check: None, runtime: Runtime, counting: Path, identifier: str
) -> None:
    """Without --force refused, with it gone."""
    runtime("pause", identifier).ok()
    refused = runtime.delete(identifier)
    assert refused.code == 1 and "not stopped: paused" in refused.err
    runtime.delete(identifier, force=True).ok()


def test_a_created_one(v2: Path, runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Like runc and crun: a created container can be paused, and started when it was resumed."""
    runtime.create(identifier, make_bundle().path).ok()
    runtime("pause", identifier).ok()
    assert runtime.status(identifier) == "paused"
    refused = runtime.start(identifier)
    assert refused.code == 1 and "paused" in refused.err
    runtime("resume", identifier).ok()
    assert runtime.status(identifier) == "created"
    runtime.start(identifier).ok()
    assert runtime.status(identifier) == "running"


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_stopped_one(runtime: Runtime, make_bundle: Make, identifier: str, verb: str) -> None:
    """There is nothing to freeze."""
    runtime.run(identifier, make_bundle("true").path, "--keep").ok()
    result = runtime(verb, identifier)
    assert result.code == 1 and "stopped" in result.err
