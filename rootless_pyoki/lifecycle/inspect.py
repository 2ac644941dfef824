"""state, list, ps: what is known of containers; runtime.md "State" and "Query State"."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import manager
from rootless_pyoki.errors import NotFoundError, StateError
from rootless_pyoki.lifecycle import container
from rootless_pyoki.spec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.container import Container

    View = dict[str, object]


def state(*, root: str | None, id: str, verbose: bool = False) -> View:
    """The OCI state with runc's additions: rootfs, created (RFC 3339), owner (a user's name).

    pid is 0 for a stopped container. What is ours stands under "pyoki": how a stopped container
    ended (`exit`, see exit_record.py); verbose: also what was changed or left out at create, and the
    cgroup.
    """
    found = container.load(root, id)
    view = _view(found)
    particulars = _particulars(found) if verbose else {}
    if view["status"] == "stopped":
        particulars["exit"] = found.exit_record()
    if particulars:
        view["pyoki"] = particulars
    return view


def list_containers(*, root: str | None) -> list[View]:
    """The state of every container below the root, by id; one that cannot be read is left out."""
    views = []
    for id in container.ids(root):
        try:
            views.append(_view(container.load(root, id)))
        except NotFoundError:
            continue  # deleted meanwhile
        except StateError as error:
            log.warning(f"list: {error.message}")
    return views


def ps(*, root: str | None, id: str) -> list[int]:
    """Pids of the container's processes as the host counts, ascending.

    From its cgroup, else from its pid namespace. StateError when none is left.
    """
    found = container.load(root, id)
    cgroup = found.cgroup()
    if cgroup.path:
        pids = sorted(manager.processes(cgroup))
    else:
        from rootless_pyoki.lifecycle import pidns

        pids = pidns.processes(found)
    if not pids and found.status() == "stopped":
        raise StateError(f"container {found.id}: container not running")
    return pids


def _view(found: Container) -> View:
    status = found.status()
    kept = found.state
    return {
        "ociVersion": OCI_VERSION,
        "id": found.id,
        "pid": 0 if status == "stopped" else kept.pid,
        "status": status,
        "bundle": kept.bundle,
        "rootfs": kept.rootfs,
        "created": kept.created,
        "annotations": kept.annotations,
        "owner": kept.owner,
    }


def _particulars(found: Container) -> View:
    cgroup = found.cgroup()
    updated = found.extras.get("updated_resources")  # lifecycle/update.py
    return {
        **({"updated": updated} if updated else {}),
        "notes": [{"pointer": note.pointer, "text": note.text} for note in found.state.notes],
        "cgroup": {
            "manager": cgroup.manager,
            **({"unit": cgroup.unit, "slice": cgroup.slice} if cgroup.unit else {}),
            "path": cgroup.path,
            "reason": cgroup.reason,
        },
    }
