"""The weaknesses that have nothing to do with paths: procfs, cgroups, processes, what exec is told."""

from __future__ import annotations

import os
import sys
from typing import Any, NoReturn

from rootless_pyoki.apply import idmap, mounting, process
from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.processes import channel, ends, gate, join
from rootless_pyoki.record import replace
from tests.security import weakened
from tests.security.weakened import GATE, weakness

# ---- procfs and cgroups ----


@weakness
def procfs_by_name() -> None:
    """Settings are written to what the container has at /proc."""

    def write(fd: int, path: str, data: bytes) -> None:
        opened = syscalls.openat(c.AT_FDCWD, f"{weakened.root}/proc/{path}", c.O_WRONLY)
        syscalls.write(opened, data)

    procfs.write = write
    # exec's are written after it has joined
    take_ids, set_score = join._take_ids, process.set_oom_score_adj
    asked: list[Any] = []

    def remember(*arguments: Any) -> None:
        asked.append(arguments)

    def score_and_take_ids(target: Any) -> None:
        for arguments in asked:
            set_score(*arguments)
        take_ids(target)

    if "exec" in sys.argv:
        process.set_oom_score_adj, join._take_ids = remember, score_and_take_ids


@weakness
def cgroups_writable() -> None:
    set_attributes = mounting.set_attributes

    def set_others(tree: int, attr_set: int, attr_clear: int = 0, **how: bool) -> None:
        set_attributes(tree, attr_set & ~c.MOUNT_ATTR_RDONLY, attr_clear, **how)

    mounting.set_attributes = set_others


# ---- processes ----


@weakness
def dumpable() -> None:
    """Nobody makes itself undumpable; the gate does it in C, out of reach of this patch."""
    prctl = syscalls.prctl

    def all_but_one(option: int, *arguments: int) -> int:
        return 0 if option == c.PR_SET_DUMPABLE else prctl(option, *arguments)

    syscalls.prctl = all_but_one


@weakness
def gate_file() -> None:
    """The gate is executed from a file of the user's, as a runtime that executes itself would be."""
    path = os.environ[GATE]
    gate.make_memfd = lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC)


@weakness
def patched_gate() -> None:
    """Another gate, built from patched sources (attack.build_gate), from a memfd as ever."""
    path = os.environ[GATE]
    gate.image_path = lambda: path


@weakness
def label_asked() -> None:
    """The gate is to write a label, below whatever is called /proc in the container."""
    become = gate.become

    def become_labelled(fd: int, record: Any, argv: Any, envp: Any) -> NoReturn:
        proc = syscalls.openat(c.AT_FDCWD, "/proc", c.O_PATH | c.O_DIRECTORY)
        become(fd, replace(record, label=("exec", b"label"), proc_dir=proc), argv, envp)

    gate.become = become_labelled


@weakness
def no_gate() -> None:
    """The interpreter itself waits in the container, and becomes the program."""

    def become(fd: int, record: Any, argv: Any, envp: Any) -> NoReturn:
        channel.send(record.channel, b"R")
        while channel.receive(record.channel)[0] != b"G":
            pass
        environment = dict(entry.split("=", 1) for entry in envp)
        os.execve(record.path, list(argv), environment)

    gate.become = become


@weakness
def descriptors_stay() -> None:
    """What the caller had open stays open until the program runs."""
    ends.Ends.shed = lambda self, *channels: None
    fds.cloexec_from = lambda first: None


@weakness
def cwd_unchecked() -> None:
    """The working directory is whatever chdir(2) makes of it."""

    def enter(fd: int, program: Any) -> bool:
        try:
            syscalls.chdir(program.cwd)
        except SyscallError:
            return False  # exec's process has no /proc/self in there yet: the gate tries again
        return True

    process.enter_cwd = enter


@weakness
def inheritable() -> None:
    """What exec adds is inheritable too."""
    from rootless_pyoki.lifecycle import exec_request

    add = exec_request._add_capabilities

    def add_everywhere(base: dict[str, Any], names: list[str]) -> dict[str, Any]:
        sets = add(base, names)
        sets["inheritable"] = list(sets["permitted"])
        return sets

    exec_request._add_capabilities = add_everywhere


@weakness
def lax_numbers() -> None:
    """As strtol(3) reads, and 32 bits of it."""
    from rootless_pyoki.cli import grammar

    def number(name: str, text: str) -> int:
        text = text.strip()
        sign = -1 if text.startswith("-") else 1
        digits = ""
        for letter in text.lstrip("+-"):
            if letter not in "0123456789":
                break
            digits += letter
        return sign * int(digits or 0) & 0xFFFFFFFF

    convert = grammar._convert

    def convert_users(kind: Any, name: str, value: Any) -> Any:
        if kind == grammar.USER:
            return ":".join(str(number(name, part)) for part in value.split(":"))
        return convert(kind, name, value)

    grammar._convert = convert_users


@weakness
def short_lengths() -> None:
    """Lengths in the gate's record have 16 bits, as those of a netlink attribute."""
    gate._blob = lambda data: gate._u32(len(data) & 0xFFFF) + data


@weakness
def groups_not_denied() -> None:
    write_maps = idmap.write_maps

    def write(proc: int, pid: int, plan: Any) -> None:
        write_maps(proc, pid, replace(plan, deny_setgroups=False))

    idmap.write_maps = write
