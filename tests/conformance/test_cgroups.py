"""config-linux.md, "Control groups", "Unified", "IntelRdt"."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from rootless_pyoki.cgroups import tree
from rootless_pyoki.errors import SyscallError
from tests.conformance.conftest import World, only
from tests.support import needs
from tests.support.bundles import Bundle


def cgroup(pid: int) -> str:
    """As this process sees it, below the mount."""
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


def controllers(v2: Path) -> list[str]:
    return (v2 / "cgroup.controllers").read_text().split()


def test_an_absolute_path(world: World, bundle: Bundle, v2: Path) -> None:
    """config-linux.md, "Cgroups Path": an absolute path MUST be relative to the mount point.

    The same value MUST lead to the same place each time.
    """
    bundle.linux["cgroupsPath"] = f"/pyoki-conformance-{os.getpid()}/box"
    for _ in range(2):
        id = world.create(bundle)
        assert cgroup(world.runtime.state(id)["pid"]) == bundle.linux["cgroupsPath"]
        world.runtime.delete(id, force=True).ok()


def test_a_relative_path(world: World, bundle: Bundle, v2: Path) -> None:
    """config-linux.md, "Cgroups Path": a relative path is a path too, and leads to one place."""
    bundle.linux["cgroupsPath"] = f"pyoki-conformance-{os.getpid()}/box"
    places = set()
    for _ in range(2):
        id = world.create(bundle)
        places.add(cgroup(world.runtime.state(id)["pid"]))
        world.runtime.delete(id, force=True).ok()
    assert len(places) == 1 and places.pop().endswith("/" + bundle.linux["cgroupsPath"])


@pytest.mark.parametrize("path", ["/../up", "a/../../up", "/leaf", "/"])
def test_an_invalid_path(world: World, bundle: Bundle, v2: Path, path: str) -> None:
    """config-linux.md, "Cgroups Path": values that the runtime holds invalid MUST be an error."""
    if path == "/leaf":  # where we are ourselves
        path = cgroup(os.getpid())
    bundle.linux["cgroupsPath"] = path
    world.refused(bundle, "/linux/cgroupsPath")


def test_a_cgroup_that_is_in_use(world: World, bundle: Bundle, v2: Path) -> None:
    """config-linux.md, "Control groups": if a check of the cgroup fails, it MUST be an error."""
    bundle.linux["cgroupsPath"] = f"/pyoki-conformance-{os.getpid()}-used"
    world.create(bundle)
    before = set(os.listdir(v2))
    world.refused(bundle, "cgroup")
    assert set(os.listdir(v2)) == before


def test_limits_are_written(world: World, bundle: Bundle, v2: Path) -> None:
    """config-linux.md, "Unified": needed controllers MUST be enabled, and unknown files written."""
    written = {"cgroup.max.depth": "7"}
    for name, file, value in (("hugetlb", "hugetlb.2MB.max", "2097152"), ("pids", "pids.max", "77"),
                              ("misc", "misc.max", "")):  # fmt: skip
        if name in controllers(v2) and value:
            written[file] = value
    bundle.linux["resources"] = {"unified": written}
    id = world.create(bundle)
    place = Path("/sys/fs/cgroup" + cgroup(world.runtime.state(id)["pid"]))
    for file, value in written.items():
        if (place / file).exists() or file.startswith("cgroup."):
            assert (place / file).read_text().strip() == value, file


def test_a_needed_controller_is_enabled(world: World, bundle: Bundle, v2: Path) -> None:
    """config-linux.md, "Unified": the needed controllers MUST be enabled for the cgroup."""
    files = {"hugetlb": "hugetlb.2MB.max", "pids": "pids.max", "memory": "memory.high"}
    usable = [name for name in files if name in controllers(v2)]
    needs.require(usable, "no controller is delegated here")
    name = usable[-1]
    bundle.linux["cgroupsPath"] = f"/pyoki-conformance-{os.getpid()}/deep/box"
    bundle.linux["resources"] = {"unified": {files[name]: "max"}}
    id = world.create(bundle)
    place = Path("/sys/fs/cgroup" + cgroup(world.runtime.state(id)["pid"]))
    assert name in (place / "cgroup.controllers").read_text().split()


@pytest.mark.parametrize("file", ["nosuch.max", "nosuch.controller.file"])
def test_a_controller_that_is_not_there(world: World, bundle: Bundle, v2: Path, file: str) -> None:
    """config-linux.md, "Unified": a controller that is not present MUST be an error."""
    bundle.linux["resources"] = {"unified": {file: "1"}}
    world.refused(bundle, f"/linux/resources/unified/{file}")


def test_what_cannot_be_converted(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Unified", "Example": what only version 1 has MUST be an error."""
    bundle.linux["resources"] = {"cpu": {"realtimeRuntime": 1000}}
    world.refused(bundle, "/linux/resources/cpu/realtimeRuntime")
    bundle.linux["resources"] = {"blockIO": {"leafWeight": 100}}
    world.refused(bundle, "/linux/resources/blockIO/leafWeight")


def test_limits_where_there_is_no_cgroup(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Unified", and runtime.md, "Create": a limit that cannot be set is an error."""
    bundle.linux["resources"] = {"unified": {"pids.max": "5"}}
    id = world.id()
    result = world.runtime(
        "--cgroup-manager", "disabled", "create", "--bundle", str(bundle.write().path), id
    )
    assert result.code != 0 and "/linux/resources/unified/pids.max" in result.err, str(result)
    assert world.runtime.status(id) == ""


def test_rules_for_devices_are_not_passed_over_in_silence(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Allowed Device list": entries MUST be applied; where they are not, it is told.

    Without a filter on the cgroup what lies in /dev is what limits a container: an error if asked for.
    """
    bundle.linux["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    id = world.id()
    argv = ("create", "--bundle", str(bundle.write().path), id)
    result = world.runtime("--unsupported", "error", *argv)
    if result.code == 0:
        only(needs.real_root(), "only the machine's root can filter devices")
        assert world.runtime.status(id) == "created"
    else:
        assert "/linux/resources/devices" in result.err, str(result)
        warned = world.runtime("--unsupported", "warn", "--log-level", "warning", *argv).ok()
        assert "/linux/resources/devices" in warned.err


@pytest.mark.parametrize(
    "member", [{"closID": "/"}, {"schemata": ["L3:0=7"]}, {"l3CacheSchema": "L3:0=7"},
               {"memBwSchema": "MB:0=20"}, {"enableMonitoring": True}],
)  # fmt: skip
def test_resctrl_that_is_not_there(world: World, bundle: Bundle, member: dict[str, object]) -> None:
    """config-linux.md, "IntelRdt": without a mounted resctrl, intelRdt MUST be an error."""
    mounted = " resctrl " in Path("/proc/self/mountinfo").read_text()
    only(not mounted or not needs.real_root(), "there is a resctrl that could be used")
    bundle.linux["intelRdt"] = member
    world.refused(bundle, "/linux/intelRdt")


def test_resctrl_is_left_alone() -> None:
    """config-linux.md, "IntelRdt": without intelRdt no resctrl, group or schemata may be touched.

    No module of those that act knows of one.
    """
    package = Path(__file__).parents[2] / "rootless_pyoki"
    acting = [path for room in ("apply", "cgroups", "lifecycle", "processes", "kernel")
              for path in (package / room).glob("*.py")]  # fmt: skip
    assert len(acting) > 30
    assert [path.name for path in acting if "resctrl" in path.read_text()] == []


def test_ownership_of_the_cgroup(world: World, bundle: Bundle, v2: Path) -> None:
    """config-linux.md, "Cgroup ownership": changed if and only if the mount can be written to.

    Then only the directory and the listed files: whoever has no right over ids gives them by group.
    """
    bundle.config["process"]["user"] = {"uid": 7, "gid": 7}
    place = "cd /sys/fs/cgroup; "
    commands = {
        "owners": place + "stat -c %u.%g.%a . cgroup.procs cgroup.freeze",
        "make": place + "mkdir made && echo made && rmdir made || true",
    }
    before = world.observe(bundle, commands)
    assert "made" not in before["make"].splitlines()
    for mount in bundle.config["mounts"]:
        if mount["destination"] == "/sys/fs/cgroup":
            mount["options"] = [option for option in mount["options"] if option != "ro"]
    after = world.observe(bundle, commands)
    assert after["make"] == "made", after
    own = before["owners"].split()
    now = after["owners"].split()
    assert now[2] == own[2]
    if os.getuid() == 0:
        assert now[:2] == ["7.7.755", "7.7.644"]
    else:
        assert [owner.split(".")[1:] for owner in now[:2]] == [["7", "775"], ["7", "664"]]


@pytest.fixture
def owned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose owner was to be changed; none of them is there."""
    names: list[str] = []

    def chown(fd: int, name: str, uid: int, gid: int, flags: int = 0) -> None:
        names.append(name)
        raise SyscallError(errno.ENOENT, "no such file", "fchownat", name)

    monkeypatch.setattr(tree.syscalls, "fchownat", chown)
    return names


def test_ownership_of_files_that_are_not_there(v2: Path, owned: list[str]) -> None:
    """config-linux.md, "Cgroup ownership": MUST NOT fail where listed files do not exist."""
    tree.delegate(str(v2), v2.stat().st_uid, v2.stat().st_gid)
    assert "cgroup.procs" in owned


def test_ownership_without_a_list(
    v2: Path, owned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """config-linux.md, "Cgroup ownership": without the kernel's list MUST fall back to a fixed one."""

    def missing(*_: object) -> bytes:
        raise SyscallError(errno.ENOENT, "no such file", "openat", "delegate")

    monkeypatch.setattr(tree.fds, "read_file", missing)
    tree.delegate(str(v2), v2.stat().st_uid, v2.stat().st_gid)
    assert {"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} <= set(owned)
