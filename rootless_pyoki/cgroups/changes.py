"""Other limits for a cgroup that is in use: all of them, or none.

What the files say is read before; it decides in which order they are written, and it is written back
when one of them is refused.
"""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import limits, manager, tree
from rootless_pyoki.errors import PyokiError, SyscallError
from rootless_pyoki.kernel import fds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.plan.plan import Resources

    Files = tuple[tuple[str, str, str], ...]  # (file, value, JSON pointer)

QUOTA = "cpu.max"
_WEIGHTS = ("io.weight", "io.bfq.weight")


def read(path: str, names: Iterable[str]) -> dict[str, str]:
    """What these files of the cgroup say; those that cannot be read are not in there."""
    found = {}
    fd = tree.open_cgroup(path)
    try:
        for name in names:
            try:
                found[name] = fds.read_file(fd, name).decode()
            except SyscallError:
                continue
    finally:
        fds.close_quietly(fd)
    return found


def require(cgroup: Cgroup, files: Files) -> bool:
    """See to it that the cgroup has the controllers for these files; whether one came in new.

    Raises UnsupportedError that names the controller, with the pointer of the first field for it.
    """
    have = limits.controllers(cgroup.path)
    missing: dict[str, str] = {}
    for name, _, pointer in files:
        controller = name.partition(".")[0]
        if controller != "cgroup" and controller not in have:
            missing.setdefault(controller, pointer)
    if missing and cgroup.manager != "cgroupfs":
        # systemd passes on to a delegated scope whatever has been delegated to the user
        controller, pointer = next(iter(missing.items()))
        reason = f"it has {', '.join(have) or 'none'}"
        raise limits.lacking(f"cgroup {cgroup.path}", controller, pointer, reason)
    if missing:
        from rootless_pyoki.cgroups import here

        limits.enable(cgroup.path, cgroup.mount or here.find_mount(), missing)
    return bool(missing)


def apply(
    cgroup: Cgroup,
    wanted: Resources,
    leave_out: Callable[[PyokiError], None] | None = None,
) -> None:
    """Set the limits; when that fails, what they were before. Raises as manager.apply does."""
    names = {name for name, _, _ in wanted.files} | ({_WEIGHTS[1]} if wanted.bfq_weight else set())
    before = read(cgroup.path, {*names, QUOTA})
    files = in_order(wanted.files, before)
    for name, value, _ in files:
        log.debug(f"{cgroup.path}/{name}: {before.get(name, '').strip()} becomes {value}")
    try:
        manager.apply(
            cgroup,
            files,
            optional=wanted.optional,
            bfq_weight=wanted.bfq_weight,
            leave_out=leave_out,
        )
        if QUOTA not in names:
            _keep_quota(cgroup, before)
    except BaseException:
        _put_back(cgroup, files, before)
        raise


def _keep_quota(cgroup: Cgroup, before: dict[str, str]) -> None:
    """systemd writes it anew with any other property of cpu: rounded to 10 ms a second."""
    if cgroup.unit and QUOTA in before:
        kept = (QUOTA, before[QUOTA].strip(), "/cpu/quota")
        limits.apply(cgroup.path, (kept,), compare=True)


def in_order(files: Files, before: dict[str, str]) -> Files:
    """The order in which each step can be taken.

    Where memory shrinks, swap grows first, for what has to go there; a quota is never smaller than
    the burst (sched-bwc.rst); a cgroup that is idle takes no weight (cgroup-v2.rst, "cpu.idle").
    """
    ordered = list(files)
    new = {name: value for name, value, _ in files}
    if not _grows("memory.max", new, before):
        _move_before(ordered, "memory.swap.max", "memory.max")
    if not _grows("cpu.max", new, before):
        _move_before(ordered, "cpu.max.burst", "cpu.max")
    if new.get("cpu.idle") == "0":
        _move_before(ordered, "cpu.idle", "cpu.weight")
    return tuple(ordered)


def _grows(name: str, new: dict[str, str], before: dict[str, str]) -> bool:
    return _amount(new.get(name, "")) > _amount(before.get(name, ""))


def _amount(text: str) -> float:
    """The first word, as a number."""
    word = (text.split() or ["0"])[0]
    if word == "max":
        return float("inf")
    return float(word) if word.isdigit() else 0.0


def _move_before(files: list[tuple[str, str, str]], name: str, other: str) -> None:
    names = [entry[0] for entry in files]
    if name in names and other in names and names.index(name) > names.index(other):
        files.insert(names.index(other), files.pop(names.index(name)))


def _put_back(cgroup: Cgroup, files: Files, before: dict[str, str]) -> None:
    """Last one first; what cannot be put back is told in the debug log."""
    try:
        now = read(cgroup.path, before)
    except (OSError, PyokiError) as error:
        log.debug(f"put back the limits: {error}")
        return
    for name, value, pointer in reversed(files):
        if name == _WEIGHTS[0] and name not in before:
            name = _WEIGHTS[1]
        if name not in before or now.get(name) == before[name]:
            continue
        try:
            manager.apply(cgroup, ((name, earlier(name, value, before[name]), pointer),))
        except (OSError, PyokiError) as error:
            log.debug(f"put back {name}: {error}")
    try:
        _keep_quota(cgroup, before)
    except (OSError, PyokiError) as error:
        log.debug(f"put back {QUOTA}: {error}")


def earlier(name: str, value: str, content: str) -> str:
    """What to write so that the file says `content` again about what `value` changes.

    Files with a line for each device take one line at a time.
    """
    lines = {line.partition(" ")[0]: line for line in content.splitlines()}
    key, *rest = value.split() or [""]
    if rest and key in lines:
        return lines[key]
    if name == "io.max":
        return f"{key} rbps=max wbps=max riops=max wiops=max"
    if name in _WEIGHTS:
        return f"{key} default" if rest else lines.get("default", content.strip())
    return content.strip() or "\n"  # an empty list of CPUs can be written so only
