"""Who the caller is and what it may do: plain values, a dozen system calls, each asked once.

credentials(7), capabilities(7), user_namespaces(7). The plan is made from these and nothing else.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.host import programs, subid
from rootless_pyoki.host.id_range import IdRange
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import procfs, syscalls
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    Granted = tuple[str, tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]

ALL_IDS = (IdRange(container=0, host=0, size=2**32 - 1),)


class Facts(Record):
    euid: int
    egid: int
    groups: tuple[int, ...]
    capabilities_effective: int  # masks, in the caller's own user namespace
    capabilities_permitted: int
    last_capability: int  # the highest that the kernel knows
    in_initial_userns: bool
    uid_map: tuple[IdRange, ...]  # of the caller's own user namespace; the initial one maps all
    gid_map: tuple[IdRange, ...]
    setgroups_allowed: bool  # in the caller's own user namespace
    machine: str  # uname(2): x86_64, aarch64 ...
    no_new_privileges: bool  # setuid helpers would not help us
    hard_limits: dict[int, int]  # RLIMIT_* -> hard limit, of those that the configuration names
    user_name: str = ""  # these three only when newuidmap is needed
    subuids: tuple[tuple[int, int], ...] = ()  # (start, count)
    subgids: tuple[tuple[int, int], ...] = ()
    id_helpers: bool = True  # newuidmap and newgidmap are installed
    time_namespaces: bool = True  # asked only for a configuration that has one
    # these three only where a profile is named; the file of /proc/self/attr that takes it, "" = off
    apparmor: str = ""
    apparmor_confined: bool = False  # the caller has a profile itself
    apparmor_loaded: bool = True  # the named profile is there
    selinux: bool = False  # asked only for a configuration with labels

    def has(self, capability: int) -> bool:
        """Whether the caller holds it in its own user namespace."""
        return bool(self.capabilities_effective >> capability & 1)

    @property
    def privileged(self) -> bool:
        """Whether namespaces can be made without a new user namespace around them."""
        return self.has(c.CAP_SYS_ADMIN)

    @property
    def may_raise_limits(self) -> bool:
        """setrlimit(2) asks for the capability in the initial user namespace."""
        return self.in_initial_userns and self.has(c.CAP_SYS_RESOURCE)


def gather(config: Mapping[str, Any] | None = None) -> Facts:
    """config: a validated configuration, to ask only for what it needs; None: the least.

    Without /linux, as for exec, no map will be made and nobody's subordinate ids are read.
    """
    effective, permitted, _ = syscalls.capget()
    euid, egid = syscalls.geteuid(), syscalls.getegid()
    initial = procfs.in_initial_user_namespace()
    process = (config or {}).get("process") or {}
    granted: Granted = ("", (), ())
    helpers = True
    if config and "linux" in config and subid.needed(config, euid, egid, effective):
        granted = subid.granted(euid)
        helpers = programs.id_helpers()
    return Facts(
        euid=euid,
        egid=egid,
        groups=tuple(syscalls.getgroups()),
        capabilities_effective=effective,
        capabilities_permitted=permitted,
        last_capability=last_capability(),
        in_initial_userns=initial,
        uid_map=ALL_IDS if initial else own_map("uid_map"),
        gid_map=ALL_IDS if initial else own_map("gid_map"),
        setgroups_allowed=initial or setgroups_allowed(),
        machine=syscalls.uname()[4],
        no_new_privileges=syscalls.prctl(c.PR_GET_NO_NEW_PRIVS) == 1,
        hard_limits=hard_limits(process.get("rlimits") or ()),
        user_name=granted[0],
        subuids=granted[1],
        subgids=granted[2],
        id_helpers=helpers,
        **_rarely_asked((config or {}).get("linux") or {}, process),
    )


def _rarely_asked(linux: Mapping[str, Any], process: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if any(entry["type"] == "time" for entry in linux.get("namespaces") or ()):
        found["time_namespaces"] = time_namespaces()
    if linux.get("mountLabel") or process.get("selinuxLabel"):
        found["selinux"] = selinux_enabled()
    if process.get("apparmorProfile"):
        from rootless_pyoki.host import lsm

        found.update(lsm.facts(process["apparmorProfile"]))
    return found


def time_namespaces() -> bool:
    """Since Linux 5.6, where the kernel was built with them, time_namespaces(7)."""
    try:
        syscalls.fstatat(procfs.held(), "self/timens_offsets")
    except SyscallError:
        return False
    return True


def last_capability() -> int:
    """The highest capability of the running kernel: one call where it is the one we know."""
    number = len(c.CAPABILITIES) - 1
    if _known(number):
        while number < 63 and _known(number + 1):
            number += 1
        return number
    while number and not _known(number):
        number -= 1
    return number


def _known(capability: int) -> bool:
    try:
        syscalls.prctl(c.PR_CAPBSET_READ, capability)
    except SyscallError as error:
        if error.errno != c.EINVAL:
            raise
        return False
    return True


def own_map(name: str) -> tuple[IdRange, ...]:
    """/proc/self/uid_map or gid_map; host ids as the parent namespace sees them."""
    lines = procfs.read("self", name).split(b"\n")
    ranges = [line.split() for line in lines if line]
    return tuple([IdRange(container=int(a), host=int(b), size=int(size)) for a, b, size in ranges])


def selinux_enabled() -> bool:
    """The kernel has selinuxfs only when SELinux was not turned off at boot, selinux(8)."""
    return b"\tselinuxfs\n" in procfs.read_path(procfs.held(), "filesystems")


def setgroups_allowed() -> bool:
    """/proc/self/setgroups, user_namespaces(7)."""
    return procfs.read("self", "setgroups").strip() == b"allow"


def hard_limits(entries: list[dict[str, Any]] | tuple[()]) -> dict[int, int]:
    """The caller's own hard limits for those of /process/rlimits; unknown names are left out."""
    limits = {}
    for entry in entries:
        resource = c.RLIMITS.get(entry["type"])
        if resource is not None:
            limits[resource] = syscalls.prlimit(0, resource, None)[1]
    return limits
