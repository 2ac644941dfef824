"""Controllers and limits of a cgroup: cgroup-v2.rst, "Controlling Controllers"."""

from __future__ import annotations

import errno as e

from rootless_pyoki.cgroups import tree
from rootless_pyoki.errors import (
    HostError,
    PyokiError,
    SpecError,
    SyscallError,
    UnsupportedError,
    describe_errno,
)
from rootless_pyoki.kernel import fds, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

BUSY_HINT = (
    "only a cgroup without processes of its own passes controllers on: let systemd make the cgroup "
    "(--cgroup-manager systemd), or name another place in /linux/cgroupsPath"
)
NOT_OURS = (e.EACCES, e.EPERM, e.EROFS)


def controllers(path: str) -> tuple[str, ...]:
    """The words of cgroup.controllers: what this cgroup may use."""
    fd = tree.open_cgroup(path)
    try:
        return tuple(fds.read_file(fd, "cgroup.controllers").decode().split())
    finally:
        fds.close_quietly(fd)


def wanted_controllers(wants_limits: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Controller → pointer of the first field that needs it; core files (cgroup.*) need none."""
    wanted: dict[str, str] = {}
    for file, pointer in wants_limits:
        name = file.partition(".")[0]
        if name != "cgroup":
            wanted.setdefault(name, pointer)
    return wanted


def enable(path: str, mount: str, wanted: dict[str, str]) -> None:
    """Let the cgroup have these controllers: controller → JSON pointer of the field that needs it.

    cgroup.subtree_control is written from the mount point down to the cgroup's parent; ancestors
    that are not ours are passed over, since they may have it already. Raises UnsupportedError.
    """
    if not wanted:
        return
    reasons: dict[str, str] = {}
    for directory in _ancestors(path, mount):
        fd = tree.open_cgroup(directory)
        try:
            present = fds.read_file(fd, "cgroup.subtree_control").split()
            for name in wanted:
                if name.encode() not in present:
                    _enable_one(fd, directory, name, reasons)
        finally:
            fds.close_quietly(fd)
    got = controllers(path)
    for name, pointer in wanted.items():
        if name not in got:
            reason = reasons.get(name, "no cgroup above has it")
            error = lacking(f"cgroup {path}", name, pointer, reason)
            if "(EBUSY)" in error.message:
                error.hint = BUSY_HINT
            raise error


def lacking(place: str, controller: str, pointer: str, reason: str) -> UnsupportedError:
    """The error: this place does not have the controller, what keeps it, and what to do.

    place: "cgroup /sys/fs/cgroup/..."; reason: where it is not the whole machine that lacks it.
    """
    from rootless_pyoki.cgroups import advice

    why, hint = advice.on(controller)
    return UnsupportedError(
        f"{place} lacks the {controller} controller: {why or reason}",
        pointer=pointer,
        hint=hint,
        id="CG-CTRL",
    )


def _enable_one(fd: int, directory: str, name: str, reasons: dict[str, str]) -> None:
    try:
        tree.write(fd, "cgroup.subtree_control", f"+{name}")
    except SyscallError as error:
        if error.errno == e.EBUSY:
            reasons[name] = f"{directory} holds processes itself and cannot pass it on (EBUSY)"
        elif error.errno in (e.ENOENT, e.EINVAL):
            reasons.setdefault(name, f"{directory} does not have it")
        elif error.errno in (*NOT_OURS, e.EOPNOTSUPP):
            reasons[name] = f"{directory} does not pass it on, and is not ours to change"
        else:
            raise


def _ancestors(path: str, mount: str) -> list[str]:
    """The directories from the mount point down to the parent of `path`."""
    found = [mount]
    for name in path[len(mount) :].strip("/").split("/")[:-1]:
        found.append(f"{found[-1]}/{name}")
    return found


def apply(
    path: str,
    files: tuple[tuple[str, str, str], ...],
    *,
    optional: tuple[str, ...] = (),
    bfq_weight: int = 0,
    leave_out: Callable[[PyokiError], None] | None = None,
    compare: bool = False,
) -> None:
    """Write limits in this order: (file, value, JSON pointer).

    optional: those that older kernels lack; bfq_weight: for io.bfq.weight, where io.weight is
    missing; leave_out: told of a limit that this cgroup cannot have, instead of an error; compare:
    leave files alone that say already what they are to say (somebody else may have seen to it).
    Raises SpecError, UnsupportedError, HostError with the pointer and the errno.
    """
    if not files:
        return
    # an idle cgroup refuses a weight, cgroup-v2.rst "cpu.idle"; one that is to be may be it already
    idle = compare and any(entry[:2] == ("cpu.idle", "1") for entry in files)
    fd = tree.open_cgroup(path)
    try:
        for name, value, pointer in files:
            if "/" in name:
                raise SpecError(f"{name!r} is not the name of a cgroup file", pointer=pointer)
            if compare and (not _differs(fd, name, value) or (idle and name == "cpu.weight")):
                continue
            try:
                _write(fd, name, value, bfq_weight)
            except SyscallError as error:
                if error.errno == e.ENOENT and name in optional:
                    continue
                refused = _refused(name, value, pointer, error)
                if leave_out is None or not isinstance(refused, UnsupportedError):
                    raise refused from None
                leave_out(refused)
    finally:
        fds.close_quietly(fd)


def _differs(fd: int, name: str, value: str) -> bool:
    """Does the file say something else? What cannot be read is written."""
    from rootless_pyoki.cgroups import values

    try:
        present = fds.read_file(fd, name).decode()
    except SyscallError:
        return True
    return values.differs(name, value, present, page=syscalls.page_size())


def _write(fd: int, name: str, value: str, bfq_weight: int) -> None:
    """io.weight comes with the io.cost controller, io.bfq.weight with the BFQ scheduler."""
    try:
        tree.write(fd, name, value)
    except SyscallError as error:
        if name != "io.weight" or not bfq_weight or error.errno != e.ENOENT:
            raise
        try:
            tree.write(fd, "io.bfq.weight", str(bfq_weight))
        except SyscallError:
            raise error from None


def _refused(name: str, value: str, pointer: str, error: SyscallError) -> PyokiError:
    code = error.errno or 0
    doing = f"write {value!r} to {name}"
    if code == e.ENOENT:
        return UnsupportedError(
            f"{doing}: this cgroup has no such file", pointer=pointer, errno=code
        )
    if code == e.EBUSY:
        return HostError(
            f"{doing}: limit below what the container already uses (EBUSY)",
            pointer=pointer,
            errno=code,
        )
    if code in (e.EINVAL, e.ERANGE, e.ENODEV, e.EOPNOTSUPP, *NOT_OURS):
        kind: type[PyokiError] = UnsupportedError
    else:
        kind = HostError
    hint = ""
    if code in NOT_OURS:
        from rootless_pyoki.cgroups import advice

        hint = advice.DELEGATION_HINT
    reason = describe_errno(code, error.strerror or "")
    return kind(f"{doing}: {reason}", pointer=pointer, errno=code, hint=hint)
