"""The seccomp agent, which answers for SCMP_ACT_NOTIFY: config-linux.md "The Container Process State".

It is connected before anything is made, and hears of us when the filter is loaded: the gate sends
the listener together with what is written here, seccomp_unotify(2).
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError, UnsupportedError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, json, syscalls
from rootless_pyoki.spec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.plan import Agent


def connect(agent: Agent, flags: int) -> tuple[int, int]:
    """(connected socket, empty memfd for `tell`); raises PyokiError where nobody listens.

    flags: SECCOMP_FILTER_FLAG_*, which must be known before the program is to start.
    """
    if not syscalls.seccomp_has_flags(flags):
        raise UnsupportedError(
            "this kernel does not know all of the seccomp flags",
            pointer="/linux/seccomp/flags",
            hint="SCMP_ACT_NOTIFY needs Linux 5.7, SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV 5.19",
        )
    doing = "connect to the seccomp agent"
    if not agent.pointer:
        doing += " that RUN_OCI_SECCOMP_RECEIVER names"
    try:
        socket = syscalls.socket(c.SOCK_STREAM)
        try:
            fds.connect(socket, agent.path)
            return socket, syscalls.memfd_create("pyoki-agent", c.MFD_CLOEXEC)
        except BaseException:
            syscalls.close(socket)
            raise
    except SyscallError as error:
        hint = "it must listen there (AF_UNIX, SOCK_STREAM) before the container is made"
        raise from_oserror(error, doing, pointer=agent.pointer, hint=hint) from None


def tell(memfd: int, agent: Agent, pid: int, state: bytes) -> None:
    """Write what the agent will read; pid: of the filtered process; state: the container's, JSON.

    The gate reads it after COMMIT or GO.
    """
    told: dict[str, Any] = {"ociVersion": OCI_VERSION, "fds": ["seccompFd"], "pid": pid}
    if agent.metadata:
        told["metadata"] = agent.metadata
    told["state"] = json.loads(state)
    fds.write_all(memfd, json.dumps(told))
