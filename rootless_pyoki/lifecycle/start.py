"""start: tell the waiting gate to become the program; runtime.md "Start".

When a hook of start fails, the container is stopped and destroyed (runtime.md "Lifecycle", 7 and 9).
"""

from __future__ import annotations

from rootless_pyoki.errors import (
    ChildError,
    KilledError,
    PyokiError,
    SpecError,
    StateError,
    SyscallError,
    from_oserror,
)
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.lifecycle import container
from rootless_pyoki.state import status as statuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.container import Container


def start(*, root: str | None, id: str) -> None:
    """Raises StateError unless the container is `created`, ChildError when its program cannot run.

    SpecError where it has no program.
    """
    found = container.load(root, id, lock=True)
    status = found.status()
    if status != "created":
        raise StateError(f"cannot start container {found.id}: it is {status}, not created")
    if not found.extras.get("program", True):
        raise SpecError(
            f"cannot start container {found.id}: a process is required", pointer="/process"
        )
    if found.extras.get("notify_socket"):
        _start_and_wait(found)
        return
    _go(found)


def _go(found: Container) -> None:
    _say_start(found)
    if "poststart" in found.extras.get("hooks", ()):
        _run_poststart(found)


def _start_and_wait(found: Container) -> None:
    """For a container that was created for a service manager: until it is ready, or has ended."""
    from rootless_pyoki.lifecycle import sd_notify

    address = syscalls.environ().get("NOTIFY_SOCKET") or found.extras["notify_socket"]
    pidfd = found.pidfd()
    notify = sd_notify.Proxy(found.handle.fd, address, found.state.pid)
    _go(found)
    found.handle.unlock()  # it may be deleted while we wait
    notify.wait(pidfd)


def _run_poststart(found: Container) -> None:
    from rootless_pyoki.kernel import json
    from rootless_pyoki.lifecycle import hooks
    from rootless_pyoki.plan import hooks as plan_hooks

    config = json.loads(found.handle.read_config())
    try:
        hooks.poststart(plan_hooks.make(config), found.hook_state("running"), found.state.bundle)
    except PyokiError:
        _destroy(found)
        raise


def _destroy(found: Container) -> None:
    """Stop it, undo create, run the poststop hooks."""
    from rootless_pyoki.lifecycle import delete

    delete.destroy(found)


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
        if error.errno == c.ECONNRESET:  # it died with our word unread
            raise _died_waiting(found) from None
        raise from_oserror(error, f"start container {found.id}") from None
    finally:
        syscalls.close(socket)
    if answer:
        from rootless_pyoki.processes import gate, main

        if gate.parse_message(answer).step in gate.HOOK_STEPS:
            _destroy(found)
        raise main.gate_failure(answer[1:])
    if statuses.died_waiting(found.state.pid):
        raise _died_waiting(found)


def _died_waiting(found: Container) -> ChildError:
    from rootless_pyoki.kernel import json
    from rootless_pyoki.lifecycle import oom

    resources = (json.loads(found.handle.read_config()).get("linux") or {}).get("resources") or {}
    limit = str((resources.get("memory") or {}).get("limit", ""))
    return oom.explain(found.state.cgroup_path, KilledError(statuses.DIED_WAITING), limit)
