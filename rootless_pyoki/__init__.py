"""pyoki: a rootless-first OCI container runtime.

The public Python API is what `_API` names; each name is imported when it is first used.
"""

from __future__ import annotations

__version__ = "0.1.0.dev0"

# public name -> the module that defines it
_API = {
    "create": "rootless_pyoki.lifecycle.create",
    "start": "rootless_pyoki.lifecycle.start",
    "run": "rootless_pyoki.lifecycle.run",
    "exec_process": "rootless_pyoki.lifecycle.exec",
    "delete": "rootless_pyoki.lifecycle.delete",
    "kill": "rootless_pyoki.lifecycle.signal",
    "pause": "rootless_pyoki.lifecycle.signal",
    "resume": "rootless_pyoki.lifecycle.signal",
    "state": "rootless_pyoki.lifecycle.inspect",
    "list_containers": "rootless_pyoki.lifecycle.inspect",
    "ps": "rootless_pyoki.lifecycle.inspect",
    "update": "rootless_pyoki.lifecycle.update",
    "events": "rootless_pyoki.lifecycle.events",
    "PyokiError": "rootless_pyoki.errors",
    "UsageError": "rootless_pyoki.errors",
    "SpecError": "rootless_pyoki.errors",
    "UnsupportedError": "rootless_pyoki.errors",
    "StateError": "rootless_pyoki.errors",
    "NotFoundError": "rootless_pyoki.errors",
    "HostError": "rootless_pyoki.errors",
    "ChildError": "rootless_pyoki.errors",
    "KilledError": "rootless_pyoki.errors",
}

__all__ = ("__version__", *_API)  # noqa: PLE0604


def commit() -> str:
    """The commit that was built, as the build wrote it down; a checkout has no such file."""
    try:
        module = __import__("rootless_pyoki._build", fromlist=["COMMIT"])
    except ImportError:
        return "unknown"
    return str(module.COMMIT)


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562)."""
    module = _API.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(__import__(module, fromlist=(name,)), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_API})
