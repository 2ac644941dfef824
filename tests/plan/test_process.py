"""What /process comes to for callers who may do more or less."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.host.id_range import IdRange
from rootless_pyoki.kernel.constants import CAPABILITIES, RLIMITS
from rootless_pyoki.plan import make as maker
from rootless_pyoki.plan.plan import Plan, Process
from rootless_pyoki.record import replace
from tests.plan import plans

SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")


def plan(facts: Any = plans.ROOT, *, own_user: bool = False, **members: Any) -> Plan:
    annotations = members.pop("annotations", {})
    made = plans.config(process=members, own_user=own_user, annotations=annotations)
    return plans.make(made, facts)


def process(facts: Any = plans.ROOT, *, own_user: bool = False, **members: Any) -> Process:
    return plan(facts, own_user=own_user, **members).process


def test_the_least() -> None:
    """What is not given has the peers' defaults: root, umask 022, no capability, no limit."""
    made = process()
    assert (made.uid, made.gid, made.additional_gids, made.umask) == (0, 0, (), 0o022)
    assert (made.args, made.env, made.cwd, made.pointer) == (("true",), (), "/", "/process")
    assert made.capabilities is not None
    assert [getattr(made.capabilities, name) for name in SETS] == [0] * 5
    assert (made.rlimits, made.oom_score_adj, made.seccomp) == ((), None, None)
    assert not made.terminal and not made.no_new_privileges


def test_what_is_given() -> None:
    """Fields are taken over."""
    made = process(
        user={"uid": 5, "gid": 6, "umask": 0, "additionalGids": [7, 8]},
        env=["A=b", "C="],
        noNewPrivileges=True,
        oomScoreAdj=-3,
        terminal=True,
        consoleSize={"height": 24, "width": 80},
    )
    assert (made.uid, made.gid, made.additional_gids, made.umask) == (5, 6, (7, 8), 0)
    assert (made.env, made.no_new_privileges, made.oom_score_adj) == (("A=b", "C="), True, -3)
    assert (made.terminal, made.console_rows, made.console_columns) == (True, 24, 80)


def test_console_size_without_terminal() -> None:
    """config.md: it is ignored then."""
    assert process(consoleSize={"height": 24, "width": 80}).console_rows == 0


@pytest.mark.parametrize("name", ["uid", "gid"])
def test_id_that_is_not_mapped(name: str) -> None:
    """It is refused before anything is made, in a new user namespace and in the caller's own."""
    with pytest.raises(SpecError, match=f"{name} 5000 is not mapped") as caught:
        process(plans.USER, own_user=True, user={"uid": 0, "gid": 0, name: 5000})
    assert caught.value.pointer == f"/process/user/{name}"
    with pytest.raises(SpecError, match="not mapped"):
        process(plans.IN_PODMAN, user={"uid": 0, "gid": 0, name: 65537})
    assert process(plans.IN_PODMAN, user={"uid": 0, "gid": 0, name: 65536}).args == ("true",)


def test_ids_in_a_joined_user_namespace() -> None:
    """Its maps are not known here: the kernel judges."""
    made = plans.config(process={"user": {"uid": 5000, "gid": 0, "additionalGids": [5001]}})
    made["linux"]["namespaces"].append({"type": "user", "path": "/proc/1/ns/user"})
    planned = plans.make(made, plans.USER).process
    assert (planned.uid, planned.additional_gids) == (5000, (5001,))


def test_supplementary_group_that_is_not_mapped() -> None:
    """The pointer names the one."""
    with pytest.raises(SpecError) as caught:
        process(plans.IN_PODMAN, user={"uid": 0, "gid": 0, "additionalGids": [5, 70000]})
    assert caught.value.pointer == "/process/user/additionalGids/1"


def test_setgroups_denied() -> None:
    """Groups are left alone where setgroups(2) is denied; asking for some is an error."""
    facts = replace(plans.IN_PODMAN, setgroups_allowed=False)
    made = process(facts)
    assert (made.set_groups, made.additional_gids) == (False, ())
    with pytest.raises(UnsupportedError) as caught:
        process(facts, user={"uid": 0, "gid": 0, "additionalGids": [5]})
    assert caught.value.pointer == "/process/user/additionalGids"
    assert caught.value.hint
    assert process(plans.IN_PODMAN).set_groups


def test_keep_groups() -> None:
    """podman --group-add keep-groups: the caller's groups stay."""
    keep = {"run.oci.keep_original_groups": "1"}
    made = process(
        plans.IN_PODMAN, annotations=keep, user={"uid": 0, "gid": 0, "additionalGids": [5]}
    )
    assert (made.set_groups, made.additional_gids) == (False, ())


@pytest.mark.parametrize("name", SETS)
def test_capabilities_become_masks(name: str) -> None:
    """Bit N is capability N of capabilities(7); sets do not mix."""
    every = ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE"]
    sets = {name: every}
    if name == "effective":
        sets["permitted"] = every
    if name == "ambient":
        sets["permitted"] = sets["inheritable"] = every
    made = process(capabilities=sets).capabilities
    assert made is not None
    mask = 1 << 0 | 1 << 21 | 1 << 40
    assert {key: getattr(made, key) for key in SETS} == {
        key: mask if key in sets else 0 for key in SETS
    }


def test_capabilities_that_the_caller_does_not_hold() -> None:
    """Root of a machine that lacks one still runs containers; it is left out and noted."""
    lacking = plans.ALL_CAPABILITIES & ~(1 << CAPABILITIES["CAP_SYS_RESOURCE"])
    facts = replace(plans.ROOT, capabilities_effective=lacking, capabilities_permitted=lacking)
    names = ["CAP_SYS_RESOURCE", "CAP_KILL"]
    planned = plan(facts, capabilities={"bounding": names, "permitted": names})
    made = planned.process.capabilities
    assert made is not None
    assert (made.bounding, made.permitted) == (1 << 5, 1 << 5)
    [note] = planned.notes
    assert note.pointer == "/process/capabilities"
    assert "CAP_SYS_RESOURCE" in note.text and "CAP_KILL" not in note.text


def test_capabilities_in_a_new_user_namespace() -> None:
    """There all are held, as far as the kernel knows them."""
    facts = replace(plans.USER, last_capability=39)
    names = list(CAPABILITIES)
    planned = plan(facts, own_user=True, capabilities={"bounding": names})
    assert planned.process.capabilities is not None
    assert planned.process.capabilities.bounding == (1 << 40) - 1
    assert ["CAP_CHECKPOINT_RESTORE" in note.text for note in planned.notes] == [True]


@pytest.mark.parametrize("missing", ["permitted", "inheritable"])
def test_ambient_capabilities_need_two_other_sets(missing: str) -> None:
    """capabilities(7); what `crun spec` writes asks for what cannot be, so it is noted only."""
    sets = {
        name: ["CAP_KILL"] for name in ("permitted", "inheritable", "ambient") if name != missing
    }
    planned = plan(capabilities=sets)
    assert planned.process.capabilities is not None
    assert planned.process.capabilities.ambient == 0
    assert [note.pointer for note in planned.notes] == ["/process/capabilities/ambient"]


def test_effective_capabilities_must_be_permitted() -> None:
    """capset(2) would refuse."""
    planned = plan(capabilities={"effective": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]})
    assert planned.process.capabilities is not None
    assert planned.process.capabilities.effective == 1 << 5
    assert [note.pointer for note in planned.notes] == ["/process/capabilities/effective"]


@pytest.mark.parametrize("name", RLIMITS)
def test_resource_limits(name: str) -> None:
    """Every limit of setrlimit(2), by the kernel's number."""
    [limit] = process(rlimits=[{"type": name, "soft": 1, "hard": 2**64 - 1}]).rlimits
    assert (limit.name, limit.resource, limit.soft, limit.hard) == (
        name, RLIMITS[name], 1, plans.INFINITY
    )  # fmt: skip
    assert limit.pointer == "/process/rlimits/0"


def test_hard_limit_above_the_callers() -> None:
    """Only CAP_SYS_RESOURCE of the initial user namespace raises one."""
    asked = [
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 2000},
    ]
    limits = {RLIMITS["RLIMIT_NOFILE"]: 1999, RLIMITS["RLIMIT_CORE"]: plans.INFINITY}
    with pytest.raises(UnsupportedError, match="2000 is above the caller's 1999") as caught:
        process(replace(plans.IN_PODMAN, hard_limits=limits), rlimits=asked)
    assert caught.value.pointer == "/process/rlimits/1/hard"
    assert caught.value.hint
    assert len(process(replace(plans.ROOT, hard_limits=limits), rlimits=asked).rlimits) == 2
    limits[RLIMITS["RLIMIT_NOFILE"]] = 2000
    made = process(replace(plans.IN_PODMAN, hard_limits=limits), rlimits=asked)
    assert len(made.rlimits) == 2


NOFILE = RLIMITS["RLIMIT_NOFILE"]


@pytest.mark.parametrize("unsupported", ["warn", "ignore"])
@pytest.mark.parametrize(
    ("soft", "hard", "taken", "words"),
    [
        (10, 2000, (10, 1999), "hard limit 2000 is above the caller's 1999, which is taken"),
        (1999, plans.INFINITY, (1999, 1999), "hard limit unlimited is above"),
        (2000, 2000, (1999, 1999), "which is taken, the soft limit too, not 2000"),
    ],
)
def test_hard_limit_of_the_lenient(
    unsupported: str, soft: int, hard: int, taken: tuple[int, int], words: str
) -> None:
    """The caller's own hard limit is taken, the soft one stays unless it lies above; a note tells."""
    facts = replace(plans.IN_PODMAN, hard_limits={NOFILE: 1999})
    asked = {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": soft, "hard": hard}]}
    planned = plans.make(plans.config(process=asked), facts, unsupported=unsupported)
    [limit] = planned.process.rlimits
    assert (limit.soft, limit.hard) == taken
    [note] = planned.notes
    assert note.pointer == "/process/rlimits/0/hard" and words in note.text
    assert note.text.endswith("which is taken") or soft > 1999


def test_hard_limit_of_exec() -> None:
    """Its notes are for the log; pointers are those of the process file."""
    facts = replace(plans.USER, hard_limits={NOFILE: 64})
    asked = {
        "args": ["sh"],
        "cwd": "/",
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 128, "hard": 128}],
    }
    made, notes = maker.make_exec_process(plans.MINIMAL, asked, facts, unsupported="warn")
    assert [(limit.soft, limit.hard) for limit in made.rlimits] == [(64, 64)]
    assert [note.pointer for note in notes] == ["/rlimits/0/hard"]
    with pytest.raises(UnsupportedError):
        maker.make_exec_process(plans.MINIMAL, asked, facts)


def test_groups_of_the_lenient() -> None:
    """Where setgroups(2) is denied, supplementary groups are left out and noted."""
    facts = replace(plans.IN_PODMAN, setgroups_allowed=False)
    asked = plans.config(process={"user": {"uid": 0, "gid": 0, "additionalGids": [5]}})
    planned = plans.make(asked, facts, unsupported="warn")
    assert planned.process.additional_gids == ()
    assert [note.pointer for note in planned.notes] == ["/process/user/additionalGids"]
    with pytest.raises(UnsupportedError):
        plans.make(asked, facts, unsupported="error")


def test_unknown_capabilities() -> None:
    """config.md: they are warned of, and the container runs with the others."""
    names = ["CAP_FLY", "CAP_KILL"]
    planned = plan(capabilities={"bounding": names, "permitted": names})
    assert planned.process.capabilities is not None
    assert planned.process.capabilities.bounding == planned.process.capabilities.permitted == 1 << 5
    assert [("CAP_FLY" in note.text, "CAP_KILL" in note.text) for note in planned.notes] == [
        (True, False)
    ]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("apparmorProfile", "containers-default"),
        ("selinuxLabel", "system_u:system_r:container_t:s0"),
    ],
)
def test_what_is_not_supported(field: str, value: Any) -> None:
    """It is refused with its pointer, never ignored."""
    with pytest.raises(UnsupportedError) as caught:
        process(**{field: value})
    assert caught.value.pointer == f"/process/{field}"


@pytest.mark.parametrize(
    "members",
    [
        {"apparmorProfile": ""},
        {"apparmorProfile": "unconfined"},
        {"selinuxLabel": ""},
        {"execCPUAffinity": {}},
    ],
)
def test_what_asks_for_nothing(members: dict[str, Any]) -> None:
    """Empty fields are as good as none."""
    assert process(**members).args == ("true",)


def test_exec() -> None:
    """A process file is planned alike; its pointers start at the file's own top."""
    made, notes = maker.make_exec_process(
        plans.MINIMAL,
        {"args": ["sh"], "cwd": "/", "capabilities": {"ambient": ["CAP_KILL"]}},
        plans.USER,
    )
    assert (made.args, made.pointer, made.uid) == (("sh",), "", 0)
    assert [note.pointer for note in notes] == ["/capabilities/ambient"]
    with pytest.raises(SpecError) as caught:
        maker.make_exec_process(
            plans.MINIMAL,
            {"args": ["sh"], "cwd": "/", "user": {"uid": 3}},
            plans.USER,
            uids=(IdRange(container=0, host=1000, size=1),),
        )
    assert caught.value.pointer == "/user/uid"


def test_exec_has_the_containers_seccomp_profile() -> None:
    """Else exec would be a way around it."""
    profile = {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"]}
    config = plans.config(linux={"seccomp": profile})
    made, _ = maker.make_exec_process(config, {"args": ["sh"], "cwd": "/"}, plans.USER)
    assert made.seccomp is not None
    assert made.seccomp == plans.make(config).process.seccomp
