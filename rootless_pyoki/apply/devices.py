"""Fill /dev: device nodes, the usual links, ptmx, the console's mount point."""

from __future__ import annotations

from rootless_pyoki.apply import mounting
from rootless_pyoki.errors import SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, paths, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Device

LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)


def populate(devices: tuple[Device, ...], root: int, sources: list[int]) -> None:
    """Bind or make each device; sources: detached clones for those that are bound.

    A /dev that is already a read-only or foreign mount keeps what it has.
    """
    for device, source in zip(devices, sources, strict=True):
        try:
            if source >= 0:
                _bind(device, root, source)
            else:
                _make(device, root)
        except SyscallError as error:
            raise from_oserror(
                error, f"make device {device.path}", pointer=device.pointer
            ) from None
        finally:
            if source >= 0:
                fds.close_quietly(source)


def _bind(device: Device, root: int, source: int) -> None:
    target = paths.make_file(root, device.path)
    try:
        mounting.attach(source, target)
    finally:
        syscalls.close(target)


def _make(device: Device, root: int) -> None:
    parent, name = paths.parent(root, device.path)
    try:
        number = syscalls.makedev(device.major, device.minor)
        try:
            syscalls.mknodat(parent, name, device.mode, number)
        except SyscallError as error:
            if error.errno == c.EPERM and device.kind == "mknod":
                _bind(device, root, _same_on_host(device, number, error))
                return
            if error.errno != c.EEXIST:
                raise
            _expect_same(device, parent, name, number, error)
            return
        _give(device, parent, name)
    finally:
        syscalls.close(parent)


def _give(device: Device, parent: int, name: str) -> None:
    """The owner of a new node. Its mode is right already: init's umask is 0.

    By descriptor: whoever else can write in that directory may have put a link in its place.
    """
    node = syscalls.openat(parent, name, c.O_PATH | c.O_NOFOLLOW)
    try:
        if syscalls.fstat(node).st_mode & c.S_IFMT == device.mode & c.S_IFMT:
            syscalls.fchownat(node, "", device.uid, device.gid, c.AT_EMPTY_PATH)
    finally:
        syscalls.close(node)


def _same_on_host(device: Device, number: int, error: SyscallError) -> int:
    """Root in a container around us may not make nodes, but may bind the host's of the same number."""
    try:
        tree = mounting.clone(device.path, recursive=False)
    except SyscallError:
        raise error from None
    seen = syscalls.fstat(tree)
    if seen.st_mode & c.S_IFMT != device.mode & c.S_IFMT or seen.st_rdev != number:
        raise error
    return tree


def _expect_same(device: Device, parent: int, name: str, number: int, error: SyscallError) -> None:
    """What the image has there already must be that very device."""
    seen = syscalls.fstatat(parent, name, c.AT_SYMLINK_NOFOLLOW)
    if seen.st_mode & c.S_IFMT != device.mode & c.S_IFMT:
        raise error
    if device.kind != "fifo" and seen.st_rdev != number:
        raise error


def make_links(root: int, *, ptmx: bool) -> None:
    """/dev/fd and its like; /dev/core where there is a /proc/kcore; /dev/ptmx to the container's devpts."""
    for path, target in LINKS:
        _link(root, path, target)
    if paths.exists(root, "/proc/kcore"):
        _link(root, "/dev/core", "/proc/kcore")
    if ptmx:
        _link(root, "/dev/ptmx", "pts/ptmx")


def _link(root: int, path: str, target: str) -> None:
    try:
        paths.make_symlink(root, path, target)
    except SyscallError as error:
        if error.errno not in (c.EEXIST, c.EROFS, c.EACCES, c.EPERM):
            raise from_oserror(error, f"link {path}") from None
