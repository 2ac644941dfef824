"""What a profile compiles to, and which profiles are refused, where."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import PyokiError, SpecError, UnsupportedError
from rootless_pyoki.plan import bpf as compiler
from rootless_pyoki.plan import seccomp, seccomp_abi
from rootless_pyoki.plan.plan import Agent
from tests.seccomp import bpf, profiles

ALLOW, KILL_THREAD, EPERM, ENOSYS = 0x7FFF0000, 0, 0x50001, 0x50026
X86_64, X86 = 0xC000003E, 0x40000003
ZERO = (0,) * 6


def rule(names: str, action: str = "ALLOW", *args: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    """An entry of `syscalls`; args as (index, operator, value[, valueTwo])."""
    group: dict[str, Any] = {"names": names.split(), "action": f"SCMP_ACT_{action}", **more}
    if args:
        keys = ("index", "op", "value", "valueTwo")
        group["args"] = [dict(zip(keys, arg, strict=False)) for arg in args]
        for arg in group["args"]:
            arg["op"] = f"SCMP_CMP_{arg['op']}"
    return group


def profile(*groups: dict[str, Any], default: str = "ERRNO", **more: Any) -> dict[str, Any]:
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(groups), **more}


def verdict(given: dict[str, Any], name: str, *arguments: int, table: str = "x86_64") -> int:
    """The verdict for a call by name, on x86_64's or x86's table."""
    program = seccomp.compile(given, arch="x86_64").program
    assert bpf.check(program) == -1
    token = X86 if table == "x86" else X86_64
    vector = (*arguments, *ZERO)[:6]
    return bpf.run(program, token, [seccomp_abi.numbers(table)[name]], [vector])[0]


def test_default_and_named() -> None:
    """A named call gets its action, all else the default."""
    given = profile(rule("read write"), defaultErrnoRet=38)
    assert verdict(given, "read") == ALLOW
    assert verdict(given, "open") == ENOSYS


def test_empty_profile_is_its_default() -> None:
    """Only defaultAction is required; errno defaults to EPERM."""
    assert verdict({"defaultAction": "SCMP_ACT_ERRNO"}, "read") == EPERM


@pytest.mark.parametrize(
    "action, value",
    [
        ("KILL", 0),
        ("KILL_THREAD", 0),
        ("KILL_PROCESS", 0x80000000),
        ("TRAP", 0x30000),
        ("ERRNO", 0x50001),
        ("TRACE", 0x7FF00001),
        ("LOG", 0x7FFC0000),
        ("ALLOW", 0x7FFF0000),
        ("NOTIFY", 0x7FC00000),
    ],
)
def test_actions(action: str, value: int) -> None:
    """Every action of the specification returns the kernel's word for it."""
    default = "ERRNO" if action == "ALLOW" else "ALLOW"
    given = profile(rule("read", action), default=default, listenerPath="/run/agent.sock")
    assert verdict(given, "read") == value


@pytest.mark.parametrize(
    "operator, holds",
    [
        ("NE", [True, True, False, True, True]),
        ("LT", [True, True, False, False, False]),
        ("LE", [True, True, True, False, False]),
        ("EQ", [False, False, True, False, False]),
        ("GE", [False, False, True, True, True]),
        ("GT", [False, False, False, True, True]),
    ],
)
def test_operators_compare_64_bits(operator: str, holds: list[bool]) -> None:
    """Below, just below, equal, just above, and above in the high half."""
    value = 0x5_0000_0007
    given = profile(rule("read", "ALLOW", (3, operator, value)))
    tried = (0x4_FFFF_FFFF, value - 1, value, value + 1, 0x6_0000_0000)
    found = [verdict(given, "read", 0, 0, 0, one) == ALLOW for one in tried]
    assert found == holds


def test_masked_equality() -> None:
    """value is the mask, valueTwo what must be left."""
    given = profile(rule("clone", "ALLOW", (0, "MASKED_EQ", 0x7E020000, 0)))
    assert verdict(given, "clone", 0x11) == ALLOW
    assert verdict(given, "clone", 0x10000011) == EPERM
    assert verdict(given, "clone", 1 << 40) == ALLOW


def test_conditions_inside_a_rule_must_all_hold() -> None:
    """Different arguments are AND'ed."""
    given = profile(rule("socket", "ALLOW", (0, "EQ", 2), (1, "EQ", 1)))
    assert verdict(given, "socket", 2, 1) == ALLOW
    assert verdict(given, "socket", 2, 3) == EPERM


def test_conditions_on_one_argument_are_alternatives() -> None:
    """runc and crun make two rules of them."""
    given = profile(rule("personality", "ALLOW", (0, "EQ", 0), (0, "EQ", 8)))
    assert [verdict(given, "personality", value) for value in (0, 8, 4)] == [ALLOW, ALLOW, EPERM]


def test_unconditional_beats_conditional() -> None:
    """Wherever in the profile it stands; of two unconditional ones the first holds."""
    conditional = rule("socket", "ERRNO", (0, "EQ", 16), errnoRet=22)
    for groups in ([conditional, rule("socket")], [rule("socket"), conditional]):
        assert verdict(profile(*groups), "socket", 16) == ALLOW
    assert verdict(profile(rule("read"), rule("read", "KILL")), "read") == ALLOW


def test_what_equals_the_default_is_skipped() -> None:
    """A rule with the default's action and errno changes nothing, even for a listed call."""
    given = profile(rule("read", "ERRNO", errnoRet=1), rule("read"))
    assert verdict(given, "read") == ALLOW


def test_unknown_names_are_skipped_and_told() -> None:
    """Profiles list calls of kernels to come, and of other architectures."""
    given = profile(rule("read not_yet_a_call set_tls"))
    assert verdict(given, "read") == ALLOW
    assert seccomp.unknown_names(given, arch="x86_64") == ["not_yet_a_call", "set_tls"]


def test_other_architectures_kill() -> None:
    """Not listed: the thread dies, whatever the default."""
    program = seccomp.compile(profile(default="ALLOW"), arch="x86_64").program
    assert bpf.run(program, X86, [3], [ZERO]) == [KILL_THREAD]
    listed = seccomp.compile(
        profile(default="ALLOW", architectures=["SCMP_ARCH_X86"]), arch="x86_64"
    )
    assert bpf.run(listed.program, X86, [3], [ZERO]) == [ALLOW]
    assert bpf.run(listed.program, X86_64, [3], [ZERO]) == [ALLOW]


def test_x32_numbers() -> None:
    """A bad architecture unless listed; -1 (a call that a tracer skips) gets the default."""
    numbers = [0x3FFFFFFF, 0x40000000, 0xFFFFFFFE, 0xFFFFFFFF]
    alone = seccomp.compile(profile(rule("read")), arch="x86_64").program
    assert bpf.run(alone, X86_64, numbers, [ZERO]) == [EPERM, KILL_THREAD, KILL_THREAD, EPERM]
    both = seccomp.compile(profile(rule("read"), architectures=["SCMP_ARCH_X32"]), arch="x86_64")
    assert bpf.run(both.program, X86_64, numbers, [ZERO]) == [EPERM, ALLOW, EPERM, EPERM]


def test_x32_without_x86_64() -> None:
    """On an i686 machine X32 may be listed alone: then x86_64 numbers are the bad ones."""
    given = profile(rule("read"), architectures=["SCMP_ARCH_X32"])
    program = seccomp.compile(given, arch="i686").program
    found = bpf.run(program, X86_64, [0, 0x3FFFFFFF, 0x40000000, 0x40000001], [ZERO])
    assert found == [KILL_THREAD, KILL_THREAD, ALLOW, EPERM]


def test_multiplexed_calls() -> None:
    """On x86 a rule for `socket` also covers socketcall(SOCKET), one for `shmget` ipc(SHMGET)."""
    given = profile(rule("socket shmget"), architectures=["SCMP_ARCH_X86"])
    assert verdict(given, "socket", table="x86") == ALLOW
    assert verdict(given, "socketcall", 1, table="x86") == ALLOW
    assert verdict(given, "socketcall", 2, table="x86") == EPERM
    assert verdict(given, "ipc", 23, table="x86") == ALLOW
    assert verdict(given, "ipc", 24, table="x86") == EPERM


def test_32_bit_architectures_compare_the_low_half() -> None:
    """The high half of a value in the profile is dropped, as libseccomp does."""
    given = profile(rule("read", "ALLOW", (0, "EQ", 1 << 32 | 5)), architectures=["SCMP_ARCH_X86"])
    assert verdict(given, "read", 5, table="x86") == ALLOW
    assert verdict(given, "read", 5) == EPERM


def test_flags() -> None:
    """Without a list SPEC_ALLOW as runc and crun; an empty list means none."""
    compiled = seccomp.compile(profile(), arch="x86_64")
    assert (compiled.flags, compiled.agent) == (4, None)
    assert seccomp.compile(profile(flags=[]), arch="x86_64").flags == 0
    both = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"]
    assert seccomp.compile(profile(flags=both), arch="x86_64").flags == 3


def test_notify() -> None:
    """A listener is asked for; with TSYNC the kernel wants TSYNC_ESRCH too."""
    more = {"listenerPath": "/run/agent.sock", "flags": ["SECCOMP_FILTER_FLAG_TSYNC"]}
    compiled = seccomp.compile(profile(rule("mkdir", "NOTIFY"), **more), arch="x86_64")
    assert compiled.agent == Agent(
        path="/run/agent.sock", metadata="", pointer="/linux/seccomp/listenerPath"
    )
    assert compiled.flags == 1 | 8 | 16


def test_a_receiver_is_for_a_profile_without_listener_path() -> None:
    """Another name for the agent counts where listenerPath is missing, and has its own pointer."""
    receiver = ("/run/other", "/annotations/x")
    for more, path, pointer in (
        ({}, "/run/other", "/annotations/x"),
        ({"listenerPath": "/run/agent"}, "/run/agent", "/linux/seccomp/listenerPath"),
    ):
        given = profile(rule("mkdir", "NOTIFY"), **more)
        agent = seccomp.compile(given, arch="x86_64", receiver=receiver).agent
        assert agent == Agent(path=path, metadata="", pointer=pointer)
    with pytest.raises(SpecError) as caught:
        seccomp.compile(profile(rule("mkdir", "NOTIFY")), arch="x86_64", receiver=("a", "/b"))
    assert caught.value.pointer == "/b"


def bad(*path: str, **changes: Any) -> tuple[dict[str, Any], str]:
    return {**profile(rule("read")), **changes}, "/linux/seccomp" + "".join(path)


NOTIFY = {"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}
ARG = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}


def with_arg(**changes: Any) -> list[dict[str, Any]]:
    return [{**rule("read"), "args": [{**ARG, **changes}]}]


@pytest.mark.parametrize(
    "given, pointer",
    [
        bad("/defaultAction", defaultAction=None),
        bad("/defaultAction", defaultAction="SCMP_ACT_PERHAPS"),
        bad("/defaultAction", defaultAction="SCMP_ACT_NOTIFY"),
        bad("/defaultAction", defaultAction=7),
        bad("/defaultErrnoRet", defaultAction="SCMP_ACT_KILL", defaultErrnoRet=1),
        bad("/defaultErrnoRet", defaultErrnoRet=-1),
        bad("/defaultErrnoRet", defaultErrnoRet=1 << 16),
        bad("/architectures/1", architectures=["SCMP_ARCH_X86", "SCMP_ARCH_VAX"]),
        bad("/architectures/0", architectures=["SCMP_ARCH_S390X"]),
        bad("/architectures", architectures="SCMP_ARCH_X86"),
        bad("/flags/0", flags=["SECCOMP_FILTER_FLAG_NEW"]),
        bad("/flags/0", flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]),
        bad("/listenerMetadata", listenerMetadata="x"),
        bad("/syscalls", syscalls={}),
        bad("/syscalls/0", syscalls=["read"]),
        bad("/syscalls/0/names", syscalls=[rule("")]),
        bad("/syscalls/0/names", syscalls=[{**rule("read"), "names": [3]}]),
        bad("/syscalls/0/action", syscalls=[rule("read", "MAYBE")]),
        bad("/syscalls/0/errnoRet", syscalls=[rule("read", errnoRet=1)]),
        bad("/syscalls/0/args/0/index", syscalls=with_arg(index=6)),
        bad("/syscalls/0/args/0/index", syscalls=with_arg(index=True)),
        bad("/syscalls/0/args/0/value", syscalls=with_arg(value=1 << 64)),
        bad("/syscalls/0/args/0/value", syscalls=with_arg(value=-1)),
        bad("/syscalls/0/args/0/op", syscalls=with_arg(op="SCMP_CMP_LIKE")),
        bad(
            "/syscalls/0/args/0/valueTwo", syscalls=with_arg(op="SCMP_CMP_MASKED_EQ", valueTwo="1")
        ),
        bad("/syscalls/0/args", syscalls=[{**rule("read"), "args": {"index": 0}}]),
        bad("/listenerPath", syscalls=[NOTIFY]),
        bad("/listenerPath", syscalls=[NOTIFY], listenerPath="agent.sock"),
        bad("/syscalls/0/names/1", syscalls=[NOTIFY], listenerPath="/run/agent.sock"),
    ],
)
def test_what_cannot_be_is_refused_where_it_stands(given: dict[str, Any], pointer: str) -> None:
    """A SpecError or UnsupportedError with the JSON pointer of the field."""
    with pytest.raises(PyokiError) as caught:
        seccomp.compile(given, arch="x86_64")
    assert isinstance(caught.value, SpecError | UnsupportedError)
    assert caught.value.pointer == pointer
    message = caught.value.message
    assert not message.endswith(".")


@pytest.mark.parametrize(
    "second",
    [
        rule("socket", "KILL", (0, "EQ", 2)),
        rule("socket", "KILL", (0, "EQ", 2), (2, "EQ", 0)),
    ],
)
def test_contradictions(second: dict[str, Any]) -> None:
    """Same conditions, other action; and a general rule after a special one, other action."""
    first = rule("socket", "ALLOW", (0, "EQ", 2), (2, "EQ", 0))
    general = rule("socket", "ALLOW", (0, "EQ", 2))
    groups = (general, second) if len(second["args"]) == 1 else (first, second)
    with pytest.raises(SpecError) as caught:
        seccomp.compile(profile(*groups), arch="x86_64")
    assert caught.value.pointer == "/linux/seccomp/syscalls/1"


def test_unknown_machine() -> None:
    """A machine without seccomp filters is not our fault, and not silently unfiltered."""
    with pytest.raises(UnsupportedError):
        seccomp.compile(profile(), arch="vax")


def test_too_long_for_the_kernel() -> None:
    """More than 4096 instructions are refused here, not by the kernel with EINVAL."""
    names = [name for name in seccomp_abi.numbers("x86_64") if name != "write"]
    groups = [
        rule(name, "ALLOW", *((index, "GT", number) for index in range(4)))
        for number, name in enumerate(names)
    ]
    with pytest.raises(UnsupportedError, match=r"needs \d+ instructions, the kernel takes 4096"):
        seccomp.compile(profile(*groups), arch="x86_64")


def test_shared_conditions_are_written_once() -> None:
    """400 calls with one condition fit: the chain of rules is there once."""
    names = " ".join(seccomp_abi.numbers("x86_64"))
    given = profile(rule(names, "ALLOW", (5, "LT", 9)))
    program = seccomp.compile(given, arch="x86_64").program
    assert len(program) // 8 < 100
    assert verdict(given, "read", 0, 0, 0, 0, 0, 8) == ALLOW


def test_far_jumps() -> None:
    """A tree whose halves are longer than 255 instructions: another verdict on every number."""
    ranges: list[tuple[int, compiler.Verdict]] = [(n, EPERM + n % 7) for n in range(2000)]
    program = compiler.assemble([(X86_64, ranges)], default=ALLOW, bad_arch=0, big=False)
    assert bpf.check(program) == -1
    found = bpf.run(program, X86_64, range(2001), [ZERO])
    assert found == [EPERM + n % 7 for n in range(2000)] + [EPERM + 1999 % 7]
    assert bpf.run(program, X86, [5], [ZERO]) == [0]


def test_big_endian_programs() -> None:
    """s390x: the instructions and the halves of an argument are in its byte order."""
    given = profile(rule("read", "ALLOW", (1, "EQ", 1 << 32)))
    program = seccomp.compile(given, arch="s390x").program
    assert program[:8] == bytes.fromhex("0020000000000004")
    token = seccomp_abi.architecture("SCMP_ARCH_S390X").token
    ours = bpf.in_our_order(program, big=True)
    found = bpf.run(ours, token, [3], [(0, 1 << 32, 0, 0, 0, 0), (0, 1, 0, 0, 0, 0)], big=True)
    assert found == [ALLOW, EPERM]


def test_known_words() -> None:
    """What `features` tells: sorted, and each of them compiles."""
    assert len(seccomp.known_actions()) == 9
    assert len(seccomp.known_operators()) == 7
    assert len(seccomp.known_flags()) == 4
    assert all(name.startswith("SCMP_ARCH_") for name in seccomp.known_architectures())


@pytest.mark.skipif(not profiles.PODMAN.exists(), reason="needs podman's profile")
def test_podmans_profile_is_cheap() -> None:
    """Few instructions, and few modules are loaded: the rare tables stay out."""
    given = profiles.podman()
    assert len(seccomp.compile(given, arch="x86_64").program) // 8 < 700
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n"
        "before = set(sys.modules)\n"
        "from rootless_pyoki.plan import seccomp\n"
        f"seccomp.compile({given!r}, arch='x86_64')\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.startswith("rootless_pyoki")}
    assert loaded - ours <= {"errno", "__future__"}
    assert "rootless_pyoki.plan.syscall_numbers_rare" not in ours
