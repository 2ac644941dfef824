"""Runs the tests that need a systemd user session in guests that have one, and counts them.

tests/vm/run prepares everything and calls this; the options are the same. The tests marked `session`
run in namespaces (ns), those marked `controllers` in the virtual machine (vm), each as the user `dev`
in two settings: from a login session's scope and from the user manager's app.slice. The file
`expected` says how many must pass, so that a skip does not go unseen.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.vm.machines import TREE, Emulated, Machine, MachineError, Namespaces, Overdue

TESTS = Path(__file__).resolve().parents[1]
EXPECTED = Path(__file__).with_name("expected")
SETTINGS = ("session-scope", "app-slice")
MARKS = {"ns": "session and not controllers", "vm": "controllers"}
LIMITS = {"ns": 400.0, "vm": 1800.0}  # seconds for all tests in one setting
MOST_AGAIN = 3  # tests that failed in an emulated machine, and run once more
PRINTING = threading.Lock()
WORDS = {
    "passed": "passed",
    "failed": "failed",
    "error": "failed",
    "errors": "failed",
    "skipped": "skipped",
}


class Part:
    """What came of the tests in one setting: how many of each, and what is wrong besides."""

    def __init__(self, backend: str, setting: str) -> None:
        self.name = f"{backend} {setting}"
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.closing = ""
        self.wrong: list[str] = []

    def read(self, output: bytes, code: int) -> None:
        """Take pytest's own closing line, `1 failed, 2 passed in 0.50s`, and its exit code."""
        for line in output.decode(errors="replace").splitlines():
            if re.search(r"\b\d+ \w+.* in \d+\.\d+s\b|\bno tests ran in ", line):
                self.closing = line
        for number, word in re.findall(r"(\d+) (\w+)", self.closing.partition(" in ")[0]):
            if word in WORDS:
                self.counts[WORDS[word]] += int(number)
        if not self.closing or code not in (0, 5):
            self.wrong.append(f"pytest ended with {code}")

    def failures(self, output: bytes) -> list[str]:
        """The tests that failed, by pytest's summary."""
        pattern = re.compile(r"^(?:FAILED|ERROR) (tests/.+?::.+?)(?: - .*)?$", re.MULTILINE)
        return pattern.findall(output.decode(errors="replace"))

    def forgive(self, again: Part) -> None:
        """Those that failed have run once more, and passed."""
        self.closing += f"; once more: {again.closing.strip('= ')}"
        self.counts["failed"] -= again.counts["passed"]
        self.counts["passed"] += again.counts["passed"]
        self.wrong.clear()

    def compare(self, least: int, most: int) -> None:
        """least: so many have to pass; most: so many may be skipped."""
        if self.counts["passed"] < least:
            self.wrong.append(f"only {self.counts['passed']} passed of at least {least}")
        if self.counts["skipped"] > most:
            self.wrong.append(f"{self.counts['skipped']} skipped, at most {most} may be")
        if self.counts["passed"] > least and not self.wrong:
            print(f"note: {self.counts['passed']} tests ran in {self.name}: "
                  f"tests/vm/expected may say so instead of {least}")  # fmt: skip


def expected() -> dict[str, tuple[int, int]]:
    """{"ns session-scope": (passed at least, skipped at most)}."""
    table = {}
    for line in EXPECTED.read_text().splitlines():
        if line and not line.startswith("#"):
            backend, setting, least, most = line.split()
            table[f"{backend} {setting}"] = int(least), int(most)
    return table


def marked_files() -> list[str]:
    """The test files that name one of the marks: importing all the others would take its time."""
    pattern = re.compile(r"mark\.(session|controllers)\b")
    found = [p for p in sorted(TESTS.rglob("test_*.py")) if pattern.search(p.read_text())]
    return [str(path.relative_to(TESTS.parent)) for path in found]


def pytest_command(
    options: argparse.Namespace, backend: str, setting: str, slower: int, only: list[str]
) -> str:
    """The shell command that runs the tests of one setting in the guest; only: these, if any."""
    marks = "session or controllers" if options.all else MARKS[backend]
    if not options.long:
        marks = f"({marks}) and not long"
    home, scratch = options.home, f"/tmp/pyoki-{setting}"
    environment = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL": "C.UTF-8",
        "TMPDIR": scratch,
        "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/hypothesis",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYOKI_BED": backend,
        "PYOKI_BED_SETTING": setting,
        "PYOKI_TEST_TIMEOUT": str(30 * slower),
        **{name: os.environ[name] for name in ("PYOKI_HOT", "PYOKI_SLOW", "PYOKI_WHEEL")},
    }
    words = ["env", *(f"{name}={value}" for name, value in environment.items())]
    words += [f"{home}/venv/bin/python", "-m", "pytest", "-p", "no:cacheprovider"]
    words += [f"--timeout={120 * slower}", f"--basetemp={scratch}/pytest", "-m", marks]
    words += only or options.arguments or marked_files()
    return f"mkdir -p {scratch} && cd {shlex.quote(f'{home}/src')} && exec {shlex.join(words)}"


def make_tree(home: Path, image: Path) -> None:
    """An ext4 image with the copy of the checkout and the environments: the guest's second disk."""
    words = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(home), str(image), TREE]
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


def machine(options: argparse.Namespace, backend: str, cold: bool, tree: Path) -> Machine:
    if backend == "ns":
        return Namespaces(options.image / "root", options.home)
    return Emulated(options.image / options.kernel, tree, cold=cold or options.cold)


def prepare(guest: Machine, options: argparse.Namespace, backend: str) -> None:
    """The tree in its place; and what is delegated, where it is to be something else."""
    if backend == "vm":
        guest.must(f"mkdir -p {options.home} && mount -o ro /dev/vdb {options.home}")
    if options.delegate is not None:
        unit = f"[Service]\nDelegate=\nDelegate={options.delegate or 'no'}\n"
        guest.must(
            f"printf %b {shlex.quote(unit.encode('unicode_escape').decode())}"
            " > /etc/systemd/system/user@.service.d/delegate.conf"
            " && systemctl daemon-reload && systemctl restart user@1000"
        )


class Run:
    """The tests of one setting in a guest of their own; once more when the guest itself failed."""

    def __init__(self, options: argparse.Namespace, backend: str, setting: str, tree: Path) -> None:
        self.options = options
        self.part = Part(backend, setting)
        self.backend, self.setting, self.tree = backend, setting, tree
        self.output = bytearray()
        self.shown = -1  # so much of the output has been printed; -1: not our turn
        self.guest: Machine | None = None
        self.stopped = False

    def __call__(self) -> None:
        failure = ""
        for cold in (False, True):
            if self.stopped:
                break
            try:
                self._in_guest(cold)
                return
            except MachineError as error:
                self._say(f"error: {self.part.name}: {error}")
                failure = f"the guest failed: {error}"
        self.part.wrong.append(failure)

    def show(self) -> None:
        """Print the output from now on as it comes."""
        self.shown = 0
        self._take(b"")

    def stop(self) -> None:
        self.stopped = True
        if self.guest is not None and self.guest.process is not None:
            self.guest.end(self.guest.process)

    def _in_guest(self, cold: bool) -> None:
        began = time.monotonic()
        with machine(self.options, self.backend, cold, self.tree) as self.guest:
            prepare(self.guest, self.options, self.backend)
            self._say(f"{self.part.name}: a guest after {time.monotonic() - began:.1f} s")
            failures = self._pytest(self.guest, self.part, [])
            if self.guest.slower > 1 and 0 < len(failures) <= MOST_AGAIN:
                # Time limits mean little where everything takes ten to fifty times as long.
                again = Part(self.backend, self.setting)
                self._pytest(self.guest, again, failures)
                if not again.wrong and again.counts["passed"] == len(failures):
                    self.part.forgive(again)

    def _pytest(self, guest: Machine, part: Part, only: list[str]) -> list[str]:
        """Run the tests, let the part read what came of it; those that failed."""
        command = pytest_command(self.options, self.backend, self.setting, guest.slower, only)
        start, code = len(self.output), 0
        try:
            code = guest.command(command, LIMITS[self.backend], self._take, self.setting)
        except Overdue:
            part.wrong.append(f"not done within {LIMITS[self.backend]:.0f} s")
        self._take(b"\n")
        output = bytes(self.output[start:])
        part.read(output, code)
        return part.failures(output)

    def _say(self, text: str) -> None:
        self._take(text.encode() + b"\n")

    def _take(self, data: bytes) -> None:
        with PRINTING:
            self.output += data
            if self.shown >= 0:
                sys.stdout.buffer.write(self.output[self.shown :])
                sys.stdout.buffer.flush()
                self.shown = len(self.output)


def run_backend(options: argparse.Namespace, backend: str, tree: Path) -> list[Part]:
    """Every setting; in the emulated machine, which is slow, all at the same time."""
    runs = [Run(options, backend, setting, tree) for setting in options.setting or SETTINGS]
    with ThreadPoolExecutor(len(runs) if backend == "vm" else 1) as pool:
        try:
            futures = [pool.submit(run) for run in runs]
            for run, future in zip(runs, futures, strict=True):
                run.show()
                future.result()
        except BaseException:
            for run in runs:
                run.stop()
            raise
    return [run.part for run in runs]


def report(parts: list[Part]) -> int:
    """Print each part's closing line, what is wrong, and the sum; the exit code."""
    print()
    for part in parts:
        print(f"{part.name}: {part.closing.strip('= ') or 'no result'}")
    for part in parts:
        for what in part.wrong:
            print(f"error: {part.name}: {what}")
    total = {
        word: sum(part.counts[word] for part in parts) for word in ("passed", "failed", "skipped")
    }
    print(", ".join(f"{number} {word}" for word, number in total.items()))
    return 1 if total["failed"] or any(part.wrong for part in parts) else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/vm/run", allow_abbrev=False)
    parser.add_argument("--backend", choices=("ns", "vm"), action="append")
    parser.add_argument("--setting", choices=SETTINGS, action="append", help="only this one")
    parser.add_argument("--all", action="store_true", help="all tests, wherever they usually run")
    parser.add_argument("--long", action="store_true", help="with the tests that take long")
    parser.add_argument("--cold", action="store_true", help="boot the virtual machine")
    parser.add_argument("--delegate", help="what user@.service delegates instead: 'memory pids'")
    parser.add_argument("--kernel", default="default")
    parser.add_argument("--image", type=Path, required=True)
    parser.add_argument("--home", type=Path, required=True)
    options, arguments = parser.parse_known_args()
    options.arguments = arguments
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # not without ending the guest

    with tempfile.TemporaryDirectory(prefix="pyoki-vm-", dir="/var/tmp") as scratch:
        tree, parts = Path(scratch) / "tree.raw", []
        for backend in options.backend or ("ns", "vm"):
            if backend == "vm":
                make_tree(options.home, tree)
            parts += run_backend(options, backend, tree)
    usual = not (options.arguments or options.all or options.long or options.delegate is not None)
    table = expected()
    for part in parts:
        if usual and part.closing:
            part.compare(*table[part.name])
    return report(parts)


if __name__ == "__main__":
    sys.exit(main())
