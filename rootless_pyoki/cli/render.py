"""Tables for people, by rich."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless_pyoki.lifecycle.usage import Row

NOT_KNOWN = "-"
UNITS = ("B", "K", "M", "G", "T", "P", "E")  # of 1024
STATUS_STYLES = {"running": "green", "paused": "yellow", "created": "cyan", "stopped": "dim"}
BUSY, STALLED = 90.0, 10.0  # percent; from there on a figure is red
HINT = "q: quit    STALL%: waiting for CPU/memory/I/O, last 10 s"
NARROW = 120  # columns of what is no terminal: a line may be as long as it needs


class Screen:
    """The terminal's other screen, redrawn when told to; no thread."""

    def __init__(self) -> None:
        self.console = Console()
        self.live = Live(console=self.console, screen=True, auto_refresh=False)

    def __enter__(self) -> Screen:
        self.enter()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def enter(self) -> None:
        self.live.start()

    def leave(self) -> None:
        self.live.stop()

    def show(self, rows: Sequence[Row]) -> None:
        self.live.update(usage_table(rows, hint=True), refresh=True)


def text(rows: Sequence[Row]) -> str:
    """The table as it is printed once; with colours where stdout is a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(NARROW, console.width))
    with console.capture() as capture:
        console.print(usage_table(rows))
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def usage_table(rows: Sequence[Row], *, hint: bool = False) -> Table:
    """hint: say how to leave."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=hint)
    if hint:
        table.caption, table.caption_justify = HINT, "left"
    table.add_column("ID", overflow="ellipsis", no_wrap=True, ratio=1, min_width=8)
    table.add_column("STATUS", no_wrap=True)
    for head in ("CPU%", "MEM/LIMIT", "PIDS/LIMIT", "READ/S", "WRITE/S", "STALL%", "OOM"):
        table.add_column(head, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*cells(row))
    return table


def cells(row: Row) -> tuple[Text, ...]:
    """Of one container, as the columns of `usage_table` are."""
    stalls = (row.cpu_pressure, row.memory_pressure, row.io_pressure)
    return (
        Text(row.id),
        Text(row.status, STATUS_STYLES.get(row.status, "")),
        Text(NOT_KNOWN if row.cpu is None else f"{row.cpu:.1f}"),
        _use(size(row.memory), size(row.memory_limit), row.memory, row.memory_limit),
        _use(_number(row.pids), _number(row.pids_limit), row.pids, row.pids_limit),
        Text(size(row.io_read)),
        Text(size(row.io_write)),
        Text(
            "/".join(NOT_KNOWN if stall is None else f"{stall:.0f}" for stall in stalls),
            "red" if any(stall and stall >= STALLED for stall in stalls) else "",
        ),
        Text(_number(row.oom_kills), "bold red" if row.oom_kills else ""),
    )


def size(count: float | None) -> str:
    """Bytes with three digits or so: 0B, 640K, 1.5G."""
    if count is None:
        return NOT_KNOWN
    unit = 0
    while count >= 1000 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    digits = 1 if unit and count < 10 else 0
    return f"{count:.{digits}f}{UNITS[unit]}"


def _number(count: int | None) -> str:
    return NOT_KNOWN if count is None else str(count)


def _use(shown: str, limit: str, used: int | None, most: int | None) -> Text:
    full = used is not None and most is not None and used * 100 >= most * BUSY
    return Text(f"{shown}/{limit}", "red" if full else "")
