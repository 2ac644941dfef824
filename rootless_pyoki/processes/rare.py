"""Modules that few containers need, loaded before the first child is born.

A child can load nothing (ends.door): what it imports in its functions must be in sys.modules by then.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Plan, Process


def load(process: Process, plan: Plan | None = None) -> None:
    """plan: None for exec's process, which joins."""
