"""Modules that few containers need, loaded before the first child is born.

A child can load nothing (ends.door): what it imports in its functions must be in sys.modules by then.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Plan, Process


def load(process: Process, plan: Plan | None = None) -> None:
    """plan: None for exec's process, which joins."""
    if plan is not None and plan.hosts_new("time"):
        from rootless_pyoki.apply import clocks  # noqa: F401
    if process.label is not None:
        from rootless_pyoki.apply import labels  # noqa: F401
    if process.scheduling is not None:
        import rootless_pyoki.apply.scheduling
    for mount in plan.mounts if plan is not None else ():
        if mount.idmap:
            import rootless_pyoki.apply.idmapped
        if mount.special:
            import rootless_pyoki.apply.symlinks  # noqa: F401
