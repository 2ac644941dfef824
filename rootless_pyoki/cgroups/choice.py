"""Which cgroup a container gets, if any: by the request, this user's rights and the limits.

Only cgroup v2 is managed; v1 hierarchies beside it are recognised and left alone.
"""

from __future__ import annotations

import errno as e

from rootless_pyoki.cgroups import limits, tree
from rootless_pyoki.cgroups.manager import Cgroup
from rootless_pyoki.errors import SpecError, StateError, SyscallError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.record import replace

MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # pure v2; hybrid
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
    Raises SpecError for a path that cannot be, UnsupportedError for limits that cannot be set.
    """
    if requested == "disabled":
        if wants_limits:
            raise UnsupportedError("cannot set limits without cgroups", pointer=wants_limits[0][1])
        return Cgroup(manager="disabled", reason="cgroups are disabled on the command line")
    if systemd_cgroup or requested == "systemd":
        raise UnsupportedError(
            "the systemd cgroup manager is not there yet",
            hint="leave out --systemd-cgroup: a delegated cgroup v2 tree is used directly",
            id="CG-SYSTEMD",
        )
    mount = find_mount()
    if not mount:
        return _without("no cgroup v2 is mounted on /sys/fs/cgroup", wants_limits)
    own = own_path()
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
        limits.enable(chosen.path, chosen.mount, _controllers(wants_limits))
    except BaseException:
        tree.remove(chosen.path, top=made)
        raise
    return replace(chosen, made=made)


def find_mount() -> str:
    """Where cgroup v2 is mounted, by statfs(2): /proc/self/cgroup does not tell. "" if nowhere."""
    for path in MOUNTS:
        try:
            if syscalls.statfs(path).type == c.CGROUP2_SUPER_MAGIC:
                return path
        except SyscallError:
            continue
    return ""


def own_path() -> str:
    """Our own cgroup below the mount, from the `0::` line; "" when it cannot be seen from here."""
    for line in fds.read_file(c.AT_FDCWD, "/proc/self/cgroup").decode().splitlines():
        if line.startswith("0::/"):
            path = line[3:]
            if path.startswith("/..") or path.endswith(" (deleted)"):
                return ""
            return path
    return ""


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
    # cgroup-v2.rst, "Delegation Containment": so must be the common ancestor's cgroup.procs.
    common = mount + _common(own, path[len(mount) :])
    if not syscalls.faccessat(c.AT_FDCWD, f"{common}/cgroup.procs", c.W_OK):
        return f"{common}/cgroup.procs is not writable"
    return ""


def _deepest_existing(mount: str, path: str) -> str:
    while path != mount and not syscalls.faccessat(c.AT_FDCWD, path, c.F_OK):
        path = path.rpartition("/")[0]
    return path


def _common(one: str, other: str) -> str:
    """The deepest directory that holds both: "" for the root."""
    shared = []
    for left, right in zip(one.split("/"), other.split("/"), strict=False):
        if left != right:
            break
        shared.append(left)
    return "/".join(shared)


def _controllers(wants_limits: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Controller → pointer of the first field that needs it; core files (cgroup.*) need none."""
    wanted: dict[str, str] = {}
    for file, pointer in wants_limits:
        name = file.partition(".")[0]
        if name != "cgroup":
            wanted.setdefault(name, pointer)
    return wanted


def _require_controllers(mount: str, path: str, wants_limits: tuple[tuple[str, str], ...]) -> None:
    """UnsupportedError when a controller cannot reach the cgroup, before anything is made."""
    wanted = _controllers(wants_limits)
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
            raise UnsupportedError(
                f"the {controller} controller is not available in {directory} "
                f"(available: {' '.join(have) or 'none'})",
                pointer=pointer,
                hint=limits.DELEGATION_HINT,
                id="CG-CTRL",
            )


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
    raise UnsupportedError(
        f"{file} needs a cgroup with the {file.partition('.')[0]} controller, "
        f"and none can be made: {reason}",
        pointer=pointer,
        hint=limits.DELEGATION_HINT,
        id="CG-CTRL",
    )
