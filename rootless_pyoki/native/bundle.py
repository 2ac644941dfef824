"""Makes the hot bundle: the code objects of every module that a hot verb needs, in two files.

pyoki.pyc     the importer, hot.py, which the launcher's bootstrap reads in one piece. It knows what
              parts of pyoki.code each verb needs.
pyoki.code    the index, with the code objects that every verb needs; then sections: marshalled
              dicts, module name -> code object. What the verb needs is read at once, the others
              when the first of their modules is imported.

Modules that the same verbs need lie in one section, so that a verb reads and unmarshals what it
uses in a few strokes, and nothing else.
"""

from __future__ import annotations

import ast
import hashlib
import marshal
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rootless_pyoki.cli.grammar import VERBS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from types import CodeType

    Imports = dict[str, list[str]]  # module -> what it imports of ours

PACKAGE = Path(__file__).resolve().parent.parent
NAME = PACKAGE.name
SMALL = 1024  # bytes: a section of its own would cost more than reading it with the index

# What a verb imports in functions that are called each time: module names below the package.
ALSO = {"delete": ("cgroups.cgroupfs", "cgroups.tree")}

# What humans, not callers, need (and what only the build needs): left to the slow way in.
COLD = (
    "__main__.py",
    "cli/app.py",
    "cli/render.py",
    "cli/top.py",
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


class Strip(ast.NodeTransformer):
    """Drops what the running program never looks at: annotations of functions and variables (a
    class keeps its own: they are the fields of a record), and `from __future__ import annotations`:
    as a flag it means the same, as a statement it would load the standard library's module.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        for argument in ast.walk(node.args):
            if isinstance(argument, ast.arg):
                argument.annotation = None
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [
            one if isinstance(one, ast.AnnAssign) else self.visit(one) for one in node.body
        ]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        plain = ast.Assign([node.target], node.value) if node.value else ast.Pass()
        return ast.copy_location(plain, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.module == "__future__" else node


def compile_source(source: bytes, name: str) -> CodeType:
    """The code object of a module, without docstrings and what Strip drops."""
    tree = Strip().visit(ast.parse(source, name))
    flags = annotations.compiler_flag
    return cast("CodeType", compile(tree, name, "exec", flags=flags, dont_inherit=True, optimize=2))


def imports_of(body: Iterable[ast.AST], known: Collection[str]) -> Iterator[str]:
    """The known modules that statements import when they are executed, those for the type checker
    and those in functions left out.
    """
    for node in body:
        if isinstance(node, ast.Import):
            for alias in node.names:  # of an extension, its package
                parent = alias.name.rpartition(".")[0]
                yield from (name for name in (alias.name, parent) if name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            yield cast("str", node.module)
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in names if name in known)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from imports_of(node.orelse, known)
        elif not isinstance(node, ast.FunctionDef):
            yield from imports_of(ast.iter_child_nodes(node), known)


def late_imports_of(tree: ast.AST, known: Collection[str]) -> Iterator[str]:
    """The known modules that functions import when they are called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            yield from imports_of(node.body, known)


def closure(starts: Iterable[str], imports: Imports) -> set[str]:
    """The modules that are loaded when `starts` are imported."""
    loaded: set[str] = set()
    waiting = list(starts)
    while waiting:
        name = waiting.pop()
        if name and name not in loaded:
            loaded.add(name)
            waiting += [name.rpartition(".")[0], *imports[name]]
    return loaded


def require_no_circles(imports: Imports) -> None:
    """The importer takes modules in order: what is imported before who imports it."""
    for name, names in imports.items():
        if name in closure([name.rpartition(".")[0], *names], imports):
            raise ValueError(f"{name} imports itself in a circle")


def loaded_by_verbs(imports: Imports, late: Imports) -> dict[str, set[str]]:
    """Verb -> the modules that it loads in any case."""
    verbs = {}
    for name, verb in VERBS.items():
        named = [target.partition(":")[0] for target in (verb.target, verb.request) if target]
        starts = [f"{NAME}.{module}" for module in named]
        if starts[0] not in imports:
            continue  # a verb for humans
        if starts[0].startswith(f"{NAME}.cli."):  # shows what a function of lifecycle returns
            starts += [name for name in late[starts[0]] if ".lifecycle." in name]
        starts += [f"{NAME}.{module}" for module in ALSO.get(name, ())]
        verbs[name] = closure([f"{NAME}.cli.entry", *starts], imports)
    return verbs


def divide(imports: Imports, late: Imports, verbs: dict[str, set[str]]) -> list[list[str]]:
    """The sections: modules that exactly the same verbs load at once, and among these the same
    imports in functions, which other verbs may meet.

    What all verbs need comes first, then what `state` needs, with which callers ask again and
    again, then what most verbs need: neighbours are read in one stroke.
    """
    heads = {name: closure([name], imports) for names in late.values() for name in names}
    users = {name: [verb for verb, loaded in verbs.items() if name in loaded] for name in imports}
    sections: dict[tuple[object, ...], list[str]] = {}
    for name in imports:
        alike = [head for head in heads if name in heads[head] and users[head] == users[name]]
        for_all = len(users[name]) == len(verbs)
        sections.setdefault((*users[name], *([] if for_all else alike)), []).append(name)

    def rank(names: list[str]) -> tuple[bool, int]:
        found = users[names[0]]
        return "state" not in found, -len(found)

    return sorted(sections.values(), key=rank)


def make(package: Path = PACKAGE, generated: dict[str, str] | None = None) -> dict[str, bytes]:
    """The bundle's files by name, for the interpreter that runs this.

    generated: module name -> source of modules that only an installed package has. The file names
    in code objects are relative, so that builds are reproducible.
    """
    files = {name: path.relative_to(package.parent) for name, path in hot_sources(package).items()}
    sources = {name: (package.parent / file).read_bytes() for name, file in files.items()}
    for name, source in (generated or {}).items():
        files[name], sources[name] = Path(name.replace(".", "/") + ".py"), source.encode()
    trees = {name: ast.parse(source) for name, source in sources.items()}
    imports = {name: list(imports_of(tree.body, files)) for name, tree in trees.items()}
    late = {name: list(late_imports_of(tree, files)) for name, tree in trees.items()}
    codes = {name: compile_source(sources[name], files[name].as_posix()) for name in sources}

    require_no_circles(imports)
    verbs = loaded_by_verbs(imports, late)
    common, *sections = divide(imports, late, verbs)
    small = [names for names in sections if sum(len(sources[name]) for name in names) < SMALL]
    common = sum(small, common)
    sections = [names for names in sections if names not in small]
    packed = [marshal.dumps({name: codes[name] for name in names}) for names in sections]
    stamp = hashlib.sha256(marshal.dumps(codes)).digest()[:16]
    index = {}
    for number, names in enumerate([common, *sections], -1):
        for name in names:
            index[name] = (number, files[name].name == "__init__.py", tuple(imports[name]))
    packed.insert(0, marshal.dumps((index, {name: codes[name] for name in common})))
    parts, end = [], 0  # offset, size
    for part in packed:
        parts.append((end, len(part) + len(stamp)))
        end += len(part) + len(stamp)
    needs = {
        verb: tuple(sorted({index[name][0] for name in loaded} - {-1}))
        for verb, loaded in verbs.items()
    }

    importer = Path(__file__).with_name("hot.py").read_text()
    call = f"start({stamp!r}, {parts!r}, {needs!r})"
    code = compile_source(f"{importer}\n{call}\n".encode(), "pyoki")
    return {
        "pyoki.pyc": MAGIC_NUMBER + bytes(12) + marshal.dumps(code),
        "pyoki.code": b"".join(part + stamp for part in packed),
    }
