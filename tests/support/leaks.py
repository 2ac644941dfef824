"""What a runtime may leave behind, counted: processes, mounts, cgroups, state files, fds.

The test process makes itself a subreaper (prctl(2)), so that everything that was ever started by it
and has lost its parent becomes its child: whoever descends from us counts, in any namespace.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import needs

PR_SET_CHILD_SUBREAPER = 36

Snapshot = dict[str, set[str]]


def become_subreaper() -> None:
    """Orphans of our descendants become our children."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _stat(pid: int) -> tuple[str, str, int] | None:
    """(name, state letter, parent) from proc_pid_stat(5), None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    head, _, tail = text.rpartition(")")
    words = tail.split()
    return head.partition("(")[2], words[0], int(words[1])


def children() -> set[int]:
    """Our own children, zombies too: as a subreaper we may have orphans of earlier tests."""
    return {pid for pid, (_, _, parent) in _processes().items() if parent == os.getpid()}


def reap() -> None:
    """Wait for orphans of ours that have ended: nobody else will."""
    for pid, (_, state, parent) in _processes().items():
        if parent == os.getpid() and state == "Z":
            try:
                os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:
                continue


def _processes() -> dict[int, tuple[str, str, int]]:
    found = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _stat(int(name))) is not None:
            found[int(name)] = stat
    return found


def processes() -> set[str]:
    """Everybody who descends from us and lives, as "PID name command line"."""
    everybody = _processes()
    children: dict[int, list[int]] = {}
    for pid, (_, _, parent) in everybody.items():
        children.setdefault(parent, []).append(pid)
    found = set()
    pending = list(children.get(os.getpid(), ()))
    while pending:
        pid = pending.pop()
        pending.extend(children.get(pid, ()))
        name, state, _ = everybody[pid]
        if state in "ZX":
            continue
        try:
            command = (
                Path(f"/proc/{pid}/cmdline")
                .read_bytes()
                .replace(b"\0", b" ")
                .decode("utf-8", "replace")
            )
        except OSError:
            continue
        found.add(f"{pid} ({name}) {command}".strip())
    return found


def mounts() -> set[str]:
    """The lines of mountinfo without their ids, which the kernel deals out anew."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return {" ".join(line.split()[3:]) for line in lines}


def cgroups() -> set[str]:
    """The directories of the delegated subtree."""
    directory = needs.delegated_cgroup()
    if directory is None or directory == Path("/sys/fs/cgroup/unified"):
        own = directory
        if own is None:
            return set()
        # the machine's own root: others live here too, so only what the tests could have made
        return {str(path) for path in own.iterdir() if path.is_dir()}
    return {str(path) for path, _, _ in os.walk(directory)}


def files(roots: Iterable[Path]) -> set[str]:
    """Everything below these directories; a runtime's empty state root does not count."""
    return {
        os.path.join(path, name)
        for root in roots
        for path, directories, names in os.walk(root)
        for name in (*directories, *names)
    }


def descriptors() -> set[str]:
    """Our own open files: a test that leaks them hides what the runtime leaks."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the directory that listdir itself had open
    return found


def snapshot(roots: Iterable[Path] = ()) -> Snapshot:
    """Everything at once."""
    return {
        "process": processes(),
        "mount": mounts(),
        "cgroup": cgroups(),
        "file": files(roots),
        "fd": descriptors(),
    }


def more(before: Snapshot, after: Snapshot) -> list[str]:
    """What is there now and was not before, and mounts that have gone; a line each."""
    found = []
    for kind in before:
        found += [f"{kind} left: {item}" for item in sorted(after[kind] - before[kind])]
    found += [f"mount gone: {item}" for item in sorted(before["mount"] - after["mount"])]
    return found


def settle(before: Snapshot, roots: Iterable[Path] = (), patience: float = 2.0) -> list[str]:
    """What is left when `patience` seconds have passed, or [] as soon as nothing is.

    What a runtime has killed dies soon, but not before the runtime's own return.
    """
    roots = list(roots)
    deadline = time.monotonic() + patience
    while True:
        reap()
        found = more(before, snapshot(roots))
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.02)


@contextmanager
def nothing_left(roots: Iterable[Path] = (), patience: float = 2.0) -> Iterator[Snapshot]:
    """Fail with a readable list when the block leaves anything behind."""
    roots = list(roots)
    reap()
    before = snapshot(roots)
    yield before
    found = settle(before, roots, patience)
    assert not found, "left behind:\n  " + "\n  ".join(found)
