"""The table of fields is whole, its tests exist, and the page made of it is up to date."""

from __future__ import annotations

import ast
import functools
from collections import Counter
from pathlib import Path

import pytest

from tests.coverage import fields
from tests.fuzz import schema
from tests.generate import spec_coverage

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs/spec-coverage.md"


def of_the_schema() -> set[str]:
    """Every value of the schema for Linux: a list or a map of plain values counts as one."""
    found = set()
    for pattern, node in schema.nodes().items():
        inner = node.children.get(schema.EVERY)
        plain = not node.children or (inner is not None and not inner.children)
        if pattern.split("/")[1] in fields.PLATFORMS:
            found.add("/" + pattern.split("/")[1])
        elif plain and not pattern.endswith(f"/{schema.EVERY}"):
            found.add(pattern)
    return found


@functools.cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((TESTS / f"{file}.py").read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_no_field_of_the_schema_is_missing() -> None:
    """And none is there that the schema does not have, and none twice."""
    counts = Counter(pattern for field in fields.rows() for pattern in field.expand())
    assert set(counts) == of_the_schema()
    assert counts.most_common(1)[0][1] == 1


@pytest.mark.parametrize("field", fields.rows(), ids=lambda field: field.patterns)
def test_the_tests_exist(field: fields.Field) -> None:
    """At least one for each field."""
    assert field.tests and field.state in fields.STATES
    for named in field.tests:
        file, _, name = named.partition("::")
        assert name in functions_of(file), named


def test_the_page_is_up_to_date() -> None:
    """docs/spec-coverage.md is what tests/generate/spec_coverage.py prints."""
    assert PAGE.read_text() == spec_coverage.text()
