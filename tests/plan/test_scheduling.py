"""How the kernel shall run the process: what is asked becomes numbers, or is refused before any act."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.errors import UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan import describe
from rootless_pyoki.plan import make as maker
from rootless_pyoki.plan.plan import IoPriority, MemoryPolicy, Note, Plan, Scheduler, Scheduling
from tests.plan import plans


def plan(
    process: dict[str, Any] | None = None,
    linux: dict[str, Any] | None = None,
    facts: Any = plans.USER,
    **options: Any,
) -> Plan:
    """Of a user's container, unless facts say otherwise."""
    made = plans.config(process=process, linux=linux, own_user=facts is plans.USER)
    return plans.make(made, facts, **options)


def scheduling(*arguments: Any, **options: Any) -> Scheduling:
    found = plan(*arguments, **options).process.scheduling
    assert found is not None
    return found


def scheduler(members: dict[str, Any], **options: Any) -> Scheduler:
    found = scheduling({"scheduler": members}, **options).scheduler
    assert found is not None
    return found


def test_nothing_asked() -> None:
    """No record at all, so that nothing is loaded; the affinity of exec is nothing to the first."""
    assert plan().process.scheduling is None
    assert plan({"execCPUAffinity": {"initial": "0", "final": "0"}}).process.scheduling is None


@pytest.mark.parametrize(
    ("name", "number", "members"),
    [
        ("SCHED_OTHER", 0, {"nice": 5}),
        ("SCHED_FIFO", 1, {"priority": 50}),
        ("SCHED_RR", 2, {"priority": 1}),
        ("SCHED_BATCH", 3, {"nice": -20}),
        ("SCHED_IDLE", 5, {}),
    ],
)
def test_scheduler(name: str, number: int, members: dict[str, int]) -> None:
    """Policies and their parameters; what is not set is 0 (config.md)."""
    made = scheduler({"policy": name, **members})
    assert (made.policy, made.name, made.flags, made.times) == (number, name, 0, (0, 0, 0))
    assert (made.nice, made.priority) == (members.get("nice", 0), members.get("priority", 0))


DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 10**7, "deadline": 2 * 10**7, "period": 10**8}


def test_deadline() -> None:
    """For root of the machine only, which is known beforehand."""
    made = scheduler(DEADLINE, facts=plans.ROOT)
    assert (made.policy, made.times) == (c.SCHED_DEADLINE, (10**7, 2 * 10**7, 10**8))
    for facts in (plans.USER, plans.IN_PODMAN):
        with pytest.raises(UnsupportedError, match="EPERM") as caught:
            plan({"scheduler": DEADLINE}, facts=facts)
        assert caught.value.pointer == "/process/scheduler/policy"
        assert caught.value.hint


def test_flags() -> None:
    """They are or-ed."""
    flags = ["SCHED_FLAG_RESET_ON_FORK", "SCHED_FLAG_UTIL_CLAMP_MAX"]
    assert scheduler({"policy": "SCHED_OTHER", "flags": flags}).flags == 0x41


def test_policy_that_no_kernel_has() -> None:
    """SCHED_ISO is a name of the specification only."""
    with pytest.raises(UnsupportedError) as caught:
        plan({"scheduler": {"policy": "SCHED_ISO"}})
    assert caught.value.pointer == "/process/scheduler/policy"


@pytest.mark.parametrize("policy", ["SCHED_FIFO", "SCHED_IDLE"])
def test_nice_of_a_policy_without(policy: str) -> None:
    """It is passed over, as the kernel would, and told; strict users are refused."""
    members = {"policy": policy, "nice": 4, "priority": 5 if policy == "SCHED_FIFO" else 0}
    planned = plan({"scheduler": members})
    assert planned.process.scheduling is not None
    assert planned.process.scheduling.scheduler is not None
    assert planned.process.scheduling.scheduler.nice == 0
    assert "/process/scheduler/nice" in [note.pointer for note in planned.notes]
    with pytest.raises(UnsupportedError):
        plan({"scheduler": members}, unsupported="error")


def test_io_priority() -> None:
    """Classes by the kernel's numbers; real time is refused where the kernel would."""
    best = {"class": "IOPRIO_CLASS_BE", "priority": 7}
    assert scheduling({"ioPriority": best}).io_priority == IoPriority(
        level=2, name="IOPRIO_CLASS_BE", data=7
    )
    idle = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    assert scheduling({"ioPriority": idle}).io_priority == IoPriority(
        level=3, name="IOPRIO_CLASS_IDLE", data=0
    )
    real_time = {"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 2}}
    assert scheduling(real_time, facts=plans.ROOT).io_priority is not None
    with pytest.raises(UnsupportedError, match="EPERM") as caught:
        plan(real_time)
    assert caught.value.pointer == "/process/ioPriority/class"
    assert "IOPRIO_CLASS_BE" in caught.value.hint


def test_affinity_of_exec() -> None:
    """Of the process that joins; numbers ascend."""
    asked = {"args": ["sh"], "cwd": "/", "execCPUAffinity": {"initial": "3,0-1", "final": " 2 "}}
    made, notes = maker.make_exec_process(plans.MINIMAL, asked, plans.USER)
    assert made.scheduling == Scheduling(initial_cpus=(0, 1, 3), final_cpus=(2,), pointer="")
    assert notes == ()


def test_memory_policy() -> None:
    """Mode and flags in one number, nodes as numbers; exec's processes have it too."""
    asked = {
        "memoryPolicy": {
            "mode": "MPOL_INTERLEAVE",
            "nodes": "0-1,3",
            "flags": ["MPOL_F_STATIC_NODES"],
        }
    }
    policy = MemoryPolicy(
        mode=c.MPOL_INTERLEAVE | c.MPOL_F_STATIC_NODES,
        name="MPOL_INTERLEAVE MPOL_F_STATIC_NODES",
        nodes=(0, 1, 3),
    )
    assert scheduling(linux=asked).memory_policy == policy
    made, _ = maker.make_exec_process(
        plans.config(linux=asked), {"args": ["sh"], "cwd": "/"}, plans.USER
    )
    assert made.scheduling is not None and made.scheduling.memory_policy == policy


@pytest.mark.parametrize(("domain", "number"), [("LINUX", 0), ("LINUX32", 8)])
def test_personality(domain: str, number: int) -> None:
    """Set whenever it is there: the caller may have another one."""
    assert scheduling(linux={"personality": {"domain": domain}}).personality == number


@pytest.mark.parametrize("unsupported", ["warn", "ignore"])
@pytest.mark.parametrize(
    ("process", "linux", "pointer"),
    [
        ({"scheduler": DEADLINE}, {}, "/process/scheduler/policy"),
        ({"scheduler": {"policy": "SCHED_ISO"}}, {}, "/process/scheduler/policy"),
        (
            {"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 0}},
            {},
            "/process/ioPriority/class",
        ),
        ({}, {"netDevices": {"eth7": {}}}, "/linux/netDevices"),
        ({}, {"intelRdt": {"closID": "x"}}, "/linux/intelRdt"),
        (
            {},
            {"resources": {"cpu": {"realtimeRuntime": 1}}},
            "/linux/resources/cpu/realtimeRuntime",
        ),
        ({}, {"resources": {"blockIO": {"leafWeight": 10}}}, "/linux/resources/blockIO/leafWeight"),
        (
            {},
            {"resources": {"unified": {"cgroup.procs": "1"}}},
            "/linux/resources/unified/cgroup.procs",
        ),
    ],
)
def test_left_out(
    unsupported: str, process: dict[str, Any], linux: dict[str, Any], pointer: str
) -> None:
    """By default an error with the pointer; where the user is lenient a note instead."""
    with pytest.raises(UnsupportedError) as caught:
        plan(process, linux)
    assert (caught.value.pointer, bool(caught.value.message)) == (pointer, True)
    planned = plan(process, linux, unsupported=unsupported)
    assert planned.process.scheduling is None
    assert planned.resources.files == ()
    assert Note(pointer=pointer, text=f"not applied: {caught.value.message}") in planned.notes


@pytest.mark.parametrize(
    "linux", [{"netDevices": {}}, {"intelRdt": {}}, {"intelRdt": {"enableMonitoring": False}}]
)
def test_what_asks_for_nothing(linux: dict[str, Any]) -> None:
    """Empty objects are as good as none."""
    assert plan(linux=linux).notes == ()


def test_in_words() -> None:
    """The printed plan says all of it, with the numbers."""
    planned = plan(
        {
            "scheduler": {**DEADLINE, "flags": ["SCHED_FLAG_RECLAIM"]},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 3},
        },
        {
            "personality": {"domain": "LINUX32"},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0,2"},
        },
        plans.ROOT,
    )
    lines = describe.describe(planned)
    assert (
        "scheduler SCHED_DEADLINE runtime 10000000 deadline 20000000 period 100000000 ns flags 0x2"
        in lines
    )
    assert "I/O priority IOPRIO_CLASS_BE 3" in lines
    assert "personality LINUX32" in lines
    assert "memory policy MPOL_BIND nodes 0,2" in lines
    asked = {
        "args": ["sh"],
        "cwd": "/",
        "execCPUAffinity": {"initial": "0-1", "final": "1"},
        "scheduler": {"policy": "SCHED_RR", "priority": 9},
    }
    made, _ = maker.make_exec_process(plans.MINIMAL, asked, plans.USER)
    lines = describe.process(made)
    assert "CPUs 0,1 before it is in the container's cgroup" in lines
    assert "CPUs 1 once it is in the container's cgroup" in lines
    assert "scheduler SCHED_RR priority 9" in lines
    nice = {"policy": "SCHED_BATCH", "nice": 2}
    assert "scheduler SCHED_BATCH nice 2" in describe.describe(plan({"scheduler": nice}))
