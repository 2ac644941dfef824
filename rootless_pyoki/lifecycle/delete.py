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
    if not regex:
        _delete_one(root, id, force)
        return
    for each in container.matching(root, id):
        try:
            _delete_one(root, each, force)
        except NotFoundError:
            pass  # deleted meanwhile, or what a killed create has left


def _delete_one(root: str | None, id: str, force: bool) -> None:
    try:
        found = container.load(root, id, lock=True, cut_short=force)
    except NotFoundError:
        if not force:
            raise
        container.clear_leftover(root, id)
        return
    except StateError as error:
        if not force:
            raise
        from rootless_pyoki.lifecycle import salvage

        log.warning(f"{error.message}: it is removed all the same")
        salvage.clear(root, id)
        return
    _delete(found, force)


def _delete(found: Container, force: bool) -> None:
    status = found.status()
    if status in ("running", "paused") and not force:
        raise StateError(
            f"cannot delete container {found.id} that is not stopped: {status}",
            hint="stop it with kill first, or use --force",
        )
    left = not found.owns_pid_namespace()  # others may have outlived the first process
    if status != "stopped" or force or left or found.state.phase == "creating":
        found.end()
    _clear(found)


def destroy(found: Container) -> None:
    """Stop a container whose lock is held, and leave nothing of it."""
    found.end()
    _clear(found)


def _clear(found: Container) -> None:
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
    hooks.poststop(planned, found.hook_state("stopped"), found.state.bundle)
