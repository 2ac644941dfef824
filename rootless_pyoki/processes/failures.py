"""What ended a container's processes before the program ran, in words; loaded when that happens."""

from __future__ import annotations

from rootless_pyoki.errors import ChildError, KilledError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.processes import gate

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.processes.gate import Message

STEPS = {
    1: "read the gate's record",
    2: "enter the pid namespace",
    3: "set the controlling terminal",
    gate.STEP_HOOK: "start-container hook",
    5: "hook timeout",
    gate.STEP_LABEL: "write the security label",
    7: "set RLIMIT_NOFILE",
    8: "drop bounding capabilities",
    9: "setgroups",
    10: "setresgid",
    11: "setresuid",
    12: "set capabilities",
    13: "raise ambient capabilities",
    14: "cwd",
    15: "set no_new_privs",
    16: "seccomp",
    gate.STEP_LISTENER: "send the seccomp listener",
    18: "execve",
    19: "start",  # the gate waits on: another user, or nothing said before the deadline
}


def of_gate(message: Message, process: str) -> ChildError:
    """The gate could not become the program; process: the JSON pointer of the process."""
    pointer = "/linux/seccomp/listenerPath" if message.step == gate.STEP_LISTENER else ""
    hint = ""
    if message.step in gate.HOOK_STEPS:
        pointer = "/hooks/startContainer"
    if message.step == gate.STEP_LABEL:
        from rootless_pyoki.host import lsm

        pointer, hint = lsm.refusal(message.errno, process)
    words = describe_step(message.step, message.errno)
    return ChildError(f"start: {words}", pointer=pointer, errno=max(message.errno, 0), hint=hint)


def describe_step(step: int, errno: int) -> str:
    """A failure in words: `execve: no such file or directory (ENOENT)`."""
    name = STEPS.get(step, f"step {step}")
    if errno > 0:
        return str(SyscallError(errno, syscalls.strerror(errno), name))
    if errno < -128:
        return f"{name}: killed by signal {-errno - 128}"
    return f"{name}: exit status {-errno}" if errno else name


def of_silence(who: str, status: int) -> ChildError:
    """A child is gone without a word: its wait status says what ended it."""
    signal = status & 0x7F
    if signal:
        return KilledError(
            f"{who} was killed by signal {signal} before the container was ready",
            hint="a memory limit, or somebody's kill" if signal == c.SIGKILL else "",
        )
    return ChildError(f"{who} left with exit status {status >> 8} before the container was ready")
