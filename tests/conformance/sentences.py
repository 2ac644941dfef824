"""The table of what the specification demands, sentences.txt, as rows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("sentences.txt")
WORDS = re.compile(r"\b(?:MUST|REQUIRED|SHALL)\b")
HEADING = re.compile(r"#+\s+(.*)")


class Row(NamedTuple):
    id: str  # document, section and number, as "config.md Mounts 3"
    document: str
    section: str
    count: int  # how many of WORDS the sentence has
    demand: str
    tests: tuple[str, ...]  # "module::test"
    reason: str  # why there are none


def rows() -> list[Row]:
    found: list[Row] = []
    document = section = ""
    number = 0
    for line in TABLE.read_text().splitlines():
        if line.startswith("== "):
            document = line[3:]
        elif line.startswith("# "):
            section, number = line[2:], 0
        elif document and line:
            number += 1
            found.append(_row(line, f"{document} {section} {number}", document, section))
    return found


def _row(line: str, id: str, document: str, section: str) -> Row:
    left, arrow, tests = line.partition("  => ")
    reason = ""
    if not arrow:
        left, arrow, reason = line.partition("  -- ")
    assert arrow, f"neither => nor --: {line}"
    count, _, demand = left.partition("  ")
    return Row(id, document, section, int(count), demand, tuple(tests.split()), reason)


def counted(text: str) -> Counter[str]:
    """How many of WORDS each section of a document of the specification has."""
    found: Counter[str] = Counter()
    section, code = "", False
    for line in text.splitlines():
        if line.startswith("```"):
            code = not code
        heading = HEADING.match(line)
        if heading and not code:
            section = re.sub(r"<a .*?/>|<a .*?</a>", "", heading[1]).strip()
        found[section] += len(WORDS.findall(line))
    return +found
