"""Nothing that the specification demands is without a test: the table sentences.txt is whole."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from tests.conformance import sentences
from tests.support import needs

HERE = Path(__file__).parent
ROWS = sentences.rows()


def all_tests() -> dict[str, str]:
    """Every test of this folder but those of the table, as "module::test", with its docstring."""
    found = {}
    for path in sorted(HERE.glob("test_*.py")):
        if path == Path(__file__):
            continue
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[f"{path.stem.removeprefix('test_')}::{node.name}"] = (
                    ast.get_docstring(node) or ""
                )
    return found


def test_every_row_names_tests_that_are_there() -> None:
    """A row has tests that exist, or says why not."""
    known = all_tests()
    wrong = [row.id for row in ROWS if not row.reason and not set(row.tests) <= known.keys()]
    assert wrong == []
    assert all(row.tests or row.reason for row in ROWS)


def test_every_test_is_named() -> None:
    """A test of this folder stands in the table, so that it is known what it is there for."""
    named = {test for row in ROWS for test in row.tests}
    assert all_tests().keys() - named == set()


def mentions(words: str, section: str) -> bool:
    """The section by its name in quotes; what is true of all members is said of all sections."""
    return f'"{section}"' in " ".join(words.split()) or "all sections" in words


def test_every_test_says_its_section() -> None:
    """A docstring begins with the document, and names the sections of the rows that name the test."""
    known = all_tests()
    wrong = []
    for row in ROWS:
        for test in row.tests:
            words = known.get(test, "")
            if row.document not in words or not mentions(words, row.section):
                wrong.append(f"{test} does not name {row.document}, {row.section} ({row.id})")
    assert wrong == []


def test_every_section_is_counted() -> None:
    """As often as the words MUST, REQUIRED and SHALL stand in a section, they stand in the table.

    The documents are looked for beside the schema, where the specification's own checkout has them.
    """
    folder = needs.oci_schema().parent
    for document in dict.fromkeys(row.document for row in ROWS):
        text = folder / document
        if not text.exists():
            pytest.skip(f"{text} is not there")
        expected: Counter[str] = Counter()
        for row in ROWS:
            if row.document == document:
                expected[row.section] += row.count
        assert sentences.counted(text.read_text()) == expected, document
