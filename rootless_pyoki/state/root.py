"""The directory that holds one directory for each container."""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError, UsageError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

NAME = "pyoki"
MODE = 0o1700  # sticky: cleaners of temporary files leave it alone (XDG Base Directory)
_DIRECTORY = c.O_RDONLY | c.O_DIRECTORY | c.O_NOFOLLOW


def choose_root(explicit: str | None = None, environ: Mapping[str, str] | None = None) -> str:
    """An absolute path: `--root`, else /run/pyoki for the machine's root, else a user's own place.

    environ: the process's own when None. Raises UsageError for a root that cannot be.
    """
    if explicit is not None:
        return _absolute(explicit)
    if environ is None:
        environ = syscalls.environ()
    euid = syscalls.geteuid()
    if euid == 0 and (environ.get("USER") == "root" or procfs.in_initial_user_namespace()):
        return f"/run/{NAME}"
    return _users_own(euid, environ)


def _absolute(path: str) -> str:
    if not path:
        raise UsageError("the root of all state must not be empty")
    if path[0] != "/":
        path = f"{syscalls.getcwd()}/{path}"
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    if not parts:
        raise UsageError("the root of all state must not be /")
    return "/" + "/".join(parts)


def _users_own(euid: int, environ: Mapping[str, str]) -> str:
    """The first of the runtime directories that is ours, else a place in /tmp.

    open_root() judges the place in /tmp, where anybody may have made it before us.
    """
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if _ours(runtime, euid):
        return f"{runtime}/{NAME}"
    uid = _outer_uid(euid)
    if _ours(f"/run/user/{uid}", euid):
        return f"/run/user/{uid}/{NAME}"
    other = _platform_directory()
    if _ours(other, euid, c.AT_SYMLINK_NOFOLLOW):  # it may lie in /tmp
        return f"{other}/{NAME}"
    return f"/tmp/{NAME}-{uid}"


def _ours(path: str, euid: int, flags: int = 0) -> bool:
    """An absolute path of a directory that belongs to us and that only we can write; fstatat(2)."""
    if path[:1] != "/":
        return False
    try:
        found = syscalls.fstatat(c.AT_FDCWD, path, flags)
    except SyscallError:
        return False
    return (
        found.st_mode & c.S_IFMT == c.S_IFDIR
        and found.st_uid == euid
        and found.st_mode & 0o022 == 0
    )


def _outer_uid(euid: int) -> int:
    """Our uid as the parent user namespace sees it: /run/user knows uid 0 of podman's by that."""
    for line in procfs.read("self", "uid_map").splitlines():
        inside, outside, size = map(int, line.split())
        if inside <= euid < inside + size:
            return outside + euid - inside
    return euid


def _platform_directory() -> str:
    try:
        import platformdirs  # 19 ms: only when all else has failed
    except ImportError:  # run without site-packages
        return ""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it deplores what we have seen ourselves
        return platformdirs.user_runtime_dir()


def open_root(path: str, *, create: bool) -> int:
    """A descriptor of the root directory, which is ours and which nobody else can write.

    create: make what is missing, for us alone. Otherwise a missing root raises SyscallError ENOENT.
    Raises HostError when the directory is somebody else's, open to others, or a symbolic link.
    """
    try:
        fd = _open(path)
    except SyscallError as error:
        if error.errno != c.ENOENT or not create:
            raise
        fd = _make(path)
    found = syscalls.fstat(fd)
    euid = syscalls.geteuid()
    if found.st_uid != euid and (euid != 0 or not procfs.in_initial_user_namespace()):
        syscalls.close(fd)
        raise HostError(f"{path} belongs to uid {found.st_uid}, not to us", hint=_CHOOSE)
    if found.st_mode & 0o022:
        syscalls.close(fd)
        raise HostError(
            f"{path} can be written by others (mode {found.st_mode & 0o7777:04o})", hint=_CHOOSE
        )
    return fd


_CHOOSE = "give another directory with --root"


def _open(path: str) -> int:
    try:
        return syscalls.openat(c.AT_FDCWD, path, _DIRECTORY)
    except SyscallError as error:
        if error.errno in (c.ENOTDIR, c.ELOOP):
            raise HostError(
                f"{path} is no directory, or a symbolic link", errno=error.errno, hint=_CHOOSE
            ) from None
        if error.errno == c.EACCES:
            raise from_oserror(error, "open the root of all state", hint=_CHOOSE) from None
        raise


def _make(path: str) -> int:
    """The directory and its parents, with a mode that no umask can spoil."""
    try:
        made = _make_directories(path)
    except SyscallError as error:
        raise from_oserror(error, "make the root of all state", hint=_CHOOSE) from None
    fd = _open(path)
    if made:
        syscalls.fchmod(fd, MODE)
    return fd


def _make_directories(path: str, *, again: bool = False) -> bool:
    """Whether the last directory was made by us. again: its parent is there."""
    parent = path.rpartition("/")[0]
    try:
        syscalls.mkdirat(c.AT_FDCWD, path, 0o700)
    except SyscallError as error:
        if error.errno == c.EEXIST:
            return False
        if error.errno != c.ENOENT or not parent or again:  # procfs says ENOENT to every mkdir
            raise
        _make_directories(parent)
        return _make_directories(path, again=True)
    return True
