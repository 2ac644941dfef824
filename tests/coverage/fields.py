"""Every field of config.json: what becomes of it, and the tests that show it, as fields.txt has it.

That file is written by hand: a pointer pattern, `state: remark` below it, and tests after arrows.
In patterns * is any index or name, and {a,b} makes a field for each word. A list or map of plain
values is one field; of an object, each member is one. A test is named as "file::test", below tests/.
tests/generate/spec_coverage.py makes docs/spec-coverage.md of it.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TABLE = Path(__file__).with_name("fields.txt")
PLATFORMS = ("solaris", "windows", "vm", "zos", "freebsd")
STATES = {
    "applied": "applied",
    "delegated": "applied where the cgroup controller is delegated",
    "refused": "refused",
    "noted": "passed over, with a note",
    "ignored": "not for Linux: ignored",
}


class Field(NamedTuple):
    patterns: str
    state: str  # a word of STATES
    remark: str
    tests: tuple[str, ...]

    def expand(self) -> Iterator[str]:
        """Every pattern on its own."""
        parts = re.split(r"\{(.*?)\}", self.patterns)
        choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
        for words in itertools.product(*choices):
            yield "".join(words)


@functools.cache
def rows() -> tuple[Field, ...]:
    found = []
    for block in re.split(r"\n(?=/)", TABLE.read_text().strip()):
        patterns, state, *tests = block.split("\n")
        word, _, remark = state.strip().partition(": ")
        named = tuple(test.strip().removeprefix("=> ") for test in tests)
        found.append(Field(patterns, word, remark, named))
    return tuple(found)
