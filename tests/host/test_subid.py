"""Subordinate ids: the files' format, other sources, and what newuidmap agrees to."""

from __future__ import annotations

import os
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.host import subid
from rootless_pyoki.kernel import constants as c
from tests.support import leaks

FILE = """\
# a comment
dev:100000:65536
other:200000:65536
1000:300000:10
dev:400000
dev:x:5
dev:-1:5
dev:5:-1
:500000:5
dev:600000:0
dev:700000:5:6
 dev:165536:4\x20
devel:800000:5
"""


def test_ranges_are_found_by_name_and_by_number() -> None:
    """Neighbours are joined; lines that make no sense are nobody's."""
    assert subid.parse(FILE, "dev", 1000) == ((100000, 65540), (300000, 10))
    assert subid.parse(FILE, "other", 5) == ((200000, 65536),)
    assert subid.parse(FILE, "", 1000) == ((300000, 10),)
    assert subid.parse(FILE, "nobody", 65534) == ()
    assert subid.parse("", "dev", 1000) == ()


def test_the_users_own_id_in_a_range_is_just_an_id() -> None:
    """A slip that happens; whoever makes a map leaves it out."""
    assert subid.parse("dev:1000:10\n", "dev", 1005) == ((1000, 10),)


def test_ranges_end_where_ids_end() -> None:
    """4294967295 is no id."""
    assert subid.merge([(2**32 - 10, 100)]) == ((2**32 - 10, 9),)
    assert subid.merge([(2**32 - 1, 1), (2**40, 5)]) == ()


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=8))
def test_merging_keeps_every_id_and_adds_none(ranges: list[tuple[int, int]]) -> None:
    """Sorted, and with a gap between any two."""
    merged = subid.merge(ranges)
    assert {i for start, count in merged for i in range(start, start + count)} == {
        i for start, count in ranges for i in range(start, start + count)
    }
    for (start, count), (following, _) in pairwise(merged):
        assert start + count < following


def test_what_getsubids_prints_is_read() -> None:
    """And nothing is made of what it says in error."""
    assert subid.parse_getsubids("0: dev 100000 65536\n1: dev 165536 1\n") == ((100000, 65537),)
    assert subid.parse_getsubids("Error fetching ranges\n") == ()


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("passwd: files\nsubid: sss\n", "sss"),
        ("subid:\tfiles sss # both", "files"),
        ("#subid: sss\n", ""),
        ("subid:", ""),
        ("", ""),
    ],
)
def test_the_source_is_the_first_word(text: str, source: str) -> None:
    """nsswitch.conf(5), as libsubid reads it."""
    assert subid._source(text) == source


def script(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_another_source_is_asked_through_getsubids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first that is installed; -g for groups; a failure means that nothing is granted."""
    program = script(
        tmp_path / "good", 'test "$1" = -g && shift && echo "0: $1 7 2" || echo "0: $1 100 5"'
    )
    failing = script(tmp_path / "bad", "echo Error >&2; exit 1")
    monkeypatch.setattr(subid, "GETSUBIDS", (f"{tmp_path}/none", program))
    before = os.listdir("/proc/self/fd")
    born_before = leaks.children()
    assert subid.ask("dev", 1000, ()) == ((100, 5),)
    assert subid.ask("", 1000, ("-g",)) == ((7, 2),)
    monkeypatch.setattr(subid, "GETSUBIDS", (failing,))
    assert subid.ask("dev", 1000, ()) == ()
    monkeypatch.setattr(subid, "GETSUBIDS", (f"{tmp_path}/none",))
    assert subid.ask("dev", 1000, ()) == ()
    assert os.listdir("/proc/self/fd") == before
    assert leaks.children() <= born_before


def test_this_users_ranges_are_those_of_the_files() -> None:
    """The machine's own files, read by another program."""
    name, uids, gids = subid.granted(os.geteuid())
    assert name == subprocess.check_output(["id", "-un"], text=True).strip()
    for path, found in (("/etc/subuid", uids), ("/etc/subgid", gids)):
        mine = []
        for line in Path(path).read_text().splitlines() if Path(path).exists() else []:
            owner, start, count = line.split(":")
            if owner in (name, str(os.geteuid())):
                mine += range(int(start), int(start) + int(count))
        assert sum(count for _, count in found) == len(set(mine))


@pytest.mark.skipif(not shutil.which("getsubids"), reason="getsubids is not installed")
def test_we_agree_with_getsubids() -> None:
    """It is what newuidmap asks as well."""
    name, uids, gids = subid.granted(os.geteuid())
    assert subid.ask(name, os.geteuid(), ()) == uids
    assert subid.ask(name, os.geteuid(), ("-g",)) == gids


def test_a_user_without_a_name_has_none() -> None:
    """As in a namespace with ids that nobody knows."""
    name, _, _ = subid.granted(3_999_999_999)
    assert name == ""


SELF = {"uidMappings": [{"hostID": 7, "size": 1}], "gidMappings": [{"hostID": 8, "size": 1}]}


@pytest.mark.parametrize(
    ("linux", "effective", "needed"),
    [
        ({}, 0, True),
        (SELF, 0, False),
        ({**SELF, "gidMappings": [{"hostID": 8, "size": 2}]}, 0, True),
        ({"namespaces": [{"type": "user", "path": "/x"}]}, 0, False),
        ({"namespaces": [{"type": "user"}]}, 1 << c.CAP_SETUID, True),
        ({"namespaces": [{"type": "user"}]}, 1 << c.CAP_SETUID | 1 << c.CAP_SETGID, False),
    ],
)
def test_files_are_read_only_when_a_map_depends_on_them(
    linux: dict[str, object], effective: int, needed: bool
) -> None:
    """Not for root, nor for the own ids alone, nor for a joined namespace."""
    assert subid.needed({"linux": linux}, 7, 8, effective) is needed
