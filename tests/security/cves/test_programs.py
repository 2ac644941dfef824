"""CVEs of exec and of the program's beginning: capabilities, working directory, user."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless_pyoki.kernel import constants as c
from tests.security.attack import (
    SECRET,
    Outside,
    Victim,
    build_gate,
    inside,
    make_victim,
    versus,
)
from tests.security.weakened import GATE
from tests.support.bundles import Bundle

Make = Callable[..., Bundle]


def _give_inheritable(path: str) -> None:
    """File capabilities (capabilities(7)): +i of all, of the user namespace that we are in."""
    value = struct.pack("<IIIII", 0x02000000, 0, 0xFFFFFFFF, 0, 0x1FF)
    os.setxattr(path, "security.capability", value)


@versus("inheritable")
def test_cve_2022_29162_exec_gives_inheritable_capabilities(
    runtime: Victim, make_bundle: Make, identifier: str, all_ids: None
) -> None:
    """2022-29162, 2022-27650: with them a file that has inheritable ones makes a user powerful."""
    bundle = make_bundle()
    bundle.process["noNewPrivileges"] = False
    sets = bundle.process["capabilities"]
    sets["inheritable"] = sets["ambient"] = []
    file = bundle.rootfs / "home/grep"
    file.write_bytes((bundle.rootfs / "bin/busybox").read_bytes())
    file.chmod(0o755)
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    inside(runtime.state(identifier)["pid"], lambda: _give_inheritable("/home/grep"))
    result = runtime(
        "exec", "--cap", "CAP_NET_RAW", "--user", "1000:1000", identifier,
        "/home/grep", "-E", "CapInh|CapPrm", "/proc/self/status",
    )  # fmt: skip
    inheritable, permitted = (int(line.split()[1], 16) for line in result.out.splitlines())
    raw = 1 << c.CAP_NET_RAW
    assert (bool(inheritable & raw), bool(permitted & raw)) == (runtime.weak, runtime.weak)
    assert runtime.weak or (inheritable, permitted) == (0, 0)


@pytest.fixture
def stray(outside: Outside) -> Iterator[int]:
    """A directory of the host that the caller forgot to close."""
    fd = os.open(outside.path, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(fd, True)
    yield fd
    os.close(fd)


UNCHECKED = ("if (path[0] != '/')", "if (0)")
DEFENCES = ("descriptors_stay", "cwd_unchecked", "patched_gate")


def _behind_descriptors(
    runtime: Victim, bundle: Bundle, id: str, numbers: list[int], stray: int
) -> str:
    """What containers say that have these working directories, one after the other."""
    bundle.args("sh", "-c", "cat ./keep; cat ../../../../../../etc/hostname; true")
    said = ""
    for number in numbers:
        bundle.process["cwd"] = f"/proc/self/fd/{number}"
        result = runtime.run(f"{id}-{number}", bundle.write().path, pass_fds=[stray])
        said += result.out + result.err
    return said


@versus(*DEFENCES)
def test_cve_2024_21626_the_working_directory_is_a_descriptor(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path, stray: int
) -> None:
    """create: /proc/self/fd/N, for every N that may be open in there."""
    runtime.env[GATE] = str(build_gate(tmp_path, UNCHECKED)) if runtime.weak else ""
    numbers = [stray] if runtime.weak else [*range(3, 9), stray]
    said = _behind_descriptors(runtime, make_bundle(), identifier, numbers, stray)
    assert (SECRET in said) is runtime.weak, said
    assert runtime.weak or Path("/etc/hostname").read_text() not in said


@pytest.mark.parametrize("left", DEFENCES)
def test_cve_2024_21626_each_defence_is_enough(
    make_bundle: Make, state_root: Path, identifier: str, tmp_path: Path, stray: int, left: str
) -> None:
    """Two of the three are taken away, and the third still keeps the program inside."""
    names = tuple(name for name in DEFENCES if name != left)
    runtime = make_victim(state_root, True, names, [])
    if "patched_gate" in names:
        runtime.env[GATE] = str(build_gate(tmp_path, UNCHECKED))
    said = _behind_descriptors(runtime, make_bundle(), identifier, [stray], stray)
    assert SECRET not in said


@versus(*DEFENCES)
def test_cve_2024_21626_the_working_directory_of_exec_is_a_descriptor(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path, stray: int
) -> None:
    """exec --cwd, and a link of the image to it."""
    runtime.env[GATE] = str(build_gate(tmp_path, UNCHECKED)) if runtime.weak else ""
    bundle = make_bundle()
    (bundle.rootfs / "link").symlink_to(f"/proc/self/fd/{stray}")
    runtime.run(identifier, bundle.path, "--detach").ok()
    said = ""
    numbers = [stray] if runtime.weak else [*range(3, 9), stray]
    for place in ("/link", *[f"/proc/self/fd/{n}" for n in numbers]):
        result = runtime("exec", "--cwd", place, identifier, "cat", "./keep", pass_fds=[stray])
        said += result.out + result.err
        assert result.code == 0 or not result.out
    assert (said.count(SECRET) == 2) is runtime.weak, said
    assert runtime.weak or SECRET not in said


SPELLINGS = ("4294967296", "-1", " 1", "0x1", "1_0", "\u0661", ":1", "1:")


@versus("lax_numbers")
def test_cve_2026_30892_the_user_of_exec_is_misread(
    runtime: Victim, make_bundle: Make, identifier: str, all_ids: None
) -> None:
    """What is not plainly a number is refused; what is one means that user, and not uid 0."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    became = {}
    for text in SPELLINGS if not runtime.weak else SPELLINGS[:1]:
        result = runtime("exec", f"--user={text}", identifier, "id", "-u")
        became[text] = result.out
        assert result.code != 0 or runtime.weak, text
    assert (became["4294967296"] == "0\n") is runtime.weak
    assert runtime.weak or set(became.values()) == {""}
    for text, meant in (("1", "1 0"), ("1000:5", "1000 5")) if not runtime.weak else ():
        words = ("sh", "-c", "echo $(id -u) $(id -g)")
        assert runtime("exec", "--user", text, identifier, *words).ok().out == f"{meant}\n"
