"""The container's terminal: a pty of its own devpts, pty(7), ioctl_tty(2).

The master leaves through the console socket (or main's channel), the slave becomes stdio and
/dev/console. The slave comes from the master itself (TIOCGPTPEER): no path in /dev/pts is trusted.
"""

from __future__ import annotations

from rootless_pyoki.apply import mounting
from rootless_pyoki.errors import HostError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, paths, syscalls

PTMX = (5, 2)  # character device numbers of every ptmx


def open_pair(root: int, proc: int) -> tuple[int, int]:
    """(master, slave) from /dev/pts/ptmx beneath `root`, proven to be a devpts.

    proc: our own procfs, since exec's /proc is already the container's.
    """
    try:
        place = paths.resolve(root, "/dev/pts/ptmx")
        seen = syscalls.fstat(place)
        if (
            syscalls.fstatfs(place).type != c.DEVPTS_SUPER_MAGIC
            or seen.st_mode & c.S_IFMT != c.S_IFCHR
            or seen.st_rdev != syscalls.makedev(*PTMX)
        ):
            raise HostError(
                "/dev/pts/ptmx is not a pseudoterminal multiplexer", pointer="/process/terminal"
            )
        master = syscalls.openat(proc, f"self/fd/{place}", c.O_RDWR | c.O_NOCTTY)
        syscalls.close(place)
        syscalls.unlock_pty(master)
        return master, syscalls.open_pty_peer(master)
    except SyscallError as error:
        raise from_oserror(
            error,
            "open a terminal",
            pointer="/process/terminal",
            hint="a terminal needs a devpts mount on /dev/pts",
        ) from None


def bind_console(root: int, slave: int) -> None:
    """/dev/console is the slave."""
    try:
        target = paths.make_file(root, "/dev/console")
        tree = mounting.clone_fd(slave, recursive=False)
        mounting.attach(tree, target)
        syscalls.close(tree)
        syscalls.close(target)
    except SyscallError as error:
        raise from_oserror(error, "bind /dev/console", pointer="/process/terminal") from None


def hand_over(socket: int, master: int) -> None:
    """Send the master as the console socket's callers expect it: one message, the fd beside the name."""
    name = f"/dev/pts/{syscalls.pty_number(master)}"
    try:
        syscalls.sendmsg(socket, name.encode(), (master,))
    except SyscallError as error:
        raise from_oserror(error, "send the terminal to the console socket") from None


def become_stdio(slave: int) -> None:
    for fd in range(3):
        syscalls.dup2(slave, fd, cloexec=False)
    if slave > 2:
        syscalls.close(slave)


def connect(path: str, what: str = "console socket", pointer: str = "") -> int:
    """The caller's console socket (AF_UNIX stream), whatever its path's length; or another one."""
    directory, _, name = path.rpartition("/")
    try:
        parent = syscalls.openat(
            c.AT_FDCWD, directory or ("/" if path[:1] == "/" else "."), c.O_PATH | c.O_DIRECTORY
        )
        socket = syscalls.socket(c.SOCK_STREAM)
        syscalls.connect(socket, f"{fds.fd_path(parent)}/{name}")
        syscalls.close(parent)
    except SyscallError as error:
        raise from_oserror(error, f"connect to {what} {path}", pointer=pointer) from None
    return socket
