"""How the kernel runs the process, as the process itself and the kernel's files tell."""

from __future__ import annotations

import json
import os
import platform
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]

# machine; I/O priority; nice and policy of proc_pid_stat(5); CPUs; the policy of a mapping, numa_maps(5)
LOOK = (
    "uname -m; ionice; cut -d' ' -f19,41 /proc/self/stat; "
    "grep Cpus_allowed_list /proc/self/status; grep -m1 -o 'bind:.*\\|default' /proc/self/numa_maps"
)


def seen(text: str) -> dict[str, str]:
    machine, io, scheduler, cpus, memory = text.splitlines()
    nice, policy = scheduler.split()
    return {
        "machine": machine,
        "io": io,
        "nice": nice,
        "policy": policy,
        "cpus": cpus.partition(":")[2].strip(),
        "memory": memory.split()[0],
    }


def numa() -> None:
    path = Path("/proc/self/numa_maps")
    needs.require(path.exists(), "this kernel is built without NUMA")


@pytest.fixture
def ordinary() -> None:
    if os.geteuid() == 0:
        pytest.skip("root may have any priority")


def test_all_at_once(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Scheduler, I/O priority, memory policy and personality of the container's first process, and of
    one that exec adds; CPU affinity is of exec's alone.
    """
    numa()
    needs.require(platform.machine() == "x86_64", "LINUX32 has another name on this machine")
    cpus = sorted(os.sched_getaffinity(0))
    last, every = str(cpus[-1]), Path("/proc/self/status").read_text()
    every = next(line for line in every.splitlines() if line.startswith("Cpus_allowed_list"))
    bundle = make_bundle("sh", "-c", f"{LOOK}; sleep 1000")
    nice = os.getpriority(os.PRIO_PROCESS, 0) + 3
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": nice}
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    bundle.process["execCPUAffinity"] = {"initial": last, "final": last}
    bundle.linux["personality"] = {"domain": "LINUX32"}
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0"}
    created = runtime.create(identifier, bundle.write().path).ok()
    runtime.start(identifier).ok()
    wanted = {
        "machine": "i686",
        "io": "best-effort: prio 6",
        "nice": str(nice),
        "policy": "3",
        "cpus": every.partition(":")[2].strip(),
        "memory": "bind:0",
    }
    inner = runtime.exec(identifier, "sh", "-c", LOOK).ok()
    assert seen(inner.out) == {**wanted, "cpus": last}
    assert seen(created.out) == wanted


def test_a_process_file(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """exec --process has its own; pointers of errors are the file's."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    base = {
        "args": ["sh", "-c", LOOK],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    }
    file = tmp_path / "process.json"

    def execute(**members: Any) -> Any:
        file.write_text(json.dumps({**base, **members}))
        return runtime("exec", "--process", str(file), identifier)

    cpu = str(min(os.sched_getaffinity(0)))
    found = execute(
        scheduler={"policy": "SCHED_IDLE"},
        ioPriority={"class": "IOPRIO_CLASS_IDLE", "priority": 0},
        execCPUAffinity={"final": cpu},
    )
    state = seen(found.ok().out)
    assert (state["policy"], state["io"], state["cpus"]) == ("5", "idle", cpu)
    refused = execute(execCPUAffinity={"initial": "8000"})
    assert refused.code != 0 and "(at /execCPUAffinity/initial)" in refused.err, str(refused)
    refused = execute(execCPUAffinity={"final": "8000"})
    assert refused.code != 0 and "(at /execCPUAffinity/final)" in refused.err, str(refused)
    refused = execute(execCPUAffinity={"final": "3-1"})
    assert refused.code != 0 and "ends before it begins" in refused.err, str(refused)


def test_initial_affinity_alone(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """Without a final one the kernel decides; it keeps what was set where the cgroup allows it."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    cpu = str(max(os.sched_getaffinity(0)))
    file = tmp_path / "process.json"
    file.write_text(
        json.dumps(
            {
                "args": ["sh", "-c", LOOK],
                "cwd": "/",
                "env": ["PATH=/bin"],
                "user": {"uid": 0, "gid": 0},
                "execCPUAffinity": {"initial": cpu},
            }
        )
    )
    found = runtime("exec", "--process", str(file), identifier).ok()
    assert seen(found.out)["cpus"] == cpu


@pytest.mark.parametrize("verb", ["create", "exec"])
def test_reset_on_fork(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path, verb: str
) -> None:
    """The program itself has the flag although exec's gate forks, which takes it away."""
    bundle = make_bundle()
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    file = tmp_path / "pid"
    if verb == "create":
        runtime.create(identifier, bundle.write().path, "--pid-file", str(file)).ok()
    else:
        runtime.run(identifier, bundle.write().path, "--detach").ok()
        runtime("exec", "--detach", "--pid-file", str(file), identifier, "sleep", "1000").ok()
    policy = os.sched_getscheduler(int(file.read_text()))
    assert policy == os.SCHED_BATCH | os.SCHED_RESET_ON_FORK


@pytest.mark.parametrize(
    ("process", "pointer", "hint"),
    [
        (
            {"scheduler": {"policy": "SCHED_FIFO", "priority": 5}},
            "/process/scheduler/policy",
            "RTPRIO",
        ),
        (
            {"scheduler": {"policy": "SCHED_OTHER", "nice": -20}},
            "/process/scheduler/nice",
            "RLIMIT_NICE",
        ),
    ],
)
def test_what_the_kernel_refuses(
    ordinary: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    process: dict[str, Any],
    pointer: str,
    hint: str,
) -> None:
    """An error with the pointer, the kernel's word and a hint; for the lenient a note."""
    needs.require(resource.getrlimit(resource.RLIMIT_RTPRIO)[0] == 0, "this user has RLIMIT_RTPRIO")
    needs.require(resource.getrlimit(resource.RLIMIT_NICE)[0] == 0, "this user has RLIMIT_NICE")
    bundle = make_bundle("sh", "-c", "cut -d' ' -f19,41 /proc/self/stat")
    bundle.process.update(process)
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1, str(result)
    for word in ("EPERM", f"(at {pointer})", hint):
        assert word in result.err, str(result)
    runtime.options += ["--unsupported", "ignore"]
    result = runtime.run(identifier, bundle.path).ok()
    assert (result.out.split(), result.err) == (
        [str(os.getpriority(os.PRIO_PROCESS, 0)), "0"],
        "",
    )


def test_nodes_that_are_not_there(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """The kernel's EINVAL with the field and what may be behind it."""
    numa()
    bundle = make_bundle("true")
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "1000"}
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1
    assert "EINVAL" in result.err and "(at /linux/memoryPolicy)" in result.err, str(result)


@pytest.mark.root
def test_what_root_may(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Without a user namespace root of the machine gets deadlines and real-time I/O, for exec too,
    whose gate could not fork as a deadline task.
    """
    needs.require(os.geteuid() == 0, "needs root")
    runtime.options += ["--cgroup-manager", "disabled"]
    bundle = make_bundle("sh", "-c", f"{LOOK}; sleep 1000").without_namespace("user", "cgroup")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    for kind in ("uid", "gid"):
        del bundle.linux[f"{kind}Mappings"]
    bundle.process["scheduler"] = {
        "policy": "SCHED_DEADLINE",
        "runtime": 1_000_000,
        "deadline": 100_000_000,
    }
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_RT", "priority": 3}
    runtime.create(identifier, bundle.write().path).ok()
    assert os.sched_getscheduler(runtime.state(identifier)["pid"]) == 6
    runtime.delete(identifier, force=True).ok()
    bundle.process["scheduler"]["flags"] = ["SCHED_FLAG_RESET_ON_FORK"]  # or sh could not fork
    created = runtime.create(identifier, bundle.write().path).ok()
    runtime.start(identifier).ok()
    inner = seen(runtime.exec(identifier, "sh", "-c", LOOK).ok().out)
    assert inner["io"] == seen(created.out)["io"] == "realtime: prio 3"
    file = bundle.path / "pid"
    runtime("exec", "-d", "--pid-file", str(file), identifier, "sleep", "1000").ok()
    assert os.sched_getscheduler(int(file.read_text())) == 6 | os.SCHED_RESET_ON_FORK
