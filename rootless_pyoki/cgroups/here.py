"""What is found of cgroups and of systemd from here: where cgroup v2 is mounted, our own place in it,
and the addresses at which a systemd manager may answer this user.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls

MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")  # pure v2; hybrid


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


def bus_addresses() -> list[str]:
    """Where this user's systemd may answer, in the form of DBUS_SESSION_BUS_ADDRESS, the best first.

    [] where there is no sign of one. The socket of systemd itself is there without a bus as well.
    """
    environ = syscalls.environ()
    if is_real_root():
        if not syscalls.faccessat(c.AT_FDCWD, "/run/systemd/private", c.F_OK):
            return []
        system = environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
        return [system, "unix:path=/run/systemd/private"]
    found = []
    session = environ.get("DBUS_SESSION_BUS_ADDRESS", "")
    if session:
        found.append(session)
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime[:1] != "/" or not _add_sockets(runtime, found):
        own = f"/run/user/{_outer_uid()}"
        if own != runtime:
            _add_sockets(own, found)
    return found


def _add_sockets(directory: str, found: list[str]) -> bool:
    """Those of a runtime directory that are ours: two calls. Whether there was a new one."""
    euid, before = syscalls.geteuid(), len(found)
    for name in ("bus", "systemd/private"):
        try:
            if syscalls.fstatat(c.AT_FDCWD, f"{directory}/{name}").st_uid != euid:
                continue
        except SyscallError:
            continue
        address = f"unix:path={_escape(f'{directory}/{name}')}"
        if address not in found:
            found.append(address)
    return len(found) > before


def _escape(path: str) -> str:
    """As a value in an address: D-Bus Specification, "Server Addresses"."""
    plain = path.replace("/", "a").replace("_", "a").replace("-", "a").replace(".", "a")
    if plain.isascii() and plain.isalnum():
        return path
    raw = path.encode("utf-8", "surrogateescape")
    return "".join(
        [chr(b) if (chr(b).isalnum() and b < 128) or b in b"/_-." else f"%{b:02x}" for b in raw]
    )


def is_real_root() -> bool:
    """Of the machine: only it may speak to the system's manager."""
    return syscalls.geteuid() == 0 and procfs.in_initial_user_namespace()


def _outer_uid() -> int:
    """Our uid outside of a user namespace in which we are uid 0, as podman's: /run/user knows that."""
    euid = syscalls.geteuid()
    if euid == 0:
        for line in procfs.read("self", "uid_map").splitlines():
            inside, outside, size = map(int, line.split())
            if inside <= euid < inside + size:
                return outside + euid - inside
    return euid
