"""Where the gate writes the program's label, and the label of the program's keyring."""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Label


def open_procfs(root: int, label: Label, *, outside: bool) -> int:
    """A procfs that the gate may hold: the container's own, or a private one that shows processes only.

    Never the host's: a process of the container that may trace the gate could take it. outside: we are
    not in the container's pid namespace yet, and cannot mount its procfs.
    """
    try:
        own = procfs.open_proc("proc", root)
        if not syscalls.fstatfs(own).flags & c.ST_RDONLY and (outside or _shows_us(own)):
            return own
        syscalls.close(own)
    except SyscallError:
        pass  # no /proc in there, or something else under that name
    try:
        if not outside:
            return _private()
    except SyscallError:
        pass  # told below, in words that help
    raise HostError(
        "write the security label: the container has no writable procfs at /proc",
        pointer=label.pointer,
        hint="mount procfs on /proc of the container",
    )


def _shows_us(proc: int) -> bool:
    """Whether it is a procfs of our pid namespace or one around it."""
    try:
        return bool(syscalls.readlinkat(proc, "self"))
    except SyscallError:
        return False


def _private() -> int:
    """A new procfs, attached nowhere (Linux 5.2); without what is no process (5.8)."""
    context = syscalls.fsopen("proc")
    try:
        syscalls.fsconfig(context, c.FSCONFIG_SET_STRING, "subset", "pid")
        syscalls.fsconfig(context, c.FSCONFIG_CMD_CREATE, None, None)
        return syscalls.fsmount(context)
    finally:
        syscalls.close(context)


def label_keyring(proc: int, label: Label | None) -> None:
    """SELinux: the next keyring is to be the program's, not ours (keycreate); None: as usual again."""
    value = label.value.encode("utf-8", "surrogateescape") if label else b""
    try:
        procfs.write(proc, "self/attr/keycreate", value)
    except SyscallError as error:
        raise from_oserror(
            error, "label the session keyring", pointer=label.pointer if label else ""
        ) from None
