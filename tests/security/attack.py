"""What the attacks of these tests are made of: a victim outside, a swapper, a process inside."""

from __future__ import annotations

import ctypes
import os
import pickle
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.kernel import syscalls
from rootless_pyoki.native import build
from tests.security import weakened
from tests.support.runtime import Runtime

RENAME_EXCHANGE = 2
AT_FDCWD = -100
BURST = 301  # odd: the rest finds now the one, now the other in place
NEWNS, NEWUSER, NEWPID, NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
SECRET = "the host's own words"


class Victim(Runtime):
    """A runtime, and whether a defence of its has been taken away."""

    weak = False


def versus(*weaknesses: str, always: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Run the test with pyoki as it is, and with these defences patched away (`runtime.weak`).

    always: patches of both, which weaken nothing.
    """
    return pytest.mark.parametrize(
        "runtime",
        [(False, always), (True, (*always, *weaknesses))],
        ids=["real", "weakened"],
        indirect=True,
    )


class Outside:
    """A directory of the host that no container has any business with."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        (path / "inner").mkdir()
        for place in (path / "keep", path / "inner/keep"):
            place.write_text(SECRET)
            place.chmod(0o600)
        self._mounts = Path(f"{path}.mounts")
        self._before = self._look()

    def _look(self) -> list[tuple[str, int, int, int]]:
        found = []
        for place in (self.path, *sorted(self.path.rglob("*"))):
            seen = place.lstat()
            found.append((str(place), seen.st_mode, seen.st_mtime_ns, seen.st_size))
        return found

    def touched(self) -> str:
        """What was made, changed or mounted there (the last: where the runtime is probed); or ""."""
        words = [
            f"{name}: mode {mode:o}, {size} bytes" for name, mode, _, size in self._look_again()
        ]
        if self._mounts.exists():
            words.append(self._mounts.read_text())
        return "\n".join(words)

    def _look_again(self) -> set[tuple[str, int, int, int]]:
        return set(self._look()) ^ set(self._before)


class Inside:
    """A process of ours in the namespaces of a container's process, with all capabilities there."""

    def __init__(
        self, pid: int, work: Callable[[], Any], flags: int = NEWUSER | NEWNS | NEWPID
    ) -> None:
        self._reader, writer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                self._enter(pid, flags)
                answer: Any = work()
            except BaseException as error:
                answer = error
            try:
                os.write(writer, pickle.dumps(answer))
            finally:
                os._exit(0)
        os.close(writer)

    def _enter(self, pid: int, flags: int) -> None:
        syscalls.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        syscalls.setns(os.pidfd_open(pid), flags)
        if flags & NEWNS:
            os.chdir("/")
        if flags & NEWPID and (child := os.fork()):
            signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
            os.waitpid(child, 0)
            os._exit(0)

    def result(self, timeout: float = 10) -> Any:
        ready = select.select([self._reader], [], [], timeout)[0]
        data = os.read(self._reader, 1 << 16) if ready else b""
        self.stop()
        assert data, "the process inside said nothing"
        answer = pickle.loads(data)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def stop(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGTERM)
            os.waitpid(self.pid, 0)
            os.close(self._reader)
            self.pid = 0


def inside(pid: int, work: Callable[[], Any], flags: int = NEWUSER | NEWNS | NEWPID) -> Any:
    """What `work` returns there."""
    return Inside(pid, work, flags).result()


@contextmanager
def swapping(one: Path, other: Path, *, container: int = 0) -> Iterator[None]:
    """A process that exchanges two names for each other: a burst as fast as it can, a little rest.

    Without the rest every lookup of the whole machine would wait for it (rename_lock).
    container: the pid of a container's process, to do it in there.
    """
    call = ctypes.CDLL(None).renameat2
    names = os.fsencode(one), os.fsencode(other)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        if container:
            syscalls.setns(os.pidfd_open(container), NEWUSER | NEWNS)
        while os.getppid() == parent:
            for _ in range(BURST):
                call(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
            time.sleep(0.001)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        if one.is_symlink():
            call(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)


def build_gate(folder: Path, *changes: tuple[str, str]) -> Path:
    """A gate whose source has these texts replaced; skips where there is no compiler."""
    try:
        compiler = build.compiler()
    except build.BuildError as error:
        pytest.skip(str(error))
    text = (build.NATIVE / "gate.c").read_text()
    for old, new in changes:
        assert text.count(old) == 1, f"gate.c does not say {old!r} any more"
        text = text.replace(old, new)
    source, output = folder / "gate.c", folder / "gate"
    source.write_text(text)
    subprocess.run(
        [*compiler, *build.FREESTANDING, f"-I{build.NATIVE}", "-o", output, source], check=True
    )
    return output


def make_victim(root: Path, weak: bool, names: tuple[str, ...], command: list[str]) -> Victim:
    """names: the patches to start the sources with; none: `command` as it is."""
    victim = Victim(weakened.command(*names) if names else command, root)
    victim.weak = weak
    if names:  # hundreds of starts shall not compile hundreds of times
        victim.env["PYTHONPYCACHEPREFIX"] = str(root.parents[1] / "compiled")
        victim.env["PYTHONDONTWRITEBYTECODE"] = ""
    return victim
