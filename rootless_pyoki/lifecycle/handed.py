"""What a new container's init is handed: descriptors that only the caller can open."""

from __future__ import annotations

from rootless_pyoki.apply import console
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.plan import idmap
from rootless_pyoki.processes import gate
from rootless_pyoki.processes.ends import Ends
from rootless_pyoki.state import root as state_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.creation import Creation
    from rootless_pyoki.plan.plan import Plan


def connect_agent(plan: Plan) -> tuple[int, int]:
    """(socket of the seccomp agent, memfd for what it is told), -1 where none is asked for."""
    seccomp = plan.process.seccomp
    if seccomp is None or seccomp.agent is None:
        return -1, -1
    from rootless_pyoki.lifecycle import seccomp_listener

    return seccomp_listener.connect(seccomp.agent, seccomp.flags)


def make(creation: Creation, mode: int, held: list[int]) -> Ends:
    """What init is handed; `held` gets each descriptor as soon as it is open."""

    def hold(fd: int) -> int:
        held.append(fd)
        return fd

    waits = mode == gate.CREATE
    path = creation.request.console_socket
    return Ends(
        proc=procfs.held(),
        socket=hold(_gate_socket(creation.handle.fd)) if waits else -1,
        lock=hold(_gate_lock(creation.handle.fd)) if waits else -1,
        memfd=hold(gate.make_memfd()),
        mode=mode,
        preserve=creation.preserve,
        console=hold(console.connect(path)) if path else -1,
        peer_uids=_peer_uids(creation.plan),
        listener=creation.listener[0],
        listener_state=creation.listener[1],
        hook_output=_hook_output(creation.plan, held),
        stage=f"{state_root.choose_root(creation.request.root)}/{creation.plan.id}",
    )


def _hook_output(plan: Plan, held: list[int]) -> tuple[int, int]:
    """Opened by us for the createContainer hooks, which are the container's user."""
    planned = plan.hooks
    if not planned.create_container or not (planned.stdout or planned.stderr):
        return -1, -1
    from rootless_pyoki.apply import hooks as runner

    place = runner.open_place(planned, plan.bundle)
    held += (place.stdout, place.stderr)
    return place.stdout, place.stderr


def _gate_socket(directory: int) -> int:
    """gate.sock, listening: `start` connects to it. Nobody else can reach the directory."""
    socket = syscalls.socket(c.SOCK_SEQPACKET)
    before = syscalls.umask(0o177)
    try:
        syscalls.bind(socket, f"{fds.fd_path(directory)}/gate.sock")
    finally:
        syscalls.umask(before)
    syscalls.listen(socket, 16)
    return socket


def _gate_lock(directory: int) -> int:
    """gate.lock, held as long as the gate waits: execve closes it."""
    flags = c.O_RDWR | c.O_CREAT | c.O_CLOEXEC
    lock = syscalls.openat(directory, "gate.lock", flags, 0o600)
    syscalls.flock(lock, c.LOCK_EX)
    return lock


def _peer_uids(plan: Plan) -> tuple[int, ...]:
    """Who may say start: we, as we look from inside the container."""
    uid = syscalls.geteuid()
    if plan.idmap is None:
        return (uid,)
    return (idmap.to_container(plan.idmap.uids, uid),)
