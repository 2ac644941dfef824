"""A proc for a pid namespace that was joined: init stays outside it, and a plain fsmount(2) would show
the namespace of whoever calls it.
"""

from __future__ import annotations

from rootless_pyoki.apply import mounting
from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls


def make(data: list[str]) -> int:
    """A detached proc of the namespace that our children enter; SyscallError as from fsmount(2)."""
    try:
        return _by_option(data)
    except SyscallError as error:
        if error.errno not in (c.EINVAL, c.ENOSYS, c.EPERM):
            raise
    return _by_child(data)


def _by_option(data: list[str]) -> int:
    """The mount option `pidns`, Linux 6.17."""
    namespace = syscalls.openat(procfs.held(), "self/ns/pid_for_children", c.O_RDONLY)
    context = syscalls.fsopen("proc", c.FSOPEN_CLOEXEC)
    try:
        syscalls.fsconfig(context, c.FSCONFIG_SET_FD, "pidns", None, namespace)
        for word in data:
            key, equals, value = word.partition("=")
            command = c.FSCONFIG_SET_STRING if equals else c.FSCONFIG_SET_FLAG
            syscalls.fsconfig(context, command, key, value if equals else None)
        syscalls.fsconfig(context, c.FSCONFIG_CMD_CREATE, None, None)
        return syscalls.fsmount(context, c.FSMOUNT_CLOEXEC, 0)
    finally:
        syscalls.close(context)
        syscalls.close(namespace)


def _by_child(data: list[str]) -> int:
    """A child that shares our descriptors enters the namespace and makes it there."""
    reader, writer = syscalls.pipe()
    pid = syscalls.clone(c.CLONE_FILES)
    if not pid:
        # In the joined pid namespace, undumpable like our parent, which waits for one number.
        try:
            answer = mounting.make_filesystem("proc", "proc", data)
        except SyscallError as error:
            answer = -(error.errno or c.EPERM)
        except BaseException:
            answer = -c.EPERM
        syscalls.write(writer, str(answer).encode())
        syscalls.exit_now(0)
    syscalls.waitpid(pid, 0)
    syscalls.close(writer)
    answer = int(fds.read_all(reader) or -c.EPERM)
    syscalls.close(reader)
    if answer < 0:
        raise SyscallError(-answer, syscalls.strerror(-answer), "fsmount", "proc")
    return answer
