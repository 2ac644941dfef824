"""delete: remove what create made; runtime.md "Delete"."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.errors import NotFoundError, StateError
from rootless_pyoki.kernel import json
from rootless_pyoki.lifecycle import container
from rootless_pyoki.state import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.container import Container


def delete(*, root: str | None, id: str, force: bool = False, regex: bool = False) -> None:
    """A stopped or merely created container; with `force` any, and a missing one is no error."""
    try:
        found = (
            container.load_matching(root, id, lock=True)
            if regex
            else [container.load(root, id, lock=True)]
        )
    except NotFoundError:
        if not force:
            raise
        container.clear_leftover(root, id)
        return
    for one in found:
        _delete(one, force)


def _delete(found: Container, force: bool) -> None:
    status = found.status()
    if status in ("running", "paused") and not force:
        raise StateError(
            f"cannot delete container {found.id} that is not stopped: {status}",
            hint="stop it with kill first, or use --force",
        )
    if status != "stopped" or force or found.state.phase == "creating":
        found.end()
    found.remove_cgroup()
    _run_poststop(found)
    store.remove(found.handle)


def _run_poststop(found: Container) -> None:
    if "poststop" not in found.extras.get("hooks", ()):
        return
    from rootless_pyoki.lifecycle import hooks
    from rootless_pyoki.plan import hooks as plan_hooks

    try:
        config = json.loads(found.handle.read_config())
        planned = plan_hooks.make(config)
    except (OSError, ValueError) as error:
        log.warning(f"poststop hooks of {found.id}: {error}")
        return
    hooks.poststop(planned, found.hook_state("stopped"))
