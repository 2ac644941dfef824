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
    from rootless_pyoki.lifecycle.creation import Creation


def settle(creation: Creation, start: Start, pid: int) -> None:
    """Wait until the process is in its scope; where nothing needs systemd, another cgroup will do."""
    try:
        creation.cgroup = start.finish()
    except HostError as error:
        if not _optional(creation):
            raise
        _do_without(creation, start, pid, error)
        return
    creation.owns_cgroup = True
    if creation.plan.subgroup and creation.cgroup.path:
        from rootless_pyoki.lifecycle import delegation

        delegation.enter_subgroup(creation.cgroup, creation.plan, pid)


def _optional(creation: Creation) -> bool:
    """Does nothing in the request or the configuration need systemd, or any cgroup?"""
    request, plan = creation.request, creation.plan
    asked = request.systemd_cgroup or request.cgroup_manager == "systemd"
    needed = plan.cgroups_path or plan.unit_properties or plan.subgroup or creation.limits
    return not asked and not needed


def _do_without(creation: Creation, start: Start, pid: int, error: HostError) -> None:
    log.debug(f"no scope: {error.message}")
    start.abandon()
    start.close()
    creation.scope = None
    creation.cgroup = manager.Cgroup(manager="none", reason=error.message)
    chosen = creation.choose_cgroup("cgroupfs")
    if chosen.manager == "none":
        chosen = replace(chosen, reason=f"{error.message}; {chosen.reason}")
    creation.cgroup = manager.create(chosen, ())
    creation.owns_cgroup = True
    manager.attach(creation.cgroup, pid)
