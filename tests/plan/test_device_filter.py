"""/linux/resources/devices as a BPF program, run by a small interpreter against the rules' meaning."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless_pyoki.plan import device_filter
from tests.plan import plans

BLOCK, CHARACTER = 1, 2
MKNOD, READ, WRITE = 1, 2, 4
DENY_ALL = {"allow": False, "access": "rwm"}
USER_POINTER = "/linux/resources/devices"


def run(program: bytes, kind: int, major: int, minor: int, access: int, order: str = "<") -> int:
    """What the kernel would answer: instruction-set.rst, for the few codes that there are."""
    code = [struct.unpack_from(order + "BBhi", program, at) for at in range(0, len(program), 8)]
    context = {0: access << 16 | kind, 4: major, 8: minor}
    registers: dict[int, int] = {}
    at = 0
    while True:
        operation, both, offset, immediate = code[at]
        to, source = (both & 15, both >> 4) if order == "<" else (both >> 4, both & 15)
        at += 1
        if operation == 0x61:
            assert source == 1
            registers[to] = context[offset]
        elif operation == 0x54:
            registers[to] &= immediate & 0xFFFFFFFF
        elif operation == 0x74:
            registers[to] >>= immediate
        elif operation == 0xB7:
            registers[to] = immediate
        elif operation == 0x95:
            return registers[0]
        else:
            jumps = {0x05: True, 0x55: registers.get(to, 0) != immediate,
                     0x45: bool(registers.get(to, 0) & immediate)}  # fmt: skip
            at += offset if jumps[operation] else 0


def meaning(rules: list[dict[str, Any]], kind: int, major: int, minor: int, access: int) -> int:
    """config-linux.md: in the listed order, so that the last that matches decides; bit by bit."""
    always = [
        {"allow": True, "type": letter, "major": of, "minor": number, "access": letters}
        for letter, of, number, letters in (
            ("c", -1, -1, "m"), ("b", -1, -1, "m"), ("c", 1, 3, "rwm"), ("c", 1, 5, "rwm"),
            ("c", 1, 7, "rwm"), ("c", 1, 8, "rwm"), ("c", 1, 9, "rwm"), ("c", 5, 0, "rwm"),
            ("c", 5, 2, "rwm"), ("c", 136, -1, "rwm"),
        )
    ]  # fmt: skip
    for bit, letter in ((MKNOD, "m"), (READ, "r"), (WRITE, "w")):
        if not access & bit:
            continue
        allowed = True
        for rule in [*rules, *always]:
            if rule.get("type", "a") not in ("a", {BLOCK: "b", CHARACTER: "c"}[kind]):
                continue
            if rule.get("major", -1) not in (-1, major) or rule.get("minor", -1) not in (-1, minor):
                continue
            if letter in rule.get("access", "rwm"):
                allowed = rule["allow"]
        if not allowed:
            return 0
    return 1


RULE = st.fixed_dictionaries(
    {"allow": st.booleans()},
    optional={
        "type": st.sampled_from("abc"),
        "major": st.sampled_from((-1, 1, 8, 10)),
        "minor": st.sampled_from((-1, 0, 3)),
        "access": st.sampled_from(("r", "w", "m", "rw", "rwm", "wm")),
    },
)


@settings(deadline=None, max_examples=60)
@given(st.lists(RULE, max_size=5))
def test_every_question_gets_the_answer_of_the_rules(rules: list[dict[str, Any]]) -> None:
    """For each kind of access: the last rule that speaks of it, none allows."""
    program = device_filter.compile(rules, big=False)
    for kind, major, minor, access in itertools.product((1, 2), (1, 8), (0, 3), range(1, 8)):
        answer = run(program, kind, major, minor, access)
        assert answer == meaning(rules, kind, major, minor, access), (kind, major, minor, access)


def test_what_is_always_allowed() -> None:
    """A list that allows nothing leaves what every program needs: the default devices, and mknod."""
    program = device_filter.compile([DENY_ALL], big=False)
    for major, minor in ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, 9)):
        assert run(program, CHARACTER, major, minor, READ | WRITE | MKNOD)
        assert not run(program, BLOCK, major, minor, READ)
    assert run(program, BLOCK, 8, 0, MKNOD) and not run(program, BLOCK, 8, 0, MKNOD | READ)
    assert not run(program, CHARACTER, 10, 229, READ)


def test_a_rule_for_a_part_of_what_is_asked() -> None:
    """Reading and writing are refused when only one of them is allowed."""
    program = device_filter.compile(
        [DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 200, "access": "r"}],
        big=False,
    )
    answers = [run(program, CHARACTER, 10, 200, access) for access in (READ, WRITE, READ | WRITE)]
    assert answers == [1, 0, 0]


def test_rules_before_one_for_everything_cost_nothing() -> None:
    """They are not in the program: none of them can decide any more."""
    many = [{"allow": True, "type": "c", "major": n} for n in range(100)]
    assert device_filter.compile([*many, DENY_ALL]) == device_filter.compile([DENY_ALL])


@pytest.mark.parametrize("rule", [{"type": "c", "major": 2**40}, {"type": "p"}])
def test_what_no_device_can_be(rule: dict[str, Any]) -> None:
    """Nothing is decided by it."""
    program = device_filter.compile([DENY_ALL, {"allow": True, **rule}], big=False)
    assert not run(program, CHARACTER, 0, 5, READ) and not run(program, BLOCK, 0, 5, READ)


def test_the_other_byte_order() -> None:
    """The same program for a machine that counts from the other end."""
    rules = [DENY_ALL, {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"}]
    program = device_filter.compile(rules, big=True)
    assert run(program, BLOCK, 8, 0, READ, ">") and not run(program, BLOCK, 8, 0, WRITE, ">")


def test_only_the_machines_root_filters() -> None:
    """Everybody else is told once that /dev is what limits access."""
    config = plans.config(linux={"resources": {"devices": [DENY_ALL]}})
    planned = plans.make(config)
    assert planned.resources.device_filter
    assert USER_POINTER not in [note.pointer for note in planned.notes]
    for caller, own in ((plans.USER, True), (plans.IN_PODMAN, False)):
        config = plans.config(linux={"resources": {"devices": [DENY_ALL]}}, own_user=own)
        planned = plans.make(config, caller)
        assert not planned.resources.device_filter
        assert [note.pointer for note in planned.notes].count(USER_POINTER) == 1
