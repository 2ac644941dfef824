"""System call numbers and architecture tokens, against the kernel's headers and libseccomp."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rootless_pyoki.plan import seccomp_abi
from tests.seccomp import oracle

GENERATOR = Path(__file__).resolve().parents[1] / "generate" / "syscall_numbers.py"
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def test_every_architecture_has_its_table() -> None:
    """All 23 of the specification; no table is empty, no number is given twice without reason."""
    assert len(seccomp_abi.known_architectures()) == 23
    for name in seccomp_abi.known_architectures():
        architecture = seccomp_abi.architecture(name)
        assert architecture is not None
        numbers = seccomp_abi.numbers(architecture.table)
        assert len(numbers) > 300
        assert {"read", "execve", "exit_group", "seccomp", "fchmodat2"} <= set(numbers)
        assert "-" not in numbers
        twice = len(numbers) - len(set(numbers.values()))
        assert twice == (1 if architecture.table == "arm" else 0)
        assert architecture.multiplexed == ("socketcall" in numbers)


@needs_cc
def test_the_tables_are_what_the_generator_makes() -> None:
    """From the headers that are installed; tables without headers stay as they are."""
    spec = importlib.util.spec_from_file_location("syscall_numbers_generator", GENERATOR)
    assert spec is not None and spec.loader is not None
    generator = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generator)
    texts, fresh = generator.generate([Path("/")])
    if not fresh:
        pytest.skip("needs linux-libc-dev")
    for module, text in texts.items():
        assert (generator.PLAN / module).read_text() == text


@pytest.mark.skipif(oracle.library() is None, reason="needs libseccomp")
def test_libseccomp_numbers_calls_alike() -> None:
    """A name that libseccomp places on an architecture has that number here, and the reverse."""
    later = {name for name, number in seccomp_abi.numbers("aarch64").items() if number > 450}
    later |= {"uretprobe", "uprobe", "riscv_hwprobe", "memfd_secret"}
    compared = 0
    for name in seccomp_abi.known_architectures():
        if not oracle.knows(name):
            continue
        for call, number in seccomp_abi.numbers(seccomp_abi.architecture(name).table).items():
            theirs = oracle.resolve(call, name)
            if theirs >= 0:
                assert theirs == number, (name, call)
                compared += 1
            else:  # it has not heard of it, or reaches it through socketcall and ipc
                hidden = call in seccomp_abi.SOCKET_CALLS or call in seccomp_abi.IPC_CALLS
                alias = call in ("sync_file_range2", "cacheflush", "_llseek")
                assert hidden or alias or call in later, (name, call, theirs)
    assert compared > 5000


@needs_cc
def test_tokens_are_the_headers() -> None:
    """AUDIT_ARCH_* of linux/audit.h, as the compiler evaluates them."""
    names = {
        name: "AUDIT_ARCH_" + name.removeprefix("SCMP_ARCH_")
        for name in seccomp_abi.known_architectures()
    }
    names["SCMP_ARCH_X86"] = "AUDIT_ARCH_I386"
    names["SCMP_ARCH_X32"] = "AUDIT_ARCH_X86_64"
    names["SCMP_ARCH_SH"], names["SCMP_ARCH_SHEB"] = "AUDIT_ARCH_SHEL", "AUDIT_ARCH_SH"
    source = "#include <linux/audit.h>\n" + "\n".join(
        f'_Static_assert({macro} == {seccomp_abi.architecture(name).token}u, "{name}");'
        for name, macro in names.items()
    )
    command = ["cc", "-x", "c", "-fsyntax-only", "-"]
    done = subprocess.run(command, input=source, text=True, capture_output=True)
    if "audit.h" in done.stderr:
        pytest.skip("needs linux-libc-dev")
    assert done.returncode == 0, done.stderr


@needs_cc
def test_actions_and_flags_are_the_headers() -> None:
    """SECCOMP_RET_* and SECCOMP_FILTER_FLAG_* of linux/seccomp.h."""
    actions = {
        "SCMP_ACT_KILL": "SECCOMP_RET_KILL",
        "SCMP_ACT_NOTIFY": "SECCOMP_RET_USER_NOTIF",
    }
    lines = ["#include <linux/seccomp.h>"]
    for name, value in seccomp_abi.ACTIONS.items():
        macro = actions.get(name, name.replace("SCMP_ACT_", "SECCOMP_RET_"))
        lines.append(f'_Static_assert({macro} == {value}u, "{name}");')
    for name, value in seccomp_abi.FLAGS.items():
        lines.append(f'_Static_assert({name} == {value}u, "{name}");')
    lines.append('_Static_assert(SECCOMP_FILTER_FLAG_NEW_LISTENER == 8u, "");')
    lines.append('_Static_assert(SECCOMP_FILTER_FLAG_TSYNC_ESRCH == 16u, "");')
    command = ["cc", "-x", "c", "-fsyntax-only", "-"]
    done = subprocess.run(command, input="\n".join(lines), text=True, capture_output=True)
    assert done.returncode == 0, done.stderr


def test_this_machine_has_an_architecture() -> None:
    """uname's word for the machine is known, and its getpid has the number that works here."""
    name = seccomp_abi.native(os.uname().machine, "little")
    assert re.fullmatch(r"SCMP_ARCH_\w+", name)


def test_machines_whose_name_does_not_tell_all() -> None:
    """32-bit x86 and Arm have many names; mips has one for both byte orders."""
    assert {seccomp_abi.native(f"i{n}86", "little") for n in "3456"} == {"SCMP_ARCH_X86"}
    assert seccomp_abi.native("armv7l", "little") == "SCMP_ARCH_ARM"
    assert seccomp_abi.native("mips", "big") == "SCMP_ARCH_MIPS"
    assert seccomp_abi.native("mips64", "little") == "SCMP_ARCH_MIPSEL64"
    assert seccomp_abi.native("vax", "little") == ""
