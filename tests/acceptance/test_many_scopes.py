"""Many containers at once under systemd: all start, all are deleted, nothing of them is left."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.support import peers, units
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime, default_command

pytestmark = pytest.mark.session

TIMEOUT = 120.0


def at_once(runtime: Runtime, verbs: list[tuple[str, ...]]) -> float:
    """All of these together; each has to succeed. The seconds that it takes."""
    begin = time.monotonic()
    logs = [runtime.root.parent / f"{runtime.name}-{number}.log" for number in range(len(verbs))]
    started = []
    for verb, log in zip(verbs, logs, strict=True):
        with open(log, "w") as file:
            process = runtime.popen(*verb, stdin=subprocess.DEVNULL, stdout=file, stderr=file)
        started.append(process)
    codes = [process.wait(TIMEOUT) for process in started]
    seconds = time.monotonic() - begin
    for code, log in zip(codes, logs, strict=True):
        assert code == 0, f"{runtime.name}: exit {code}: {log.read_text()}"
    return seconds


def lives(runtime: Runtime, bundle: Path, ids: list[str]) -> list[float]:
    """create, start, delete: the seconds of each for all of them."""
    try:
        seconds = [at_once(runtime, [("create", "--bundle", str(bundle), id) for id in ids])]
        scopes = [line.split()[:4] for line in units.listed(ids[0].rpartition("-")[0])]
        assert len(scopes) == len(ids)
        assert {tuple(words[1:]) for words in scopes} == {("loaded", "active", "running")}
        seconds.append(at_once(runtime, [("start", id) for id in ids]))
        assert {runtime.status(id) for id in ids} == {"running"}
        seconds.append(at_once(runtime, [("delete", "--force", id) for id in ids]))
        return seconds
    finally:
        runtime.clear()


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.long)])
def test_at_once(busybox_bundle: Bundle, identifier: str, tmp_path: Path, count: int) -> None:
    """Each verb for all of them at the same time; beside it what crun needs."""
    runtimes = [
        Runtime(default_command(), tmp_path / "pyoki", options=["--systemd-cgroup"]),
        peers.peer("crun", tmp_path / "crun", ["--systemd-cgroup"]),
    ]
    for runtime in runtimes:
        mark = f"{identifier}{runtime.name}"
        ids = [f"{mark}-{number}" for number in range(count)]
        seconds = lives(runtime, busybox_bundle.path, ids)
        assert units.left(mark) == [], runtime.name
        told = ", ".join(
            f"{verb} {taken:.2f} s"
            for verb, taken in zip(("create", "start", "delete"), seconds, strict=True)
        )
        print(
            f"\n{count} containers at once, {runtime.name}: {told}, together {sum(seconds):.2f} s"
        )
