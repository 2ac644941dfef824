"""start: tell the waiting gate to become the program; runtime.md "Start"."""

from __future__ import annotations

from rootless_pyoki.errors import PyokiError, StateError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.lifecycle import container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.container import Container


def start(*, root: str | None, id: str) -> None:
    """Raises StateError unless the container is `created`, ChildError when its program cannot."""
    found = container.load(root, id, lock=True)
    status = found.status()
    if status != "created":
        raise StateError(f"cannot start container {found.id}: it is {status}, not created")
    _say_start(found)
    if "poststart" in found.extras.get("hooks", ()):
        _run_poststart(found)


def _run_poststart(found: Container) -> None:
    from rootless_pyoki.kernel import json
    from rootless_pyoki.lifecycle import hooks
    from rootless_pyoki.plan import hooks as plan_hooks

    config = json.loads(found.handle.read_config())
    try:
        hooks.poststart(plan_hooks.make(config), found.hook_state("running"))
    except PyokiError:
        found.end()
        raise


def _say_start(found: Container) -> None:
    socket = syscalls.socket(c.SOCK_SEQPACKET)
    try:
        syscalls.connect(socket, f"{fds.fd_path(found.handle.fd)}/gate.sock")
        try:
            syscalls.send(socket, b"S")
        except SyscallError as error:
            if error.errno != c.EPIPE:  # refused before it was said: the reason can still be read
                raise
        answer = syscalls.recv(socket, 16)
    except SyscallError as error:
        raise from_oserror(error, f"start container {found.id}") from None
    finally:
        syscalls.close(socket)
    if answer:
        from rootless_pyoki.processes import main

        raise main.gate_failure(answer[1:])
