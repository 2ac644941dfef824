"""update with real controllers, by both managers: each value read inside and outside, and kept."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import bundles, needs
from tests.support.bundles import Bundle
from tests.support.runtime import Result, Runtime

pytestmark = pytest.mark.controllers
Make = Callable[..., Bundle]
MB = 1 << 20


class Live:
    """A running container and its cgroup."""

    def __init__(self, runtime: Runtime, id: str, manager: str) -> None:
        self.runtime = runtime
        self.id = id
        self.manager = manager
        state = json.loads(runtime("state", "--verbose", id).ok().out)
        self.cgroup = Path(state["pyoki"]["cgroup"]["path"])

    def update(self, *options: str, **resources: Any) -> Result:
        if resources:
            return self.runtime("update", "-r", "-", *options, self.id, input=json.dumps(resources))
        return self.runtime("update", *options, self.id)

    def says(self, *names: str) -> dict[str, str]:
        return {name: (self.cgroup / name).read_text().strip() for name in names}

    def inside(self, *names: str) -> dict[str, str]:
        """As the container sees it."""
        script = 'cd /sys/fs/cgroup; for f in "$@"; do echo $f=$(cat $f); done'
        result = self.runtime.exec(self.id, "sh", "-c", script, "sh", *names).ok()
        return dict(line.split("=", 1) for line in result.out.splitlines())

    def unit(self, *properties: str) -> dict[str, str]:
        """As systemd sees it."""
        names = [f"--property={name}" for name in properties]
        line = ["systemctl", "--user", "show", self.cgroup.name, *names]
        shown = subprocess.run(line, capture_output=True, text=True, check=True, timeout=60).stdout
        return dict(entry.split("=", 1) for entry in shown.splitlines())


@pytest.fixture(params=["cgroupfs", "systemd"])
def live(
    request: pytest.FixtureRequest, runtime: Runtime, make_bundle: Make, identifier: str
) -> Live:
    """Made without any limit."""
    manager = str(request.param)
    if manager == "cgroupfs" and not needs.pure_v2():
        pytest.skip("cgroupfs: we live in a login session, outside of what is delegated to us")
    bundle = make_bundle()
    if bundles.CGROUP_MOUNT not in bundle.config["mounts"]:
        bundle.config["mounts"].append(bundles.CGROUP_MOUNT)
    path = str(bundle.write().path)
    runtime("--cgroup-manager", manager, "run", "--detach", "--bundle", path, identifier).ok()
    return Live(runtime, identifier, manager)


EVERYTHING = (
    *("--memory=64m", "--memory-reservation=32m", "--memory-swap=96m"),
    *("--cpu-quota=50000", "--cpu-period=100000", "--cpu-shares=2048", "--cpu-burst=10000"),
    *("--cpuset-cpus=0", "--cpuset-mems=0", "--pids-limit=40", "--kernel-memory=5m"),
)
WRITTEN = {
    "memory.max": str(64 * MB),
    "memory.low": str(32 * MB),
    "memory.swap.max": str(32 * MB),
    "cpu.max": "50000 100000",
    "cpu.max.burst": "10000",
    "cpuset.cpus": "0",
    "cpuset.mems": "0",
    "pids.max": "40",
}
PROPERTIES = {
    "MemoryMax": str(64 * MB),
    "MemoryLow": str(32 * MB),
    "MemorySwapMax": str(32 * MB),
    "CPUQuotaPerSecUSec": "500ms",
    "AllowedCPUs": "0",
    "AllowedMemoryNodes": "0",
    "TasksMax": "40",
}


def test_every_option(live: Live) -> None:
    """All at once, then one after the other: the partners of what is given stay as they are."""
    live.update(*EVERYTHING).ok()
    assert live.says(*WRITTEN) == WRITTEN
    assert live.inside(*WRITTEN) == WRITTEN
    weight = int(live.says("cpu.weight")["cpu.weight"])
    assert 100 < weight < 300
    if live.manager == "systemd":
        assert live.unit(*PROPERTIES) == PROPERTIES
        assert live.unit("CPUWeight")["CPUWeight"] == str(weight)
        # what systemd does not know it would undo now
        subprocess.run(["systemctl", "--user", "daemon-reload"], check=True, timeout=60)
        assert live.says(*WRITTEN) == WRITTEN
    expected = dict(WRITTEN)
    for option, name, value in (
        ("--cpu-quota=20000", "cpu.max", "20000 100000"),
        ("--cpu-period=50000", "cpu.max", "20000 50000"),
        ("--pids-limit=-1", "pids.max", "max"),
        ("--memory-swap=80m", "memory.swap.max", str(16 * MB)),
        ("--memory-swap=-1", "memory.swap.max", "max"),
        ("--memory-reservation=-1", "memory.low", "max"),
        ("--memory=-1", "memory.max", "max"),
        ("--cpu-quota=-1", "cpu.max", "max 50000"),
        ("--cpuset-cpus=0-1", "cpuset.cpus", "0-1"),
        ("--cpu-quota=12345", "cpu.max", "12345 50000"),
        ("--cpu-shares=2", "cpu.weight", "1"),
    ):
        if option.endswith("0-1") and (os.cpu_count() or 1) < 2:
            continue
        live.update(option).ok()
        expected[name] = value
        assert live.says(*expected) == expected, option
    assert live.inside(*expected) == expected


def test_up_and_down(live: Live) -> None:
    """Pairs that depend on each other: both grow, both shrink, one grows while the other shrinks."""
    files = ("memory.max", "memory.swap.max", "cpu.max", "cpu.max.burst")

    def check(memory: int, total: int, quota: int, burst: int) -> None:
        live.update(
            f"--memory={memory}m", f"--memory-swap={total}m",
            f"--cpu-quota={quota}", f"--cpu-burst={burst}",
        ).ok()  # fmt: skip
        assert list(live.says(*files).values()) == [
            str(memory * MB), str((total - memory) * MB), f"{quota} 100000", str(burst),
        ]  # fmt: skip

    check(64, 128, 50000, 40000)
    check(256, 512, 90000, 80000)
    check(32, 32, 20000, 10000)
    check(48, 60, 30000, 5000)
    check(40, 400, 15000, 15000)
    live.update("--memory=80m").ok()  # the sum stays 400m
    assert live.says("memory.max", "memory.swap.max") == {
        "memory.max": str(80 * MB),
        "memory.swap.max": str(320 * MB),
    }
    for wrong in ("--memory=401m", "--memory-swap=79m", "--cpu-quota=14000"):
        before = live.says(*files)
        assert live.update(wrong).code == 1
        assert live.says(*files) == before


def test_idle(live: Live) -> None:
    """Idle and back: the weight is what it was."""
    live.update("--cpu-shares=4096").ok()
    weight = live.says("cpu.weight")
    live.update("--cpu-idle=1").ok()
    assert live.says("cpu.idle") == {"cpu.idle": "1"}
    live.update("--cpu-idle=0").ok()
    assert live.says("cpu.idle") == {"cpu.idle": "0"}
    assert live.says("cpu.weight") == weight
    if live.manager == "systemd":
        subprocess.run(["systemctl", "--user", "daemon-reload"], check=True, timeout=60)
        assert live.says("cpu.idle", "cpu.weight") == {"cpu.idle": "0", **weight}


def test_half_way(live: Live) -> None:
    """A weight that is none brings back the limits that were written before it."""
    live.update("--memory=64m", "--pids-limit=30").ok()
    result = live.update(
        memory={"limit": 128 * MB}, pids={"limit": 50}, unified={"cpu.weight": "0"}
    )
    assert result.code == 1 and "/unified/cpu.weight" in result.err, str(result)
    expected = {"memory.max": str(64 * MB), "pids.max": "30"}
    assert live.says(*expected) == expected
    if live.manager == "systemd":
        assert live.unit("MemoryMax", "TasksMax") == {
            "MemoryMax": str(64 * MB),
            "TasksMax": "30",
        }


def test_check_before_update(live: Live) -> None:
    """A limit below what is used kills nobody, where that is asked for."""
    live.update("--memory=64m").ok()
    used = int(live.says("memory.current")["memory.current"])
    result = live.update(memory={"limit": 4096, "checkBeforeUpdate": True})
    assert used > 4096 and result.code == 1
    assert "4096 bytes is less than the" in result.err and "/memory/limit" in result.err
    assert live.says("memory.max") == {"memory.max": str(64 * MB)}
    assert live.runtime.status(live.id) == "running"


def test_block_devices(live: Live) -> None:
    """A line for each device; another key of the same device stays."""
    numbers = next(
        (Path(f"/sys/block/{name}/dev").read_text().strip() for name in ("vda", "sda", "nvme0n1")
         if Path(f"/sys/block/{name}").exists()),
        "",
    )  # fmt: skip
    needs.require(numbers, "no whole block device here")
    major, minor = map(int, numbers.split(":"))
    device = {"major": major, "minor": minor}
    live.update(blockIO={"throttleReadBpsDevice": [{**device, "rate": MB}]}).ok()
    live.update(blockIO={"throttleWriteIOPSDevice": [{**device, "rate": 120}]}).ok()
    line = f"{numbers} rbps={MB} wbps=max riops=max wiops=120"
    assert live.says("io.max") == {"io.max": line}
    result = live.update(
        blockIO={"throttleReadBpsDevice": [{**device, "rate": 2 * MB}]},
        unified={"pids.max": "x"},
    )
    assert result.code == 1 and live.says("io.max") == {"io.max": line}
    live.update(blockIO={"throttleReadBpsDevice": [{**device, "rate": 0}]}).ok()
    assert live.says("io.max") == {"io.max": line.replace(str(MB), "max")}


def test_weight_of_block_devices(live: Live) -> None:
    """By io.weight, or io.bfq.weight; an error that names the field where the kernel has neither."""
    result = live.update("--blkio-weight=200")
    if (live.cgroup / "io.weight").exists():
        assert live.says("io.weight") == {"io.weight": f"default {1 + 190 * 9999 // 990}"}
    elif (live.cgroup / "io.bfq.weight").exists():
        assert "200" in live.says("io.bfq.weight")["io.bfq.weight"]
    else:
        assert result.code == 1 and "/blockIO/weight" in result.err, str(result)
