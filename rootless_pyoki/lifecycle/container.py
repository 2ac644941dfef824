"""An existing container, as every verb but create meets it: its state, and what the kernel says of it."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import manager
from rootless_pyoki.cgroups.manager import Cgroup
from rootless_pyoki.errors import HostError, NotFoundError, StateError, SyscallError, UsageError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.record import replace
from rootless_pyoki.state import root as state_root
from rootless_pyoki.state import status as statuses
from rootless_pyoki.state import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from rootless_pyoki.plan.plan import Note
    from rootless_pyoki.state.store import ContainerState

GROUPS_REFUSED = "the container's user namespace does not allow setgroups"
DEADLINE = 10_000  # milliseconds between SIGKILL and giving up
PATIENCE = 100  # milliseconds in which nearly everything dies


def tell(notes: Iterable[Note], unsupported: str | None) -> None:
    """What is not as the configuration says, to the log: at level debug, or warning if asked for."""
    for note in notes:
        say = log.warning if note.warning or unsupported == "warn" else log.debug
        say(f"{note.pointer}: {note.text}")


def seccomp_receiver(config: Mapping[str, Any]) -> str:
    """crun's way to name a seccomp agent from outside; looked for only where there is a profile."""
    if not (config.get("linux") or {}).get("seccomp"):
        return ""
    return syscalls.environ().get("RUN_OCI_SECCOMP_RECEIVER", "")


class Container:
    """`state` is what we wrote down; everything else is asked anew."""

    def __init__(self, handle: store.Handle, state: ContainerState) -> None:
        self.handle = handle
        self.state = state
        self.id = state.id
        self.extras: dict[str, Any] = state.extras  # what creation.py put there

    def status(self) -> str:
        """ "creating", "created", "running", "paused" or "stopped"."""
        return statuses.status(self.handle, self.state, frozen=self._frozen)

    def alive(self) -> bool:
        return statuses.alive(self.state)

    def cgroup(self) -> Cgroup:
        found = Cgroup(
            manager=self.state.cgroup_manager,
            path=self.state.cgroup_path,
            made=str(self.extras.get("cgroup_made", "")),
            reason=str(self.extras.get("cgroup_reason", "")),
        )
        if not self.state.cgroup_scope:
            return found
        return replace(
            found,
            unit=self.state.cgroup_scope,
            slice=str(self.extras.get("cgroup_slice", "")),
            bus=str(self.extras.get("cgroup_bus", "")),
            mark=manager.mark(self.state.creator_pid, self.state.creator_start_time),
            inode=int(self.extras.get("cgroup_inode", 0)),
        )

    def exit_record(self) -> dict[str, object]:
        """How it ended, as far as it can be known; of a stopped container."""
        if self.state.exit is not None:
            return self.state.exit
        from rootless_pyoki.lifecycle import exit_record

        return exit_record.observe(self.state.cgroup_path if self._settled() else "")

    def owns_pid_namespace(self) -> bool:
        return bool(self.extras.get("own_pid_namespace"))

    def pidfd(self) -> int:
        """A pidfd that is proven to be the container's first process; StateError if it is gone."""
        try:
            pidfd = syscalls.pidfd_open(self.state.pid)
        except SyscallError:
            raise StateError(f"container {self.id}: container not running") from None
        # opened first, checked then: the pid cannot pass to another process in between
        if not self.alive():
            fds.close_quietly(pidfd)
            raise StateError(f"container {self.id}: container not running")
        return pidfd

    def end(self) -> None:
        """Kill the first process and everybody else in the container; wait until they are gone.

        Raises HostError when it survives SIGKILL for ten seconds.
        """
        cgroup = self.cgroup()
        try:
            pidfd = self.pidfd()
        except StateError:
            pidfd = -1
        if self._settled():
            # SIGKILL reaches what is frozen, too: cgroup-v2.rst, cgroup.freeze
            manager.kill(cgroup)
        if pidfd < 0:
            return
        try:
            syscalls.pidfd_send_signal(pidfd, c.SIGKILL)
            if not await_end(pidfd, self.state.pid):
                raise HostError(
                    f"process {self.state.pid} of container {self.id} survives SIGKILL",
                    hint="it, or another of its pid namespace, is stuck in the kernel",
                )
        except SyscallError as error:
            if error.errno != c.ESRCH:
                raise
        finally:
            fds.close_quietly(pidfd)

    def remove_cgroup(self) -> None:
        if self._settled():
            try:
                manager.remove(self.cgroup())
            except SyscallError as error:
                if error.errno != c.EACCES:
                    raise
                from rootless_pyoki.lifecycle import ownership

                ownership.remove(self.cgroup(), self.extras)  # others made cgroups in there
            return
        try:
            manager.remove(self.cgroup())
        except HostError as error:
            log.debug(f"{error.message}: another container's")

    def _settled(self) -> bool:
        """Did it ever live in its cgroup, since this boot? Else somebody else may by now."""
        return self.state.pid > 0 and self.state.boot_id == procfs.boot_id()

    def hook_state(self, status: str) -> bytes:
        """The state as hooks read it."""
        from rootless_pyoki.lifecycle import hooks

        return hooks.state_json(
            id=self.id,
            status=status,
            pid=0 if status == "stopped" else self.state.pid,
            bundle=self.state.bundle,
            annotations=self.state.annotations,
        )

    def _frozen(self) -> bool:
        return manager.frozen(self.cgroup())


def await_end(pidfd: int, pid: int) -> bool:
    """Wait for a process that was killed; False when it is still there after ten seconds.

    The first process of a pid namespace has ended also where it only waits for zombies: whoever
    called exec may never wait for its process, and nobody in there runs any more.
    """
    step, left = PATIENCE, DEADLINE
    while not syscalls.poll([(pidfd, c.POLLIN)], step):
        if procfs.start_time(pid) is None:
            from rootless_pyoki.lifecycle import pidns

            if not pidns.anybody_runs(pid):
                return True
        left -= step
        if left <= 0:
            return False
        step = min(2 * step, left)
    return True


def sweep(handle: store.Handle, state: ContainerState) -> None:
    """End what a create left that was killed half-way; the caller holds the lock."""
    left = Container(handle, state)
    left.end()
    left.remove_cgroup()


def clear_leftover(root: str | None, id: str) -> None:
    """The directory of a create that was killed before it wrote a state."""
    from rootless_pyoki.state import leftover

    try:
        place = state_root.open_root(state_root.choose_root(root), create=False)
    except SyscallError:
        return  # no root, no leftovers
    try:
        leftover.remove(place, id)
    finally:
        syscalls.close(place)


def load(root: str | None, id: str, *, lock: bool = False, cut_short: bool = False) -> Container:
    """The container with this id; NotFoundError `container X does not exist`.

    cut_short: who holds the lock waits for the container's first process, perhaps for ever; end it.
    """
    try:
        place = state_root.open_root(state_root.choose_root(root), create=False)
    except SyscallError as error:
        if error.errno == c.ENOENT:
            raise NotFoundError(f"container {id} does not exist") from None
        raise
    try:
        handle = store.open_container(place, id)
    finally:
        syscalls.close(place)
    try:
        if lock:
            _lock(handle, cut_short)
        return Container(handle, handle.read())
    except BaseException:
        handle.unlock()  # or clear_leftover, which comes next, would find it taken: by us
        handle.close()
        raise


def _lock(handle: store.Handle, cut_short: bool) -> None:
    try:
        handle.lock(wait=not cut_short)
        return
    except NotFoundError:
        raise
    except StateError:
        pass
    try:
        pidfd = Container(handle, handle.read()).pidfd()
        syscalls.pidfd_send_signal(pidfd, c.SIGKILL)
        syscalls.close(pidfd)
    except (StateError, SyscallError):
        pass  # not born yet, or gone already
    handle.lock()


def matching(root: str | None, pattern: str) -> list[str]:
    """The ids, sorted, that match the regular expression (crun's --regex)."""
    import re  # a verb for people: not on the hot path

    try:
        wanted = re.compile(pattern)
    except re.error as error:
        raise UsageError(f"bad regular expression {pattern!r}: {error}") from None
    return [id for id in ids(root) if wanted.search(id)]


def ids(root: str | None) -> list[str]:
    """Of all that may be containers, sorted; none where there is no root."""
    try:
        place = state_root.open_root(state_root.choose_root(root), create=False)
    except SyscallError as error:
        if error.errno == c.ENOENT:
            return []
        raise
    try:
        return store.list_ids(place)
    finally:
        syscalls.close(place)
