"""What the documents say exists: links, files, verbs, flags, and what their commands print."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless_pyoki.cli import grammar
from rootless_pyoki.errors import UsageError
from rootless_pyoki.lifecycle import events, exit_record
from tests.coverage import fields
from tests.support import needs
from tests.support.runtime import default_command

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
EXECUTED = "<!-- executed -->\n```console\n"
SEPARATORS = {"|", "||", "&&", ";", "&", ">", "<", ">>"}
OTHERS_FLAGS = {  # of podman and buildah
    "--cgroupns", "--cgroups", "--cpus", "--group-add", "--isolation", "--sdnotify", "--security-opt",
    "--userns",
}  # fmt: skip

every_document = pytest.mark.parametrize("path", DOCUMENTS, ids=NAMES)


def prose(text: str) -> str:
    """Without code blocks and code spans: neither has links."""
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    found = set()
    for title in re.findall(r"^#+ (.+)$", text, re.M):
        kept = re.sub(r"[^\w\- ]", "", title.lower())
        found.add(kept.replace(" ", "-"))
    return found


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `pyoki ...` in console blocks and code spans."""
    lines = re.findall(r"^\$ (.*)$", text, re.M)
    lines += re.findall(r"`(pyoki [^`\n]+)`", text)
    for line in lines:
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.commenters = "#"
        try:
            words = list(lexer)
        except ValueError:
            continue  # an apostrophe: not a command
        while "pyoki" in words:
            rest = words[words.index("pyoki") + 1 :]
            end = next((i for i, word in enumerate(rest) if word in SEPARATORS), len(rest))
            if words[: words.index("pyoki")][-2:] != ["command", "-v"]:
                yield rest[:end]
            words = rest[end:]


def known_flags() -> set[str]:
    options = [*grammar.GLOBALS, grammar.HELP]
    for verb in grammar.VERBS.values():
        options += verb.options
    return {name for option in options for name in option[1]}


@every_document
def test_links(path: Path) -> None:
    """Every relative link leads to a file, and its fragment to a heading of it."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(path.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        inside = linked.is_relative_to(ROOT) and linked.exists()
        if not inside or (fragment and fragment not in anchors(linked)):
            broken.append(target)
    assert broken == []


@every_document
def test_command_lines(path: Path) -> None:
    """Every `pyoki ...` that a document quotes is one that the grammar understands."""
    for words in commands(path.read_text()):
        raw: grammar.Values = {}
        try:
            rest = grammar.read(grammar.GLOBALS, words, raw, in_order=True)
            settings = grammar.finish(grammar.GLOBALS, raw)
            if settings["version"] or settings["help"]:
                continue
            assert rest, f"no verb: {words}"
            if rest[0] in ("VERB", "frobnicate"):
                continue  # the one stands for any, the other is the document's mistake to show
            assert rest[0] in grammar.VERBS, f"no such verb: {words}"
            given = [word for word in rest[1:] if word.startswith("-")]
            flags = {name for option in grammar.VERBS[rest[0]].options for name in option[1]}
            if not rest[1:] or (len(given) == len(rest[1:]) and flags.issuperset(given)):
                continue  # the verb is named, not called
            grammar.parse(grammar.VERBS[rest[0]], rest[1:])
        except UsageError as error:
            pytest.fail(f"pyoki {shlex.join(words)}: {error.message}")


@every_document
def test_flags(path: Path) -> None:
    """No document names a flag of pyoki's that is not there; other programs' are listed here."""
    named = set()
    for span in re.findall(r"`([^`\n]+)`", path.read_text()):
        if span.startswith("--"):
            named.add(re.split(r"[ =]", span)[0])
    assert named - known_flags() - OTHERS_FLAGS == set()


@every_document
def test_named_files(path: Path) -> None:
    """A path in code that begins like one of ours is there."""
    missing = []
    for span in re.findall(r"`([^`\n]+)`", path.read_text()):
        word = span.split()[0].removeprefix("./")
        if not re.fullmatch(r"(rootless_pyoki|tests|docs|examples|\.ci)/[\w./*-]+", word):
            continue
        if not list(ROOT.glob(word.rstrip("/"))):
            missing.append(span)
    assert missing == []


def test_rooms_of_the_architecture() -> None:
    """Rooms and modules that ARCHITECTURE names in its table are there, and every room is named."""
    package = ROOT / "rootless_pyoki"
    text = (ROOT / "docs/ARCHITECTURE.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \| (.+) \|$", text, re.M)
    for room, about in rows:
        assert (package / room).is_dir(), room
        for name in re.findall(r"`(\w+)`", about):
            assert (package / room / f"{name}.py").exists(), f"{room}/{name}"
    rooms = {path.name for path in package.iterdir() if (path / "__init__.py").exists()}
    assert {room for room, _ in rows} >= rooms - {"report"}
    for file in re.findall(r"`?((?:native|processes)/[\w]+\.\w+)`?", text):
        assert (package / file).exists(), file


def test_security_names_code_and_tests_that_exist() -> None:
    """Each row of the table of attacks: the files, and the functions in them."""
    package = ROOT / "rootless_pyoki"
    text = (ROOT / "docs/security.md").read_text()
    rows = re.findall(r"^\| ((?:\d{4}-\d+(?:, )?)+) \| .* \| (.*) \| (.*) \|$", text, re.M)
    assert len(rows) > 10
    for numbers, code, tests in rows:
        files = re.findall(r"`(\w+/\w+\.\w+)`(?: \(`(\w+)`\))?", code)
        assert files, numbers
        for file, function in files:
            assert (package / file).exists(), f"{numbers}: {file}"
            assert function in (package / file).read_text(), f"{numbers}: {file} {function}"
        for file in re.findall(r"`(tests/[\w/.]+)`", tests):
            assert (ROOT / file).exists(), f"{numbers}: {file}"


def test_limits_are_all_told() -> None:
    """docs/cgroups.md has each member of linux.resources, each property that a limit becomes, each
    option of update, each type of event and each member of the exit record."""
    text = (ROOT / "docs/cgroups.md").read_text()
    patterns = [p for field in fields.rows() for p in field.expand()]
    members = {
        pattern.partition("/*")[0].rpartition("/")[2]
        for pattern in patterns
        if pattern.startswith("/linux/resources/")
    }
    pure = (ROOT / "rootless_pyoki/cgroups/unit_properties.py").read_text()
    properties = set(
        re.findall(r'"([A-Z][A-Za-z]+(?:Max|Min|Low|High|Weight|CPUs|Nodes|USec))"', pure)
    )
    options = {option[1][0] for option in grammar.UPDATE}
    types = {name for counters in events.COUNTERS.values() for name in counters.values()}
    told = {*members, *properties, *options, *types, *exit_record.empty()}
    assert len(properties) > 10 and len(members) > 20
    assert {word for word in told if word not in text} == set()


def test_decisions_are_listed() -> None:
    """docs/adr/README.md lists each page under its title."""
    index = (ROOT / "docs/adr/README.md").read_text()
    for page in sorted((ROOT / "docs/adr").glob("0*.md")):
        title = page.read_text().partition("\n")[0]
        number, _, text = title.removeprefix("# ").partition(": ")
        assert f"| [{number}]({page.name}) | {text} |" in index


def test_what_is_refused_is_refused() -> None:
    """The verbs that README says are not there are not there."""
    text = (ROOT / "README.md").read_text()
    row = re.search(r"^\| (.*) \| no such command \|$", text, re.M)
    assert row
    absent = re.findall(r"`(\w+)`", row[1])
    assert absent and set(absent) & set(grammar.VERBS) == set()
    listed = re.search(r"lists the verbs: ([a-z,\s]+)\.", text)
    assert listed and set(re.findall(r"[a-z]+", listed[1])) == set(grammar.VERBS)


def executed_blocks() -> list[tuple[str, str]]:
    return [
        (f"{path.name}-{number}", block)
        for path in DOCUMENTS
        for number, block in enumerate(
            re.findall(re.escape(EXECUTED) + r"(.*?)^```$", path.read_text(), re.M | re.S)
        )
    ]


def comparable(output: str) -> list[str]:
    """Lines with their blanks made one."""
    return [" ".join(line.split()) for line in output.splitlines()]


@pytest.mark.parametrize(
    "block", [b for _, b in executed_blocks()], ids=[name for name, _ in executed_blocks()]
)
def test_console_examples(block: str, tmp_path: Path) -> None:
    """A block marked as executed prints what it shows, in a new directory, as this user."""
    needs.require_program("busybox")
    lines = block.splitlines()
    command = shlex.join([*default_command(), "--root", str(tmp_path / "state")])
    script = [f'pyoki() {{ {command} "$@"; }}']
    script += [line[2:] for line in lines if line.startswith("$ ")]
    output = tmp_path / "output"
    with open(output, "wb") as told:  # a file: a container keeps a pipe open
        subprocess.run(
            ["bash", "-c", "\n".join(script)],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=told,
            stderr=told,
            timeout=60,
            check=False,
        )
    shown = "\n".join(line for line in lines if not line.startswith("$ "))
    assert comparable(output.read_text()) == comparable(shown)


def test_readme_has_an_executed_example() -> None:
    """The marker is not lost."""
    assert EXECUTED in (ROOT / "README.md").read_text()
