"""Which cgroup a container gets, if any: by the request, this user's rights and the limits.

Only cgroup v2 is managed; v1 hierarchies beside it are recognised and left alone. Without a request it
is a scope of systemd's where its bus answers, else a directory where we may make one, else none.
"""

from __future__ import annotations

import errno as e

from rootless_pyoki.cgroups import here, limits, tree
from rootless_pyoki.cgroups.manager import Cgroup
from rootless_pyoki.errors import SpecError, StateError, SyscallError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.record import replace

POINTER = "/linux/cgroupsPath"


def choose(
    requested: str,
    *,
    systemd_cgroup: bool,
    cgroups_path: str,
    id: str,
    wants_limits: tuple[tuple[str, str], ...],
) -> Cgroup:
    """Where the container's cgroup will be; nothing is made yet.

    requested: "auto", "cgroupfs", "systemd", "disabled"; wants_limits: (cgroup file, JSON pointer).
    Raises SpecError for a path that cannot be, UnsupportedError for limits that cannot be set,
    HostError when the systemd manager is asked for and does not answer.
    """
    if requested == "disabled":
        if wants_limits:
            raise UnsupportedError("cannot set limits without cgroups", pointer=wants_limits[0][1])
        return Cgroup(manager="disabled", reason="cgroups are disabled on the command line")
    required = systemd_cgroup or requested == "systemd"
    if required or (requested == "auto" and _may_be_units(cgroups_path)):
        addresses = here.bus_addresses()
        if required or addresses:
            from rootless_pyoki.cgroups import systemd_user

            scope = systemd_user.choose(
                addresses,
                cgroups_path=cgroups_path,
                id=id,
                wants_limits=wants_limits,
                required=required,
            )
            if scope is not None:
                return scope
    mount = here.find_mount()
    if not mount:
        return _without("no cgroup v2 is mounted on /sys/fs/cgroup", wants_limits)
    own = here.own_path()
    if not own:
        return _without("our own cgroup lies outside the mounted tree", wants_limits)
    path = mount + _place(mount, own, cgroups_path, id)
    if own == path[len(mount) :] or f"{own}/".startswith(path[len(mount) :] + "/"):
        raise SpecError(f"cgroup {path} holds pyoki itself", pointer=POINTER)
    reason = _refusal(mount, own, path)
    if reason:
        return _without(reason, wants_limits)
    _require_controllers(mount, path, wants_limits)
    _require_unused(path)
    return Cgroup(manager="cgroupfs", path=path, mount=mount)


def create(chosen: Cgroup, wants_limits: tuple[tuple[str, str], ...]) -> Cgroup:
    """Make the chosen cgroup and let it have the controllers for the limits.

    Without limits a cgroup that cannot be made becomes manager "none". Raises UnsupportedError.
    """
    if chosen.manager != "cgroupfs":
        return chosen
    try:
        made = tree.create(chosen.path, chosen.mount)
    except SyscallError as error:
        if error.errno not in (e.EACCES, e.EPERM, e.EROFS, e.ENOENT, e.ENODEV):
            raise
        return _without(str(error), wants_limits)
    try:
        limits.enable(chosen.path, chosen.mount, limits.wanted_controllers(wants_limits))
    except BaseException:
        tree.remove(chosen.path, top=made)
        raise
    return replace(chosen, made=made)


def _may_be_units(cgroups_path: str) -> bool:
    """Not the path of a cgroup: none, or slice:prefix:name."""
    return not cgroups_path or (cgroups_path.count(":") == 2 and "/" not in cgroups_path)


def _place(mount: str, own: str, cgroups_path: str, id: str) -> str:
    """The cgroup's path below the mount.

    Absolute: below the mount. Relative, or none: beside our own cgroup, because one that holds
    processes cannot pass controllers on; below it where only that is ours.
    """
    wanted = [part for part in (cgroups_path or id).split("/") if part not in ("", ".")]
    if ".." in wanted or not wanted or any("\n" in part or "\0" in part for part in wanted):
        raise SpecError(f"{cgroups_path!r} is not the path of a cgroup", pointer=POINTER)
    inner = "/" + "/".join(wanted)
    if cgroups_path.startswith("/"):
        return inner
    beside = own.rpartition("/")[0]
    if own == "/" or _writable(mount + beside):
        return beside + inner
    return own + inner


def _writable(directory: str) -> bool:
    """Whether we may make a cgroup here."""
    return syscalls.faccessat(c.AT_FDCWD, directory, c.W_OK | c.X_OK)


def _refusal(mount: str, own: str, path: str) -> str:
    """Why we may not make the cgroup and move a process of ours into it; "" when we may."""
    parent = _deepest_existing(mount, path)
    if parent == path:
        parent = path.rpartition("/")[0]
    elif not _writable(parent):
        return f"{parent} is not writable"
    # cgroup-v2.rst, "Delegation Containment": so must be the common ancestor's cgroup.procs. It is
    # root's where we live outside the user's slice.
    shared = mount + common(own, path[len(mount) :])
    if not syscalls.faccessat(c.AT_FDCWD, f"{shared}/cgroup.procs", c.W_OK):
        return f"{shared}/cgroup.procs is not writable"
    return ""


def may_move(path: str) -> bool:
    """Whether we can move a process of ours into this cgroup by its files, as for _refusal()."""
    mount, own = here.find_mount(), here.own_path()
    if not path or not mount or not own:
        return False
    shared = mount + common(own, path[len(mount) :])
    return syscalls.faccessat(c.AT_FDCWD, f"{shared}/cgroup.procs", c.W_OK)


def _deepest_existing(mount: str, path: str) -> str:
    while path != mount and not syscalls.faccessat(c.AT_FDCWD, path, c.F_OK):
        path = path.rpartition("/")[0]
    return path


def common(one: str, other: str) -> str:
    """The deepest directory that holds both: "" for the root."""
    shared = []
    for left, right in zip(one.split("/"), other.split("/"), strict=False):
        if left != right:
            break
        shared.append(left)
    return "/".join(shared)


def _require_controllers(mount: str, path: str, wants_limits: tuple[tuple[str, str], ...]) -> None:
    """UnsupportedError when a controller cannot reach the cgroup, before anything is made."""
    wanted = limits.wanted_controllers(wants_limits)
    if not wanted:
        return
    inner = path[len(mount) :].strip("/").split("/")[:-1]
    have = limits.controllers(mount)
    directory = mount
    for name in inner:
        owned = syscalls.faccessat(c.AT_FDCWD, f"{directory}/cgroup.subtree_control", c.W_OK)
        directory = f"{directory}/{name}"
        if not syscalls.faccessat(c.AT_FDCWD, directory, c.F_OK):
            break
        if not owned:
            have = limits.controllers(directory)
    for controller, pointer in wanted.items():
        if controller not in have:
            reason = f"it has {', '.join(have) or 'none'}"
            raise limits.lacking(f"cgroup {directory}", controller, pointer, reason)


def _require_unused(path: str) -> None:
    """StateError when somebody lives in the cgroup: whoever owns it kills everything in there."""
    fd = tree.enter(c.AT_FDCWD, path)
    if fd < 0:
        return
    try:
        if "populated 1" in tree.events(fd):
            raise StateError(f"cgroup {path} exists and holds processes", pointer=POINTER)
    finally:
        fds.close_quietly(fd)


def _without(reason: str, wants_limits: tuple[tuple[str, str], ...]) -> Cgroup:
    """No cgroup for this reason; UnsupportedError when limits need one."""
    if not wants_limits:
        return Cgroup(manager="none", reason=reason)
    file, pointer = wants_limits[0]
    controller = file.partition(".")[0]
    from rootless_pyoki.cgroups import advice

    why, hint = advice.on(controller)
    raise UnsupportedError(
        f"{file} needs a cgroup with the {controller} controller, and none can be made: "
        f"{f'{why}; ' if why else ''}{reason}",
        pointer=pointer,
        hint=hint,
        id="CG-CTRL",
    )
