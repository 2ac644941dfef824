"""What create does when a container's scope of systemd's is there, or cannot be.

Only loaded for a container that is to have one.
"""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import manager
from rootless_pyoki.errors import HostError
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.cgroups.systemd_scope import Start
    from rootless_pyoki.lifecycle.own_cgroup import OwnCgroup


def settle(own: OwnCgroup, start: Start, pid: int) -> None:
    """Wait until the process is in its scope; where nothing needs systemd, another cgroup will do."""
    try:
        own.cgroup = start.finish()
    except HostError as error:
        if not _optional(own):
            raise
        _do_without(own, start, pid, error)
        return
    own.made = True
    if own.plan.subgroup and own.cgroup.path:
        from rootless_pyoki.lifecycle import delegation

        delegation.enter_subgroup(own.cgroup, own.plan, pid)


def _optional(own: OwnCgroup) -> bool:
    """Does nothing in the request or the configuration need systemd, or any cgroup?"""
    request, plan = own.request, own.plan
    asked = request.systemd_cgroup or request.cgroup_manager == "systemd"
    needed = plan.cgroups_path or plan.unit_properties or plan.subgroup or own.limits
    return not asked and not needed


def _do_without(own: OwnCgroup, start: Start, pid: int, error: HostError) -> None:
    log.debug(f"no scope: {error.message}")
    start.abandon()
    start.close()
    own.scope = None
    own.cgroup = manager.Cgroup(manager="none", reason=error.message)
    chosen = own.choose("cgroupfs")
    if chosen.manager == "none":
        chosen = replace(chosen, reason=f"{error.message}; {chosen.reason}")
    own.cgroup = manager.create(chosen, ())
    own.made = True
    manager.attach(own.cgroup, pid)
