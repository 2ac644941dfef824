"""Time namespaces and their offsets (config-linux.md, "Offset for Time Namespace")."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
HOUR = 3600
SEE = "readlink /proc/self/ns/time; cat /proc/uptime; cat /proc/self/timens_offsets"


@pytest.fixture(autouse=True)
def time_namespaces() -> None:
    needs.require(Path("/proc/self/timens_offsets").exists(), "this kernel has no time namespaces")


def with_clocks(bundle: Bundle, **offsets: dict[str, int]) -> Bundle:
    """A new time namespace with these offsets."""
    bundle.linux["namespaces"].append({"type": "time"})
    if offsets:
        bundle.linux["timeOffsets"] = offsets
    return bundle.write()


def seen(text: str) -> tuple[str, float, dict[str, tuple[int, int]]]:
    """(namespace, uptime, offsets) that SEE shows."""
    namespace, uptime, *lines = text.splitlines()
    offsets = {line.split()[0]: (int(line.split()[1]), int(line.split()[2])) for line in lines}
    return namespace, float(uptime.split()[0]), offsets


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize("change", ["none", "shared pid", "one id"])
def test_the_program_has_its_own_clocks(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, change: str
) -> None:
    """With a pid namespace of its own and without: then it is no child that enters."""
    bundle = make_bundle("sh", "-c", SEE)
    with_clocks(bundle, monotonic={"secs": -1, "nanosecs": 5}, boottime={"secs": 9 * HOUR})
    if change == "shared pid":
        bundle.without_namespace("pid")
        bundle.config["mounts"][0] = {
            "destination": "/proc", "source": "/proc", "type": "bind", "options": ["rbind"],
        }  # fmt: skip
        bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
        bundle.write()
    elif change == "one id":
        bundle.single_map()
    before = uptime()
    namespace, inside, offsets = seen(runtime.run(identifier, bundle.path).ok().out)
    assert namespace != os.readlink("/proc/self/ns/time")
    assert before + 9 * HOUR - 1 < inside < uptime() + 9 * HOUR + 1
    assert offsets == {"monotonic": (-1, 5), "boottime": (9 * HOUR, 0)}
    assert os.readlink("/proc/self/ns/time") == os.readlink("/proc/self/ns/time_for_children")


def test_two_containers_and_their_execs(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Each has its own clocks; exec's process sees the container's; status and kill work as ever."""
    names = [f"{identifier}-{number}" for number in range(2)]
    spaces = set()
    for number, name in enumerate(names):
        bundle = with_clocks(make_bundle(), boottime={"secs": (number + 1) * HOUR})
        runtime.create(name, bundle.path).ok()
        runtime.start(name).ok()
    for number, name in enumerate(names):
        namespace, inside, offsets = seen(runtime.exec(name, "sh", "-c", SEE).ok().out)
        assert namespace == os.readlink(f"/proc/{runtime.state(name)['pid']}/ns/time")
        assert offsets == {"monotonic": (0, 0), "boottime": ((number + 1) * HOUR, 0)}
        assert abs(inside - uptime() - (number + 1) * HOUR) < 5
        assert runtime.status(name) == "running"
        spaces.add(namespace)
    assert len(spaces | {os.readlink("/proc/self/ns/time")}) == 3
    runtime.kill(names[0], "KILL").ok()
    runtime.wait_status(names[0], "stopped")


def test_joined_by_path(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """The namespace of another container, with the user namespace that it belongs to."""
    pod = with_clocks(make_bundle(), monotonic={"secs": 5 * HOUR}, boottime={"secs": 6 * HOUR})
    runtime.run("pod", pod.path, "--detach").ok()
    pid = runtime.state("pod")["pid"]
    bundle = make_bundle("sh", "-c", SEE)
    bundle.linux["namespaces"].append({"type": "time", "path": f"/proc/{pid}/ns/time"})
    bundle.namespace("user")["path"] = f"/proc/{pid}/ns/user"
    for key in ("uidMappings", "gidMappings"):
        bundle.linux.pop(key)
    namespace, inside, offsets = seen(runtime.run(identifier, bundle.write().path).ok().out)
    assert namespace == os.readlink(f"/proc/{pid}/ns/time")
    assert offsets["boottime"] == (6 * HOUR, 0) and inside > uptime() + 5.9 * HOUR


def test_new_in_a_joined_user_namespace(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Where we are undumpable, and our /proc files are nobody's."""
    runtime.run("pod", make_bundle().path, "--detach").ok()
    bundle = with_clocks(make_bundle("sh", "-c", SEE), boottime={"secs": HOUR})
    bundle.namespace("user")["path"] = f"/proc/{runtime.state('pod')['pid']}/ns/user"
    for key in ("uidMappings", "gidMappings"):
        bundle.linux.pop(key)
    _, _, offsets = seen(runtime.run(identifier, bundle.write().path).ok().out)
    assert offsets == {"monotonic": (0, 0), "boottime": (HOUR, 0)}


@pytest.mark.parametrize(("clock", "seconds"), [("boottime", -(10**11)), ("monotonic", 2**63 - 1)])
def test_offsets_that_no_clock_can_have(
    leak_check: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    clock: str,
    seconds: int,
) -> None:
    """Before 0 or far in the future: the kernel refuses, and the error names the clock."""
    offsets = {"boottime": {"secs": 1}, "monotonic": {"secs": 1}, clock: {"secs": seconds}}
    result = runtime.run(identifier, with_clocks(make_bundle("true"), **offsets).path)
    assert result.code == 1 and "ERANGE" in result.err, str(result)
    assert f"/linux/timeOffsets/{clock}" in result.err


def test_hooks_of_start_are_in_it(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """startContainer hooks see the container's clocks; without an offset they go as the host's."""
    bundle = with_clocks(make_bundle("sleep", "1000"))
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"({SEE}) >/tmp/seen"]}
    bundle.config["hooks"] = {"startContainer": [hook]}
    runtime.create(identifier, bundle.write().path).ok()
    runtime.start(identifier).ok()
    namespace, inside, offsets = seen((bundle.rootfs / "tmp/seen").read_text())
    assert namespace == os.readlink(f"/proc/{runtime.state(identifier)['pid']}/ns/time")
    assert abs(inside - uptime()) < 5 and set(offsets.values()) == {(0, 0)}
