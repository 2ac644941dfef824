"""--pid-file and --pidfd-socket: tell the caller the process."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls


def write(path: str | None, pid: int) -> None:
    """The decimal pid, no newline; the file appears whole (a new name, renamed)."""
    if not path:
        return
    directory, _, name = path.rpartition("/")
    try:
        place = syscalls.openat(
            c.AT_FDCWD, directory or ("/" if path[:1] == "/" else "."), c.O_PATH | c.O_DIRECTORY
        )
        hidden = f".{name}"
        flags = c.O_WRONLY | c.O_CREAT | c.O_EXCL | c.O_CLOEXEC
        try:
            fd = syscalls.openat(place, hidden, flags, 0o644)
        except SyscallError as error:
            if error.errno != c.EEXIST:
                raise
            syscalls.unlinkat(place, hidden)  # left by a create that was killed
            fd = syscalls.openat(place, hidden, flags, 0o644)
        fds.write_all(fd, str(pid).encode())
        syscalls.close(fd)
        syscalls.renameat(place, hidden, place, name)
        syscalls.close(place)
    except SyscallError as error:
        raise from_oserror(error, f"write pid file {path}") from None


def send_pidfd(path: str | None, pid: int, pointer: str = "") -> None:
    """One message with a pidfd of the process over a stream socket, as runc's --pidfd-socket."""
    if not path:
        return
    from rootless_pyoki.apply import console

    socket = console.connect(path, "pidfd socket", pointer)
    try:
        pidfd = syscalls.pidfd_open(pid)
        syscalls.sendmsg(socket, b"pidfd", (pidfd,))
        syscalls.close(pidfd)
    except SyscallError as error:
        raise from_oserror(error, f"send the pidfd to {path}", pointer=pointer) from None
    finally:
        syscalls.close(socket)
