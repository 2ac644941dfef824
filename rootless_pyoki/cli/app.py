"""The same verbs for people: help, completion and suggestions, by typer.

Built from the grammar's tables; what is said here are the words. Cold: typer alone costs more than
any verb, so entry.py comes here only for what the grammar does not answer.
"""

from __future__ import annotations

import os
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

from rootless_pyoki.cli import entry, grammar
from rootless_pyoki.errors import PyokiError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    # verb, options, settings -> exit code
    Dispatch = Callable[[str, grammar.Values, grammar.Values], int]

SUMMARY = "Run OCI containers, rootless first."
EPILOGUE = "ID is a container's name, of your choice: letters, digits, and _ + - ."

VERB_HELP = {
    "create": "Create a container from a bundle; `start` runs its program.",
    "start": "Run the program of a created container.",
    "run": "Create a container, run its program, and delete it when that ends.",
    "exec": "Run another program in a running container.",
    "state": "Print the state of a container as JSON.",
    "kill": "Send a signal (default TERM) to a container's first process.",
    "delete": "Delete a stopped or created container.",
    "list": "List the containers of this state directory.",
    "ps": "List the processes of a container; what follows the id goes to the host's ps.",
    "pause": "Freeze all processes of a container.",
    "resume": "Thaw them.",
    "update": "Change the limits of a container; what is not given stays.",
    "events": "Print what a container uses, every so often, and OOM kills as they happen, as JSON.",
    "top": "Show what containers use, live: those named, or all; q ends it.",
    "features": "Print what this runtime can do, as JSON.",
    "spec": "Write a config.json to start from.",
}

# By option key, or by (verb, key) where a verb means something of its own.
OPTION_HELP: dict[str | tuple[str, str], str] = {
    "root": "Directory of the containers' state.",
    "log": "File that errors are appended to (default: stderr).",
    "log_format": "Form of the log.",
    "log_level": "Least level that is logged (default: error).",
    "debug": "Log what is done, step by step.",
    "systemd_cgroup": "The same as --cgroup-manager systemd.",
    "cgroup_manager": "Who makes the container's cgroup; auto: systemd where it answers, else we.",
    "unsupported": "What to do with fields that cannot be applied (default: as each field asks for).",
    "rootless": "false: a container that gets no cgroup is an error",
    "criu": "Accepted for old callers, without effect.",
    "version": "Print the version.",
    "bundle": "Directory with config.json (default: the current one).",
    "config": "Another file than the bundle's config.json.",
    "console_socket": "Unix socket that receives the terminal's master side.",
    "pid_file": "File that receives the process's pid.",
    "pidfd_socket": "Unix socket that receives a pidfd of the process.",
    "preserve_fds": "How many file descriptors from 3 on the program keeps.",
    "no_pivot": "Leave the host's root without pivot_root (initramfs).",
    "no_new_keyring": "Keep the caller's session keyring.",
    "detach": "Return as soon as the program runs.",
    "keep": "Do not delete the container when its program has ended.",
    "no_subreaper": "Do not adopt orphans of the container.",
    "process_file": "File with the process as JSON, instead of COMMAND and options.",
    "cwd": "Working directory in the container.",
    "env": "NAME=VALUE to add to the environment.",
    "tty": "Give the program a terminal.",
    "user": "UID or UID:GID to run as.",
    "additional_gids": "Supplementary group.",
    "process_label": "SELinux label of the process.",
    "apparmor": "AppArmor profile of the process.",
    "no_new_privs": "No privileges from setuid programs.",
    "caps": "Capability to add.",
    "cgroup": "Cgroup below the container's to run in.",
    "ignore_paused": "Run in a paused container too: it will wait.",
    "verbose": "Also tell what was changed or left out, and the cgroup.",
    "all": "Every process of the container.",
    "regex": "Take the id as a regular expression.",
    "force": "Kill the container first when it runs; no error when there is none.",
    "format": "Form of the output.",
    "quiet": "Print ids only.",
    "resources": "File with limits as JSON (LinuxResources), - is stdin; other options are ignored.",
    "memory": "Limit of memory.",
    "memory_reservation": "Memory that is kept from being reclaimed while others have more.",
    "memory_swap": "Limit of memory and swap together.",
    "kernel_memory": "Accepted for old callers, without effect.",
    "kernel_memory_tcp": "Accepted for old callers, without effect.",
    "cpu_period": "Length of a period in µs; 0: the kernel's default.",
    "cpu_quota": "CPU time in each period in µs; -1: no limit.",
    "cpu_shares": "Weight against other containers, from 2 to 262144.",
    "cpu_burst": "CPU time in µs that may be saved up for later periods.",
    "cpu_idle": "1: run only where nobody else wants to; 0: as others.",
    "cpu_rt_period": "For cgroup v1 only: an error.",
    "cpu_rt_runtime": "For cgroup v1 only: an error.",
    "cpuset_cpus": "CPUs to run on, such as 0-3,7.",
    "cpuset_mems": "Memory nodes to take memory from.",
    "blkio_weight": "Weight of block I/O, from 10 to 1000.",
    "pids_limit": "Most processes and threads; -1: no limit.",
    "l3_cache_schema": "Needs the host's root: an error.",
    "mem_bw_schema": "Needs the host's root: an error.",
    "interval": "Time between two measurements, such as 500ms, 5s, 1m30s",
    "stats": "Print one measurement, and end.",
    ("events", "all"): "Also tell of kills and limits counted, of freeze, thaw and exit.",
    "once": "Print one table, and end; so it is where there is no terminal.",
    "json": "Print a line of JSON for each measurement.",
    ("spec", "bundle"): "Directory to write config.json to.",
    ("spec", "file"): "Another file to write to; - is stdout.",
    ("spec", "rootless"): "For a user without privileges.",
    "net": "A network namespace of its own, or the host's.",
    "terminal": "With a terminal.",
}

METAVARS = {
    "id": "ID",
    "ids": "[ID]...",
    "interval": "DURATION",
    "args": "[ARG]...",
    "signal": "[SIGNAL]",
    "root": "DIR",
    "bundle": "DIR",
    "cwd": "DIR",
    "env": "NAME=VALUE",
    "user": "UID[:GID]",
    "additional_gids": "GID",
    "preserve_fds": "N",
    "memory": "BYTES",
    "memory_reservation": "BYTES",
    "memory_swap": "BYTES",
    "kernel_memory": "BYTES",
    "kernel_memory_tcp": "BYTES",
    "cpu_period": "MICROSECONDS",
    "cpu_quota": "MICROSECONDS",
    "cpu_burst": "MICROSECONDS",
    "cpu_rt_period": "MICROSECONDS",
    "cpu_rt_runtime": "MICROSECONDS",
    "cpu_shares": "WEIGHT",
    "cpu_idle": "0|1",
    "cpuset_cpus": "LIST",
    "cpuset_mems": "LIST",
    "blkio_weight": "WEIGHT",
    "pids_limit": "N",
    "l3_cache_schema": "SCHEMA",
    "mem_bw_schema": "SCHEMA",
    "caps": "CAP",
    "apparmor": "PROFILE",
    "process_label": "LABEL",
}


class Command(TyperCommand):
    """A verb whose flags may also be written `--flag=true`, as Go's callers do."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        verb = grammar.VERBS[self.name or ""]
        return super().parse_args(ctx, respell(verb.options, args, in_order=verb.in_order))


class Group(TyperGroup):
    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, respell(grammar.GLOBALS, args, in_order=True))


def run(argv: list[str], dispatch: Dispatch = entry.perform) -> int:
    """Answer one command line; returns the exit code. UsageError for what typer refuses too."""
    if not argv and "_PYOKI_COMPLETE" not in os.environ:
        argv = ["--help"]
    app = build(dispatch)
    try:
        code = app(args=argv, prog_name="pyoki", standalone_mode=False)
    except PyokiError:
        raise
    except Exception as error:
        format_message = getattr(error, "format_message", None)
        if format_message is None:
            raise
        raise UsageError(_one_line(format_message())) from None
    return code if isinstance(code, int) else 0


def build(dispatch: Dispatch) -> typer.Typer:
    """The app with every verb of the grammar; each ends in dispatch(verb, options, settings)."""
    names = {"help_option_names": list(grammar.HELP[1])}
    app = typer.Typer(
        name="pyoki",
        cls=Group,
        help=SUMMARY,
        epilog=EPILOGUE,
        context_settings=names,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=False,
    )
    settings: grammar.Values = {}

    def globals_given(**raw: Any) -> None:
        settings.update(grammar.finish(grammar.GLOBALS, raw))
        if settings["version"]:
            entry.show_version()
            raise typer.Exit(0)

    _sign(globals_given, grammar.GLOBALS, ())
    app.callback(invoke_without_command=True)(globals_given)
    for name, verb in grammar.VERBS.items():
        app.command(
            name,
            cls=Command,
            help=VERB_HELP[name],
            context_settings={**names, "allow_interspersed_args": not verb.in_order},
        )(_answering(name, verb, settings, dispatch))
    return app


def _answering(
    name: str, verb: grammar.Verb, settings: grammar.Values, dispatch: Dispatch
) -> Callable[..., int]:
    """The function that typer calls with the raw values of one verb."""

    def answer(**raw: Any) -> int:
        words: list[str] = []
        for key, arity, _ in verb.positionals:
            value = raw.pop(key)
            words += value or () if arity == grammar.REST else () if value is None else (value,)
        options = {**grammar.finish(verb.options, raw), **grammar.place(verb.positionals, words)}
        return dispatch(name, options, settings)

    _sign(answer, verb.options, verb.positionals, name)
    return answer


def _sign(
    function: Callable[..., Any],
    options: tuple[grammar.Option, ...],
    positionals: tuple[grammar.Positional, ...],
    verb: str = "",
) -> None:
    """Give the function the signature that typer reads: a keyword for each entry of the tables."""
    parameters = []
    for key, arity, _ in positionals:
        default = ... if arity == grammar.ONE else None
        annotation: Any = list[str] | None if arity == grammar.REST else str
        if arity == grammar.OPTIONAL:
            annotation = str | None
        argument = typer.Argument(default, metavar=METAVARS[key], show_default=False)
        parameters.append(_parameter(key, argument, annotation))
    for option in options:
        if option[0] != "help":
            parameters.append(_option(option, verb))
    function.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {each.name: each.annotation for each in parameters}


def _option(option: grammar.Option, verb: str) -> Parameter:
    key, names, kind, default = option
    text = OPTION_HELP.get((verb, key)) or OPTION_HELP[key]
    more: dict[str, Any] = {"help": text, "hidden": key in grammar.HIDDEN, "show_default": False}
    if kind == grammar.FLAG:
        return _parameter(key, typer.Option(False, *names, **more), bool)
    more["metavar"] = METAVARS.get(key, "FILE")
    if kind in (grammar.LIST, grammar.IDS):
        return _parameter(key, typer.Option(None, *names, **more), list[str] | None)
    if isinstance(kind, tuple):
        more["metavar"] = "|".join(kind)
        more["autocompletion"] = lambda incomplete: [w for w in kind if w.startswith(incomplete)]
    if kind == grammar.DURATION:
        more["help"] = f"{text} (default: {default:g}s)."
    elif default not in (None, 0):
        more["help"] = f"{text.removesuffix('.')} (default: {default})."
    return _parameter(key, typer.Option(None, *names, **more), str | None)


def _parameter(key: str, default: Any, annotation: Any) -> Parameter:
    return Parameter(key, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def respell(options: tuple[grammar.Option, ...], words: list[str], *, in_order: bool) -> list[str]:
    """The same words with `--flag=BOOL` and `-n=value` spelled as typer knows them; flags first."""
    by_name = {name: option for option in (*options, grammar.HELP) for name in option[1]}
    flags: dict[str, tuple[str, bool]] = {}  # the last one counts
    spelled: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--" or (in_order and (word[:1] != "-" or word == "-")):
            break
        at += 1
        name, equals, value = word.partition("=")
        known = by_name.get(name) if word[:1] == "-" else None
        if known is None:
            spelled.append(word)
        elif known[2] == grammar.FLAG:
            flags[known[0]] = (name, not equals or grammar.boolean(name, value))
        elif equals:
            spelled += [name, value]
        else:
            spelled += words[at - 1 : at + 1]
            at += 1
    return [*(name for name, given in flags.values() if given), *spelled, *words[at:]]


def _one_line(message: str) -> str:
    """Typer's sentence in our style: lower case, no full stop."""
    text = " ".join(message.split()).removesuffix(".")
    return text[:1].lower() + text[1:]
