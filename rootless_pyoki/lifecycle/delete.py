"""delete: remove what create made; runtime.md "Delete"."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import cgroupfs, tree
from rootless_pyoki.errors import HostError, NotFoundError, StateError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, json, syscalls
from rootless_pyoki.lifecycle import container, signal
from rootless_pyoki.state import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.container import Container

DEADLINE = 10_000  # milliseconds between SIGKILL and giving up


def delete(*, root: str | None, id: str, force: bool = False, regex: bool = False) -> None:
    """A stopped or merely created container; with `force` any, and a missing one is no error."""
    try:
        found = (
            container.load_matching(root, id, lock=True)
            if regex
            else [container.load(root, id, lock=True)]
        )
    except NotFoundError:
        if force:
            return
        raise
    for one in found:
        _delete(one, force)


def _delete(found: Container, force: bool) -> None:
    status = found.status()
    if status in ("running", "paused") and not force:
        raise StateError(
            f"cannot delete container {found.id} that is not stopped: {status}",
            hint="stop it with kill first, or use --force",
        )
    if status != "stopped" or force:
        end(found)
    cgroup = found.cgroup()
    if cgroup.path:
        tree.remove(cgroup.path, top=cgroup.made)
    _run_poststop(found)
    store.remove(found.handle)


def end(found: Container) -> None:
    """Kill the first process and everybody else in the container; wait until it is gone."""
    cgroup = found.cgroup()
    if cgroup.path and cgroupfs.frozen(cgroup.path):
        cgroupfs.thaw(cgroup.path)
    try:
        pidfd = found.pidfd()
    except StateError:
        pidfd = -1
    if cgroup.path:
        cgroupfs.kill(cgroup.path)
    if pidfd < 0:
        return
    try:
        syscalls.pidfd_send_signal(pidfd, c.SIGKILL)
        if not syscalls.poll([(pidfd, c.POLLIN)], DEADLINE):
            raise HostError(f"container {found.id} does not end: process {found.state.pid} survives SIGKILL")
    except SyscallError as error:
        if error.errno != c.ESRCH:
            raise
    finally:
        fds.close_quietly(pidfd)


def _run_poststop(found: Container) -> None:
    if "poststop" not in found.state.extras.get("hooks", ()):  # type: ignore[operator]
        return
    from rootless_pyoki.lifecycle import hooks
    from rootless_pyoki.plan import hooks as plan_hooks

    try:
        config = json.loads(found.handle.read_config())
        planned = plan_hooks.make(config)  # type: ignore[arg-type]
    except (OSError, ValueError) as error:
        log.warning(f"poststop hooks of {found.id}: {error}")
        return
    hooks.poststop(planned, found.hook_state("stopped"))
