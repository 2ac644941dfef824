"""crun's options about symbolic links: copy-symlink, src-nofollow, dest-nofollow (crun(1))."""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import paths, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Mount


def copy(mount: Mount, root: int, source: int) -> bool:
    """Make the destination the same link as the source, which is then bound nowhere.

    False where the source is no link: it is to be bound as any other.
    """
    if syscalls.fstat(source).st_mode & c.S_IFMT != c.S_IFLNK:
        return False
    target = syscalls.readlinkat(source, "")
    try:
        paths.make_symlink(root, mount.destination, target)
    except SyscallError as error:
        if error.errno != c.EEXIST:
            raise
        raise HostError(
            f"copy the link {mount.source} to {mount.destination}: something else is there already",
            pointer=f"{mount.pointer}/destination",
            errno=c.EEXIST,
        ) from None
    return True


def place(mount: Mount, root: int, *, directory: bool) -> int:
    """An O_PATH fd of the destination itself, be it a link; made where there is nothing."""
    parent, name = paths.parent(root, mount.destination)
    try:
        for _ in range(2):
            try:
                return syscalls.openat(parent, name, c.O_PATH | c.O_NOFOLLOW)
            except SyscallError as error:
                if error.errno != c.ENOENT:
                    raise
            try:
                if directory:
                    syscalls.mkdirat(parent, name, 0o755)
                else:
                    syscalls.mknodat(parent, name, c.S_IFREG | 0o644)
            except SyscallError as error:
                if error.errno != c.EEXIST:
                    raise
        return syscalls.openat(parent, name, c.O_PATH | c.O_NOFOLLOW)
    finally:
        syscalls.close(parent)
