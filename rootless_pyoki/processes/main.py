"""Main: gives birth to a container's processes and serves them until the gate stands.

main → intermediate → init → gate; the arrows between them are in protocol.py. main decides nothing
about state: `Calls` takes it back to lifecycle at each point where something is to be recorded.
"""

from __future__ import annotations

from rootless_pyoki.apply import hooks, idmap
from rootless_pyoki.apply import process as settings
from rootless_pyoki.errors import ChildError, KilledError, PyokiError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.processes import channel, gate, intermediate, join, protocol, rare
from rootless_pyoki.record import Record
from rootless_pyoki.state import status as statuses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rootless_pyoki.plan.plan import Plan, Process
    from rootless_pyoki.processes.ends import Ends
    from rootless_pyoki.processes.join import Target


class Calls(Record):
    """What main calls back for."""

    cgroup: Callable[[], int]  # the container's cgroup, made and opened; -1: settle alone knows
    # the process that settle will be called for lives: ask for what takes a while, and do not wait
    started: Callable[[int], None] | None = None
    settle: Callable[[int], None]  # move this pid into the container's cgroup
    cloned: Callable[[int], None]  # init has this pid: remember it
    runtime_hooks: Callable[[int], None]  # prestart and createRuntime hooks, with init's pid
    note: Callable[[Note], None]
    console: Callable[[int], None]  # the terminal's master, where no console socket was given
    interrupt: int = -1  # a signalfd: what comes there ends us while hooks run


class Launched(Record):
    """A gate that has said READY."""

    pid: int
    channel: int
    note: Callable[[Note], None]
    pointer: str = "/process"  # where the process stands
    forked: bool = False  # the gate had to, into a pid namespace


class Birth:
    """The processes of one launch: what has been heard, whom to kill if it goes wrong."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.sequence = protocol.Sequence()
        self.first = 0  # the process that main cloned itself
        self.settled = False  # it is in its cgroup already
        self.pid = 0  # the one that becomes the program
        self.forked = False  # by the gate
        self.reaped: dict[int, int] = {}

    def clone_into(self, cgroup: int) -> int:
        """As clone(2), for the first process: born in this cgroup where the kernel can do that.

        A move into it would wait for an RCU grace period, 5 to 30 ms.
        """
        try:
            self.first = syscalls.clone(0, cgroup=cgroup)
            self.settled = cgroup >= 0
        except SyscallError:
            if cgroup < 0:
                raise
            self.first = syscalls.clone(0)  # an old kernel; or a refusal, which settle will explain
        return self.first

    def abandon(self) -> None:
        """Kill and reap whatever was born; pids are our own children's, so none can be another's."""
        for pid in {self.first, self.pid} - {0} - set(self.reaped):
            try:
                syscalls.kill(pid, c.SIGKILL)
                self.reap(pid)
            except SyscallError:
                pass

    def reap(self, pid: int) -> int:
        """Wait status of a child, waited for once."""
        if pid not in self.reaped:
            self.reaped[pid] = syscalls.waitpid(pid, 0)[1]
        return self.reaped[pid]


def launch(plan: Plan, ends: Ends, calls: Calls) -> Launched:
    """Bring a container up to its waiting gate; raises PyokiError, with nothing of it left alive."""
    birth = Birth(calls)
    a_main, a_child = channel.pair()
    b_main, theirs = -1, [a_child]
    try:
        b_main, b_child = channel.pair()
        theirs.append(b_child)
        _prepare(ends)
        rare.load(plan.process, plan)
        theirs.append(calls.cgroup())
        if not birth.clone_into(theirs[-1]):
            intermediate.start(plan, ends, a_child, b_child)
        if calls.started:
            calls.started(birth.first)
        while theirs:
            fds.close_quietly(theirs.pop())
        if not plan.hosts_new("pid"):
            birth.pid = birth.first  # intermediate goes on as init
            calls.cloned(birth.pid)
        _serve(birth, plan, ends, [a_main, b_main])
    except BaseException:
        birth.abandon()
        for fd in (b_main, *theirs):  # whoever undoes the rest needs some
            fds.close_quietly(fd)
        raise
    finally:
        fds.close_quietly(a_main)
    if birth.first != birth.pid:
        birth.reap(birth.first)
    return Launched(pid=birth.pid, channel=b_main, note=calls.note, forked=birth.forked)


def _prepare(ends: Ends) -> None:
    """Before the first child: a caller may ignore SIGCHLD, and then nobody could be waited for."""
    syscalls.signal_default(c.SIGCHLD)
    fds.cloexec_from(3 + ends.preserve)


def launch_joining(process: Process, target: Target, ends: Ends, calls: Calls) -> Launched:
    """Bring exec's process up to its waiting gate, inside a living container."""
    ours, theirs = channel.pair()
    _prepare(ends)
    rare.load(process)
    if process.scheduling is not None:
        from rootless_pyoki.apply import scheduling

        scheduling.start_on(process, calls.note)
    birth = Birth(calls)
    birth.first = syscalls.clone(0)
    if not birth.first:
        join.start(process, target, ends, theirs)
    syscalls.close(theirs)
    birth.pid = birth.first
    try:
        if calls.started:
            calls.started(birth.first)
        _serve(birth, None, ends, [ours])
    except BaseException:
        birth.abandon()
        raise
    if birth.first != birth.pid:
        birth.reap(birth.first)
    return Launched(
        pid=birth.pid,
        channel=ours,
        note=calls.note,
        pointer=process.pointer,
        forked=birth.forked,
    )


def _serve(birth: Birth, plan: Plan | None, ends: Ends, channels: list[int]) -> None:
    """Hear the children until READY. The first channel is heard first: a failure told there explains
    why the others fell silent, and until INIT has come on it init has no pid: it may be READY before
    intermediate, which made it, has had its turn to say so."""
    listening = list(channels)
    while True:
        heard = listening if birth.pid else channels[:1]
        ready = _await(heard, birth.calls.interrupt)
        for fd in [fd for fd in listening if fd in ready]:
            try:
                kind, body, handed = channel.receive(fd)
            except channel.Gone:
                listening.remove(fd)
                if fd == channels[-1] or not birth.pid:
                    raise _silent(birth) from None
                continue
            if birth.sequence.accept(kind) == protocol.READY:
                return
            try:
                _answer(birth, plan, ends, fd, kind, body, handed)
            except channel.Gone:
                raise _silent(birth) from None


def _await(heard: list[int], interrupt: int) -> set[int]:
    """Those of the channels that have something to say."""
    entries = [(fd, c.POLLIN) for fd in heard]
    if interrupt >= 0:
        entries.append((interrupt, c.POLLIN))
    while True:
        ready = {fd for fd, _ in syscalls.poll(entries)}
        if interrupt in ready:
            hooks.heed(interrupt)
        if ready - {interrupt}:
            return ready


def _silent(birth: Birth) -> ChildError:
    """A child is gone without a word."""
    from rootless_pyoki.processes import failures

    who, pid = ("init", birth.pid) if birth.pid else ("intermediate", birth.first)
    return failures.of_silence(who, birth.reap(pid))


def _answer(
    birth: Birth, plan: Plan | None, ends: Ends, fd: int, kind: bytes, body: Any, handed: list[int]
) -> None:
    if kind == protocol.ENTERED:
        if plan is not None and plan.idmap is not None:
            idmap.write_maps(ends.proc, birth.first, plan.idmap)
        if not birth.settled:
            _settle(birth, fd)
        channel.send(fd, protocol.SETTLED)
    elif kind == protocol.INIT:
        birth.pid = body["pid"]
        birth.calls.cloned(birth.pid)
    elif kind == protocol.RUNTIME_HOOKS:
        birth.calls.runtime_hooks(birth.pid)
        channel.send(fd, protocol.HOOKS_DONE)
    elif kind == protocol.PID:
        birth.pid, birth.forked = gate.parse_message(kind + body).pid, True
        birth.calls.cloned(birth.pid)
    elif kind == protocol.NOTE:
        birth.calls.note(Note(pointer=body["pointer"], text=body["text"]))
    elif kind == protocol.CONSOLE:
        birth.calls.console(handed[0])
    elif kind == protocol.FAILED:
        channel.raise_failure(body)
    elif kind == protocol.GATE_FAILED:
        raise gate_failure(body)


def _settle(birth: Birth, fd: int) -> None:
    """Where that fails, the child may have died meanwhile: then what it died of is told."""
    try:
        birth.calls.settle(birth.first)
    except PyokiError:
        if syscalls.poll([(fd, c.POLLIN)], 0):
            try:
                kind, body, _ = channel.receive(fd)
            except channel.Gone:
                raise _silent(birth) from None
            if kind == protocol.FAILED:
                channel.raise_failure(body)
        raise


def gate_failure(body: bytes, process: str = "/process") -> ChildError:
    """The gate's five bytes, in words that callers understand; process: pointer of the process."""
    from rootless_pyoki.processes import failures

    return failures.of_gate(gate.parse_message(protocol.GATE_FAILED + body), process)


def limit(launched: Launched, process: Process) -> None:
    """The program's rlimits, on the gate, and what else is set on one that is in its cgroup."""
    if process.scheduling is not None:
        from rootless_pyoki.apply import scheduling

        scheduling.finish(process, launched.pid, launched.note, forked=launched.forked)
    settings.set_rlimits(launched.pid, process)


def commit(launched: Launched) -> None:
    """All is recorded: the gate may outlive us. For a gate that `start` will call.

    It answers by closing its end: until then our death would still be its own (PR_SET_PDEATHSIG).
    """
    _tell(launched, protocol.COMMIT)
    try:
        kind, _, _ = channel.receive(launched.channel)
    except channel.Gone:
        return
    finally:
        fds.close_quietly(launched.channel)
    raise protocol.ProtocolError(f"the gate said {kind!r} to COMMIT")


def go(launched: Launched, *, commit: bool = False, interrupt: int = -1) -> None:
    """Let a gate that waits on its channel become the program; raises ChildError if it cannot.

    commit: it waits for COMMIT before (gate.RUN). interrupt: a signalfd: what comes there ends us
    while the gate runs startContainer hooks, or is frozen.
    """
    if commit:
        _tell(launched, protocol.COMMIT)
    _tell(launched, protocol.GO)
    if interrupt >= 0:
        _await([launched.channel], interrupt)
    try:
        kind, body, _ = channel.receive(launched.channel)
    except channel.Gone:
        if statuses.died_waiting(launched.pid):
            raise KilledError(statuses.DIED_WAITING) from None
        return
    finally:
        fds.close_quietly(launched.channel)
    if kind == protocol.GATE_FAILED:
        raise gate_failure(body, launched.pointer)
    raise protocol.ProtocolError(f"the gate said {kind!r} to GO")


def _tell(launched: Launched, kind: bytes) -> None:
    try:
        channel.send(launched.channel, kind)
    except channel.Gone:
        _, status = syscalls.waitpid(launched.pid, 0)
        raise KilledError(f"the waiting process was killed by signal {status & 0x7F}") from None
