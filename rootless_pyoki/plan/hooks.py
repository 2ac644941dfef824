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
    return Hooks(**made)


def _make_one(entry: dict[str, Any], pointer: str) -> Hook:
    return Hook(
        path=entry["path"],
        args=tuple(entry.get("args") or (entry["path"],)),
        env=tuple(entry.get("env") or ()),
        timeout=entry.get("timeout") or 0,
        pointer=pointer,
    )
