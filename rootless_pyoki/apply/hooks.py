"""Run hooks: config.md "POSIX-platform Hooks", with the container's state on stdin."""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Hook, Hooks

OUTPUT = 4096  # bytes of a failing hook's words that are shown


class Place(Record):
    """What hooks find beside the state. Descriptors are the caller's to close; -1: none."""

    directory: str = ""  # the bundle; "" or one that cannot be entered: where we are ourselves
    stdout: int = -1  # -1: kept, and shown if the hook fails
    stderr: int = -1
    interrupt: int = -1  # a signalfd: what comes there ends the hook, and us


def open_place(hooks: Hooks, bundle: str, interrupt: int = -1) -> Place:
    """With the files that run.oci.hooks.stdout and .stderr name, made if they are not there."""
    opened: list[int] = []
    for name, path in (("stdout", hooks.stdout), ("stderr", hooks.stderr)):
        try:
            opened.append(_open_output(path, bundle))
        except SyscallError as error:
            for fd in opened:
                fds.close_quietly(fd)
            pointer = f"/annotations/run.oci.hooks.{name}"
            raise from_oserror(error, f"open the {name} of hooks", pointer=pointer) from None
    return Place(directory=bundle, stdout=opened[0], stderr=opened[1], interrupt=interrupt)


def _open_output(path: str, bundle: str) -> int:
    if not path:
        return -1
    flags = c.O_WRONLY | c.O_CREAT | c.O_APPEND | c.O_CLOEXEC | c.O_NOCTTY
    return syscalls.openat(c.AT_FDCWD, path if path[0] == "/" else f"{bundle}/{path}", flags, 0o600)


def close_place(place: Place) -> None:
    fds.close_quietly(place.stdout)
    fds.close_quietly(place.stderr)


def heed(interrupt: int) -> None:
    """Somebody wants us to end: leave as a program that this signal has killed, signal(7)."""
    heard = syscalls.read_signal(interrupt)
    if heard is not None:
        raise SystemExit(128 + heard[0])


def run(hooks: tuple[Hook, ...], state: bytes, place: Place) -> None:
    """In the listed order; the first that fails raises HostError with its pointer and its words."""
    for hook in hooks:
        run_one(hook, state, place)


def run_one(hook: Hook, state: bytes, place: Place) -> None:
    doing = f"hook {hook.path}"
    syscalls.signal_default(c.SIGCHLD)  # a caller may ignore it, and then nothing can be waited for
    stdin, feed = syscalls.pipe()
    listen, words = syscalls.pipe()
    directory = _enter(place.directory)
    env = hook.env
    try:
        spawned = syscalls.spawn(
            hook.path,
            hook.args or (hook.path,),
            [f"{name}={value}" for name, value in syscalls.environ().items()]
            if env is None
            else env,
            stdin=stdin,
            stdout=words if place.stdout < 0 else place.stdout,
            stderr=words if place.stderr < 0 else place.stderr,
            cwd_fd=directory,
        )
    except SyscallError as error:
        fds.close_quietly(feed)
        fds.close_quietly(listen)
        raise from_oserror(error, doing, pointer=hook.pointer) from None
    finally:
        syscalls.close(stdin)
        syscalls.close(words)
        fds.close_quietly(directory)
    try:
        status, said = _attend(hook, spawned, feed, listen, state, place.interrupt)
    finally:
        fds.close_quietly(listen)
        fds.close_quietly(spawned.pidfd)
    if status:
        how = f"exit status {status >> 8}" if not status & 0x7F else f"signal {status & 0x7F}"
        text = said.decode("utf-8", "replace").strip().replace("\n", "; ")
        raise HostError(f"{doing}: {how}{': ' + text if text else ''}", pointer=hook.pointer)


def _enter(directory: str) -> int:
    """-1 where the user of the container cannot go: a hook stays where we are."""
    try:
        return fds.open_dir(directory) if directory else -1
    except SyscallError:
        return -1


def _attend(
    hook: Hook, spawned: syscalls.Spawned, feed: int, listen: int, state: bytes, interrupt: int
) -> tuple[int, bytes]:
    """Feed the state, keep the words, wait for the end or the timeout: (wait status, output)."""
    deadline = syscalls.monotonic() + hook.timeout if hook.timeout else None
    syscalls.set_nonblock(feed, True)
    syscalls.set_nonblock(listen, True)
    said = b""
    hearing = True
    try:
        _started(hook, spawned)
        while True:
            waiting = [(spawned.pidfd, c.POLLIN)]
            if hearing:
                waiting.append((listen, c.POLLIN))
            if feed >= 0:
                waiting.append((feed, c.POLLOUT))
            if interrupt >= 0:
                waiting.append((interrupt, c.POLLIN))
            left = -1 if deadline is None else max(0, int((deadline - syscalls.monotonic()) * 1000))
            ready = dict(syscalls.poll(waiting, left))
            if not ready and deadline is not None:
                raise HostError(
                    f"hook {hook.path}: no end after {hook.timeout} s",
                    pointer=f"{hook.pointer}/timeout",
                )
            if interrupt in ready:
                heed(interrupt)
            if feed in ready:
                state = _feed(feed, state)
                if not state:
                    syscalls.close(feed)
                    feed = -1
            if listen in ready:
                said = _hear(listen, said)
                hearing = bool(ready[listen] & c.POLLIN)  # a hang-up alone: nobody writes any more
            if spawned.pidfd in ready:
                break
    except BaseException:
        syscalls.pidfd_send_signal(spawned.pidfd, c.SIGKILL)
        syscalls.waitpid(spawned.pid, 0)
        raise
    finally:
        if feed >= 0:
            syscalls.close(feed)
    return syscalls.waitpid(spawned.pid, 0)[1], _hear(listen, said)


def _started(hook: Hook, spawned: syscalls.Spawned) -> None:
    try:
        syscalls.spawn_result(spawned)
    except SyscallError as error:
        raise from_oserror(error, f"hook {hook.path}", pointer=f"{hook.pointer}/path") from None


def _feed(feed: int, state: bytes) -> bytes:
    """What is still to be written; a hook that does not read its stdin is in its right."""
    try:
        return state[syscalls.write(feed, state) :]
    except SyscallError as error:
        return state if error.errno == c.EAGAIN else b""


def _hear(listen: int, said: bytes) -> bytes:
    try:
        return (said + syscalls.read(listen, 65536))[-OUTPUT:]
    except SyscallError:
        return said
