"""The tables of the command line, read as callers write it."""

from __future__ import annotations

import pytest

from rootless_pyoki.cli import grammar
from rootless_pyoki.errors import UsageError

# What podman and conmon, buildah, containerd (go-runc) and CRI-O really give a runtime.
CALLERS = [
    (
        "--systemd-cgroup --log-format=json --log /run/c/oci-log create --bundle /b --pid-file /p "
        "--no-pivot --no-new-keyring --preserve-fds 2 --console-socket /s abc",
        "create",
        {
            "bundle": "/b",
            "pid_file": "/p",
            "no_pivot": True,
            "no_new_keyring": True,
            "preserve_fds": 2,
            "console_socket": "/s",
            "id": "abc",
        },
        {"systemd_cgroup": True, "log_format": "json", "log": "/run/c/oci-log"},
    ),
    (
        "--log-format=json --log /l --cgroup-manager disabled create --bundle /b --pid-file /p abc",
        "create",
        {"bundle": "/b", "pid_file": "/p", "id": "abc"},
        {"cgroup_manager": "disabled", "log_format": "json", "log": "/l"},
    ),
    (
        "--log-format=json --log /l exec --pid-file /p --process /j --detach --console-socket /s "
        "abc",
        "exec",
        {"process_file": "/j", "detach": True, "pid_file": "/p", "id": "abc", "args": []},
        {"log": "/l"},
    ),
    ("exec --pid-file /p --process /j --preserve-fds 1 abc", "exec", {"preserve_fds": 1}, {}),
    ("state abc", "state", {"id": "abc", "verbose": False}, {"root": None}),
    ("start abc", "start", {"id": "abc"}, {}),
    ("kill abc 15", "kill", {"id": "abc", "signal": 15, "all": False}, {}),
    ("kill --all abc 9", "kill", {"id": "abc", "signal": 9, "all": True}, {}),
    ("delete abc", "delete", {"id": "abc", "force": False}, {}),
    ("delete --force abc", "delete", {"id": "abc", "force": True}, {}),
    ("pause abc", "pause", {"id": "abc"}, {}),
    ("resume abc", "resume", {"id": "abc"}, {}),
    ("update --resources=/f abc", "update", {"resources": "/f", "memory": None, "id": "abc"}, {}),
    # buildah
    ("--systemd-cgroup create --bundle /b --pid-file /p name", "create", {"id": "name"}, {}),
    ("kill name", "kill", {"signal": 15}, {}),
    ("kill name SIGKILL", "kill", {"signal": 9}, {}),
    # containerd
    (
        "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup "
        "create --bundle /b --pid-file /b/init.pid --no-pivot --no-new-keyring abc",
        "create",
        {"bundle": "/b", "pid_file": "/b/init.pid"},
        {"root": "/run/containerd/runc/k8s.io", "systemd_cgroup": True},
    ),
    (
        "--root /r --log /l --log-format json exec --process /tmp/p --console-socket /s --detach "
        "--pid-file /p abc",
        "exec",
        {"process_file": "/tmp/p", "console_socket": "/s", "detach": True},
        {"root": "/r"},
    ),
    ("--root /r --log /l --log-format json kill --all abc 9", "kill", {"all": True}, {}),
    ("--root /r --debug list --format=json", "list", {"format": "json"}, {"debug": True}),
    ("--root /r ps --format json abc", "ps", {"format": "json", "id": "abc", "args": []}, {}),
    ("--criu /usr/sbin/criu --root /r state abc", "state", {"id": "abc"}, {"root": "/r"}),
    # CRI-O
    ("--root=/run/pyoki --systemd-cgroup kill abc TERM", "kill", {"signal": 15}, {}),
    ("--root=/run/pyoki kill -a abc KILL", "kill", {"all": True, "signal": 9}, {}),
    ("--root=/run/pyoki update --resources - abc", "update", {"resources": "-", "id": "abc"}, {}),
    ("--root=/run/pyoki delete --force abc", "delete", {"force": True}, {"root": "/run/pyoki"}),
    # people
    ("run -d --keep -b=/b x", "run", {"detach": True, "keep": True, "bundle": "/b"}, {}),
    (
        "exec -t -e A=b -e C=d=e -u 1:2 -g 3 -g 4 x sh -c -t",
        "exec",
        {
            "tty": True,
            "env": ["A=b", "C=d=e"],
            "user": "1:2",
            "additional_gids": [3, 4],
            "args": ["sh", "-c", "-t"],
        },
        {},
    ),
    (
        "update --memory 1.5g --memory-swap -1 --cpu-quota=-1 --cpu-period 50000 --cpu-share 2 "
        "--cpuset-cpus 0-1 --pids-limit -1 x",
        "update",
        {
            "memory": 3 << 29,
            "memory_swap": -1,
            "cpu_quota": -1,
            "cpu_period": 50000,
            "cpu_shares": 2,
            "cpuset_cpus": "0-1",
            "pids_limit": -1,
        },
        {},
    ),
    ("exec --tty=false x true", "exec", {"tty": False, "args": ["true"]}, {}),
    ("ps x -ax -f", "ps", {"format": "table", "args": ["-ax", "-f"]}, {}),
    ("delete x --force", "delete", {"force": True}, {}),
    ("spec --rootless -b /b", "spec", {"rootless": True, "bundle": "/b"}, {}),
    ("delete -- -x", "delete", {"id": "-x"}, {}),
]


def parse(line: str | list[str]) -> tuple[str, grammar.Values, grammar.Values]:
    words = line.split() if isinstance(line, str) else line
    raw: grammar.Values = {}
    name, *words = grammar.read(grammar.GLOBALS, words, raw, in_order=True)
    options = grammar.parse(grammar.VERBS[name], words)
    assert options is not None
    return name, options, grammar.finish(grammar.GLOBALS, raw)


@pytest.mark.parametrize(("line", "verb", "options", "settings"), CALLERS)
def test_callers(
    line: str, verb: str, options: dict[str, object], settings: dict[str, object]
) -> None:
    """Every command line that a known caller gives is read, with the values it means."""
    name, got, globals_ = parse(line)
    assert name == verb
    assert {key: got[key] for key in options} == options
    assert {key: globals_[key] for key in settings} == settings


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("create --nope x", "no such option: --nope"),
        ("create -z x", "no such option: -z"),
        ("create x --pid-file", "option --pid-file needs a value"),
        ("create", "missing argument ID"),
        ("delete a b", "unexpected argument b"),
        ("list a", "unexpected argument a"),
        ("list --format yaml", "--format takes one of table, json"),
        ("create --preserve-fds -1 x", "--preserve-fds takes a number"),
        ("create --preserve-fds 1_0 x", "--preserve-fds takes a number"),
        ("create --no-pivot=maybe x", "--no-pivot takes true or false"),
        ("exec -u root x sh", "--user takes a number"),
        ("exec -u 1: x sh", "--user takes a number"),
        ("exec -u 1:2:3 x sh", "--user takes a number"),
        ("exec -u +1 x sh", "--user takes a number"),
        ("exec -u 4294967295 x sh", "--user takes a number"),
        ("exec -g wheel x sh", "--additional-gids takes a number"),
        ("update --memory 5x x", "--memory takes a size such as 512m"),
        ("update --memory-swap -2 x", "--memory-swap takes a size"),
        ("update --cpu-quota 1.5 x", "--cpu-quota takes a whole number"),
        ("update --cpu-period -1 x", "--cpu-period takes a number"),
        ("kill x NOPE", "no such signal"),
        ("kill x 65", "no such signal"),
        ("kill x -9", "no such option: -9"),
        ("--cgroup-manager=v1 state x", "--cgroup-manager takes one of"),
        ("--rootless maybe state x", "--rootless takes one of"),
        ("--log", "option --log needs a value"),
    ],
)
def test_refusals(line: str, words: str) -> None:
    """What cannot be meant is refused, and the message names the option or argument."""
    with pytest.raises(UsageError, match=words):
        parse(line)


def test_empty_values_stay() -> None:
    """`--cwd=` and an empty word are values, not missing ones."""
    assert parse(["exec", "--cwd=", "-e", "", "x", ""])[1] == {
        **parse(["exec", "x", ""])[1],
        "cwd": "",
        "env": [""],
    }


def test_value_may_look_like_an_option() -> None:
    """A value is the next word whatever it looks like, as in Go."""
    assert parse(["create", "--pid-file", "--bundle", "x"])[1]["pid_file"] == "--bundle"


def test_last_value_counts() -> None:
    """An option given twice has its last value."""
    _, options, settings = parse(
        "--root /a --root /b create --no-pivot --no-pivot=false -b 1 -b 2 x"
    )
    assert (settings["root"], options["no_pivot"], options["bundle"]) == ("/b", False, "2")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("TERM", 15),
        ("SIGTERM", 15),
        ("sigterm", 15),
        ("Kill", 9),
        ("9", 9),
        ("0", 0),
        ("HUP", 1),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("sigrtmax-1", 63),
        ("RTMAX", 64),
        ("WINCH", 28),
    ],
)
def test_signals(text: str, number: int) -> None:
    """Signals by number or name, with or without SIG, in any case; RTMIN as kill(1) counts."""
    assert grammar.signal_number(text) == number


@pytest.mark.parametrize("text", ["", "SIG", "RTMIN+40", "RTMAX+1", "RTMIN-1", "²", "RTMIN+", "-9"])
def test_no_such_signal(text: str) -> None:
    """Anything else is no signal."""
    with pytest.raises(UsageError, match="no such signal"):
        grammar.signal_number(text)


@pytest.mark.parametrize("verb", list(grammar.VERBS))
def test_help_is_not_for_the_machine(verb: str) -> None:
    """--help wins over missing arguments, and is left to the typer app."""
    assert grammar.parse(grammar.VERBS[verb], ["--help"]) is None


def test_tables_are_consistent() -> None:
    """No verb has two options of one name or key; flags default to False."""
    for options in (grammar.GLOBALS, *(verb.options for verb in grammar.VERBS.values())):
        names = [name for option in options for name in option[1]]
        keys = [option[0] for option in options]
        assert len(set(names)) == len(names)
        assert len(set(keys)) == len(keys)
        assert all(option[3] is False for option in options if option[2] == grammar.FLAG)
