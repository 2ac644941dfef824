"""Limits on programs that want more: every one of them at once, a fork bomb, hogs of memory and CPU.

By both managers, wherever the tests were started; nothing of a container stays when it has ended.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import needs
from tests.support.bundles import CGROUP_MOUNT, Bundle
from tests.support.limits import MIB, cgroup, resources, shows
from tests.support.runtime import TIMEOUT, Runtime

pytestmark = pytest.mark.controllers
Make = Callable[..., Bundle]

BOMB = """
cd /sys/fs/cgroup
bomb() { bomb & bomb; }
bomb 2> /dev/null &
until read word refused < pids.events && [ $refused -gt 0 ]; do :; done
read now < pids.current
echo $now
"""


def keep_id(kind: str) -> list[dict[str, int]]:
    """As podman's --userns keep-id: container 0 is a subordinate id, 1000 the user."""
    own = os.getuid() if kind == "uid" else os.getgid()
    subordinate = needs.subordinate_ids(kind)
    needs.require(subordinate, "this user has no subordinate ids, or no newuidmap")
    assert subordinate is not None
    first, _ = subordinate
    return [
        {"containerID": 0, "hostID": first, "size": 1000},
        {"containerID": 1000, "hostID": own, "size": 1},
        {"containerID": 1001, "hostID": first + 1000, "size": 1000},
    ]


def with_cgroup(bundle: Bundle) -> Bundle:
    """It sees its cgroup, whatever the tests themselves can see."""
    mounts = [mount for mount in bundle.config["mounts"] if mount["type"] != "cgroup"]
    bundle.config["mounts"] = [*mounts, CGROUP_MOUNT]
    return bundle.write()


@pytest.fixture
def mapped(request: pytest.FixtureRequest, make_bundle: Make) -> Bundle:
    """A bundle whose root is the user, or a subordinate id, whom systemd would not move."""
    bundle = make_bundle("sh")
    if request.param == "keep-id":
        for kind in ("uid", "gid"):
            bundle.linux[f"{kind}Mappings"] = keep_id(kind)
    return with_cgroup(bundle)


def pairs(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.parametrize(
    ("managed", "mapped"),
    [("systemd", "own ids"), ("systemd", "keep-id"), ("cgroupfs", "keep-id")],
    indirect=True,
)
def test_all_at_once(leak_check: None, managed: Runtime, mapped: Bundle, identifier: str) -> None:
    """run with every kind of limit: the program reads each, exec's process too, systemd shows it."""
    asked, files, shown = resources()
    if not Path(f"{needs.cgroup_mount()}{needs.user_manager()}/io.weight").exists():
        # a kernel without the io.cost controller
        del asked["blockIO"]["weight"], files["io.weight"], shown["IOWeight"]
    read = f"cd /sys/fs/cgroup; for f in {' '.join(files)}; do read -r v < $f; echo $f=$v; done"
    mapped.linux["resources"] = asked
    mapped.shell(f"{read}; echo; exec sleep 1000")
    run = managed.popen(
        "run", "--bundle", str(mapped.path), identifier, stdout=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    lines: list[Any] = []
    while (line := run.stdout.readline()) not in ("\n", ""):
        lines.append(line)
    assert pairs("".join(lines)) == files
    path = cgroup(managed, identifier)
    assert pairs(managed.exec(identifier, "sh", "-c", read).ok().out) == files
    if "systemd" in managed.options:
        assert shows(path.name, shown) == shown
    managed.kill(identifier, "KILL").ok()
    assert run.wait(TIMEOUT) == 137
    run.stdout.close()
    assert not path.exists()


def test_a_fork_bomb(
    leak_check: None, managed: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The kernel refuses processes beyond the limit, and all of them go with the first one."""
    bundle = with_cgroup(make_bundle("sh", "-c", BOMB))
    bundle.linux["resources"] = {"pids": {"limit": 30}}
    bundle.write()
    assert 1 <= int(managed.run(identifier, bundle.path).ok().out) <= 30
    assert managed.status(identifier) == ""


def test_a_memory_hog(
    leak_check: None, managed: Runtime, make_bundle: Make, identifier: str
) -> None:
    """It is killed, and the exit record says so, though the program itself lived on and ended well."""
    bundle = make_bundle("sh", "-c", "tail /dev/zero; echo $?; sleep 1")
    bundle.linux["resources"] = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    result = managed.run(identifier, bundle.write().path, "--keep").ok()
    assert result.out == "137\n"
    record = managed.state(identifier)["pyoki"]["exit"]
    assert (record["code"], record["signal"], record["oomKilled"]) == (0, 0, True)
    assert 8 * MIB < record["memoryPeak"] <= 16 * MIB
    managed.delete(identifier).ok()


def test_a_cpu_hog(leak_check: None, managed: Runtime, make_bundle: Make, identifier: str) -> None:
    """Two processes that never rest get a quarter of one CPU together, and hardly less."""
    bundle = make_bundle("sh", "-c", "while :; do :; done & while :; do :; done")
    bundle.linux["resources"] = {"cpu": {"quota": 10000, "period": 40000}}
    managed.run(identifier, bundle.write().path, "--detach").ok()
    path = cgroup(managed, identifier)

    def used() -> tuple[float, float]:
        counts = dict(line.split() for line in (path / "cpu.stat").read_text().splitlines())
        return time.monotonic(), int(counts["usage_usec"]) / 1e6

    time.sleep(0.5)
    before, began = used()
    time.sleep(3)
    after, ended = used()
    assert 0.1 < (ended - began) / (after - before) < 0.3
    managed.delete(identifier, force=True).ok()
    assert not path.exists()
