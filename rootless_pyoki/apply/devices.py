"""Fill /dev: device nodes, the usual links, ptmx, the console's mount point."""

from __future__ import annotations

from rootless_pyoki.apply import mounting
from rootless_pyoki.errors import PyokiError, SyscallError, UnsupportedError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, paths, syscalls
from rootless_pyoki.plan.plan import Note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.plan.plan import Device

LINKS = (
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
)


def sources(devices: tuple[Device, ...], lenient: bool, tell: Callable[[Note], None]) -> list[int]:
    """A detached clone for each device that is bound, else -1; as the caller, in the new mount namespace.

    Raises PyokiError with the pointer of a device that the host lacks, that is another one there, or
    that the caller may not open; lenient: it is left out (-1 too), and `tell` hears why.
    """
    opened = []
    for device in devices:
        source = -1
        if device.kind == "bind":
            try:
                source = _source(device)
            except PyokiError as error:
                if not lenient or not device.pointer:
                    raise
                tell(Note(pointer=device.pointer, text=f"not applied: {error.message}"))
        opened.append(source)
    return opened


def _source(device: Device) -> int:
    try:
        tree = mounting.clone(device.source, recursive=False)
    except SyscallError as error:
        hint = (
            "device nodes cannot be made in a user namespace (mknod: EPERM), only those of the host "
            "can be bound: have it made on the host, or leave it out"
        )
        raise from_oserror(
            error, f"bind device {device.source}", pointer=device.pointer, hint=hint
        ) from None
    if not device.pointer:
        return tree
    seen = syscalls.fstat(tree)
    if not _same(device, seen.st_mode, seen.st_rdev):
        raise UnsupportedError(
            f"device {device.path} is to be {_name(device.mode, device.major, device.minor)}, but the "
            f"host's {device.source} is {_name(seen.st_mode, *_numbers(seen.st_rdev))}",
            pointer=device.pointer,
            hint="a node of other numbers cannot be made in a user namespace (mknod: EPERM)",
        )
    may = [mode for mode in (c.R_OK, c.W_OK) if syscalls.faccessat(c.AT_FDCWD, device.source, mode)]
    if not may:
        raise UnsupportedError(
            f"device {device.path}: open {device.source}: permission denied (EACCES)",
            pointer=device.pointer,
            errno=c.EACCES,
            hint=f"no capability in the container helps: give the caller access to {device.source} on "
            "the host (a group, or an ACL), or leave it out",
        )
    return tree


def _same(device: Device, mode: int, number: int) -> bool:
    return mode & c.S_IFMT == device.mode & c.S_IFMT and number == syscalls.makedev(
        device.major, device.minor
    )


def _numbers(number: int) -> tuple[int, int]:
    return syscalls.major(number), syscalls.minor(number)


def _name(mode: int, major: int, minor: int) -> str:
    letter = {c.S_IFCHR: "c", c.S_IFBLK: "b"}.get(mode & c.S_IFMT)
    return f"{letter} {major}:{minor}" if letter else "no device"


def populate(devices: tuple[Device, ...], root: int, sources: list[int]) -> None:
    """Bind or make each device; sources: detached clones for those that are bound.

    A /dev that is already a read-only or foreign mount keeps what it has.
    """
    for device, source in zip(devices, sources, strict=True):
        try:
            if source >= 0:
                _bind(device, root, source)
            elif device.kind != "bind":
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
        if device.pointer:
            _expect_place(device, target)
        mounting.attach(source, target)
    finally:
        syscalls.close(target)


def _expect_place(device: Device, target: int) -> None:
    """What is there must be that very device (config-linux.md, "Devices"), or a place to mount on."""
    seen = syscalls.fstat(target)
    if seen.st_mode & c.S_IFMT == c.S_IFREG and not seen.st_size:
        return
    if not _same(device, seen.st_mode, seen.st_rdev):
        raise SyscallError(c.EEXIST, "Something else is there", "mount", device.path)


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
