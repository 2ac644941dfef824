"""The verbs that print: state, list, ps. Formats are runc's, since callers parse them."""

from __future__ import annotations

import sys

from rootless_pyoki.errors import PyokiError, describe_errno
from rootless_pyoki.kernel import json

COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")


def write(text: str) -> None:
    """To stdout; nowhere when that was closed before we started. BrokenPipeError as it comes."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = describe_errno(error.errno or 0, error.strerror or "")
        raise PyokiError(f"write to stdout: {reason}", errno=error.errno or 0) from error


def state(*, root: str | None, id: str, verbose: bool) -> None:
    from rootless_pyoki.lifecycle import inspect

    write(json.dumps_pretty(inspect.state(root=root, id=id, verbose=verbose)) + "\n")


def list_containers(*, root: str | None, format: str, quiet: bool) -> None:
    from rootless_pyoki.lifecycle import inspect

    views = inspect.list_containers(root=root)
    if quiet:
        write("".join(f"{view['id']}\n" for view in views))
    elif format == "json":
        write(json.dumps(views).decode() + "\n")
    else:
        head = tuple(name.upper() for name in COLUMNS)
        rows = [tuple(str(view[name]) for name in COLUMNS) for view in views]
        write(table([head, *rows]))


def ps(*, root: str | None, id: str, format: str, args: list[str]) -> None:
    """args: options for the host's ps, `-ef` by default."""
    from rootless_pyoki.lifecycle import inspect

    pids = inspect.ps(root=root, id=id)
    if format == "json":
        write(json.dumps(pids).decode() + "\n")
        return
    from rootless_pyoki.cli import host_ps

    write(host_ps.only(host_ps.output(args or ["-ef"]), pids))


def features() -> None:
    from rootless_pyoki.report import features as report

    write(json.dumps_pretty(report.features(), "    ") + "\n")


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns at least 12 wide, 3 blanks between them, the last one as it is (runc's tabwriter)."""
    widths = [max(12, *(len(cell) + 3 for cell in column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join(cells) + row[-1] + "\n")
    return "".join(lines)
