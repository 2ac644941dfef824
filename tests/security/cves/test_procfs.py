"""CVEs of procfs and cgroups: what is written to /proc goes somewhere else, or too much is writable."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security.attack import NEWNET, NEWUSER, Victim, build_gate, inside, versus
from tests.security.weakened import GATE
from tests.support.bundles import Bundle

Make = Callable[..., Bundle]
TTL, FORWARD = "net/ipv4/ip_default_ttl", "net/ipv4/ip_forward"


def false_proc(bundle: Bundle, path: Path) -> Path:
    """A directory of the image's maker over the container's /proc."""
    (path / "sys/net/ipv4").mkdir(parents=True)
    (path / "self/attr").mkdir(parents=True)
    mount = {"destination": "/proc", "type": "bind", "source": str(path), "options": ["rbind"]}
    bundle.config["mounts"].insert(1, mount)
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    bundle.write()
    return path


def sysctl(pid: int, name: str) -> str:
    """Its value in the network namespace of this process."""
    return str(inside(pid, lambda: Path("/proc/sys", name).read_text(), NEWUSER | NEWNET)).strip()


@versus("patched_gate", always=("label_asked",))
def test_cve_2019_16884_the_label_goes_to_a_false_proc(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """Even if the gate is handed a volume for /proc, it writes the program's label to procfs only."""
    if runtime.weak:
        runtime.env[GATE] = str(
            build_gate(tmp_path, ("if (filesystem[0] != PROC_MAGIC)", "if (0)"))
        )
    bundle = make_bundle("true")
    swallows = false_proc(bundle, tmp_path / "false") / "self/attr/exec"
    swallows.touch()
    result = runtime.run(identifier, bundle.path)
    assert (swallows.read_text() == "label", result.code == 0) == (runtime.weak, runtime.weak)
    assert runtime.weak or "write the security label" in result.err


@versus("procfs_by_name")
def test_cve_2019_16884_settings_go_to_a_false_proc(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """2019-16884, 2019-18837: a volume of the image over /proc swallows what is written.

    So can sysctls be lost, like labels.
    """
    bundle = make_bundle()
    swallows = false_proc(bundle, tmp_path / "false") / "sys" / TTL
    swallows.touch()
    bundle.linux["sysctl"] = {TTL.replace("/", "."): "77"}
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    value = sysctl(runtime.state(identifier)["pid"], TTL)
    assert (swallows.read_text(), value == "77") == (
        ("77", False) if runtime.weak else ("", True)
    ), value


@versus("procfs_by_name")
def test_cve_2025_52881_a_sysctl_is_redirected(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """What is mounted over /proc sends the value to another file of procfs."""
    bundle = make_bundle()
    false = false_proc(bundle, tmp_path / "false")
    (false / "sys" / TTL).symlink_to(f"/proc/sys/{FORWARD}")
    bundle.linux["sysctl"] = {TTL.replace("/", "."): "1"}
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    pid = runtime.state(identifier)["pid"]
    found = sysctl(pid, TTL) == "1", sysctl(pid, FORWARD) == "1"
    assert found == ((False, True) if runtime.weak else (True, False))


@versus("procfs_by_name")
def test_cve_2025_52881_the_oom_score_of_exec_is_redirected(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """The process that joins writes below /proc/self: its own, not the container's."""
    bundle = make_bundle()
    swallows = false_proc(bundle, tmp_path / "false") / "self/oom_score_adj"
    swallows.touch()
    runtime.run(identifier, bundle.path, "--detach").ok()
    process = {**bundle.process, "args": ["sleep", "1000"], "oomScoreAdj": 500}
    (tmp_path / "process.json").write_text(json.dumps(process))
    pid_file = tmp_path / "pid"
    runtime(
        "exec", "--detach", "--pid-file", str(pid_file),
        "--process", str(tmp_path / "process.json"), identifier,
    ).ok()  # fmt: skip
    pid = int(pid_file.read_text())
    score = Path(f"/proc/{pid}/oom_score_adj").read_text().strip()
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)  # the container's first process cannot end before
    assert (swallows.read_text(), score == "500") == (
        ("500", False) if runtime.weak else ("", True)
    ), score


@versus("cgroups_writable")
@pytest.mark.parametrize("option", ["rw", "rrw"])
def test_cve_2023_25809_the_hosts_cgroups_are_writable(
    runtime: Victim, make_bundle: Make, identifier: str, v2: Path, option: str
) -> None:
    """Without a cgroup namespace the host's tree is what the kernel lets us show: never writable."""
    evil = v2 / f"{identifier}-evil"
    bundle = make_bundle("mkdir", f"{evil}")
    bundle.without_namespace("cgroup")
    for mount in bundle.config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"] = ["nosuid", "noexec", "nodev", option]
    result = runtime.run(identifier, bundle.write().path)
    made = evil.exists()
    if made:
        evil.rmdir()
    assert made is runtime.weak, str(result)
    assert runtime.weak or "Read-only file system" in result.err


@pytest.mark.parametrize("granted", [False, True], ids=["real", "granted"])
def test_cve_2014_8989_a_group_that_denies_is_dropped(
    runtime: Victim,
    make_bundle: Make,
    identifier: str,
    tmp_path: Path,
    all_ids: None,
    granted: bool,
) -> None:
    """A file of another user that the caller's group may not read, and others may.

    Where pyoki writes the map itself nobody in there can change groups. Where the administrator has
    granted group ids (/etc/subgid, newgidmap) the same program succeeds: that is what was granted.
    """
    place = tmp_path / "place"
    place.mkdir()
    volume = {"destination": "/x", "type": "bind", "source": str(place), "options": ["rbind"]}
    bundle = make_bundle()
    bundle.config["mounts"].append(volume)
    bundle.shell("echo denied to the group > /x/file; chmod 604 /x/file; chown 1:0 /x/file")
    runtime.run(f"{identifier}-owner", bundle.path).ok()
    assert os.access(place / "file", os.R_OK) is False

    if not granted:
        bundle.single_map()
    bundle.args("su", "user", "-c", "cat /x/file")
    result = runtime.run(identifier, bundle.path)
    assert (result.out == "denied to the group\n") is granted, str(result)
    assert granted or "can't set groups: Operation not permitted" in result.err


@versus("groups_not_denied")
def test_cve_2014_8989_the_kernel_insists(
    runtime: Victim, busybox_bundle: Bundle, identifier: str
) -> None:
    """Without the denial Linux (since 3.19) refuses the map: this defence cannot be left out."""
    busybox_bundle.single_map().args("true")
    result = runtime.run(identifier, busybox_bundle.path)
    refused = result.code == 1 and "gid_map: operation not permitted (EPERM)" in result.err
    assert refused is runtime.weak, str(result)
