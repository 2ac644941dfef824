"""What each verb loads, by name: its budget is a list of modules, never milliseconds."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

from tests.support import bundles, needs

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "rootless_pyoki"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"

# Beside what a bare `python -I -S` has: built-in modules, and two extensions.
FOREIGN = {"_imp", "errno", "marshal", "posix", "sys", "time", "_json", "_cffi_backend"}

EVERY = (
    "_build cli cli.entry cli.grammar errors log record native native._syscalls* kernel kernel.*"
)
FOUND = "lifecycle lifecycle.container cgroups cgroups.* state state.*"
BUILT = (
    f"{FOUND} host host.* spec spec.* plan plan.[!s]* processes processes.* apply apply.*"
    " lifecycle.creation lifecycle.own_cgroup lifecycle.scope lifecycle.handed lifecycle.hooks"
    " lifecycle.pid_file"
)
BUDGET = {
    "--version": "cli.show spec",
    "state": f"{FOUND} cli.show lifecycle.inspect lifecycle.pidns spec",
    "list": f"{FOUND} cli.show lifecycle.inspect lifecycle.pidns spec",
    "kill": f"{FOUND} lifecycle.signal lifecycle.pidns",
    "start": f"{FOUND} lifecycle.start lifecycle.hooks apply apply.hooks",
    "update": f"{FOUND} lifecycle.update spec spec.* plan plan.updates plan.notes plan.plan"
    " plan.resources plan.idmap host host.id_range cli.quantities",
    "delete": f"{FOUND} lifecycle.delete lifecycle.hooks lifecycle.pidns apply apply.hooks",
    "create": f"{BUILT} lifecycle.create",
    "run": f"{BUILT} lifecycle.create lifecycle.run lifecycle.delete lifecycle.foreground"
    " lifecycle.start lifecycle.signal lifecycle.pidns",
    "exec": f"{BUILT} lifecycle.exec lifecycle.exec_request lifecycle.foreground lifecycle.signal"
    " lifecycle.pidns",
}


def imported(command: list[str]) -> set[str]:
    """The modules that `python -X importtime` names on stderr, in all the command's processes."""
    # a file, since a created container keeps stderr open
    with tempfile.TemporaryFile("w+") as told:
        done = subprocess.run(
            command, env={"XDG_RUNTIME_DIR": os.environ.get("XDG_RUNTIME_DIR", "")},
            stdin=subprocess.DEVNULL, stdout=told, stderr=told, check=False, timeout=60,
        )  # fmt: skip
        told.seek(0)
        text = told.read()
    assert done.returncode == 0, f"{command}\n{_without_times(text)}"
    lines = [line for line in text.splitlines() if line.startswith("import time:")]
    assert lines
    return {line.rpartition("|")[2].strip() for line in lines[1:]}


def _without_times(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("import time:"))


@cache
def bare() -> set[str]:
    return imported([f"/usr/bin/{PYTHON}", "-X", "importtime", "-I", "-S", "-c", "pass"])


def hot_command() -> list[str]:
    launcher = os.environ.get("PYOKI_HOT")
    if not launcher:
        pytest.skip("no installed pyoki with a hot bundle is named in PYOKI_HOT")
    prefix = Path(launcher).resolve().parent.parent
    bundle = prefix / "lib/pyoki" / str(sys.implementation.cache_tag) / "pyoki.pyc"
    return [f"{prefix}/bin/{PYTHON}", "-X", "importtime", "-X", "utf8", "-I", "-S", str(bundle)]


def source_command() -> list[str]:
    import _cffi_backend

    folder = str(Path(_cffi_backend.__file__).parent)
    script = (
        f"import sys; sys.path[:0] = [{str(ROOT)!r}]; sys.path += [{folder!r}]\n"
        "from rootless_pyoki.cli.entry import main\nmain(sys.argv[1:])"
    )
    return [sys.executable, "-X", "importtime", "-X", "utf8", "-I", "-S", "-c", script]


@pytest.fixture(params=["hot bundle", "source"])
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., set[str]]]:
    """A function: the names that one pyoki command imports beyond a bare interpreter's."""
    command = hot_command() if request.param == "hot bundle" else source_command()
    root = tmp_path / "root"

    def run(*arguments: str) -> set[str]:
        extra = {"__future__"} if request.param == "source" else set()
        return imported([*command, "--root", str(root), *arguments]) - bare() - extra

    yield run
    if root.exists():
        plain = [word for word in command if word not in ("-X", "importtime", "utf8")]
        for id in ("budget", "detached"):
            done = [*plain, "--root", str(root), "delete", "--force", id]
            subprocess.run(done, capture_output=True, check=False, timeout=60)


def offenders(verb: str, names: set[str]) -> list[str]:
    """What lies outside the verb's budget."""
    allowed = [f"rootless_pyoki.{name}" for name in f"{EVERY} {BUDGET[verb]}".split()]
    allowed += ["rootless_pyoki", *FOREIGN]
    if verb in ("create", "run"):
        allowed.append("pwd")  # subuid(5) knows users by name
    return sorted(name for name in names if not any(fnmatchcase(name, one) for one in allowed))


def test_verbs_without_a_container(loaded: Callable[..., set[str]]) -> None:
    """--version and list load their budget and nothing else."""
    assert offenders("--version", loaded("--version")) == []
    assert offenders("list", loaded("list")) == []


def test_a_container_life(loaded: Callable[..., set[str]], tmp_path: Path) -> None:
    """create, state, start, exec, kill, delete and run load their budgets and nothing else."""
    bundle = bundles.Bundle(tmp_path / "bundle", "/bin/sleep", "100").write()
    path = str(bundle.path)
    resources = str(tmp_path / "resources.json")
    Path(resources).write_text('{"memory": {"kernel": 5}}')  # which needs no controller
    found = {
        "create": loaded("create", "--bundle", path, "budget"),
        "state": loaded("state", "budget"),
        "start": loaded("start", "budget"),
        "exec": loaded("exec", "budget", "/bin/true"),
        "update": loaded("update", "--pids-limit=-1", "--resources", resources, "budget"),
        "kill": loaded("kill", "budget", "KILL"),
        "delete": loaded("delete", "--force", "budget"),
    }
    bundles.Bundle(tmp_path / "short", "/bin/true").write()
    found["run"] = loaded("run", "--bundle", str(tmp_path / "short"), "detached")
    if not needs.user_manager():
        for_systemd = ("cgroups.dbus", "cgroups.systemd_", "cgroups.unit_", "lifecycle.scope")
        names = {name.removeprefix("rootless_pyoki.") for one in found.values() for name in one}
        assert [name for name in sorted(names) if name.startswith(for_systemd)] == []
    over = {verb: offenders(verb, names) for verb, names in found.items()}
    assert {verb: names for verb, names in over.items() if names} == {}


@pytest.mark.session
def test_a_life_in_a_scope(loaded: Callable[..., set[str]], tmp_path: Path) -> None:
    """With systemd the same, and all of it from the bundle; who deletes what has ended asks no bus."""
    path = str(bundles.Bundle(tmp_path / "bundle", "/bin/sleep", "100").write().path)
    found = {
        "create": loaded("--systemd-cgroup", "create", "--bundle", path, "budget"),
        "start": loaded("start", "budget"),
        "state": loaded("state", "budget"),
        "exec": loaded("exec", "budget", "/bin/true"),
        "kill": loaded("kill", "budget", "KILL"),
        "delete": loaded("delete", "--force", "budget"),
    }
    over = {verb: offenders(verb, names) for verb, names in found.items()}
    assert {verb: names for verb, names in over.items() if names} == {}
    asking = {verb for verb, names in found.items() if any(".systemd_" in name for name in names)}
    assert asking == {"create"} | (asking & {"exec"})  # exec from outside of the user's slice


# What a module may say, anywhere in it: the same rule without running anything.
COLD = (
    "cli/app.py",
    "cli/render.py",
    "cli/top.py",
    "cli/host_ps.py",
    "report/",
    "native/",
    "__main__.py",
)
OPEN = {"sys", "time", "errno", "__future__"}
RARE = {
    "state/root.py": {
        "platformdirs",
        "warnings",
    },  # where no root is given and XDG_RUNTIME_DIR is unusable
    "spec/types.py": {"typing"},  # loaded by the type checker only
    "lifecycle/container.py": {"re"},  # --regex
}
INSIDE_KERNEL = {"posix", "_json", "_imp", "marshal", "pwd", "grp"}


def statements(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """All imports but those under `if TYPE_CHECKING`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from statements(other)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        else:
            yield from statements(node)


def test_hot_sources() -> None:
    """No hot module imports the standard library, even in a function that few ever call."""
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE).as_posix()
        if relative.startswith(COLD):
            continue
        allowed = OPEN | (INSIDE_KERNEL if relative.startswith("kernel/") else set())
        for node in statements(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [
                alias.name for alias in node.names
            ]  # fmt: skip
            tops = {name.partition(".")[0] for name in names} - allowed - {"rootless_pyoki"}
            tops -= RARE.get(relative, set())
            wrong += [f"{relative}:{node.lineno} {name}" for name in sorted(tops)]
    assert wrong == []
