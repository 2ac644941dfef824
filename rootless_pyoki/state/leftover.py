"""What a create left that was killed half-way: told from a container, and thrown away."""

from __future__ import annotations

from rootless_pyoki.errors import StateError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.state import store
from rootless_pyoki.state.container_state import sweepable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.state.store import Handle, Sweep


def clear(handle: Handle, sweep: Sweep | None) -> None:
    """Make a claimed directory empty, if what lies there is no container."""
    names = syscalls.listdir(handle.fd)
    if "state.json" in names:
        try:
            state = handle.read()
        except StateError:  # damaged, or of a newer form: not ours to throw away
            raise store.exists(handle.id) from None
        if not sweepable(state):
            raise store.exists(handle.id)
        if sweep is not None:
            sweep(handle, state)
        elif state.pid or state.cgroup_path:
            raise store.exists(handle.id)
    for name in names:
        if name != "lock":
            store.unlink(handle.fd, name)


def remove(root_fd: int, id: str) -> bool:
    """Remove the directory of a container that never had a state; False when there is none, or it
    has one, or somebody is at it.
    """
    if not store.valid_id(id):
        return False
    try:
        fd = syscalls.openat(root_fd, id, store.DIRECTORY)
    except SyscallError as error:
        if error.errno == c.ENOENT:
            return False
        raise
    handle = store.Handle(id, fd)
    try:
        handle.lock_fd = syscalls.openat(fd, "lock", c.O_RDWR | c.O_CREAT | c.O_NOFOLLOW, 0o600)
        if store.take(handle.lock_fd, False) and "state.json" not in syscalls.listdir(fd):
            store.remove(handle)
            return True
    except SyscallError as error:
        if error.errno != c.ENOENT:
            raise
    finally:
        handle.close()
    return False
