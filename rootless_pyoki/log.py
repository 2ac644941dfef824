"""Where errors and debug lines go: --log, --log-format, --log-level, --debug.

Callers read a JSON log as one object (podman) or as a stream of lines (containerd): on failure
exactly one line of level error is written, and nothing below it unless it was asked for. The error
is also one line on stderr; on a terminal, with no --log, it may take three.
"""

from __future__ import annotations

import sys
from time import gmtime, strftime, time_ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from io import FileIO

    Opener = Callable[[str, int], int]  # path, open(2) flags -> fd

LEVELS = ("error", "warning", "info", "debug")

# Callers search our text for these and draw conclusions; a hint must not lead them astray.
CALLERS_WORDS = (
    "does not exist",
    "container not running",
    "no such process",
    "process already finished",
    "executable file not found in",
    "not found",
    "no such file",
    "permission denied",
    "operation not permitted",
)

_ESCAPES = {**{code: f"\\u{code:04x}" for code in range(32)}, 34: '\\"', 92: "\\\\"}

_path = ""  # "" is stderr
_json = False
_threshold = 0  # index into LEVELS
_opener: Opener | None = None
_file: FileIO | None = None  # held open only for lines below error


def configure(path: str, form: str, level: str, opener: Opener) -> None:
    """path: as --log gave it ("" for stderr); form: text or json; level: one of LEVELS.

    The file is opened when there is something to say, so that its descriptor is in nobody's way;
    for --debug at once, since forked processes that no longer see the path have lines to write too.
    Raises ValueError for a destination that we do not have, OSError when it cannot be opened now.
    """
    global _path, _json, _threshold, _opener, _file
    _json = form == "json"
    _threshold = LEVELS.index(level)
    _opener = opener
    _path, _file = "", None
    if path.startswith(("journald:", "syslog:")):
        raise ValueError(f"--log {path}: only files are supported, not {path.partition(':')[0]}")
    path = path.removeprefix("file:")
    _path = "" if path == "/dev/stderr" else path
    if _path and _threshold > 0:
        _file = _open()


def debugging() -> bool:
    """Whether a debug line would be seen."""
    return _threshold >= LEVELS.index("debug")


def debug(message: str | Callable[[], str]) -> None:
    """A line for --debug; a callable is only called when it will be seen."""
    if debugging():
        _say("debug", message if isinstance(message, str) else message())


def informing() -> bool:
    """Whether a line of level info would be seen."""
    return _threshold >= LEVELS.index("info")


def info(message: str) -> None:
    """A line for --log-level info and below."""
    if informing():
        _say("info", message)


def warning(message: str) -> None:
    """A line for --log-level warning and below."""
    if _threshold >= LEVELS.index("warning"):
        _say("warning", message)


def error(message: str, *, pointer: str = "", errno: int = 0, hint: str = "", id: str = "") -> None:
    """The one line of a failure: into the log if there is one, and on stderr."""
    full = message if not pointer or pointer in message else f"{message} (at {pointer})"
    if not _path:
        if _json:
            _stderr(_as_json("error", full, pointer, errno, hint, id))
        elif sys.stderr is not None and sys.stderr.isatty():
            _stderr(_as_lines(message, pointer, hint))
        else:
            _stderr(_as_line(full, hint))
        return
    as_line = _as_line(full, hint)
    try:
        if _json:
            _append(_as_json("error", full, pointer, errno, hint, id))
        else:
            _append(_as_text("error", full))
    except OSError as failure:
        as_line += f" (the log {printable(_path)} could not be written: {failure.strerror})"
    _stderr(as_line)


def printable(text: str) -> str:
    """One line, and nothing that a terminal would obey."""
    if text.isprintable():
        return text
    text = text.strip().replace("\n", "; ")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def _say(level: str, message: str) -> None:
    """Below error: to the log, or to stderr when there is none."""
    if _path:
        try:
            _append(_as_json(level, message) if _json else _as_text(level, message))
        except OSError:
            pass  # the work goes on without the log
    else:
        _stderr(_as_json(level, message) if _json else f"{level}: {printable(message)}")


def _open() -> FileIO:
    # "ab": O_APPEND, since the caller may have a log with lines of its own.
    return open(_path, "ab", 0, opener=_opener)


def _append(line: str) -> None:
    data = line.encode("utf-8", "replace") + b"\n"
    if _file is not None:
        _file.write(data)
        return
    with _open() as file:
        file.write(data)


def _stderr(text: str) -> None:
    if sys.stderr is None:
        return  # it was closed when we started
    try:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens; the exit code still tells


def _as_line(message: str, hint: str) -> str:
    lower = hint.lower()
    if hint and not any(words in lower for words in CALLERS_WORDS):
        message = f"{message}; hint: {hint}"
    return f"error: {printable(message)}"


def _as_lines(message: str, pointer: str, hint: str) -> str:
    """For a person: the error, the field, the hint."""
    lines = [f"error: {printable(message)}"]
    if pointer and pointer not in message:
        lines.append(f"  while applying {printable(pointer)} of config.json")
    if hint:
        lines.append(f"hint: {printable(hint)}")
    return "\n".join(lines)


def _as_text(level: str, message: str) -> str:
    """runc's text form (logrus)."""
    return f'time="{_now()}" level={level} msg={_quote(printable(message))}'


def _as_json(
    level: str, message: str, pointer: str = "", errno: int = 0, hint: str = "", id: str = ""
) -> str:
    pairs = [("level", _quote(level)), ("msg", _quote(message)), ("time", _quote(_now()))]
    if pointer:
        pairs.append(("pointer", _quote(pointer)))
    if errno:
        pairs.append(("errno", str(errno)))
    if id:
        pairs.append(("id", _quote(id)))
    if hint:
        pairs.append(("hint", _quote(hint)))
    return "{" + ",".join(f'"{key}":{value}' for key, value in pairs) + "}"


def _quote(text: str) -> str:
    """A JSON string, RFC 8259 section 7 (kernel.json lies above this room)."""
    return '"' + text.translate(_ESCAPES) + '"'


def _now() -> str:
    """RFC 3339 with nanoseconds, as Go writes it."""
    seconds, nanoseconds = divmod(time_ns(), 1_000_000_000)
    return f"{strftime('%Y-%m-%dT%H:%M:%S', gmtime(seconds))}.{nanoseconds:09d}Z"
