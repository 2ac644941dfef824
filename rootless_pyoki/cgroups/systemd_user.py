"""A container's cgroup as a scope of the user's systemd manager: org.freedesktop.systemd1(5).

systemd makes the scope around a process that lives already, and delegates its cgroup to us: what is
done to the processes in there is done by cgroupfs.py. A scope ends by itself with its last process.
"""

from __future__ import annotations

import errno as e

from rootless_pyoki import log
from rootless_pyoki.cgroups import (
    cgroupfs,
    here,
    limits,
    systemd_bus,
    unit_name,
    unit_properties,
)
from rootless_pyoki.cgroups.dbus import BusError
from rootless_pyoki.cgroups.manager import Cgroup, mark
from rootless_pyoki.errors import HostError, SpecError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rootless_pyoki.cgroups.systemd_bus import Link

    Files = tuple[tuple[str, str, str], ...]


def choose(
    addresses: Sequence[str],
    *,
    cgroups_path: str,
    id: str,
    wants_limits: tuple[tuple[str, str], ...],
    required: bool,
) -> Cgroup | None:
    """The scope to be made, the connection on its way; None when it is not required and cannot be.

    Raises SpecError, HostError, and UnsupportedError for limits whose controller is not delegated.
    """
    root = here.is_real_root()
    try:
        unit, slice = unit_name.of(cgroups_path, id, "system.slice" if root else "user.slice")
    except SpecError as error:
        if required or cgroups_path:
            raise
        log.debug(f"no systemd: {error.message}")  # an id that is too long for a unit
        return None
    mount = here.find_mount()
    if not required and not (mount and here.own_path()):
        return None  # a cgroup that cannot be seen is better than none only for who asks for it
    try:
        link = systemd_bus.link(addresses)
        place = _manager_cgroup(link) if wants_limits and not root else ""
    except HostError as error:
        if required:
            raise systemd_bus.no_manager(error) from None
        log.debug(f"no systemd: {error.message}")
        systemd_bus.close()
        return None
    if wants_limits:
        _require_controllers(mount, place, wants_limits)
    pid = syscalls.getpid()
    return Cgroup(
        manager="systemd",
        mount=mount,
        unit=unit,
        slice=slice,
        bus=link.address,
        mark=mark(pid, procfs.start_time(pid) or 0),
    )


def _manager_cgroup(link: Link) -> str:
    """The manager's cgroup below the mount: that of who listens on the bus, up to the service of
    user managers, user@UID.service; else as the manager says."""
    try:
        lines = procfs.read(link.peer, "cgroup").decode("utf-8", "surrogateescape").splitlines()
    except SyscallError:
        lines = []
    for line in lines:
        head, at, tail = line.partition("/user@")
        service, _, _ = tail.partition("/")
        if line.startswith("0::/") and at and service.endswith(".service"):
            return head[3:] + at + service
    return str(link.get(systemd_bus.OBJECT, systemd_bus.MANAGER, "ControlGroup")).rstrip("/")


def _require_controllers(mount: str, path: str, wants_limits: tuple[tuple[str, str], ...]) -> None:
    """By the files, for on the bus systemd reports limits that no file has."""
    wanted = limits.wanted_controllers(wants_limits)
    have: tuple[str, ...] = ()
    place = f"cgroup {mount}{path}" if mount else "cgroup v2, which is not mounted here,"
    try:
        have = limits.controllers(f"{mount}{path}") if mount else ()
    except SyscallError as error:
        place += f" ({error})"
    for controller, pointer in wanted.items():
        if controller not in have:
            reason = f"systemd's manager was given {' '.join(have) or 'none'}"
            raise limits.lacking(place, controller, pointer, reason)


def set_properties(cgroup: Cgroup, files: Files, *, started: bool) -> None:
    """The limits that are properties of the unit; started: only those it could not start with.

    Raises HostError.
    """
    at_start, later = unit_properties.of(files)
    if not started:
        later = [p for p in at_start if p[0] not in unit_properties.ONLY_AT_START] + later
    wanted = {entry[0]: entry for entry in later}
    while wanted:
        values = [(name, (signature, value)) for name, signature, value in wanted.values()]
        try:
            systemd_bus.link_to(cgroup).call(
                "SetUnitProperties", "sba(sv)", cgroup.unit, True, values
            )
            return
        except BusError as error:
            name = systemd_bus.unknown_property(error, wanted)
            if not name:
                raise HostError(
                    f"set the limits of {cgroup.unit}: {error.message}", errno=error.errno
                ) from None
            del wanted[name]


def attach(cgroup: Cgroup, pid: int, below: str = "") -> None:
    """Let systemd move a process into the unit's cgroup, or into one below it. Raises HostError."""
    subgroup = f"/{below}" if below else ""
    try:
        try:
            _attach(cgroup, pid, subgroup)
        except HostError as error:
            if error.errno != e.EBUSY or not cgroup.path:
                raise
            # as in cgroupfs.attach: only leaves may hold processes
            subgroup += f"/{cgroupfs.EXEC_CHILD}"
            _make(cgroup.path + subgroup)
            _attach(cgroup, pid, subgroup)
    except (HostError, SyscallError) as error:
        raise HostError(
            f"move process {pid} into {cgroup.unit}{subgroup}: {getattr(error, 'message', error)}",
            errno=error.errno or 0,
            hint=getattr(error, "hint", ""),
        ) from None
    finally:
        systemd_bus.close()  # the program may live long


def _attach(cgroup: Cgroup, pid: int, subgroup: str) -> None:
    systemd_bus.link_to(cgroup).call("AttachProcessesToUnit", "ssau", cgroup.unit, subgroup, [pid])


def _make(path: str) -> None:
    try:
        syscalls.mkdirat(c.AT_FDCWD, path, 0o755)
    except SyscallError as error:
        if error.errno != e.EEXIST:
            raise


def end(cgroup: Cgroup) -> None:
    """Kill and stop a unit, if it is ours; fine when it is gone. Raises HostError."""
    link = systemd_bus.link_to(cgroup)
    path = unit_name.object_path(cgroup.unit)
    description = str(link.get(path, systemd_bus.UNIT, "Description"))
    if not description.endswith(cgroup.mark):
        return
    try:
        link.call("KillUnit", "ssi", cgroup.unit, "all", c.SIGKILL)
    except BusError as error:
        log.debug(f"kill {cgroup.unit}: {error.message}")  # nobody is left in there
    systemd_bus.stop(link, cgroup.unit)
