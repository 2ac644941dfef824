"""NOTIFY_SOCKET: the program's READY=1 passed on to the service manager that waits for it, sd_notify(3).

As runc does it. create makes ROOT/ID/notify, which the container has read-only at /run/notify; start,
or run, listens there until the program is ready, then tells the manager READY=1, MAINPID= and
BARRIER=1. Whoever does that does it in its own time: nobody stays behind.
"""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.errors import SyscallError, UsageError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.plan.plan import Mount
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Plan

INSIDE = "/run/notify"
DIRECTORY, SOCKET = "notify", "notify.sock"
BARRIER_TIMEOUT = 30_000  # milliseconds; a manager older than systemd 246 knows no BARRIER=1
LINGER = (
    100  # milliseconds for a program's own BARRIER=1, which systemd-notify sends behind READY=1
)
LONGEST = 1 << 16  # bytes of a message; systemd itself takes no more than 4096
MOST_FDS = 253  # SCM_MAX_FD: what a program stores or waits for with a message

_READ_ONLY = c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC


def prepare(plan: Plan, address: str, directory: str) -> Plan:
    """The plan with a way out for READY=1. directory: the container's, of the state root.

    A config.json that mounts something at /run/notify sees to it itself, as podman does.
    Raises PyokiError where nobody listens at `address`.
    """
    if any(mount.destination.rstrip("/") == INSIDE for mount in plan.mounts):
        return plan
    syscalls.close(connect(address))
    mount = Mount(
        destination=INSIDE,
        kind="bind",
        source=f"{directory}/{DIRECTORY}",
        recursive=False,
        attr_set=_READ_ONLY,
        attr_clear=0,
        recursive_set=0,
        recursive_clear=0,
        propagation=0,
        superblock_flags=0,
        data=(),
        copy_up=False,
        remount=False,
        fallback="",
        pointer="/mounts/-",  # as if it came last, RFC 6901
    )
    env = [entry for entry in plan.process.env if not entry.startswith("NOTIFY_SOCKET=")]
    env.append(f"NOTIFY_SOCKET={INSIDE}/{SOCKET}")
    return replace(
        plan,
        mounts=(*plan.mounts, mount),
        process=replace(plan.process, env=tuple(env)),
        notify_socket=address,
    )


def make_directory(container: int) -> None:
    """In the container's directory: its own user need not be the one that the program is."""
    syscalls.mkdirat(container, DIRECTORY, 0o700)
    syscalls.fchmodat(container, DIRECTORY, 0o755)


def connect(address: str) -> int:
    """A datagram socket to the service manager: an absolute path, or @ and an abstract name."""
    if address[:1] not in ("/", "@"):
        raise UsageError(
            f"NOTIFY_SOCKET={address} is neither a path nor an abstract name with an @"
        )
    socket = syscalls.socket(c.SOCK_DGRAM)
    try:
        if address[0] == "@":
            syscalls.connect_abstract(socket, address[1:])
        else:
            fds.connect(socket, address)
    except SyscallError as error:
        syscalls.close(socket)
        hint = "unset NOTIFY_SOCKET where nobody waits for the container to be ready"
        raise from_oserror(error, "connect to NOTIFY_SOCKET", hint=hint) from None
    return socket


class Proxy:
    """Between the program and the service manager."""

    def __init__(self, container: int, address: str, main_pid: int) -> None:
        """Listen, before the program starts. container: its directory; main_pid: the process that
        the manager shall watch. Raises PyokiError where there is no manager.
        """
        self.main_pid = main_pid
        self.ready = False
        self.followed = False  # the program's own BARRIER=1 has come
        self.barrier = -1  # closed at the other end when the manager has taken note
        self.sent = 0.0  # when the barrier was put up
        self.manager = connect(address)
        try:
            self.socket = _listen(container)
        except SyscallError as error:
            syscalls.close(self.manager)
            raise from_oserror(error, "listen for READY=1") from None

    def interests(self) -> list[tuple[int, int]]:
        """For poll(2)."""
        waiting = [(self.socket, c.POLLIN)]
        return waiting if self.barrier < 0 else [*waiting, (self.barrier, c.POLLIN)]

    def move(self, fd: int) -> None:
        """One of `interests` has something to say."""
        if fd == self.socket:
            self._hear()
        elif fd == self.barrier:
            self._lift()

    def wait(self, pidfd: int) -> None:
        """Until the program is ready and the manager knows, or it has ended without a word."""
        while not self.ready:
            heard = [fd for fd, _ in syscalls.poll([(self.socket, c.POLLIN), (pidfd, c.POLLIN)])]
            if self.socket in heard:
                self._hear()
            elif pidfd in heard:
                break
        end = syscalls.monotonic() + LINGER / 1000
        while self.ready and not self.followed:
            if not self._hear_within(int((end - syscalls.monotonic()) * 1000)):
                break
        self.finish()
        if not self.ready:
            log.warning("the container has ended, and has not said READY=1")

    def finish(self) -> None:
        """The program has ended, or is ready: pass on what it still has said, and see it taken.

        The manager asks the kernel who we are, and so we must not be gone by then.
        """
        while not self.ready and self._hear_within(0):
            pass
        left = BARRIER_TIMEOUT - int((syscalls.monotonic() - self.sent) * 1000)
        if self.barrier >= 0 and not syscalls.poll([(self.barrier, c.POLLIN)], max(left, 0)):
            log.warning("the service manager does not answer BARRIER=1: not waited for any longer")
        self._lift()
        self.close()

    def close(self) -> None:
        fds.close_quietly(self.socket)
        fds.close_quietly(self.manager)
        self.socket = self.manager = -1

    def _hear_within(self, milliseconds: int) -> bool:
        if milliseconds < 0 or not syscalls.poll([(self.socket, c.POLLIN)], milliseconds):
            return False
        self._hear()
        return True

    def _hear(self) -> None:
        """One message; only the first READY=1 matters. Descriptors that come along are let go, which
        is what a program's own BARRIER=1 waits for.
        """
        try:
            data, received = syscalls.recvmsg(self.socket, LONGEST, MOST_FDS)
        except SyscallError as error:
            if error.errno != c.EMSGSIZE:
                raise
            return
        if not self.ready and b"READY=1" in data.split(b"\n"):
            self._pass_on()
        self.followed = data == b"BARRIER=1"
        for fd in received:
            fds.close_quietly(fd)

    def _pass_on(self) -> None:
        self.ready = True
        ours, theirs = syscalls.pipe()
        try:
            syscalls.send(self.manager, b"READY=1")
            syscalls.send(self.manager, b"MAINPID=%d" % self.main_pid)
            syscalls.sendmsg(self.manager, b"BARRIER=1", (theirs,))
        except SyscallError as error:  # it has left; the program runs all the same
            log.warning(f"tell NOTIFY_SOCKET that the container is ready: {error}")
            syscalls.close(ours)
            ours = -1
        finally:
            syscalls.close(theirs)
        self.barrier, self.sent = ours, syscalls.monotonic()

    def _lift(self) -> None:
        fds.close_quietly(self.barrier)
        self.barrier = -1


def _listen(container: int) -> int:
    """ROOT/ID/notify/notify.sock, for whatever user the program is."""
    directory = syscalls.openat(container, DIRECTORY, c.O_PATH | c.O_DIRECTORY | c.O_NOFOLLOW)
    socket = syscalls.socket(c.SOCK_DGRAM)
    try:
        try:
            syscalls.unlinkat(directory, SOCKET)  # of a start that was refused
        except SyscallError as error:
            if error.errno != c.ENOENT:
                raise
        syscalls.bind(socket, f"{fds.fd_path(directory)}/{SOCKET}")
        syscalls.fchmodat(directory, SOCKET, 0o777)
    except SyscallError:
        syscalls.close(socket)
        raise
    finally:
        syscalls.close(directory)
    return socket
