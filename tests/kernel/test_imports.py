"""What the kernel modules load in a bare interpreter."""

from __future__ import annotations

import subprocess
import sys

import _cffi_backend

import rootless_pyoki

ALLOWED = {"__future__", "_cffi_backend", "_json", "errno", "rootless_pyoki"}


def test_a_bare_interpreter_loads_nothing_else() -> None:
    """python -I -S with only _cffi_backend at hand: no module of the standard library but _json."""
    script = (
        "import sys\n"
        "before = set(sys.modules)\n"
        "from _frozen_importlib_external import ExtensionFileLoader\n"
        "from _frozen_importlib import ModuleSpec, _load\n"
        "path = sys.argv[1]\n"
        "loader = ExtensionFileLoader('_cffi_backend', path)\n"
        "_load(ModuleSpec('_cffi_backend', loader, origin=path))\n"
        "sys.path.insert(0, sys.argv[2])\n"
        "from rootless_pyoki.kernel import constants, fds, json, paths, procfs, syscalls\n"
        "print(*sorted(set(sys.modules) - before))\n"
    )
    root = rootless_pyoki.__path__[0].rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, _cffi_backend.__file__, root],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    loaded = {name for name in done.stdout.split() if not name.startswith("rootless_pyoki.")}
    assert loaded <= ALLOWED
    assert "rootless_pyoki.native._syscalls" in done.stdout
