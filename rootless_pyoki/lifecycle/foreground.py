"""What a foreground `run` or `exec` does while its program lives: signals forwarded, the terminal
copied, the exit status returned.

The caller's terminal is raw meanwhile and given back whatever happens: at the end, on any error, and
while we are stopped (SIGTSTP). Signals are read from a signalfd: nothing is interrupted.
"""

from __future__ import annotations

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.record import replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.exit_record import Witness
    from rootless_pyoki.lifecycle.sd_notify import Proxy
    from rootless_pyoki.plan.plan import Process

CHUNK = 4096  # PIPE_BUF: after POLLOUT so much is written without blocking
NOT_FORWARDED = (
    c.SIGCHLD,
    c.SIGWINCH,
    c.SIGTSTP,
    c.SIGCONT,
    c.SIGPIPE,
    c.SIGTTIN,
    c.SIGTTOU,
    c.SIGURG,
)
SYNCHRONOUS = (c.SIGSEGV, c.SIGBUS, c.SIGILL, c.SIGFPE, c.SIGABRT, c.SIGTRAP, c.SIGSYS)


def block_signals() -> int:
    """Block what `attend` will read; before the child exists, so that no SIGCHLD is lost.

    Returns the signalfd. The gate empties the mask again before the program runs.
    """
    mask = (1 << 64) - 1
    for signal in SYNCHRONOUS:
        mask &= ~(1 << (signal - 1))
    syscalls.sigprocmask(c.SIG_SETMASK, mask)
    return syscalls.signalfd(mask)


def interruption() -> int:
    """A second signalfd, for what shall end us while something may take long and nobody attends yet.

    Everything is blocked (`block_signals`); whoever waits polls this too, see apply.hooks.heed.
    """
    mask = 0
    for signal in (c.SIGTERM, c.SIGINT, c.SIGHUP, c.SIGQUIT):
        mask |= 1 << (signal - 1)
    return syscalls.signalfd(mask)


def as_our_window(process: Process) -> Process:
    """The program's terminal has the size of ours from the start, before the program can ask."""
    try:
        rows, columns = syscalls.get_window(0)
    except SyscallError:
        return process  # our stdin is no terminal: what the config says
    if not rows and not columns:
        return process
    return replace(process, console_rows=rows, console_columns=columns)


def attend(
    pid: int,
    signals: int,
    master: int,
    notify: Proxy | None = None,
    witness: Witness | None = None,
) -> int:
    """Until `pid`, our child, ends; returns its exit code, or 128 + the signal that killed it.

    master: the program's terminal, or -1 when it has our own stdio; notify: hears READY=1 of it;
    witness: sees what becomes of it.
    """
    terminal = Terminal(master) if master >= 0 else None
    try:
        while True:
            waiting = [(signals, c.POLLIN)]
            if terminal:
                waiting += terminal.interests()
            if notify:
                waiting += notify.interests()
            if witness:
                waiting += witness.interests()
            for fd, events in syscalls.poll(waiting):
                if fd == signals:
                    code = _hear_signal(pid, signals, terminal, witness)
                    if code is not None:
                        if terminal:
                            terminal.drain()
                        if notify:
                            notify.finish()
                        return code
                elif notify and fd in (notify.socket, notify.barrier):
                    notify.move(fd)
                elif witness and witness.watches(fd):
                    witness.look()
                elif terminal:
                    terminal.move(fd, events)
    finally:
        if terminal:
            terminal.restore()


def _hear_signal(
    pid: int, signals: int, terminal: Terminal | None, witness: Witness | None
) -> int | None:
    """The exit code when the program has ended, None while it lives."""
    heard = syscalls.read_signal(signals)
    if heard is None:
        return None
    signal = heard[0]
    if signal == c.SIGCHLD:
        return _reap(pid, witness)
    if signal == c.SIGWINCH:
        if terminal:
            terminal.resize()
    elif signal == c.SIGTSTP:
        _stop(terminal)
    elif signal not in NOT_FORWARDED:
        try:
            syscalls.kill(pid, signal)
        except SyscallError:
            pass  # it has just ended; SIGCHLD follows
    return None


def _reap(pid: int, witness: Witness | None) -> int | None:
    """Everybody who has ended; as a subreaper we also inherit the program's orphans."""
    if witness:
        witness.look()
    code = None
    while True:
        try:
            ended, status, times = syscalls.wait4(-1, c.WNOHANG)
        except SyscallError:
            return code
        if not ended:
            return code
        if ended == pid:
            code = 128 + (status & 0x7F) if status & 0x7F else status >> 8
            if witness:
                witness.ended(status, times)


def _stop(terminal: Terminal | None) -> None:
    """^Z: give the terminal back, stop, and take it again when we are continued."""
    if terminal:
        terminal.restore()
    syscalls.kill(syscalls.getpid(), c.SIGSTOP)
    if terminal:
        terminal.make_raw()
        terminal.resize()


class Terminal:
    """Copies bytes between our stdio and the program's pty."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.to_program = b""
        self.to_user = b""
        self.stdin_open = True
        self.master_open = True
        self.saved: bytes | None = None
        syscalls.set_nonblock(master, True)
        self.make_raw()
        self.resize()  # since `as_our_window` ours may have changed

    def make_raw(self) -> None:
        try:
            self.saved = syscalls.tcgetattr(0)
            syscalls.tcsetattr(0, syscalls.make_raw(self.saved))
        except SyscallError:
            self.saved = None  # stdin is no terminal: nothing to make raw

    def restore(self) -> None:
        if self.saved is not None:
            try:
                syscalls.tcsetattr(0, self.saved)
            except SyscallError:
                pass  # the terminal is gone
            self.saved = None

    def resize(self) -> None:
        """The program's window is as large as ours."""
        try:
            rows, columns = syscalls.get_window(0)
            if rows or columns:
                syscalls.set_window(self.master, rows, columns)
        except SyscallError:
            pass

    def interests(self) -> list[tuple[int, int]]:
        waiting = []
        if self.stdin_open and not self.to_program:
            waiting.append((0, c.POLLIN))
        if self.master_open:
            events = (c.POLLOUT if self.to_program else 0) | (0 if self.to_user else c.POLLIN)
            if events:
                waiting.append((self.master, events))
        if self.to_user:
            waiting.append((1, c.POLLOUT))
        return waiting

    def move(self, fd: int, events: int) -> None:
        if fd == 0:
            self._read_user()
        elif fd == 1:
            self._write_user()
        else:
            if events & c.POLLOUT and self.to_program:
                self._write_program()
            if events & (c.POLLIN | c.POLLHUP | c.POLLERR) and not self.to_user:
                self._read_program()

    def drain(self) -> None:
        """What the program wrote before it ended."""
        while self.master_open or self.to_user:
            if self.to_user:
                self._write_user()
            elif self._read_program() == 0:
                return

    def _read_user(self) -> None:
        try:
            data = syscalls.read(0, CHUNK)
        except SyscallError:
            data = b""
        if data:
            self.to_program += data
        else:
            self.stdin_open = False
            if self.saved is None:
                self.to_program += b"\x04"  # end of file, as a terminal says it

    def _write_program(self) -> None:
        try:
            self.to_program = self.to_program[syscalls.write(self.master, self.to_program) :]
        except SyscallError as error:
            if error.errno != c.EAGAIN:
                self.to_program = b""

    def _read_program(self) -> int:
        """Bytes read; 0 when there is nothing (now, or any more)."""
        try:
            data = syscalls.read(self.master, CHUNK)
        except SyscallError as error:
            if error.errno == c.EAGAIN:
                return 0
            data = b""  # EIO: the last slave is closed
        if not data:
            self.master_open = False
            fds.close_quietly(self.master)
        self.to_user += data
        return len(data)

    def _write_user(self) -> None:
        try:
            self.to_user = self.to_user[syscalls.write(1, self.to_user) :]
        except SyscallError:
            self.to_user = b""  # nobody reads our stdout any more
