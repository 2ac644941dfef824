"""Which security module the host runs; asked only for a process that has a label."""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ENABLED = "/sys/module/apparmor/parameters/enabled"
UNCONFINED = "unconfined"


def facts(profile: str) -> dict[str, Any]:
    """The members of Facts that a process with this AppArmor profile needs."""
    attribute = apparmor_attribute()
    if not attribute:
        return {}
    confined = not _current(attribute).startswith(UNCONFINED)
    loaded = not profile or profile == UNCONFINED or _is_loaded(attribute, profile)
    return {"apparmor": attribute, "apparmor_confined": confined, "apparmor_loaded": loaded}


def apparmor_attribute() -> str:
    """Where a profile for the next execve is written below /proc/self/attr; "" where AppArmor is off.

    Since Linux 5.1 modules have directories of their own there; `exec` is the first module's.
    """
    try:
        if fds.read_file(c.AT_FDCWD, ENABLED)[:1] != b"Y":
            return ""
    except SyscallError:
        return ""
    try:
        syscalls.fstatat(procfs.held(), "self/attr/apparmor/exec")
        return "apparmor/exec"
    except SyscallError:
        return "exec"


def _current(attribute: str) -> str:
    directory = attribute.rpartition("exec")[0]
    try:
        return procfs.read("self", f"attr/{directory}current").decode("utf-8", "replace")
    except SyscallError:
        return UNCONFINED


def _is_loaded(attribute: str, profile: str) -> bool:
    """AppArmor tells whether a change of profile would be possible without making it.

    (permprofile, security/apparmor/lsm.c.) Only root may read the list of profiles.
    """
    directory = attribute.rpartition("exec")[0]
    try:
        text = f"permprofile {profile}".encode("utf-8", "surrogateescape")
        procfs.write(procfs.held(), f"self/attr/{directory}current", text)
    except SyscallError as error:
        return error.errno != c.ENOENT
    return True


def refusal(errno: int, pointer: str) -> tuple[str, str]:
    """(JSON pointer, hint) for a label that the kernel did not take; pointer: of the process."""
    if apparmor_attribute():
        hint = "does AppArmor let its caller change to this profile?"
        if errno == c.ENOENT:
            hint = "no such profile is loaded: root loads it with apparmor_parser --replace"
        return f"{pointer}/apparmorProfile", hint
    hint = "does the SELinux policy let its caller set this label? (setexec)"
    if errno == c.EINVAL:
        hint = "the SELinux policy knows no such label"
    return f"{pointer}/selinuxLabel", hint
