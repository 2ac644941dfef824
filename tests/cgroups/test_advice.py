"""What the user is told when a controller is missing: what keeps it, and what to do."""

from __future__ import annotations

import pytest

from rootless_pyoki.cgroups import advice, limits
from rootless_pyoki.errors import UnsupportedError

HYBRID = ["5:pids:/user.slice", "4:cpu,cpuacct:/", "3:blkio:/", "1:name=systemd:/x", "0::/x"]
KNOWN = ["#subsys_name hierarchy num_cgroups enabled", "memory 0 5 0", "cpu 0 5 1"]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the files in /proc say; nothing at first."""
    said: dict[str, list[str]] = {}
    monkeypatch.setattr(advice, "_read", lambda path: said.get(path, []))
    return said


def test_nobody_has_delegated_it(files: dict[str, list[str]]) -> None:
    """The drop-in that delegates it, in one line that can be run."""
    files["/proc/self/cgroup"] = ["0::/user.slice"]
    why, hint = advice.on("cpu")
    assert why == "" and "\n" not in hint
    assert r"printf '[Service]\nDelegate=cpu cpuset io memory pids\n'" in hint
    assert "/etc/systemd/system/user@.service.d/delegate.conf" in hint


@pytest.mark.parametrize(
    ("controller", "name"), [("pids", "pids"), ("cpu", "cpu"), ("io", "blkio")]
)
def test_version_1_holds_it(files: dict[str, list[str]], controller: str, name: str) -> None:
    """Nothing can be delegated then: the machine has to boot otherwise."""
    files["/proc/self/cgroup"] = HYBRID
    why, hint = advice.on(controller)
    assert why == f"a cgroup v1 hierarchy holds the {name} controller"
    assert "systemd.unified_cgroup_hierarchy=1" in hint
    assert advice.on("memory")[0] == ""


def test_it_is_switched_off(files: dict[str, list[str]]) -> None:
    """As memory is on some small machines."""
    files["/proc/cgroups"] = KNOWN
    why, hint = advice.on("memory")
    assert why == "the memory controller is switched off" and "cgroup_enable=memory" in hint
    assert advice.on("cpu") == ("", advice.DELEGATION_HINT)


def test_systemd_does_not_hand_it_on(files: dict[str, list[str]]) -> None:
    """A drop-in would change nothing."""
    assert "systemd hands on cpu, cpuset, io, memory, pids only" in advice.on("hugetlb")[1]


def test_the_error(files: dict[str, list[str]]) -> None:
    """It names the cgroup, the controller, the reason and the field."""
    error = limits.lacking(
        "cgroup /sys/fs/cgroup/x", "io", "/linux/resources/blockIO", "it has cpu"
    )
    assert isinstance(error, UnsupportedError)
    assert error.message == "cgroup /sys/fs/cgroup/x lacks the io controller: it has cpu"
    assert error.pointer == "/linux/resources/blockIO" and "Delegate=" in error.hint
    files["/proc/self/cgroup"] = HYBRID
    error = limits.lacking(
        "cgroup /sys/fs/cgroup/x", "io", "/linux/resources/blockIO", "it has cpu"
    )
    assert error.message.endswith(
        "lacks the io controller: a cgroup v1 hierarchy holds the blkio controller"
    )
