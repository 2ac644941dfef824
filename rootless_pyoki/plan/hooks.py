"""/hooks: all six kinds (config.md "POSIX-platform Hooks")."""

from __future__ import annotations

from rootless_pyoki.plan.plan import Hook, Hooks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = (
    ("prestart", "prestart"),
    ("createRuntime", "create_runtime"),
    ("createContainer", "create_container"),
    ("startContainer", "start_container"),
    ("poststart", "poststart"),
    ("poststop", "poststop"),
)
NONE = Hooks()
STDOUT, STDERR = "run.oci.hooks.stdout", "run.oci.hooks.stderr"


def make(config: dict[str, Any]) -> Hooks:
    """Each kind's hooks in order; the configuration is validated."""
    hooks = config.get("hooks")
    if not hooks:
        return NONE
    made = {}
    for name, field in KINDS:
        made[field] = tuple(
            [
                _make_one(entry, f"/hooks/{name}/{index}")
                for index, entry in enumerate(hooks.get(name) or ())
            ]
        )
    annotations = config.get("annotations") or {}
    return Hooks(stdout=annotations.get(STDOUT, ""), stderr=annotations.get(STDERR, ""), **made)


def _make_one(entry: dict[str, Any], pointer: str) -> Hook:
    return Hook(
        path=entry["path"],
        args=tuple(entry.get("args") or (entry["path"],)),
        env=tuple(entry["env"]) if "env" in entry else None,
        timeout=entry.get("timeout") or 0,
        pointer=pointer,
    )
