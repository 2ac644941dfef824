"""What the specification demands of a process beyond the types of its fields."""

from __future__ import annotations

from rootless_pyoki.errors import SpecError
from rootless_pyoki.kernel.constants import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless_pyoki.spec.types import Process

LARGEST_WINDOW = 2**16 - 1  # struct winsize has unsigned shorts


def check_process(process: Process, pointer: str) -> None:
    """All rules for a process whose shape is right; `pointer` is where it stands."""
    check_args(process, pointer)
    check_env(process.get("env", ()), f"{pointer}/env")
    check_console_size(process, pointer)
    check_rlimits(process, pointer)
    check_scheduling(process, pointer)


def check_args(process: Process, pointer: str) -> None:
    """config.md, "Process": at least one entry is REQUIRED in args."""
    if not process["args"]:
        raise SpecError("must name a program", pointer=f"{pointer}/args")


def check_env(env: Sequence[str], pointer: str) -> None:
    """config.md, "Process": env has the semantics of environ, that is NAME=value."""
    for index, entry in enumerate(env):
        if entry.find("=") < 1:
            raise SpecError(
                f"must be of the form NAME=value, not {entry!r}", pointer=f"{pointer}/{index}"
            )


def check_console_size(process: Process, pointer: str) -> None:
    """config.md, "Process": consoleSize MUST be ignored if terminal is false or unset."""
    size = process.get("consoleSize")
    if size is None or not process.get("terminal"):
        return
    for key, value in (("height", size["height"]), ("width", size["width"])):
        if value > LARGEST_WINDOW:
            raise SpecError(
                f"must be from 0 to {LARGEST_WINDOW}, not {value}",
                pointer=f"{pointer}/consoleSize/{key}",
            )


def check_rlimits(process: Process, pointer: str) -> None:
    """config.md, "POSIX process": an unknown or a repeated type MUST be an error.

    A soft limit above the hard one is refused by setrlimit(2).
    """
    seen: set[str] = set()
    for index, rlimit in enumerate(process.get("rlimits", ())):
        at = f"{pointer}/rlimits/{index}"
        name = rlimit["type"]
        if name not in RLIMITS:
            raise SpecError(f"{name!r} is no resource limit of setrlimit(2)", pointer=f"{at}/type")
        if name in seen:
            raise SpecError(f"{name} is limited twice", pointer=f"{at}/type")
        seen.add(name)
        if rlimit["soft"] > rlimit["hard"]:
            raise SpecError(
                f"the soft limit {rlimit['soft']} is above the hard limit {rlimit['hard']}",
                pointer=f"{at}/soft",
            )


def check_scheduling(process: Process, pointer: str) -> None:
    """scheduler and execCPUAffinity, which few have."""
    scheduler, affinity = process.get("scheduler"), process.get("execCPUAffinity")
    if scheduler is None and affinity is None:
        return
    from rootless_pyoki.spec import scheduling_rules

    if scheduler is not None:
        scheduling_rules.check_scheduler(scheduler, f"{pointer}/scheduler")
    if affinity is not None:
        scheduling_rules.check_affinity(affinity, f"{pointer}/execCPUAffinity")
