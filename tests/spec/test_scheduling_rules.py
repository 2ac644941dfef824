"""Lists of CPUs and nodes, and what schedulers and memory policies may not ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec.scheduling_rules import numbers
from rootless_pyoki.spec.validate import validate, validate_process


@given(st.sets(st.integers(0, 200)))
def test_numbers_come_back(wanted: set[int]) -> None:
    """Single numbers in any order."""
    text = ",".join(str(number) for number in wanted)
    assert numbers(text, 200, "/x") == tuple(sorted(wanted))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0-3,7", (0, 1, 2, 3, 7)),
        ("7, 0 - 2", (0, 1, 2, 7)),
        ("1,,1-1,", (1,)),
        ("0007", (7,)),
        ("", ()),
    ],
)
def test_lists(text: str, found: tuple[int, ...]) -> None:
    """As the kernel reads them."""
    assert numbers(text, 8, "/x") == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("3-1", "3-1 ends before it begins"),
        ("9", "9 is above 8"),
        ("0-99999999999999999999", "is above 8"),
        ("99999999999999999999-1", "ends before"),
        ("-", "no list such as"),
        ("1-", "no list such as"),
        ("1-2-3", "no list such as"),
        ("1 2", "no list such as"),
        ("²", "no list such as"),
        (",", "names nothing"),
    ],
)
def test_what_is_no_list(text: str, words: str) -> None:
    """It is refused with the field's pointer, at once whatever its size."""
    with pytest.raises(SpecError, match=words) as caught:
        numbers(text, 8, "/x")
    assert caught.value.pointer == "/x"


REAL_TIME = {"policy": "SCHED_FIFO", "priority": 1}
DEADLINE = {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 4000}


@pytest.mark.parametrize(
    ("scheduler", "key"),
    [
        ({"policy": "SCHED_OTHER", "priority": 1}, "priority"),
        ({"policy": "SCHED_IDLE", "priority": -1}, "priority"),
        ({"policy": "SCHED_FIFO"}, "priority"),
        ({"policy": "SCHED_RR", "priority": 100}, "priority"),
        ({"policy": "SCHED_RR", "priority": -1}, "priority"),
        ({"policy": "SCHED_BATCH", "runtime": 1}, "runtime"),
        ({**REAL_TIME, "deadline": 1}, "deadline"),
        ({**REAL_TIME, "period": 1}, "period"),
        ({**DEADLINE, "priority": 1}, "priority"),
        ({**DEADLINE, "runtime": 0}, "runtime"),
        ({**DEADLINE, "runtime": 1023}, "runtime"),
        ({**DEADLINE, "deadline": 0}, "deadline"),
        ({**DEADLINE, "deadline": 1999}, "deadline"),
        ({**DEADLINE, "period": 2999}, "period"),
    ],
)
def test_schedulers_that_cannot_be(scheduler: dict[str, Any], key: str) -> None:
    """sched_setattr(2) gives EINVAL and does not say why; we name the field."""
    with pytest.raises(SpecError) as caught:
        validate_process({"args": ["x"], "cwd": "/", "scheduler": scheduler})
    assert caught.value.pointer == f"/scheduler/{key}"


@pytest.mark.parametrize(
    "scheduler",
    [
        {"policy": "SCHED_OTHER", "nice": -20},
        {"policy": "SCHED_RR", "priority": 99},
        REAL_TIME,
        DEADLINE,
        {**DEADLINE, "period": 0},
        {"policy": "SCHED_FIFO", "flags": ["SCHED_FLAG_KEEP_PARAMS"]},
    ],
)
def test_schedulers_that_can(scheduler: dict[str, Any]) -> None:
    """Limits are included; a period of 0 is the deadline."""
    validate_process({"args": ["x"], "cwd": "/", "scheduler": scheduler})


@pytest.mark.parametrize("key", ["initial", "final"])
def test_affinity(key: str) -> None:
    """Lists that name no CPU there could be."""
    for text in ("3-1", "8192", ",", "1-"):
        with pytest.raises(SpecError) as caught:
            validate_process({"args": ["x"], "cwd": "/", "execCPUAffinity": {key: text}})
        assert caught.value.pointer == f"/execCPUAffinity/{key}"
    validate_process({"args": ["x"], "cwd": "/", "execCPUAffinity": {key: "0,8191"}})


def config(policy: dict[str, Any]) -> dict[str, Any]:
    return {
        "ociVersion": "1.3.0",
        "root": {"path": "x"},
        "process": {"args": ["x"], "cwd": "/"},
        "linux": {"memoryPolicy": policy},
    }


STATIC, RELATIVE, BALANCING = (
    "MPOL_F_STATIC_NODES",
    "MPOL_F_RELATIVE_NODES",
    "MPOL_F_NUMA_BALANCING",
)


@pytest.mark.parametrize(
    ("policy", "key"),
    [
        ({"mode": "MPOL_DEFAULT", "nodes": "0"}, "nodes"),
        ({"mode": "MPOL_LOCAL", "nodes": "0"}, "nodes"),
        ({"mode": "MPOL_BIND"}, "nodes"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": ""}, "nodes"),
        ({"mode": "MPOL_WEIGHTED_INTERLEAVE"}, "nodes"),
        ({"mode": "MPOL_PREFERRED_MANY"}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": "1024"}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": "2-1"}, "nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": [STATIC, RELATIVE]}, "flags"),
        ({"mode": "MPOL_LOCAL", "flags": [STATIC]}, "flags"),
        ({"mode": "MPOL_PREFERRED", "flags": [RELATIVE]}, "flags"),
    ],
)
def test_memory_policies_that_cannot_be(policy: dict[str, Any], key: str) -> None:
    """set_mempolicy(2) gives EINVAL and does not say why; we name the field."""
    with pytest.raises(SpecError) as caught:
        validate(config(policy))
    assert caught.value.pointer == f"/linux/memoryPolicy/{key}"


@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "MPOL_DEFAULT"},
        {"mode": "MPOL_PREFERRED"},
        {"mode": "MPOL_PREFERRED", "nodes": "1"},
        {"mode": "MPOL_BIND", "nodes": "0", "flags": [STATIC, BALANCING]},
    ],
)
def test_memory_policies_that_can(policy: dict[str, Any]) -> None:
    """Nodes where they belong."""
    validate(config(policy))
