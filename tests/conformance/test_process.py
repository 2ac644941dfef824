"""config.md, "Process", "POSIX process", "Linux Process": what the program finds."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest

from tests.conformance.conftest import World, only
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime, Terminal

LIMITS = {
    "RLIMIT_NOFILE": (100, 200),
    "RLIMIT_CPU": (1000, 2000),
    "RLIMIT_STACK": (1 << 20, 1 << 22),
}
ROWS = {
    "RLIMIT_NOFILE": "Max open files",
    "RLIMIT_CPU": "Max cpu time",
    "RLIMIT_STACK": "Max stack size",
}


@pytest.fixture(scope="module")
def seen(world: World) -> dict[str, str]:
    """One container with everything."""
    bundle = world.bundle()
    bundle.process.update(
        cwd="/home/user",
        env=["PATH=/bin", "A=b c"],
        consoleSize={"height": 10**9, "width": 10**9},  # to be ignored
        oomScoreAdj=997,
        rlimits=[
            {"type": kind, "soft": soft, "hard": hard} for kind, (soft, hard) in LIMITS.items()
        ],
        user={"uid": 0, "gid": 0, "umask": 0o27},
    )
    return world.observe(
        bundle,
        {
            "cwd": "pwd",
            "limits": "cat /proc/self/limits",
            "oom": "cat /proc/1/oom_score_adj",
            "terminal": "tty",
            "ids": "id -u; id -g; umask",
            "links": "for n in fd stdin stdout stderr ptmx; do readlink /dev/$n; done",
        },
    )


def test_the_working_directory(seen: dict[str, str]) -> None:
    """config.md, "Process": cwd is REQUIRED, and what the program is started in."""
    assert seen["cwd"] == "/home/user"


def test_the_program_is_found_as_execvp_does(world: World, bundle: Bundle) -> None:
    """config.md, "Process": the first of args has the meaning of execvp's file."""
    bundle.process["env"] = ["PATH=/nowhere:/home/user:/bin"]
    script = bundle.rootfs / "home/user/program"
    script.write_text('#!/bin/sh\necho "$0" "$@"\n')
    script.chmod(0o755)
    result = world.run(bundle.args("program", "one two", "")).ok()
    assert result.out == "/home/user/program one two \n"


def test_a_console_size_without_a_terminal(seen: dict[str, str]) -> None:
    """config.md, "Process": consoleSize MUST be ignored without a terminal."""
    assert "not a tty" in seen["terminal"]


def test_a_console_size_with_a_terminal(world: World, bundle: Bundle) -> None:
    """config.md, "Process": height and width are REQUIRED, and applied with a terminal."""
    bundle.process.update(terminal=True, consoleSize={"height": 41, "width": 133})
    id = world.id()
    argv = world.runtime.argv("run", "--bundle", str(bundle.shell("stty size").path), id)
    terminal = Terminal(argv, rows=0, columns=0)
    assert terminal.wait() == 0
    assert "41 133" in terminal.seen


@pytest.mark.parametrize("kind", LIMITS)
def test_resource_limits(seen: dict[str, str], kind: str) -> None:
    """config.md, "POSIX process": what getrlimit gives MUST match soft and hard."""
    row = next(line for line in seen["limits"].splitlines() if line.startswith(ROWS[kind]))
    words = row.removeprefix(ROWS[kind]).split()
    assert (int(words[0]), int(words[1])) == LIMITS[kind]


def test_a_resource_limit_that_cannot_be_set(world: World, bundle: Bundle) -> None:
    """config.md, "POSIX process": each limit MUST be as configured, or it is an error."""
    hard = resource.getrlimit(resource.RLIMIT_NICE)[1]
    may = needs.real_root() and capability(24)
    only(not may and hard != resource.RLIM_INFINITY, "the caller may raise its limits")
    bundle.process["rlimits"] = [{"type": "RLIMIT_NICE", "soft": 0, "hard": hard + 1}]
    world.refused(bundle, "/process/rlimits/0")


def capability(number: int) -> bool:
    """Do we hold it?"""
    status = Path("/proc/self/status").read_text()
    mask = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff"))
    return bool(int(mask, 16) >> number & 1)


def test_the_oom_score_is_set(seen: dict[str, str]) -> None:
    """config.md, "Linux Process": oomScoreAdj MUST be set if it is given."""
    assert seen["oom"] == "997"


def test_the_oom_score_is_left(world: World, bundle: Bundle) -> None:
    """config.md, "Linux Process": oom_score_adj MUST NOT be changed if it is not given."""
    own = int(Path("/proc/self/oom_score_adj").read_text())
    wanted = min(own + 3, 1000)
    prefix = ("sh", "-c", f'echo {wanted} > /proc/self/oom_score_adj; exec "$@"', "sh")
    result = world.run(bundle.shell("cat /proc/1/oom_score_adj"), prefix=prefix).ok()
    assert result.out.strip() == str(wanted)


def test_the_oom_score_cannot_be_lowered(world: World, bundle: Bundle) -> None:
    """config.md, "Linux Process": the value MUST be set; where it cannot be, it is an error."""
    only(not (needs.real_root() and capability(24)), "the caller may lower the score")
    bundle.process["oomScoreAdj"] = -1000
    world.refused(bundle, "/process/oomScoreAdj")


def test_unknown_capabilities_are_warned_of(world: World, bundle: Bundle) -> None:
    """config.md, "Linux Process": what cannot be granted MUST be logged as a warning."""
    for kind in ("bounding", "effective", "permitted"):
        bundle.process["capabilities"][kind].append("CAP_FLY")
    warnings = warned(world, bundle)
    assert len(warnings) == 1 and "CAP_FLY" in warnings[0], warnings


def test_capabilities_that_are_not_held_are_warned_of(world: World, bundle: Bundle) -> None:
    """config.md, "Linux Process": what cannot be granted otherwise MUST be logged as a warning."""
    only(needs.real_root(), "in a user namespace of its own a container has them all")
    only(not capability(24), "this root has every capability")
    for kind in ("bounding", "effective", "permitted"):
        bundle.process["capabilities"][kind].append("CAP_SYS_RESOURCE")
    warnings = warned(world, bundle)
    assert len(warnings) == 1 and "CAP_SYS_RESOURCE" in warnings[0], warnings


def warned(world: World, bundle: Bundle) -> list[str]:
    """The warnings of a run that succeeds."""
    log = bundle.path / "log"
    options = ("--log", str(log), "--log-format", "json", "--log-level", "warning")
    runtime = Runtime(world.runtime.command, world.runtime.root, options=options)
    runtime.run(world.id(), bundle.args("true").path).ok()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [line["msg"] for line in lines if line["level"] == "warning"]


def test_user_and_group(world: World, bundle: Bundle, seen: dict[str, str]) -> None:
    """config.md, "POSIX-platform User": uid and gid as the container counts."""
    assert seen["ids"].split() == ["0", "0", "0027"]
    needs.require(needs.subordinate_ids(), "this user has no subordinate ids, or no newuidmap")
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [2000]}
    assert world.observe(bundle, {"id": "id -u; id -g; id -G"})["id"].split("\n") == [
        *("1000", "1000", "1000 2000"),
    ]


@pytest.mark.parametrize(
    ("link", "target"),
    list(enumerate(["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"])),
)
def test_links_in_dev(seen: dict[str, str], link: int, target: str) -> None:
    """runtime-linux.md, "Dev symbolic links": fd, stdin, stdout and stderr MUST be created."""
    assert seen["links"].splitlines()[link] == target
