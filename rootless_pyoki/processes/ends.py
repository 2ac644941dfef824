"""What a child is handed at its birth: open file descriptors, and how its gate shall wait."""

from __future__ import annotations

import sys

from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.processes import channel, protocol
from rootless_pyoki.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from rootless_pyoki.plan.plan import Note


class Ends(Record):
    proc: int  # verified procfs root of the caller's pid namespace
    memfd: int  # the gate's image
    mode: int  # gate.CREATE, gate.RUN or gate.EXEC
    preserve: int  # fds 3 … 3+N-1 belong to the program
    console: int = -1  # connected console socket; -1: main gets the master
    socket: int = -1  # gate.sock, listening
    lock: int = -1  # gate.lock, held
    peer_uids: tuple[int, ...] = ()  # who may say start, as seen inside
    listener: int = -1  # connected socket of the seccomp agent
    listener_state: int = -1  # memfd in which main writes what the agent is told
    hook_output: tuple[int, int] = (-1, -1)  # createContainer hooks' stdout and stderr
    stage: str = ""  # a directory to cover where mounts in the making need a place (staging.py)

    def shed(self, *channels: int) -> None:
        """Close what else main had open: the state directory, its lock, a log.

        Where we are going processes may live that look for just that.
        """
        kept = [self.proc, self.memfd, self.console, self.socket, self.lock, *channels]
        kept += [self.listener, self.listener_state, *self.hook_output]
        fds.close_all_but(kept, 3 + self.preserve)


def teller(fd: int) -> Callable[[Note], None]:
    """A function that reports a Note to main."""

    def tell(note: Note) -> None:
        channel.send(fd, protocol.NOTE, {"pointer": note.pointer, "text": note.text})

    return tell


def door(fd: int, process: str, run: Callable[[], object]) -> NoReturn:
    """The one way out of a forked process: its failure told to main, then _exit.

    And no way for code to come in: after the pivot an import would find the image's.
    """
    sys.meta_path.clear()
    code = 1
    try:
        run()
        code = 0
    except channel.Gone:
        pass  # main is dead: nobody to tell, nothing to do
    except BaseException as error:
        try:
            channel.send(fd, protocol.FAILED, channel.describe_error(error, process))
        except BaseException:
            pass
    finally:
        syscalls.exit_now(code)
    raise SystemExit(code)  # never reached: exit_now does not return
