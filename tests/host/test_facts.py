"""Facts against what /proc and the standard library say."""

from __future__ import annotations

import os
import platform
import pwd
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rootless_pyoki.host import facts
from rootless_pyoki.kernel.constants import RLIMITS
from tests.support.needs import require, subordinate_ids

STATUS = dict(
    line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line
)


def test_credentials() -> None:
    """Ids, groups and capabilities are this process's."""
    seen = facts.gather()
    assert (seen.euid, seen.egid) == (os.geteuid(), os.getegid())
    assert sorted(seen.groups) == sorted(os.getgroups())
    assert seen.capabilities_effective == int(STATUS["CapEff"], 16)
    assert seen.capabilities_permitted == int(STATUS["CapPrm"], 16)
    assert seen.no_new_privileges == (STATUS["NoNewPrivs"].strip() == "1")


def test_machine() -> None:
    """The kernel's name of the architecture, and its last capability."""
    seen = facts.gather()
    assert seen.machine == platform.machine()
    assert seen.last_capability == int(Path("/proc/sys/kernel/cap_last_cap").read_text())


def test_privileges_follow_from_capabilities() -> None:
    """CAP_SYS_ADMIN is number 21, CAP_SYS_RESOURCE 24."""
    seen = facts.gather()
    mask = int(STATUS["CapEff"], 16)
    assert seen.privileged == bool(mask >> 21 & 1)
    assert seen.may_raise_limits == (seen.in_initial_userns and bool(mask >> 24 & 1))


def test_user_namespace() -> None:
    """The map of this namespace covers this process's ids."""
    seen = facts.gather()
    assert seen.in_initial_userns == (os.stat("/proc/self/ns/user").st_ino == 0xEFFFFFFD)
    for ranges, number in ((seen.uid_map, seen.euid), (seen.gid_map, seen.egid)):
        assert any(r.container <= number < r.container + r.size for r in ranges)


def test_limits_are_read_only_when_asked() -> None:
    """One prlimit(2) for each limit that the configuration names, none else."""
    assert facts.gather({"process": {}}).hard_limits == {}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    asked = {"process": {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]}}
    expected = 2**64 - 1 if hard == resource.RLIM_INFINITY else hard
    assert facts.gather(asked).hard_limits == {RLIMITS["RLIMIT_NOFILE"]: expected}


def test_subordinate_ids_are_read_only_when_a_map_needs_them() -> None:
    """Who may write any map, and who makes none, is spared the files."""
    linux = {"namespaces": [{"type": "mount"}]}
    asked = facts.gather({"process": {}, "linux": linux})
    may_write_any = int(STATUS["CapEff"], 16) >> 6 & 3 == 3  # CAP_SETGID, CAP_SETUID
    name = "" if may_write_any else pwd.getpwuid(os.geteuid()).pw_name
    assert asked.user_name == name
    granted = None if may_write_any else subordinate_ids()
    assert asked.subuids[:1] == (() if granted is None else (granted,))
    none = facts.gather({"process": {}})
    assert (none.user_name, none.subuids, none.subgids) == ("", (), ())


INSIDE = """
import sys
sys.path.insert(0, sys.argv[1])
from rootless_pyoki.host import facts
seen = facts.gather()
[uids], [gids] = seen.uid_map, seen.gid_map
print(seen.in_initial_userns, seen.privileged, seen.setgroups_allowed, seen.may_raise_limits)
print(uids.container, uids.host, uids.size, gids.container, gids.host, gids.size)
"""


@pytest.mark.parametrize("wanted", ["keep root", "keep the user"])
def test_inside_a_user_namespace(wanted: str) -> None:
    """A self-mapped namespace of an unprivileged caller: its one id, and setgroups denied."""
    probe = subprocess.run(["unshare", "--user", "true"], capture_output=True, check=False)
    require(probe.returncode == 0, "this user may not make user namespaces")
    option = "--map-root-user" if wanted == "keep root" else "--map-current-user"
    root = str(Path(facts.__file__).parents[2])
    answer = subprocess.run(
        ["unshare", "--user", option, sys.executable, "-c", INSIDE, root],
        capture_output=True,
        text=True,
        check=True,
    )
    uid, gid = os.geteuid(), os.getegid()
    ids = f"0 {uid} 1 0 {gid} 1" if wanted == "keep root" else f"{uid} {uid} 1 {gid} {gid} 1"
    # what keeps its id loses its capabilities when it executes something, unless that id is 0
    privileged = wanted == "keep root" or uid == 0
    assert answer.stdout.split("\n")[:2] == [f"False {privileged} False False", ids]
