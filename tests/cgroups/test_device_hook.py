"""A device filter on a real cgroup: what a process in there can open."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.cgroups import cgroupfs, device_hook
from rootless_pyoki.errors import SyscallError
from rootless_pyoki.plan import device_filter
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

# opens /dev/null and /dev/kmsg (1:11) from inside the cgroup, for reading and for writing
PROGRAM = """
import os, sys
open(sys.argv[1] + "/cgroup.procs", "w").write("0")
for path in ("/dev/null", "/dev/kmsg"):
    for flags in (os.O_RDONLY, os.O_WRONLY):
        try:
            os.close(os.open(path, flags | os.O_NONBLOCK))
            print("yes", end=" ")
        except PermissionError:
            print("no", end=" ")
"""
DENY_ALL = {"allow": False, "access": "rwm"}


@pytest.fixture
def cgroup() -> Iterator[str]:
    needs.require(needs.real_root(), "only the machine's root can filter devices")
    mount, parent = needs.cgroup_mount(), needs.delegated_cgroup()
    needs.require(mount and parent, "no cgroup v2 is mounted")
    path = f"{parent}/test-devices-{os.getpid()}"
    cgroupfs.create(path, str(mount))
    yield path
    cgroupfs.remove(path)


@pytest.mark.root
@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ([DENY_ALL], "yes yes no no"),
        ([DENY_ALL, {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}], "yes yes yes no"),
        ([DENY_ALL, {"allow": True, "access": "rwm"}], "yes yes yes yes"),
        ([{"allow": False, "type": "c", "major": 1, "access": "w"}], "yes yes yes no"),
    ],
)  # fmt: skip
def test_what_can_be_opened(cgroup: str, rules: list[dict[str, Any]], wanted: str) -> None:
    """The kernel takes the program, and decides as the rules say."""
    device_hook.attach(cgroup, device_filter.compile(rules))
    before = os.listdir("/proc/self/fd")
    answer = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, cgroup], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == wanted
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.root
def test_beside_another(cgroup: str) -> None:
    """A second filter does not replace the first: both have to allow it."""
    device_hook.attach(cgroup, device_filter.compile([DENY_ALL]))
    device_hook.attach(cgroup, device_filter.compile([{"allow": True, "access": "rwm"}]))
    answer = subprocess.run(
        [sys.executable, "-S", "-c", PROGRAM, cgroup], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "yes yes no no"


@pytest.mark.root
def test_of_a_container(
    leak_check: None, runtime: Runtime, make_bundle: Callable[..., Bundle], identifier: str
) -> None:
    """A program is refused a device that lies in its /dev; the list is not among the notes."""
    needs.require(needs.real_root(), "only the machine's root can filter devices")
    needs.require(os.access("/dev/fuse", os.R_OK), "there is no /dev/fuse here")
    bundle = make_bundle("sh", "-c", "cat /dev/null; exec 3>/dev/null; exec 4</dev/fuse")
    bundle.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    runtime.options = ["--unsupported", "error"]
    asked = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "r"}
    for rules, refused in (([DENY_ALL], True), ([DENY_ALL, asked], False)):
        bundle.linux["resources"] = {"devices": rules}
        result = runtime.run(identifier, bundle.write().path)
        assert ("not permitted" in result.err) == refused == (result.code != 0), str(result)
    runtime.options = []
    runtime.create(identifier, bundle.path).ok()
    told = json.loads(runtime("state", "--verbose", identifier).ok().out)["pyoki"]["notes"]
    assert "/linux/resources/devices" not in [note["pointer"] for note in told]


def test_whoever_may_not(tmp_path: Path) -> None:
    """Without the right to load programs the kernel says EPERM, and nothing stays open."""
    needs.require(not needs.real_root(), "the machine's root may")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(SyscallError) as caught:
        device_hook.attach(str(tmp_path), device_filter.compile([DENY_ALL]))
    assert caught.value.errno in (errno.EPERM, errno.ENOSYS) and caught.value.call == "bpf"
    assert os.listdir("/proc/self/fd") == before
