"""The verb top: what containers use, live, for people."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
from typing import TYPE_CHECKING

from rootless_pyoki.cli import show
from rootless_pyoki.kernel import json
from rootless_pyoki.lifecycle import usage

if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

CLOSED = b"closed"
QUIT = (b"q", b"Q", CLOSED)
INTERRUPT, SUSPEND = b"\x03", b"\x1a"  # ^C, ^Z: the terminal's signals are off, see Keys
MEMBERS = {  # of --json, in this order
    "id": "id", "status": "status", "cpuPercent": "cpu", "memory": "memory",
    "memoryLimit": "memory_limit", "memoryPeak": "memory_peak", "pids": "pids",
    "pidsLimit": "pids_limit", "ioRead": "io_read", "ioWrite": "io_write",
    "cpuPressure": "cpu_pressure", "memoryPressure": "memory_pressure",
    "ioPressure": "io_pressure", "oomKills": "oom_kills",
}  # fmt: skip


def top(*, root: str | None, ids: list[str], interval: float, once: bool, json: bool) -> None:
    """Rates are those of the last interval (seconds), so the first rows come when it has passed.

    Raises NotFoundError when one of `ids` is not there, KeyboardInterrupt at ^C.
    """
    if json:
        _print_json(root, ids, interval, once)
    elif once or not (os.isatty(0) and os.isatty(1)):
        from rootless_pyoki.cli import render

        before = usage.sample(root, ids)
        time.sleep(interval)
        show.write(render.text(usage.rows(before, usage.sample(root, ids))))
    else:
        _live(root, ids, interval)


def _print_json(root: str | None, ids: list[str], interval: float, once: bool) -> None:
    """A line for each interval: the array of all containers."""
    try:
        before = usage.sample(root, ids)
        while True:
            time.sleep(interval)
            now = usage.sample(root, ids)
            views = [_view(row) for row in usage.rows(before, now)]
            show.write(json.dumps(views).decode() + "\n")
            if once:
                return
            before = now
    except BrokenPipeError:
        pass  # the reader has seen enough


def _view(row: usage.Row) -> dict[str, Any]:
    view = {name: getattr(row, field) for name, field in MEMBERS.items()}
    return {n: round(v, 2) if isinstance(v, float) else v for n, v in view.items()}


def _live(root: str | None, ids: list[str], interval: float) -> None:
    from rootless_pyoki.cli import render

    keys = Keys()
    with render.Screen() as screen:
        keys.take()
        try:
            before = now = usage.sample(root, ids)
            screen.show(usage.rows([], now))
            deadline = time.monotonic() + interval
            while (key := keys.read(deadline - time.monotonic())) not in QUIT:
                if key == INTERRUPT:
                    raise KeyboardInterrupt
                if key == SUSPEND:
                    keys.give_back()
                    screen.leave()
                    os.kill(os.getpid(), signal.SIGSTOP)
                    screen.enter()
                    keys.take()
                if time.monotonic() >= deadline:
                    before, now = now, usage.sample(root, ids)
                    deadline = time.monotonic() + interval
                screen.show(usage.rows(before, now))
        finally:
            keys.give_back()


class Keys:
    """The terminal's keys one by one, unseen, ^C and ^Z among them; SIGTERM and SIGHUP end us in
    order, with the terminal given back.
    """

    def __init__(self) -> None:
        self.saved: list[Any] | None = None
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _end)

    def take(self) -> None:
        self.saved = termios.tcgetattr(0)
        changed = termios.tcgetattr(0)
        changed[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
        termios.tcsetattr(0, termios.TCSANOW, changed)

    def give_back(self) -> None:
        if self.saved is not None:
            try:
                termios.tcsetattr(0, termios.TCSANOW, self.saved)
            except termios.error:
                pass  # the terminal is gone
            self.saved = None

    def read(self, patience: float) -> bytes:
        """A key; b"" when none has come for so many seconds, CLOSED when none will come any more."""
        if not select.select([0], [], [], max(0.0, patience))[0]:
            return b""
        try:
            return os.read(0, 1) or CLOSED
        except OSError:
            return CLOSED  # EIO: the terminal has hung up


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
