"""kill -9 of any process of ours at any moment of create and start leaves nothing behind.

strace stops the runtime at a system call and sends SIGKILL. It counts calls for each process by
itself, so a call that is deadly kills the first process that gets so far. To reach the others too,
the deadly calls are named: the Nth mount, the Mth read, as an undisturbed run has shown them.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import leaks, needs, units
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
pytestmark = pytest.mark.long

EVERY = int(os.environ.get("PYOKI_KILL_EVERY", "5"))
DEADLINE = 20.0


class Traced:
    """One verb under strace, with its log."""

    def __init__(self, strace: str, runtime: Runtime, log: Path) -> None:
        self.strace = strace
        self.runtime = runtime
        self.log = log

    def run(self, options: list[str], *args: str) -> None:
        """Run the verb, and return once the verb itself has ended.

        strace stays as long as a container that it traces, and is sent away then.
        """
        argv = [
            self.strace,
            "-f",
            "-q",
            "-I2",
            "-o",
            str(self.log),
            *options,
            *self.runtime.argv(*args),
        ]
        with open(self.log.with_suffix(".err"), "wb") as err:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=err, stderr=err, start_new_session=True
            )
        deadline = time.monotonic() + DEADLINE
        while process.poll() is None and not self.ended():
            assert time.monotonic() < deadline, f"{' '.join(argv)}: still running"
            time.sleep(0.005)
        if process.poll() is None:
            process.terminate()  # detaches from the container's processes
            process.wait(DEADLINE)

    def ended(self) -> bool:
        """Whether the first process, the verb itself, has left."""
        try:
            lines = self.log.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return False
        first = lines[0].split()[0] if lines else ""
        return any(line.split()[:2] == [first, "+++"] for line in lines)

    def calls(self) -> dict[str, list[str]]:
        """Process id → its system calls in order, by name."""
        found: dict[str, list[str]] = {}
        for line in self.log.read_text(errors="replace").splitlines():
            pid, _, rest = line.partition(" ")
            rest = rest.strip()
            if rest.startswith(("+++", "---", "<...")):
                continue
            found.setdefault(pid, []).append(rest.partition("(")[0])
        return found


def targets(calls: dict[str, list[str]], every: int) -> list[tuple[str, int]]:
    """(call, its number among those of its name in its process), for every so-many-th call.

    Processes that a fork made begin to count anew, so (name, number) may be reached by an earlier
    process too; what an earlier one reaches first is tried once.
    """
    chosen = []
    seen: set[tuple[str, int]] = set()
    for names in calls.values():
        counts: dict[str, int] = {}
        for position, name in enumerate(names):
            counts[name] = counts.get(name, 0) + 1
            if position % every == 0 and (name, counts[name]) not in seen:
                seen.add((name, counts[name]))
                chosen.append((name, counts[name]))
    return chosen


@pytest.fixture
def traced(runtime: Runtime, tmp_path: Path) -> Traced:
    return Traced(needs.require_program("strace"), runtime, tmp_path / "strace.log")


def check_gone(
    runtime: Runtime, before: leaks.Snapshot, id: str, what: str, *, systemd: bool = False
) -> None:
    """The state reads as something deletable, and after `delete --force` nothing is there."""
    status = runtime.status(id)
    assert status in ("", "creating", "created", "running", "stopped"), f"{what}: {status}"
    result = runtime.delete(id, force=True)
    assert result.code == 0, f"{what}: {result}"
    left = leaks.settle(before, [runtime.root])
    left += units.left(id) if systemd else []
    assert not left, f"{what}:\n  " + "\n  ".join(left)


def small(bundle: Bundle) -> Bundle:
    """Ids that need no setuid helper, since strace takes the set-user-ID bit's effect away."""
    if os.geteuid() != 0:
        bundle.single_map()
    return bundle.args("sleep", "1000")


@pytest.mark.parametrize("verb", ["create", "run --detach", "start"])
def test_kill_anywhere(traced: Traced, make_bundle: Make, identifier: str, verb: str) -> None:
    """At every fifth system call of every process."""
    kill_everywhere(traced, make_bundle, identifier, verb)


@pytest.mark.session
def test_kill_anywhere_with_a_scope(traced: Traced, make_bundle: Make, identifier: str) -> None:
    """At every fifth system call of create with the systemd manager: no scope is left either."""
    traced.runtime.options.append("--systemd-cgroup")
    kill_everywhere(traced, make_bundle, identifier, "create", systemd=True)


def kill_everywhere(
    traced: Traced, make_bundle: Make, identifier: str, verb: str, *, systemd: bool = False
) -> None:
    runtime = traced.runtime
    bundle = small(make_bundle())
    runtime.root.mkdir(mode=0o700)
    leaks.reap()
    before = leaks.snapshot([runtime.root])

    def attempt(options: list[str], id: str) -> None:
        if verb == "start":
            runtime.create(id, bundle.path).ok()
            traced.run(options, "start", id)
        else:
            traced.run(options, *verb.split(), "--bundle", str(bundle.path), id)

    attempt([], identifier)
    calls = traced.calls()
    check_gone(runtime, before, identifier, "undisturbed", systemd=systemd)
    assert len(calls) >= (1 if verb == "start" else 3), calls.keys()
    killed = 0
    chosen = targets(calls, EVERY)
    for number, (name, count) in enumerate(chosen):
        traced.log.unlink(missing_ok=True)
        id = f"{identifier}-{number}"
        attempt(["-e", f"inject={name}:signal=KILL:when={count}"], id)
        killed += "killed by SIGKILL" in traced.log.read_text(errors="replace")
        what = f"{verb}: SIGKILL at {name} number {count}"
        check_gone(runtime, before, id, what, systemd=systemd)
    print(f"{verb}: {killed} of {len(chosen)} runs were hit by a SIGKILL, nothing was left")
    assert killed > len(chosen) // 2, f"only {killed} of {len(chosen)} runs were hit"


def test_kill_each_child_at_once(traced: Traced, make_bundle: Make, identifier: str) -> None:
    """Each process that create makes, killed at its first, middle and last call of its own."""
    runtime = traced.runtime
    bundle = small(make_bundle())
    runtime.root.mkdir(mode=0o700)
    before = leaks.snapshot([runtime.root])
    traced.run([], "create", "--bundle", str(bundle.path), identifier)
    children = list(traced.calls().values())[1:]
    check_gone(runtime, before, identifier, "undisturbed")
    mains = next(iter(traced.calls().values()))
    number = 0
    for names in children:
        own = [name for name in dict.fromkeys(names) if name not in mains]
        for name in own:
            number += 1
            traced.log.unlink(missing_ok=True)
            id = f"{identifier}-{number}"
            traced.run(
                ["-e", f"inject={name}:signal=KILL:when=1"],
                "create",
                "--bundle",
                str(bundle.path),
                id,
            )
            check_gone(runtime, before, id, f"create: a child's SIGKILL at {name}")
    print(f"children: {number} kills at calls that only they make, nothing was left")
    assert number >= 3, f"no call is a child's own: {children}"
