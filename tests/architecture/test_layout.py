"""The house rules that can be counted: sizes, names, who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rootless_pyoki"
TOP = {
    "pyproject.toml", "README.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE",
    "rootless_pyoki", "tests", "examples", "docs", "build", "dist",
}  # fmt: skip
TABLES = {"kernel/constants.py", "plan/syscall_numbers.py", "plan/syscall_numbers_rare.py"}
FILE_LINES = 400
FUNCTION_LINES = 85
C_LINES = 1600  # of code, all of native/ together: C is for where no Python may run


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def test_top_level() -> None:
    """The top of the checkout holds what it has to, and dot-files."""
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - TOP == set()


def test_files_are_small() -> None:
    """No module passes 400 lines, tables of numbers apart."""
    sizes = {
        path.relative_to(PACKAGE).as_posix(): path.read_text().count("\n") for path in sources()
    }
    assert {n: s for n, s in sizes.items() if s > FILE_LINES and n not in TABLES} == {}


def test_functions_are_small() -> None:
    """No function passes 85 lines."""
    long = []
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name} {lines}")
    assert long == []


def test_c_is_small() -> None:
    """All the C together stays below its budget, comments and blank lines not counted."""
    total = 0
    for path in (PACKAGE / "native").glob("*.[ch]"):
        code = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.DOTALL)
        total += sum(bool(line.strip()) for line in code.splitlines())
    assert total <= C_LINES


def test_no_lumber_rooms() -> None:
    """No module is called after nothing."""
    names = {path.stem for path in sources()}
    assert names & {"utils", "util", "helpers", "helper", "common", "misc", "impl", "base"} == set()


def test_modules_say_what_they_are() -> None:
    """Every module with code has a docstring."""
    silent = [
        str(path.relative_to(PACKAGE))
        for path in sources()
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def lint(module: str, *arguments: str) -> None:
    pytest.importorskip(module.replace("-", "_"), reason=f"{module} is not installed")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


def test_ruff() -> None:
    """ruff finds nothing."""
    lint("ruff", "check", "--no-cache", "--output-format", "concise", ".")


def test_ruff_format() -> None:
    """ruff would format nothing otherwise."""
    lint("ruff", "format", "--no-cache", "--check", "--quiet", ".")


def test_mypy(tmp_path_factory: pytest.TempPathFactory) -> None:
    """mypy --strict finds nothing in the package."""
    lint("mypy", "--cache-dir", str(tmp_path_factory.getbasetemp().parent / "mypy"))


def test_rooms(tmp_path: Path) -> None:
    """A room imports only from below (import-linter; the contracts are in pyproject.toml)."""
    pytest.importorskip("importlinter", reason="import-linter is not installed")
    code = (
        "import sys; from importlinter.cli import lint_imports;"
        f"sys.exit(lint_imports(cache_dir={str(tmp_path)!r}, no_cache=True))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
