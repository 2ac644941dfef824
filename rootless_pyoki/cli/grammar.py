"""The command line as data: what each verb is called with, and which function answers it.

The machine path (entry.py), the typer app (app.py) and the tests all read these tables, so the same
argv cannot mean two things. Forms: `--name value`, `--name=value`, `-n value`, `-n=value`, and for
flags `--name`, `--name=true`, `--name=false`. Global options stand before the verb.
"""

from __future__ import annotations

from rootless_pyoki.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Kind = str | tuple[str, ...]  # one of the kinds below, or the words to choose from
    Option = tuple[str, tuple[str, ...], Kind, Any]  # key, names, kind, default
    Positional = tuple[str, str, Kind]  # key, arity, kind
    Values = dict[str, Any]

# Kinds: what an option takes, and what its function gets.
FLAG = "flag"  # bool
TEXT = "text"  # str; None when not given
COUNT = "count"  # int, not negative
LIST = "list"  # list[str], one for each time it is given
IDS = "ids"  # list[int], likewise
USER = "user"  # "UID" or "UID:GID", digits only
SIGNAL = "signal"  # int
DURATION = "duration"  # float: seconds, more than 0
SIZE = "size"  # int: bytes, -1 for no limit
INTEGER = "integer"  # int

# Arities of positionals.
ONE, OPTIONAL, REST = "one", "optional", "rest"

HELP: Option = ("help", ("-h", "--help"), FLAG, False)

GLOBALS: tuple[Option, ...] = (
    ("root", ("--root",), TEXT, None),
    ("log", ("--log",), TEXT, None),
    ("log_format", ("--log-format",), ("text", "json"), "text"),
    ("log_level", ("--log-level",), ("error", "warning", "info", "debug"), None),
    ("debug", ("--debug",), FLAG, False),
    ("systemd_cgroup", ("--systemd-cgroup",), FLAG, False),
    ("cgroup_manager", ("--cgroup-manager",), ("auto", "cgroupfs", "systemd", "disabled"), "auto"),
    ("rootless", ("--rootless",), ("auto", "true", "false"), "auto"),
    ("unsupported", ("--unsupported",), ("error", "warn", "ignore"), None),
    ("criu", ("--criu",), TEXT, None),
    ("version", ("-v", "-V", "--version"), FLAG, False),
    HELP,
)
HIDDEN = ("criu",)  # what old callers still pass: accepted, without effect

ID: Positional = ("id", ONE, TEXT)
FORMAT: Option = ("format", ("-f", "--format"), ("table", "json"), "table")
REGEX: Option = ("regex", ("-r", "--regex"), FLAG, False)
CONSOLE_SOCKET: Option = ("console_socket", ("--console-socket",), TEXT, None)
PID_FILE: Option = ("pid_file", ("--pid-file",), TEXT, None)
PIDFD_SOCKET: Option = ("pidfd_socket", ("--pidfd-socket",), TEXT, None)
PRESERVE_FDS: Option = ("preserve_fds", ("--preserve-fds",), COUNT, 0)
DETACH: Option = ("detach", ("-d", "--detach"), FLAG, False)

CREATE: tuple[Option, ...] = (
    ("bundle", ("-b", "--bundle"), TEXT, None),
    ("config", ("-f", "--config"), TEXT, None),
    CONSOLE_SOCKET,
    PID_FILE,
    PIDFD_SOCKET,
    PRESERVE_FDS,
    ("no_pivot", ("--no-pivot",), FLAG, False),
    ("no_new_keyring", ("--no-new-keyring",), FLAG, False),
)
RUN: tuple[Option, ...] = (
    *CREATE,
    DETACH,
    ("keep", ("--keep",), FLAG, False),
    ("no_subreaper", ("--no-subreaper",), FLAG, False),
)
EXEC: tuple[Option, ...] = (
    ("process_file", ("-p", "--process"), TEXT, None),
    DETACH,
    PID_FILE,
    CONSOLE_SOCKET,
    PIDFD_SOCKET,
    PRESERVE_FDS,
    ("cwd", ("--cwd",), TEXT, None),
    ("env", ("-e", "--env"), LIST, ()),
    ("tty", ("-t", "--tty"), FLAG, False),
    ("user", ("-u", "--user"), USER, None),
    ("additional_gids", ("-g", "--additional-gids"), IDS, ()),
    ("process_label", ("--process-label",), TEXT, None),
    ("apparmor", ("--apparmor",), TEXT, None),
    ("no_new_privs", ("--no-new-privs",), FLAG, False),
    ("caps", ("-c", "--cap"), LIST, ()),
    ("cgroup", ("--cgroup",), LIST, ()),
    ("ignore_paused", ("--ignore-paused",), FLAG, False),
)
SPEC: tuple[Option, ...] = (
    ("bundle", ("-b", "--bundle"), TEXT, "."),
    ("file", ("-f", "--file"), TEXT, None),
    ("rootless", ("--rootless",), FLAG, False),
    ("net", ("--net",), ("private", "host"), "private"),
    ("terminal", ("--terminal",), FLAG, False),
)
UPDATE: tuple[Option, ...] = (
    ("resources", ("-r", "--resources"), TEXT, None),
    ("memory", ("--memory",), SIZE, None),
    ("memory_reservation", ("--memory-reservation",), SIZE, None),
    ("memory_swap", ("--memory-swap",), SIZE, None),
    ("kernel_memory", ("--kernel-memory",), SIZE, None),
    ("kernel_memory_tcp", ("--kernel-memory-tcp",), SIZE, None),
    ("cpu_period", ("--cpu-period",), COUNT, None),
    ("cpu_quota", ("--cpu-quota",), INTEGER, None),
    ("cpu_shares", ("--cpu-share", "--cpu-shares"), COUNT, None),
    ("cpu_burst", ("--cpu-burst",), COUNT, None),
    ("cpu_idle", ("--cpu-idle",), INTEGER, None),
    ("cpu_rt_period", ("--cpu-rt-period",), COUNT, None),
    ("cpu_rt_runtime", ("--cpu-rt-runtime",), INTEGER, None),
    ("cpuset_cpus", ("--cpuset-cpus",), TEXT, None),
    ("cpuset_mems", ("--cpuset-mems",), TEXT, None),
    ("blkio_weight", ("--blkio-weight",), COUNT, None),
    ("pids_limit", ("--pids-limit",), INTEGER, None),
    ("l3_cache_schema", ("--l3-cache-schema",), TEXT, None),
    ("mem_bw_schema", ("--mem-bw-schema",), TEXT, None),
)

EVENTS: tuple[Option, ...] = (
    ("interval", ("--interval",), DURATION, 5.0),
    ("stats", ("--stats",), FLAG, False),
    ("all", ("--all",), FLAG, False),
)
TOP: tuple[Option, ...] = (
    ("interval", ("--interval",), DURATION, 1.0),
    ("once", ("--once",), FLAG, False),
    ("json", ("--json",), FLAG, False),
)

CREATE_SETTINGS = ("root", "cgroup_manager", "systemd_cgroup", "rootless", "unsupported", "debug")
REQUEST = "lifecycle.create:Request"


class Verb:
    """target: module:function below rootless_pyoki, called with the options, the positionals and
    the named settings as keywords. request: the record that takes those which it has fields for,
    and is then the only positional argument. in_order: the first positional ends the options.
    """

    def __init__(
        self,
        target: str,
        options: tuple[Option, ...] = (),
        positionals: tuple[Positional, ...] = (ID,),
        settings: tuple[str, ...] = ("root",),
        *,
        request: str = "",
        in_order: bool = False,
    ) -> None:
        self.target = target
        self.options = options
        self.positionals = positionals
        self.settings = settings
        self.request = request
        self.in_order = in_order


VERBS: dict[str, Verb] = {
    "create": Verb("lifecycle.create:create", CREATE, settings=CREATE_SETTINGS, request=REQUEST),
    "start": Verb("lifecycle.start:start"),
    "run": Verb("lifecycle.run:run", RUN, settings=CREATE_SETTINGS, request=REQUEST),
    "exec": Verb(
        "lifecycle.exec:exec_process",
        EXEC,
        (ID, ("args", REST, TEXT)),
        ("root", "unsupported"),
        request="lifecycle.exec:Request",
        in_order=True,
    ),
    "state": Verb("cli.show:state", (("verbose", ("--verbose",), FLAG, False),)),
    "kill": Verb(
        "lifecycle.signal:kill",
        (("all", ("-a", "--all"), FLAG, False), REGEX),
        (ID, ("signal", OPTIONAL, SIGNAL)),
    ),
    "delete": Verb("lifecycle.delete:delete", (("force", ("-f", "--force"), FLAG, False), REGEX)),
    "list": Verb(
        "cli.show:list_containers", (FORMAT, ("quiet", ("-q", "--quiet"), FLAG, False)), ()
    ),
    "ps": Verb("cli.show:ps", (FORMAT,), (ID, ("args", REST, TEXT)), in_order=True),
    "pause": Verb("lifecycle.signal:pause"),
    "resume": Verb("lifecycle.signal:resume"),
    "update": Verb(
        "lifecycle.update:update",
        UPDATE,
        settings=("root", "unsupported"),
        request="lifecycle.update:Request",
    ),
    "events": Verb("cli.events:events", EVENTS),
    "top": Verb("cli.top:top", TOP, (("ids", REST, TEXT),)),
    "spec": Verb("cli.new_spec:spec", SPEC, (), ()),
    "features": Verb("cli.show:features", (), (), ()),
}


def read(
    options: tuple[Option, ...], words: list[str], values: Values, *, in_order: bool
) -> list[str]:
    """Put the raw values of the options in `words` into `values`; return the other words.

    Raw: True or False for a flag, list[str] for what repeats, else str. What was read before a
    UsageError stays in `values`.
    """
    by_name = {name: option for option in options for name in option[1]}
    rest: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        at += 1
        if word == "--":
            break
        if word[:1] != "-" or word == "-":
            rest.append(word)
            if in_order:
                break
            continue
        name, equals, value = word.partition("=")
        if name not in by_name:
            raise UsageError(f"no such option: {name}")
        key, _, kind, _ = by_name[name]
        if kind == FLAG:
            values[key] = boolean(name, value) if equals else True
            continue
        if not equals:
            if at == len(words):
                raise UsageError(f"option {name} needs a value")
            value = words[at]
            at += 1
        if kind in (LIST, IDS):
            values[key] = [*values.get(key, ()), value]
        else:
            values[key] = value
    return rest + words[at:]


def finish(options: tuple[Option, ...], raw: Values) -> Values:
    """Every option's value in the type its kind promises; the default where none was given."""
    values: Values = {}
    for key, names, kind, default in options:
        value = raw.get(key)
        if kind in (LIST, IDS):
            texts: list[str] = list(value or default)
            values[key] = [_number(names[-1], text) for text in texts] if kind == IDS else texts
        elif value is None:
            values[key] = default
        else:
            values[key] = _convert(kind, names[-1], value)
    return values


def place(positionals: tuple[Positional, ...], words: list[str]) -> Values:
    """The positionals by key; UsageError when one is missing or too many came."""
    values: Values = {}
    words = list(words)
    for key, arity, kind in positionals:
        if arity == REST:
            values[key], words = words, []
        elif words:
            values[key] = _convert(kind, key.upper(), words.pop(0))
        elif arity == OPTIONAL:
            values[key] = _convert(kind, key.upper(), None)
        else:
            raise UsageError(f"missing argument {key.upper()}")
    if words:
        raise UsageError(f"unexpected argument {words[0]}")
    return values


def parse(verb: Verb, words: list[str]) -> Values | None:
    """What follows the verb, as keywords for its function; None when help was asked for."""
    raw: Values = {}
    rest = read((*verb.options, HELP), words, raw, in_order=verb.in_order)
    if raw.get("help"):
        return None
    return {**finish(verb.options, raw), **place(verb.positionals, rest)}


def keywords(verb: Verb, options: Values, settings: Values) -> Values:
    """All that the verb's function is called with."""
    return {**options, **{key: settings[key] for key in verb.settings}}


def _convert(kind: Kind, name: str, value: Any) -> Any:
    if kind == COUNT:
        return _number(name, value)
    if kind == SIGNAL:
        return signal_number(value or "SIGTERM")
    if kind == DURATION:
        from rootless_pyoki.cli import durations

        return durations.seconds(name, value)
    if kind in (SIZE, INTEGER):
        from rootless_pyoki.cli import quantities

        return (quantities.size if kind == SIZE else quantities.integer)(name, value)
    if kind == USER:
        uid, colon, gid = value.partition(":")
        _number(name, uid)
        if colon:
            _number(name, gid)
    elif isinstance(kind, tuple) and value not in kind:
        raise UsageError(f"{name} takes one of {', '.join(kind)}, not {value!r}")
    return value


def boolean(name: str, text: str) -> bool:
    """Go's strconv.ParseBool, since callers are written in Go."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f"{name} takes true or false, not {text!r}")


def _number(name: str, text: str) -> int:
    """Decimal digits only: no sign, blank, or underscore, and no more than an id can be."""
    if not (text.isascii() and text.isdigit()) or len(text) > 10 or int(text) > 0xFFFFFFFE:
        raise UsageError(f"{name} takes a number, not {text!r}")
    return int(text)


def signal_number(text: str) -> int:
    """`9`, `KILL`, `SIGKILL`, `sigrtmin+3`: signal(7)'s number of it."""
    from rootless_pyoki.kernel.constants import SIGNALS

    name = text.upper()
    if name.isascii() and name.isdigit() and len(name) < 4 and int(name) <= 64:
        return int(name)
    name = name.removeprefix("SIG")
    number = SIGNALS.get("SIG" + name, 0)
    for base, sign, step in (("RTMIN", "+", 1), ("RTMAX", "-", -1)):
        # As the C library counts: it keeps 32 and 33 for itself.
        first = 34 if step > 0 else 64
        offset = name[len(base) + 1 :]
        if name == base:
            number = first
        elif name.startswith(base + sign) and offset.isascii() and offset.isdigit():
            number = first + step * int(offset[:3])
            number = number if 34 <= number <= 64 else 0
    if not number:
        raise UsageError(f"no such signal: {text!r}")
    return number
