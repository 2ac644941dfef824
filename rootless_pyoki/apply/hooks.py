"""Run hooks: config.md "POSIX-platform Hooks", with the container's state on stdin."""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Hook

OUTPUT = 4096  # bytes of a failing hook's words that are shown


def run(hooks: tuple[Hook, ...], state: bytes) -> None:
    """In the listed order; the first that fails raises HostError with its pointer and its words."""
    for hook in hooks:
        run_one(hook, state)


def run_one(hook: Hook, state: bytes) -> None:
    doing = f"hook {hook.path}"
    syscalls.signal_default(c.SIGCHLD)  # a caller may ignore it, and then nothing can be waited for
    stdin, feed = syscalls.pipe()
    listen, words = syscalls.pipe()
    try:
        spawned = syscalls.spawn(
            hook.path, hook.args or (hook.path,), hook.env, stdin=stdin, stdout=words, stderr=words
        )
    except SyscallError as error:
        fds.close_quietly(feed)
        fds.close_quietly(listen)
        raise from_oserror(error, doing, pointer=hook.pointer) from None
    finally:
        syscalls.close(stdin)
        syscalls.close(words)
    try:
        status, said = _attend(hook, spawned, feed, listen, state)
    finally:
        fds.close_quietly(listen)
        fds.close_quietly(spawned.pidfd)
    if status:
        how = f"exit status {status >> 8}" if not status & 0x7F else f"signal {status & 0x7F}"
        text = said.decode("utf-8", "replace").strip().replace("\n", "; ")
        raise HostError(f"{doing}: {how}{': ' + text if text else ''}", pointer=hook.pointer)


def _attend(
    hook: Hook, spawned: syscalls.Spawned, feed: int, listen: int, state: bytes
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
            left = -1 if deadline is None else max(0, int((deadline - syscalls.monotonic()) * 1000))
            ready = dict(syscalls.poll(waiting, left))
            if not ready and deadline is not None:
                raise HostError(
                    f"hook {hook.path}: no end after {hook.timeout} s",
                    pointer=f"{hook.pointer}/timeout",
                )
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
