"""How long pyoki takes, beside crun and runc: the same bundle, cgroup view and options, in turns.

    tests/support/v2view USER python3 tests/bench/bench.py [--rounds N] [--best] [--systemd] [RUNTIME...]

A RUNTIME is a name, a path or NAME=PATH; `pyoki` (PYOKI_HOT, else from PATH), crun and runc by
default. --systemd lets systemd make the cgroups: that needs the user's session instead of v2view. In
each round every runtime does everything once, in changing order, so that what disturbs the machine
disturbs all alike. Printed: medians in milliseconds of wall time and of CPU time (the runtime's
processes that it waited for), and the ratio of wall times to the first runtime's; with --best the
minima, which say more on a machine that does other things. These are figures, not a test.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.bundles import Bundle
from tests.support.runtime import find, hot_command

PROFILES = ("/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json")
Times = dict[tuple[str, str], list[tuple[float, float]]]  # (what, runtime) -> (wall, CPU) seconds


class Contestant:
    def __init__(self, name: str, command: list[str], root: Path, *options: str) -> None:
        self.name = name
        self.argv = [*command, "--root", str(root), *options]

    def version(self) -> str:
        answer = subprocess.run(
            [self.argv[0], "--version"], capture_output=True, text=True, check=True
        )
        return answer.stdout.partition("\n")[0]

    def __call__(self, *args: str) -> None:
        """One verb; its container keeps /dev/null. SIGALRM ends us all should it hang."""
        argv = [*self.argv, *args]
        signal.alarm(60)  # subprocess's own timeout would poll, and be measured
        code = subprocess.call(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, close_fds=True
        )
        if code:
            raise SystemExit(f"{' '.join(argv)}: exit {code}")


def measured(times: Times, what: str, name: str, action: Callable[[], None]) -> None:
    """Wall time, and CPU time of the children that were waited for (getrusage(2))."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    action()
    wall = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    times[what, name].append((wall, cpu))


def one_round(times: Times, contestant: Contestant, bundles: dict[str, Bundle], id: str) -> None:
    """Everything once."""
    name = contestant.name
    for label, suffix in (("plain", ""), ("profile", " + seccomp")):
        if label not in bundles:
            continue
        path = str(bundles[label].path)
        short = str(bundles[f"{label} true"].path)

        def life(path: str = path) -> None:
            contestant("create", "--bundle", path, id)
            contestant("start", id)
            contestant("delete", "--force", id)

        measured(times, f"create+start+delete{suffix}", name, life)
        measured(
            times,
            f"run{suffix}",
            name,
            lambda short=short: contestant("run", "--bundle", short, id),
        )
        create = ("create", "--bundle", path, id)
        measured(times, f"create{suffix}", name, lambda create=create: contestant(*create))
        measured(times, f"start{suffix}", name, lambda: contestant("start", id))
        time.sleep(0.05)  # crun's exec is refused while the program has not quite begun
        measured(times, f"exec{suffix}", name, lambda: contestant("exec", id, "/bin/true"))
        if not suffix:
            measured(times, "state", name, lambda: contestant("state", id))
        measured(
            times, f"delete --force{suffix}", name, lambda: contestant("delete", "--force", id)
        )


def profile() -> dict[str, Any] | None:
    """podman's default seccomp profile as podman hands it to runtimes: the rules that hold here."""
    for path in PROFILES:
        if not Path(path).exists():
            continue
        given = json.loads(Path(path).read_text())
        rules = []
        for rule in given["syscalls"]:
            includes, excludes = rule.get("includes", {}), rule.get("excludes", {})
            if includes.get("caps") or (
                includes.get("arches") and "amd64" not in includes["arches"]
            ):
                continue
            if "amd64" in excludes.get("arches", ()):
                continue
            kept = {
                key: rule[key] for key in ("names", "action", "errnoRet", "args") if key in rule
            }
            rules.append({key: value for key, value in kept.items() if value is not None})
        return {
            "defaultAction": given["defaultAction"],
            "defaultErrnoRet": given.get("defaultErrnoRet", 38),
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": rules,
        }
    return None


def make_bundles(folder: Path) -> dict[str, Bundle]:
    """A sleeping one and one that ends at once, each with and without the profile."""
    bundles = {}
    rules = profile()
    if rules is None:
        print("no seccomp profile of podman's is installed: only without", file=sys.stderr)
    for label in ("plain", "profile"):
        if label == "profile" and rules is None:
            continue
        for suffix, args in (("", ("sleep", "1000")), (" true", ("true",))):
            path = folder / (label + suffix).replace(" ", "-")
            path.mkdir()
            bundle = bundles[label + suffix] = Bundle(path, *args)
            if label == "profile":
                bundle.linux["seccomp"] = rules
            bundle.write()
    return bundles


def print_table(times: Times, names: list[str], of: Callable[[list[float]], float]) -> None:
    print(f"{'milliseconds: wall / CPU':30}" + "".join(f"{name:>26}" for name in names))
    for what in dict.fromkeys(what for what, _ in times):
        line = f"{what:30}"
        first = of([wall for wall, _ in times[what, names[0]]])
        for name in names:
            wall = of([wall for wall, _ in times[what, name]])
            cpu = of([cpu for _, cpu in times[what, name]])
            ratio = f"({wall / first:.2f})"
            line += f"{wall * 1000:10.1f} /{cpu * 1000:6.1f} {ratio:>7}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--best", action="store_true", help="print minima instead of medians")
    parser.add_argument("--systemd", action="store_true", help="cgroups by --systemd-cgroup")
    parser.add_argument("runtimes", nargs="*", default=["pyoki", "crun", "runc"])
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench."))
    common = ["--log", str(folder / "log"), "--log-format", "json"]
    if options.systemd:
        common.append("--systemd-cgroup")
    try:
        contestants = []
        for given in options.runtimes:
            label, _, name = given.rpartition("=")
            command = hot_command() if name == "pyoki" and hot_command() else None
            path = find(name)
            if command is None and path is None:
                print(f"{name} is not installed", file=sys.stderr)
                continue
            label = label or Path(name).name
            root = folder / f"root{len(contestants)}"
            contestants.append(Contestant(label, command or [str(path)], root, *common))
        for contestant in contestants:
            print(f"{contestant.name}: {contestant.version()}")
        print(f"{os.cpu_count()} CPUs, Linux {os.uname().release}, {options.rounds} rounds")
        bundles = make_bundles(folder)
        times: Times = defaultdict(list)
        one = defaultdict(list)
        for contestant in contestants:
            one_round(one, contestant, bundles, "warm")  # disk caches, not counted
        for number in range(options.rounds):
            shift = number % len(contestants)
            for contestant in contestants[shift:] + contestants[:shift]:
                one_round(times, contestant, bundles, f"bench-{number}")
        of = min if options.best else statistics.median
        print_table(times, [contestant.name for contestant in contestants], of)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
