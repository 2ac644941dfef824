"""docs/security.md tells of the attacks that are carried out, and of no others."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.security import weakened, weakened_processes

CHECKOUT = Path(__file__).parents[2]
TEXT = (CHECKOUT / "docs/security.md").read_text()


def _attacks() -> dict[str, tuple[set[str], str]]:
    """What each test of `cves` has patched away, and its docstring."""
    found = {}
    for file in sorted((CHECKOUT / "tests/security/cves").glob("test_*.py")):
        tree = ast.parse(file.read_text())
        names: dict[str, list[str]] = {}  # tuples of the module, for versus(*NAMES)
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple):
                strings = [e.value for e in node.value.elts if isinstance(e, ast.Constant)]
                names[ast.unparse(node.targets[0])] = [str(text) for text in strings]
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                patches: list[str] = []
                for mark in node.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "versus":
                        for argument in mark.args:
                            text = ast.unparse(argument)
                            patches += names[text[1:]] if text[0] == "*" else [text[1:-1]]
                found[node.name] = (set(patches), ast.get_docstring(node) or "")
    return found


def test_each_row_is_a_test_and_each_test_has_a_row() -> None:
    """With the patches that the test really applies, which exist."""
    rows = {
        name: set(re.findall(r"`(\w+)`", patches))
        for name, patches in re.findall(r"^\| `(test_cve_\w+)` \| ([^|]*) \| [^|]*\|$", TEXT, re.M)
    }
    assert rows == {name: patches for name, (patches, _) in _attacks().items()}
    assert weakened_processes.weakness is weakened.weakness
    assert set().union(*rows.values()) <= set(weakened.WEAKNESSES)


def test_each_cve_is_carried_out() -> None:
    """Every number of the table of known attacks is in a test's name or docstring."""
    numbers = re.findall(r"\d{4}-\d{4,}", " ".join(re.findall(r"^\| (\d{4}-[^|]*) \|", TEXT, re.M)))
    assert len(numbers) > 20
    told = " ".join(f"{name.replace('_', '-')} {words}" for name, (_, words) in _attacks().items())
    assert [number for number in numbers if number not in told] == []
