"""Limits that the kernel enforces: each field of /linux/resources, set and read back.

Under both managers; cgroupfs in a delegated scope of the user manager's: a login session's own cgroup is
not the user's to change, and what lies in a slice is systemd's.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.bundles import CGROUP_MOUNT, Bundle
from tests.support.limits import MIB, cgroup, resources, shows
from tests.support.runtime import Runtime

pytestmark = pytest.mark.controllers
Make = Callable[..., Bundle]


def test_each_limit(leak_check: None, managed: Runtime, make_bundle: Make, identifier: str) -> None:
    """The file says what config.json asked for, seen from outside and from inside; so does systemd."""
    asked, files, shown = resources()
    script = (
        f"cd /sys/fs/cgroup; for f in {' '.join(files)}; do echo $f=$(cat $f); done; sleep 1000"
    )
    bundle = make_bundle("sh", "-c", script)
    bundle.linux["resources"] = asked
    managed.create(identifier, bundle.write().path).ok()
    path = cgroup(managed, identifier)
    if not (path / "io.weight").exists():  # a kernel without io.cost
        del files["io.weight"], shown["IOWeight"]
    told = {name: (path / name).read_text().strip() for name in files}
    assert told == files
    if "systemd" in managed.options:
        assert shows(path.name, shown) == shown
    managed.delete(identifier, force=True).ok()
    assert not path.exists()


def test_seen_from_inside(
    leak_check: None, managed: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The program finds its limits in its own /sys/fs/cgroup."""
    bundle = make_bundle("sh", "-c", "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max")
    mounts = [mount for mount in bundle.config["mounts"] if mount["type"] != "cgroup"]
    bundle.config["mounts"] = [*mounts, CGROUP_MOUNT]
    bundle.linux["resources"] = {
        "memory": {"limit": 64 * MIB},
        "pids": {"limit": 77},
        "cpu": {"quota": 20000},
    }
    seen = managed.run(identifier, bundle.write().path).ok().out
    assert seen.split("\n")[:3] == [str(64 * MIB), "77", "20000 100000"]


@pytest.mark.parametrize(
    ("asked", "files"),
    [
        (
            {
                "cpu": {"shares": 2048, "idle": 1},
                "pids": {"limit": 0},
                "memory": {"limit": -1},
                "unified": {"memory.oom.group": "1", "cpu.max": "max 20000"},
            },
            {
                "cpu.idle": "1",
                "pids.max": "0",
                "memory.max": "max",
                "memory.swap.max": "max",
                "memory.oom.group": "1",
                "cpu.max": "max 20000",
            },
        ),
        (
            {"pids": {"limit": -1}, "unified": {"memory.max": "32M"}},
            {"pids.max": "max", "memory.max": str(32 * MIB)},
        ),
    ],
    ids=["idle", "endless"],
)
def test_values_that_mean_something_else(
    leak_check: None,
    managed: Runtime,
    make_bundle: Make,
    identifier: str,
    asked: dict[str, Any],
    files: dict[str, str],
) -> None:
    """No limit, idleness, sizes with a suffix: the file has the kernel's word for it."""
    bundle = make_bundle()
    bundle.linux["resources"] = asked
    managed.create(identifier, bundle.write().path).ok()
    path = cgroup(managed, identifier)
    assert {name: (path / name).read_text().strip() for name in files} == files


def test_a_controller_that_is_not_delegated(
    leak_check: None, managed: Runtime, make_bundle: Make, identifier: str
) -> None:
    """hugetlb is nothing that systemd hands on: the error names it, the field, and what could help."""
    bundle = make_bundle()
    bundle.linux["resources"] = {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}
    result = managed.create(identifier, bundle.write().path)
    assert result.code == 1 and "hugetlb" in result.err, str(result)
    assert "/linux/resources/hugepageLimits/0" in result.err and "systemd hands on" in result.err


def test_a_subgroup(leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """run.oci.systemd.subgroup: limits on the scope, the processes below it, exec's too."""
    runtime.options = ["--cgroup-manager", "systemd"]
    bundle = make_bundle()
    bundle.config["annotations"] = {
        "run.oci.systemd.subgroup": "inner/most",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.Documentation": "['https://example.org/x']",
    }
    bundle.linux["resources"] = {"pids": {"limit": 50}}
    runtime.create(identifier, bundle.write().path).ok()
    runtime.start(identifier).ok()
    path = cgroup(runtime, identifier)
    assert path.name.endswith(".scope") and (path / "pids.max").read_text() == "50\n"
    assert (path / "cgroup.procs").read_text() == ""
    pid = str(runtime.state(identifier)["pid"])
    assert pid in (path / "inner/most/cgroup.procs").read_text().split()
    assert "pids" in (path / "inner/most/cgroup.controllers").read_text().split()
    seen = runtime.exec(identifier, "cat", "/proc/self/cgroup").ok().out
    assert "0::/\n" in seen
    wanted = {"Documentation": "https://example.org/x"}
    assert shows(path.name, wanted) == wanted
    runtime.delete(identifier, force=True).ok()
    assert not path.exists() and os.path.isdir(path.parent)
