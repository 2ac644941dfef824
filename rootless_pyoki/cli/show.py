"""The verbs that print: state, list, ps, spec. Formats are runc's, since callers parse them."""

from __future__ import annotations

import sys

from rootless_pyoki.errors import PyokiError, SyscallError, UsageError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, json, syscalls

COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")


def write(text: str) -> None:
    """To stdout; nowhere when that was closed before we started. BrokenPipeError as it comes."""
    if sys.stdout is not None:
        sys.stdout.write(text)
        sys.stdout.flush()


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


def spec(*, bundle: str, file: str | None, rootless: bool, net: str | None, terminal: bool) -> None:
    """Write a new config.json into the bundle; an existing one is never overwritten."""
    from rootless_pyoki.spec import template

    config = template.make(rootless=rootless, net=net, terminal=terminal)
    text = json.dumps_pretty(config) + "\n"
    if file == "-":
        write(text)
        return
    name = file or "config.json"
    path = name if name.startswith("/") else f"{bundle}/{name}"
    flags = c.O_WRONLY | c.O_CREAT | c.O_EXCL | c.O_CLOEXEC
    try:
        fd = syscalls.openat(c.AT_FDCWD, path, flags, 0o666)
    except SyscallError as error:
        if error.errno == c.EEXIST:
            raise UsageError(f"{path} exists: remove it first") from None
        raise from_oserror(error, "write the new configuration") from error
    try:
        fds.write_all(fd, text.encode())
    except SyscallError as error:
        raise PyokiError(f"write {path}: {error}", errno=error.errno or 0) from error
    finally:
        syscalls.close(fd)


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns at least 12 wide, 3 blanks between them, the last one as it is (runc's tabwriter)."""
    widths = [max(12, *(len(cell) + 3 for cell in column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        lines.append("".join(cells) + row[-1] + "\n")
    return "".join(lines)
