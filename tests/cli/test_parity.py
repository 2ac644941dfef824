"""The same argv means the same through the machine path and through typer."""

from __future__ import annotations

import pytest

from rootless_pyoki.cli import app, entry, grammar
from rootless_pyoki.errors import UsageError
from tests.cli.test_grammar import CALLERS

MORE = """
state x
state --verbose x
state x --verbose
state --verbose=false x
--root /r --log /l --log-format json --log-level debug --debug state x
--root= state x
--debug=true --debug=false state x
-- state x
create -b /b -f /c --preserve-fds=3 --pidfd-socket /s x
create --no-pivot=1 --no-new-keyring=0 x
create --pid-file --bundle x
create -b=/b x
create x -b /b
create -- x
run -d x
run --detach=false --keep --no-subreaper x
run --no-subreaper=true --bundle=/b x
exec x ls -l --all
exec x
exec -d -p /f x
exec --process=/f --detach=true x
exec -c CAP_CHOWN -c CAP_KILL --cgroup sub --ignore-paused x a
exec --cwd / --env A --env B=c --tty --user 0 x a
exec --additional-gids 1 --additional-gids=2 --apparmor p --process-label l --no-new-privs x a
exec -t x -t
exec -t=true x -- a
exec -- x -- a
exec -u 1:2:3 x a
exec -u x x a
exec -g x x a
exec --tty=perhaps x a
exec
kill x
kill x RTMIN+1
kill -a -r x 1
kill --all --regex x SIGUSR1
kill x NOPE
kill x 1 2
kill x -9
kill
delete -f x
delete -fr x
delete --force=false x
delete x y
delete -f
list
list -q
list -f json
list --quiet --format=table
list x
list -f yaml
ps x
ps -f json x
ps x -e -f
ps x -- -e
ps
pause x
resume x
pause
resume x y
start x
start
spec
spec --rootless --net host --terminal
spec -f -
spec x
spec --net none
create --nope x
create --preserve-fds x y
create --preserve-fds
create --bundle
--nope state x
--root
--log-format xml state x
--cgroup-manager systemd --systemd-cgroup --rootless true state x
--criu /c state x
nope x
checkpoint --help
restore --lsm-mount-context
features
events --stats x
events --interval=5s x
events --interval 1m30s --all x
events --interval -1s x
events --interval 5 x
events
top
top a b --once
top --json --interval 500ms a
top --interval x
update --resources - x
update x
update -r=/f x
update -r - --memory 5m x
update --memory 512m --memory-swap=-1 --memory-reservation 64KiB x
update x --memory -1
update --kernel-memory 5 --kernel-memory-tcp -1 x
update --cpu-share 5 x
update --cpu-shares=6 --cpu-burst 0 --cpu-idle 1 x
update --cpu-quota -1 --cpu-period=100000 --cpu-rt-period 5 --cpu-rt-runtime -7 x
update --cpuset-cpus 0-3 --cpuset-mems= --blkio-weight 10 --pids-limit -1 x
update --l3-cache-schema L3:0=f --mem-bw-schema=MB:0=20 x
update --memory 12x x
update --memory= x
update --pids-limit 1k x
update --cpu-shares -1 x
update --memory
update
""".strip().splitlines()


def machine(words: list[str]) -> object:
    """(verb, options, settings), "refused", or "left to typer"."""
    raw: grammar.Values = {}
    try:
        name, *rest = grammar.read(grammar.GLOBALS, words, raw, in_order=True)
        settings = grammar.finish(grammar.GLOBALS, raw)
        if name not in grammar.VERBS:
            return "refused"
        options = grammar.parse(grammar.VERBS[name], rest)
    except UsageError:
        return "refused"
    return (name, options, settings)


def typed(words: list[str]) -> object:
    seen: list[object] = []

    def dispatch(verb: str, options: grammar.Values, settings: grammar.Values) -> int:
        seen.append((verb, options, dict(settings)))
        return 0

    try:
        app.run(words, dispatch)
    except UsageError:
        return "refused"
    assert len(seen) == 1
    return seen[0]


@pytest.mark.parametrize("line", [*(line for line, *_ in CALLERS), *MORE])
def test_parity(line: str) -> None:
    """Verb, options and settings agree, or both refuse; clusters such as -fr are typer's alone."""
    words = line.split()
    by_machine, by_typer = machine(words), typed(words)
    if line == "delete -fr x":
        assert by_machine == "refused"
        assert by_typer == machine(["delete", "-f", "-r", "x"])
    else:
        assert by_machine == by_typer


def test_enough_lines() -> None:
    """The table has substance, on both sides of the border."""
    outcomes = [machine(line.split()) for line in MORE]
    assert outcomes.count("refused") >= 20
    assert len(outcomes) - outcomes.count("refused") >= 40


@pytest.mark.parametrize("verb", list(grammar.VERBS))
def test_help_names_every_option(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`VERB --help` succeeds and shows each option that is not hidden."""
    assert app.run([verb, "--help"]) == 0
    text = capsys.readouterr().out
    for option in grammar.VERBS[verb].options:
        assert option[1][-1] in text


def test_help_lists_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    """`pyoki`, `pyoki --help`: every verb is in the list, and what is hidden is not."""
    assert app.run(["-h"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb}" in text for verb in grammar.VERBS)
    assert "--criu" not in text


def test_functions_take_what_they_are_given() -> None:
    """Each verb's target exists and accepts exactly the keywords that the grammar sends."""
    from inspect import signature

    for name, verb in grammar.VERBS.items():
        function = entry.resolve(verb.target)
        words = ["x"] if verb.positionals else []
        options = grammar.parse(verb, words)
        assert options is not None
        given = grammar.keywords(verb, options, dict.fromkeys(verb.settings))
        if verb.request:
            request = entry.resolve(verb.request)
            fields = {key: given.pop(key) for key in request._fields if key in given}
            assert set(fields) == set(request._fields), name
            signature(function).bind(request(**fields), **given)
        else:
            signature(function).bind(**given)
