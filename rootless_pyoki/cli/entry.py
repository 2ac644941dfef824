"""The machine path: from argv to a lifecycle function without typer, and out with one exit code.

What the grammar reads exactly is answered here. Help, completion and all that it refuses goes to
the typer app (`cold`), which knows more to say to a person; it calls `perform` in its turn.
"""

from __future__ import annotations

import sys

import rootless_pyoki
from rootless_pyoki import log
from rootless_pyoki.cli import grammar
from rootless_pyoki.errors import (
    EXIT_EXEC_FAILURE,
    EXIT_FAILURE,
    PyokiError,
    SyscallError,
    UsageError,
    describe_errno,
)
from rootless_pyoki.kernel import constants, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

EXIT_INTERRUPTED = 130
LOG_FD = 200  # where a log that stays open lies: away from 3 … 3+N-1, which belong to the payload


def main(argv: list[str] | None = None) -> NoReturn:
    """The program. argv: without the program's name; sys.argv's by default."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        _fill_standard_fds()
    code = answer(sys.argv[1:] if argv is None else argv)
    syscalls.exit_now(flush(code))


def _fill_standard_fds() -> None:
    """Where one of 0, 1, 2 was closed, the next file that we open must not become our stdout."""
    fd = 0
    while fd <= 2:
        fd = syscalls.openat(constants.AT_FDCWD, "/dev/null", constants.O_RDWR)
        syscalls.set_cloexec(fd, False)
    syscalls.close(fd)


def answer(argv: list[str]) -> int:
    """Carry out one command line; returns the exit code. Raises nothing."""
    settings: grammar.Values = {}

    def dispatch() -> int:
        words = begin(argv, settings)
        if settings["version"]:
            return show_version()
        if settings["help"]:
            return cold(argv)
        if not words:  # the shell's completion has no argv at all
            return cold([*argv, "--help"] if argv else [])
        name, *words = words
        verb = grammar.VERBS.get(name)
        if verb is None:
            return cold(argv, UsageError(f"no such command: {name}"))
        try:
            options = grammar.parse(verb, words)
        except UsageError as refusal:
            return cold(argv, refusal)
        return cold(argv) if options is None else perform(name, options, settings)

    return guarded(dispatch)


def begin(argv: list[str], settings: grammar.Values) -> list[str]:
    """Fill `settings` from the global options, set up the log; returns the words from the verb on.

    Also where the options are refused, the log is set up with those that were understood, so that
    the refusal reaches the caller's log.
    """
    raw: grammar.Values = {}
    try:
        words = grammar.read(grammar.GLOBALS, argv, raw, in_order=True)
        settings.update(grammar.finish(grammar.GLOBALS, raw))
    except UsageError:
        known: grammar.Values = {key: raw[key] for key in ("log", "log_format") if key in raw}
        if known.get("log_format") not in ("text", "json"):
            known.pop("log_format", None)
        start_log(grammar.finish(grammar.GLOBALS, known))
        raise
    start_log(settings)
    return words


def start_log(settings: grammar.Values) -> None:
    level = settings["log_level"] or ("debug" if settings["debug"] else "error")
    path = settings["log"] or ""
    name = path.removeprefix("file:")
    if name and name[0] != "/" and ":" not in name:
        path = f"{syscalls.getcwd()}/{name}"
    try:
        log.configure(path, settings["log_format"], level, _open_log)
    except ValueError as error:
        raise UsageError(str(error)) from None
    except OSError as error:
        log.configure("", settings["log_format"], "error", _open_log)
        raise PyokiError(f"open the log: {error}", errno=error.errno or 0) from error


def _open_log(path: str, flags: int) -> int:
    """An fd for `open`: 0600, since messages may hold secrets; high up, since it may stay open."""
    fd = syscalls.openat(constants.AT_FDCWD, path, flags | constants.O_CLOEXEC, 0o600)
    try:
        high = syscalls.dup(fd, LOG_FD)
    except OSError:
        return fd  # RLIMIT_NOFILE is lower than that
    syscalls.close(fd)
    return high


def perform(name: str, options: grammar.Values, settings: grammar.Values) -> int:
    """Call the function of a verb; errors become one line and the verb's exit code."""
    verb = grammar.VERBS[name]
    failure = EXIT_EXEC_FAILURE if name == "exec" else EXIT_FAILURE

    def call() -> int:
        function = resolve(verb.target)
        keywords = grammar.keywords(verb, options, settings)
        if not verb.request:
            return function(**keywords) or 0
        request: Any = resolve(verb.request)
        asked = {key: keywords.pop(key) for key in request._fields if key in keywords}
        return function(request(**asked), **keywords) or 0

    return guarded(call, failure)


def resolve(target: str) -> Any:
    """What `lifecycle.start:start` names."""
    module, _, name = target.partition(":")
    module = f"rootless_pyoki.{module}"
    __import__(module)
    return getattr(sys.modules[module], name)


def guarded(work: Callable[[], int], failure: int = EXIT_FAILURE) -> int:
    """Run `work`; whatever it raises is told in one line and becomes an exit code."""
    try:
        return work()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return failure  # the reader of our stdout left (a failed syscall is a SyscallError)
    except SystemExit as leaving:  # click's completion ends so
        return leaving.code if isinstance(leaving.code, int) else failure
    except BaseException as error:
        tell(error)
        return failure


def tell(error: BaseException) -> None:
    """Write the one line that stands for `error`; with --debug also where it came from."""
    hint, id = _hint_of(error)
    if isinstance(error, PyokiError):
        log.error(error.message, pointer=error.pointer, errno=error.errno, hint=hint, id=id)
    elif isinstance(error, OSError):
        log.error(_describe(error), errno=error.errno or 0, hint=hint, id=id)
    else:
        log.error(f"internal error: {type(error).__name__}: {error}")
    if log.debugging():
        for note in getattr(error, "__notes__", ()):
            log.debug(note)
        if not isinstance(error, UsageError):
            for line in _trace(error):
                log.debug(line)


def _describe(error: OSError) -> str:
    """What Python itself raises has no call to name."""
    if isinstance(error, SyscallError) or not error.strerror:
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{describe_errno(error.errno or 0, error.strerror)}"


def _hint_of(error: BaseException) -> tuple[str, str]:
    """The hint and its name; from the failed call where the error itself has none."""
    if isinstance(error, PyokiError) and error.hint:
        return error.hint, error.id
    failed = error
    if not getattr(error, "call", "") and isinstance(error.__cause__, OSError):
        failed = error.__cause__
    if isinstance(failed, (OSError, PyokiError)) and failed.errno:
        try:
            from rootless_pyoki.host import hints
        except OSError:  # too many open files, perhaps: the error itself can be told all the same
            return "", ""
        found = hints.find(getattr(failed, "call", ""), failed.errno, str(failed.filename or ""))
        if found:
            return found.text, found.id
    return "", error.id if isinstance(error, PyokiError) else ""


def _trace(error: BaseException) -> list[str]:
    """Innermost call last; without the `traceback` module, which costs more than a whole verb."""
    lines = []
    at = error.__traceback__
    while at:
        code = at.tb_frame.f_code
        lines.append(f"  at {code.co_filename}:{at.tb_lineno} in {code.co_name}")
        at = at.tb_next
    if error.__cause__:
        lines += [f"caused by {type(error.__cause__).__name__}", *_trace(error.__cause__)]
    return lines


def cold(argv: list[str], refusal: UsageError | None = None) -> int:
    """Let typer answer: help, completion, human verbs, and a person's mistakes.

    refusal: what the grammar had against argv; raised where there is no typer.
    """
    try:
        from rootless_pyoki.cli import app  # in the hot bundle: exec, with site-packages this time
    except ImportError as error:
        if refusal:
            raise refusal from None
        raise PyokiError(f"help and completion need typer: {error}") from error
    return app.run(argv)


def show_version() -> int:
    """Three lines that callers parse, then ours."""
    from rootless_pyoki.cli import show

    show.write(version_text())
    return 0


def version_text() -> str:
    from rootless_pyoki.spec import OCI_VERSION

    python = ".".join(str(part) for part in sys.version_info[:3])
    return (
        f"pyoki version {rootless_pyoki.__version__}\n"
        f"commit: {rootless_pyoki.commit()}\n"
        f"spec: {OCI_VERSION}\n"
        f"python: {python} ({sys.executable})\n"
    )


def flush(code: int) -> int:
    """Bring out what is still buffered; a full disk is an error, a reader that left is not."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        pass
    except OSError as error:
        if not code:  # else the error that led to it has been told
            tell(error)
        return code or EXIT_FAILURE
    return code
