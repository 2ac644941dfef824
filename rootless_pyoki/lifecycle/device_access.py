"""/linux/resources/devices for a container of the machine's root; only loaded for one that has rules."""

from __future__ import annotations

from rootless_pyoki.cgroups import device_hook
from rootless_pyoki.errors import SyscallError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.plan.resources import BY_DEV, POINTER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.plan.plan import Plan


def limit(cgroup: Cgroup, plan: Plan, unsupported: str, note: Callable[[Note], None]) -> None:
    """Attach the filter. Where it cannot be, that is noted, as for everybody else; an error if strict."""
    reason = cgroup.reason
    if cgroup.path:
        try:
            return device_hook.attach(cgroup.path, plan.resources.device_filter)
        except SyscallError as error:
            if error.errno not in (c.ENOSYS, c.EPERM):
                raise
            reason = str(error)
    pointer = f"{POINTER}/devices"
    if unsupported == "error":
        raise UnsupportedError(f"cannot be applied: {reason}", pointer=pointer)
    note(Note(pointer=pointer, text=f"not applied: {reason}; {BY_DEV}"))
