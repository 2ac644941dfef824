"""The smallest memory limit at which a static program starts: pyoki's, crun's, runc's.

    python3 tests/bench/smallest_limit.py [--step KIB] [RUNTIME...]

As a user to whom systemd delegates the memory controller (`tests/vm/run` shows how such a machine is
made). A RUNTIME is pyoki (PYOKI_HOT, else the checkout's), crun or runc; all of them by default. Each
makes its cgroup with systemd. Printed for each: whether a program of one page starts in 512 KiB, and
the smallest limits, in KiB, in which that program and busybox's `true` start. These are figures, not a
test: the kernel charges in batches, so they vary by 32 KiB and more.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.bundles import Bundle
from tests.support.limits import write_program
from tests.support.peers import version
from tests.support.runtime import Runtime, default_command

KIB = 1 << 10
MOST = 16 * KIB  # KiB: what every runtime can start in


class Contestant:
    """A runtime, and the bundle that it is to run."""

    def __init__(self, name: str, bundle: Bundle, folder: Path) -> None:
        command = default_command() if name == "pyoki" else [name]
        self.runtime = Runtime(command, folder / name, name=name, options=["--systemd-cgroup"])
        self.bundle = bundle
        self.runs = 0

    def starts(self, program: str, limit: int) -> bool:
        """Whether the program ends with 0 under a limit of so many KiB."""
        self.runs += 1
        identifier = f"smallest-{self.runtime.name}-{os.getpid()}-{self.runs}"
        self.bundle.linux["resources"] = {"memory": {"limit": limit * KIB}}
        self.bundle.linux["cgroupsPath"] = f"user.slice:smallest:{identifier}"
        code = self.runtime.run(identifier, self.bundle.args(program).path, timeout=120).code
        if code:
            self.runtime.delete(identifier, force=True)
        return code == 0

    def smallest(self, program: str, step: int) -> int:
        """In KiB, by bisection."""
        too_little, enough = 0, MOST // step
        while enough - too_little > 1:
            middle = (too_little + enough) // 2
            if self.starts(program, middle * step):
                enough = middle
            else:
                too_little = middle
        return enough * step


def main() -> None:
    parser = argparse.ArgumentParser(description="the smallest memory limit of each runtime")
    parser.add_argument("--step", type=int, default=64, metavar="KIB")
    parser.add_argument("runtimes", nargs="*", default=["pyoki", "crun", "runc"], metavar="RUNTIME")
    options = parser.parse_args()
    print(f"{'':10}{'512 KiB':>10}{'one page':>10}{'true':>10}")
    with tempfile.TemporaryDirectory(prefix="pyoki-") as folder:
        bundle = Bundle(Path(folder, "bundle"), applets=["true"])
        write_program(bundle.rootfs / "bin/tiny")
        for name in options.runtimes:
            contestant = Contestant(name, bundle, Path(folder))
            starts = "starts" if contestant.starts("tiny", 512) else "fails"
            found = [contestant.smallest(program, options.step) for program in ("tiny", "true")]
            print(f"{name:10}{starts:>10}{found[0]:>10}{found[1]:>10}  {version(name)}", flush=True)


if __name__ == "__main__":
    main()
