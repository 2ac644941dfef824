"""podman without root, with --cgroup-manager systemd: what works with crun works with pyoki."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.podman import IMAGE, Podman
from tests.support.runtime import default_command

pytestmark = pytest.mark.session

Step = tuple[str, Callable[[Podman], object]]
Results = dict[str, tuple[bool, str, float]]  # step → whether it went well, what was said, seconds


def units() -> set[str]:
    """Those of podman's, with what has become of them."""
    words = ["systemctl", "--user", "list-units", "--all", "--plain", "--no-legend", "*libpod*"]
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    return {" ".join(line.split()[:4]) for line in answer.stdout.splitlines()}


def has(text: str, *parts: str) -> None:
    for part in parts:
        assert part in text, f"no {part!r} in {text!r}"


def cgroup_of(podman: Podman, name: str) -> str:
    pid = podman("inspect", "-f", "{{.State.Pid}}", name)
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def read(podman: Podman, name: str, file: str) -> str:
    """A file of the container's cgroup."""
    return Path(f"{needs.cgroup_mount()}{cgroup_of(podman, name)}/{file}").read_text().strip()


def lives_in_a_scope(podman: Podman, name: str) -> None:
    id = podman("inspect", "-f", "{{.Id}}", name)
    place = cgroup_of(podman, name).removesuffix(
        "/container"
    )  # crun 1.8 makes one of its own there
    assert place == f"{needs.user_manager()}/user.slice/libpod-{id}.scope"
    assert any(f"libpod-{id}.scope loaded active running" in line for line in units())


def stats(podman: Podman, name: str) -> None:
    (found,) = json.loads(podman("stats", "--no-stream", "--format", "json", name))
    assert found["name"] == name


def paused(podman: Podman) -> None:
    podman("pause", "a")
    assert podman.status("a") == "paused"
    assert "frozen 1" in read(podman, "a", "cgroup.events")
    podman("unpause", "a")
    assert podman.status("a") == "running"


def pod(podman: Podman) -> None:
    """An infra container and two others, in a slice of the pod's own."""
    podman("pod", "create", "--name", "p")
    for name in ("p1", "p2"):
        podman("run", "-d", "--pod", "p", "--name", name, IMAGE, "sleep", "1000")
    id = podman("pod", "inspect", "-f", "{{.ID}}", "p")
    slice = f"{needs.user_manager()}/user.slice/user-libpod_pod_{id}.slice/"
    assert {cgroup_of(podman, name).startswith(slice) for name in ("p1", "p2")} == {True}
    podman("pod", "pause", "p")
    podman("pod", "unpause", "p")
    podman("pod", "rm", "-f", "-t", "0", "p")


def detached(podman: Podman) -> None:
    podman("run", "--rm", "-d", "--name", "d", "--network", "none", IMAGE, "sleep", "0.2")
    deadline = time.monotonic() + 10
    while podman.attempt("container", "exists", "d").returncode == 0:
        assert time.monotonic() < deadline, "it is still there"
        time.sleep(0.05)


STEPS: list[Step] = [
    ("run", lambda p: has(p.run(IMAGE, "echo", "hello"), "hello")),
    ("run, exit 7", lambda p: p.run(IMAGE, "sh", "-c", "exit 7", code=7)),
    ("run, cgroup namespace", lambda p: has(p.run(IMAGE, "cat", "/proc/self/cgroup"), "0::/")),
    ("run --cgroups=disabled", lambda p: p.run("--cgroups", "disabled", IMAGE, "true")),
    ("run --cgroups=split", lambda p: p.run("--cgroups", "split", IMAGE, "true")),
    ("run --cgroupns=host", lambda p: p.run("--cgroupns", "host", IMAGE, "true")),
    ("run --userns=keep-id", lambda p: p.run("--userns", "keep-id", IMAGE, "true")),
    ("run --rm -d", detached),
    ("run -d", lambda p: p.start("a", IMAGE, "sleep", "1000")),
    ("its scope", lambda p: lives_in_a_scope(p, "a")),
    ("exec", lambda p: has(p("exec", "a", "echo", "x"), "x")),
    ("top", lambda p: has(p("top", "a", "pid", "args"), "sleep 1000")),
    ("stats", lambda p: stats(p, "a")),
    ("pause, unpause", paused),
    ("stop", lambda p: p("stop", "-t", "0", "a")),
    ("start again", lambda p: p("start", "a")),
    ("restart", lambda p: p("restart", "-t", "0", "a")),
    ("kill, wait", lambda p: has(p("kill", "a") + p("wait", "a"), "137")),
    ("rm", lambda p: p("rm", "a")),
    ("rm -f", lambda p: (p.start("b", IMAGE, "sleep", "1000"), p("rm", "-f", "-t", "0", "b"))),
    ("create, start", lambda p: (p("create", "--name", "c", IMAGE), p("start", "c"), p("rm", "c"))),
    ("keep-id, pause", lambda p: (
        p.start("k", "--userns", "keep-id", IMAGE, "sleep", "1000"),
        p("exec", "k", "true"), p("pause", "k"), p("unpause", "k"), p("rm", "-f", "-t", "0", "k"),
    )),
    ("pod", pod),
]  # fmt: skip

LIMITS = ["-m", "64m", "--memory-swap", "96m", "--cpus", "0.5", "--pids-limit", "50"]


def limits_hold(podman: Podman) -> None:
    found = {
        file: read(podman, "l", file)
        for file in ("memory.max", "memory.swap.max", "cpu.max", "pids.max")
    }
    assert found == {
        "memory.max": str(64 << 20),
        "memory.swap.max": str(32 << 20),
        "cpu.max": "50000 100000",
        "pids.max": "50",
    }


def updated(podman: Podman) -> None:
    podman("update", "--memory", "80m", "--cpus", "1.5", "l")
    found = read(podman, "l", "memory.max"), read(podman, "l", "cpu.max").split()
    assert found[0] == str(80 << 20) and float(found[1][0]) / float(found[1][1]) == 1.5
    scope = cgroup_of(podman, "l").rpartition("/")[2]
    words = ["systemctl", "--user", "show", "--property=MemoryMax", "--value", scope]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    assert told == str(80 << 20)


LIMITED: list[Step] = [
    ("run with limits", lambda p: p.start("l", *LIMITS, IMAGE, "sleep", "1000")),
    ("the limits", limits_hold),
    ("stats with limits", lambda p: stats(p, "l")),
    ("update", updated),
    ("pause, unpause", lambda p: (p("pause", "l"), p("unpause", "l"))),
    ("rm -f", lambda p: p("rm", "-f", "-t", "0", "l")),
    ("a memory hog", lambda p: p.run(
        "-m", "16m", "--memory-swap", "16m", IMAGE,
        "sh", "-c", "x=x; while :; do x=$x$x; done", code=137,
    )),
    ("a pod with limits", lambda p: (
        p("pod", "create", "--name", "q", "--cpus", "1"),
        p("run", "-d", "--pod", "q", "-m", "64m", IMAGE, "sleep", "1000"),
        p("pod", "rm", "-f", "-t", "0", "q"),
    )),
]  # fmt: skip

REFUSED: list[Step] = [
    (f"run {option}", lambda p, option=option, value=value: p.run(option, value, IMAGE, "true"))  # type: ignore[misc]
    for option, value in (("-m", "64m"), ("--cpus", "0.5"), ("--pids-limit", "50"))
]


@pytest.fixture(scope="module")
def podmans(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Podman]]:
    """One that drives pyoki, one that drives crun, each with an image."""
    for program in ("podman", "conmon", "newuidmap"):
        needs.require_program(program)
    needs.require(needs.subordinate_ids(), "this user has no subordinate ids")
    needs.session()
    before, folder = units(), tmp_path_factory.mktemp("p")
    commands = {"pyoki": default_command(), "crun": [needs.require_program("crun")]}
    found = {}
    try:
        for name, command in commands.items():
            (folder / name).mkdir()
            found[name] = Podman(folder / name, command, session=True)
            found[name].make_image()
        yield found
    finally:
        for podman in found.values():
            podman.close()
    assert units() - before == set()


def attempt_all(podman: Podman, steps: list[Step]) -> Results:
    found: Results = {}
    for name, step in steps:
        begin = time.monotonic()
        try:
            step(podman)
            what = ""
        except (AssertionError, ValueError, OSError) as error:
            what = str(error) or "failed"
        found[name] = not what, what, time.monotonic() - begin
    return found


def compare(podmans: dict[str, Podman], steps: list[Step]) -> dict[str, Results]:
    """The same steps with both, in one table; none may work with crun alone."""
    found = {name: attempt_all(podman, steps) for name, podman in podmans.items()}
    print(f"\n{'podman --cgroup-manager systemd':34}{'pyoki':>14}{'crun':>14}")
    for name, _ in steps:
        cells = [found[runtime][name] for runtime in ("pyoki", "crun")]
        told = [f"{'ok' if well else 'error':>8}{seconds:5.2f}s" for well, _, seconds in cells]
        print(f"{name:34}{''.join(told)}")
    worse = [
        f"{name}: {found['pyoki'][name][1]}"
        for name, _ in steps
        if found["crun"][name][0] and not found["pyoki"][name][0]
    ]
    assert not worse, "\n".join(worse)
    return found


def test_as_with_crun(podmans: dict[str, Podman]) -> None:
    """run, exec, top, stats, pause, stop, restart, rm, pods: everything works, in scopes of its own."""
    found = compare(podmans, STEPS)["pyoki"]
    assert [f"{name}: {what}" for name, (well, what, _) in found.items() if not well] == []


@pytest.mark.controllers
def test_limits_as_with_crun(podmans: dict[str, Podman]) -> None:
    """-m, --cpus, --pids-limit, update: what was asked for is what the cgroup and systemd say."""
    found = compare(podmans, LIMITED)["pyoki"]
    assert [f"{name}: {what}" for name, (well, what, _) in found.items() if not well] == []


def test_limits_that_cannot_be(podmans: dict[str, Podman]) -> None:
    """Where a controller is missing: an error that names it and the field."""
    path = Path(f"{needs.cgroup_mount()}{needs.user_manager()}/cgroup.controllers")
    have = path.read_text().split()
    steps = [
        step
        for step, name in zip(REFUSED, ("memory", "cpu", "pids"), strict=True)
        if name not in have
    ]
    found = compare(podmans, steps)["pyoki"]
    for _, said, _ in found.values():
        has(said, " lacks the ", " controller: ", "(at /linux/resources/")
