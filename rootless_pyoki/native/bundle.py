"""Makes the hot bundle: one .pyc with the code objects of every module that a hot verb needs.

`python -I -S pyoki.pyc argv...` runs it. Each module is marshalled by itself and unmarshalled when
it is first imported, so a verb pays only for what it uses.
"""

from __future__ import annotations

import ast
import marshal
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from types import CodeType

PACKAGE = Path(__file__).resolve().parent.parent

# What humans, not callers, need (and what only the build needs): left to the slow way in.
COLD = (
    "__main__.py",
    "cli/app.py",
    "cli/render.py",
    "report/",
    "native/build.py",
    "native/bundle.py",
    "native/hatch_build.py",
    "native/hot.py",
    "native/syscalls_build.py",
)


def is_hot(path: str) -> bool:
    """path: relative to the package, with slashes."""
    return not any(path == cold or (cold[-1] == "/" and path.startswith(cold)) for cold in COLD)


def hot_sources(package: Path = PACKAGE) -> dict[str, Path]:
    """Module name -> source file, sorted by name."""
    sources = {}
    for path in package.rglob("*.py"):
        relative = path.relative_to(package)
        if is_hot(relative.as_posix()):
            parts = relative.with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            sources[".".join((package.name, *parts))] = path
    return dict(sorted(sources.items()))


def compile_source(source: bytes, name: str) -> CodeType:
    """The code object of a module, without its `from __future__ import annotations`: as a flag it
    means the same, as a statement it would load the standard library's module from disk.
    """
    tree = ast.parse(source, name)
    tree.body = [
        node
        for node in tree.body
        if not (isinstance(node, ast.ImportFrom) and node.module == "__future__")
    ]
    flags = annotations.compiler_flag
    return cast("CodeType", compile(tree, name, "exec", flags=flags, dont_inherit=True, optimize=0))


def make(package: Path = PACKAGE, generated: dict[str, str] | None = None) -> bytes:
    """The bundle's bytes, for the interpreter that runs this.

    generated: module name -> source of modules that only an installed package has. The file names
    in code objects are relative, so that builds are reproducible.
    """
    modules = {}
    for name, path in hot_sources(package).items():
        file = f"{package.name}/{path.relative_to(package).as_posix()}"
        code = compile_source(path.read_bytes(), file)
        modules[name] = (path.name == "__init__.py", marshal.dumps(code))
    for name, source in (generated or {}).items():
        code = compile_source(source.encode(), f"{name.replace('.', '/')}.py")
        modules[name] = (False, marshal.dumps(code))

    importer = Path(__file__).with_name("hot.py").read_text()
    code = compile_source(f"{importer}\nstart({modules!r})\n".encode(), "pyoki")
    return MAGIC_NUMBER + bytes(12) + marshal.dumps(code)
