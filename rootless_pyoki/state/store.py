"""Where containers are remembered: a directory ROOT/ID each, mode 0700.

    state.json    what container_state.py says; replaced by rename, so a reader sees old or new
    config.json   the bundle's configuration, byte for byte as it was at create
    lock          flock(2)ed exclusively during create, start, delete and while exec registers
    gate.lock     held by the waiting gate: who holds it has not been started
    gate.sock     where the waiting gate listens
    notify/       what the container has at /run/notify, where it was made for a service manager

Reading takes no lock. A directory without state.json is what a create left that was killed at once:
it counts as no container, and whoever locks it may have it. The lock file is the last to be
unlinked; a lock won on an unlinked file is worth nothing, so it is looked at again.
"""

from __future__ import annotations

from rootless_pyoki.errors import NotFoundError, StateError, SyscallError, UsageError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.state.container_state import ContainerState, decode, encode, new_state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Sweep = Callable[["Handle", ContainerState], None]

__all__ = [
    "ContainerState",
    "Handle",
    "create_container",
    "list_ids",
    "new_state",
    "open_container",
    "remove",
    "require_valid_id",
    "valid_id",
]

DIRECTORY = c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW
_ID_CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-"
LONGEST_ID = 255  # it is the name of a directory: NAME_MAX
_ATTEMPTS = 100


class Handle:
    """A container's directory, open; and its lock, when we hold it."""

    __slots__ = ("fd", "id", "lock_fd")

    def __init__(self, id: str, fd: int, lock_fd: int = -1) -> None:
        self.id = id
        self.fd = fd
        self.lock_fd = lock_fd

    def read(self) -> ContainerState:
        """Raises NotFoundError when there is no state (any more), StateError when it is damaged."""
        return decode(self._read("state.json"), self.id)

    def write(self, state: ContainerState) -> None:
        """Replace state.json. Only the holder of the lock may; after a reboot it means nothing, so
        there is no fsync.
        """
        self._replace("state.json", encode(state))

    def read_config(self) -> bytes:
        return self._read("config.json")

    def write_config(self, raw: bytes) -> None:
        self._replace("config.json", raw)

    def lock(self, *, wait: bool = True) -> None:
        """Take the exclusive lock.

        Raises NotFoundError when the container is gone (meanwhile), StateError when somebody else
        holds the lock and we are not to wait.
        """
        try:
            fd = syscalls.openat(self.fd, "lock", c.O_RDWR | c.O_NOFOLLOW)
        except SyscallError as error:
            if error.errno == c.ENOENT:
                raise missing(self.id) from None
            raise
        if not take(fd, wait):
            syscalls.close(fd)
            raise StateError(f"container {self.id} is in use by another pyoki")
        if syscalls.fstat(fd).st_nlink == 0:  # deleted while we waited
            syscalls.close(fd)
            raise missing(self.id)
        self.lock_fd = fd

    def unlock(self) -> None:
        """For everybody who inherited the descriptor, too."""
        if self.lock_fd >= 0:
            syscalls.flock(self.lock_fd, c.LOCK_UN)
            syscalls.close(self.lock_fd)
            self.lock_fd = -1

    def close(self) -> None:
        """Close the descriptors. The lock stays where a child inherited it."""
        fds.close_quietly(self.lock_fd)
        fds.close_quietly(self.fd)
        self.lock_fd = self.fd = -1

    def _read(self, name: str) -> bytes:
        try:
            return fds.read_file(self.fd, name, record=True)
        except SyscallError as error:
            if error.errno == c.ENOENT:
                raise missing(self.id) from None
            raise

    def _replace(self, name: str, data: bytes) -> None:
        fresh = f"{name}.new"  # one name will do: writers hold the lock
        flags = c.O_WRONLY | c.O_CREAT | c.O_TRUNC | c.O_NOFOLLOW
        fd = syscalls.openat(self.fd, fresh, flags, 0o600)
        try:
            fds.write_all(fd, data)
        finally:
            syscalls.close(fd)
        syscalls.renameat(self.fd, fresh, self.fd, name)


def create_container(root_fd: int, id: str, *, sweep: Sweep | None = None) -> Handle:
    """A new, empty directory for container `id`, locked.

    What is left of a create that was killed is cleared first. Where that had got as far as a
    process or a cgroup, `sweep` is called with it, locked, and must end them; without `sweep` such
    a leftover still counts as a container.
    Raises StateError `container with id X already exists`, UsageError for an impossible id.
    """
    require_valid_id(id)
    for _ in range(_ATTEMPTS):
        handle = _claim(root_fd, id)
        if handle is not None:
            break
    else:
        raise StateError(f"create container {id}: its directory keeps vanishing")
    try:
        if syscalls.listdir(handle.fd) != ["lock"]:
            from rootless_pyoki.state import leftover

            leftover.clear(handle, sweep)
    except BaseException:
        handle.close()
        raise
    return handle


def _claim(root_fd: int, id: str) -> Handle | None:
    """The directory, made or found, with its lock; None when somebody removed it meanwhile."""
    try:
        syscalls.mkdirat(root_fd, id, 0o700)
    except SyscallError as error:
        if error.errno != c.EEXIST:
            raise
    fd = lock = -1
    try:
        fd = syscalls.openat(root_fd, id, DIRECTORY)
        lock = syscalls.openat(fd, "lock", c.O_RDWR | c.O_CREAT | c.O_NOFOLLOW, 0o600)
        if not take(lock, False):
            raise exists(id)
        if syscalls.fstat(lock).st_nlink:
            return Handle(id, fd, lock)
    except SyscallError as error:
        fds.close_quietly(lock)
        fds.close_quietly(fd)
        if error.errno == c.ENOENT:
            return None
        _forget(root_fd, id)
        raise
    except StateError:
        fds.close_quietly(lock)
        fds.close_quietly(fd)
        raise
    syscalls.close(lock)
    syscalls.close(fd)
    return None


def _forget(root_fd: int, id: str) -> None:
    """Remove a directory that has not got a lock, and so is nobody's."""
    try:
        syscalls.unlinkat(root_fd, id, c.AT_REMOVEDIR)
    except SyscallError:
        pass  # somebody is in it, or was faster


def open_container(root_fd: int, id: str) -> Handle:
    """Raises NotFoundError `container X does not exist`, UsageError for an impossible id."""
    require_valid_id(id)
    try:
        return Handle(id, syscalls.openat(root_fd, id, DIRECTORY))
    except SyscallError as error:
        if error.errno == c.ENOENT:
            raise missing(id) from None
        raise


def list_ids(root_fd: int) -> list[str]:
    """Names of directories that may be containers, sorted; read() tells which are."""
    return sorted(name for name in syscalls.listdir(root_fd) if valid_id(name))


def remove(handle: Handle) -> None:
    """Remove all files, then the directory; the handle is closed. The caller holds the lock.

    What is gone already is no error, and a create that takes the directory over keeps it.
    """
    try:
        root_fd = syscalls.openat(handle.fd, "..", DIRECTORY)
    except SyscallError as error:
        handle.close()
        if error.errno == c.ENOENT:
            return
        raise
    try:
        for name in syscalls.listdir(handle.fd):
            if name != "lock":
                unlink(handle.fd, name)
        unlink(handle.fd, "lock")
        syscalls.unlinkat(root_fd, handle.id, c.AT_REMOVEDIR)
    except SyscallError as error:
        if error.errno not in (c.ENOENT, c.ENOTEMPTY, c.EEXIST):
            raise
    finally:
        syscalls.close(root_fd)
        handle.unlock()  # who waits learns that it is gone, even if a child of ours holds it too
        handle.close()


def valid_id(id: str) -> bool:
    """1 to 255 characters of A-Z a-z 0-9 _ + . - and no dot in front."""
    return 0 < len(id) <= LONGEST_ID and id[0] != "." and not id.strip(_ID_CHARACTERS)


def require_valid_id(id: str) -> None:
    """Raises UsageError that says what an id may look like."""
    if not valid_id(id):
        raise UsageError(
            f"{id!r} is no container id: 1 to {LONGEST_ID} characters of A-Z a-z 0-9 _ + . - "
            "with no dot in front"
        )


def missing(id: str) -> NotFoundError:
    return NotFoundError(f"container {id} does not exist")


def exists(id: str) -> StateError:
    return StateError(
        f"container with id {id} already exists", hint=f"choose another id, or delete --force {id}"
    )


def take(lock: int, wait: bool) -> bool:
    try:
        syscalls.flock(lock, c.LOCK_EX if wait else c.LOCK_EX | c.LOCK_NB)
    except SyscallError as error:
        if error.errno == c.EWOULDBLOCK:
            return False
        raise
    return True


def unlink(fd: int, name: str) -> None:
    """Remove a file or a whole directory; what is gone is fine."""
    try:
        syscalls.unlinkat(fd, name)
        return
    except SyscallError as error:
        if error.errno == c.ENOENT:
            return
        if error.errno != c.EISDIR:
            raise
    below = syscalls.openat(fd, name, DIRECTORY)
    try:
        for entry in syscalls.listdir(below):
            unlink(below, entry)
    finally:
        syscalls.close(below)
    syscalls.unlinkat(fd, name, c.AT_REMOVEDIR)
