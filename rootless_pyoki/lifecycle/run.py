"""run: create and start in one; in the foreground also wait, and delete."""

from __future__ import annotations

from rootless_pyoki.cgroups import cgroupfs, tree
from rootless_pyoki.errors import NotFoundError, UsageError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.lifecycle import create, foreground, hooks
from rootless_pyoki.lifecycle.creation import Creation
from rootless_pyoki.processes import gate, main
from rootless_pyoki.record import replace
from rootless_pyoki.state import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.lifecycle.creation import Request
    from rootless_pyoki.processes.main import Launched


def run(
    request: Request, *, detach: bool = False, keep: bool = False, no_subreaper: bool = False
) -> int:
    """The program's exit code, 128 + its signal; 0 when detached."""
    preserve = create.preserved(request)  # before a descriptor of ours can fill a hole
    bundle, plan = create.decide(request)
    if plan.process.terminal and detach and not request.console_socket:
        raise UsageError(
            "cannot allocate tty if pyoki will detach without setting console socket",
            pointer="/process/terminal",
        )
    if plan.process.terminal and not detach and request.console_socket:
        raise UsageError("cannot use console socket if pyoki will not detach")
    if plan.process.terminal and not detach:
        plan = replace(plan, process=foreground.as_our_window(plan.process))
    signals = -1
    if not detach:
        signals = foreground.block_signals()
        if not no_subreaper:
            syscalls.prctl(c.PR_SET_CHILD_SUBREAPER, 1)
    creation = Creation(request, bundle, plan, preserve=preserve)
    launched = creation.bring_up(gate.RUN)
    _set_off(creation, launched)
    if detach:
        return 0
    try:
        return foreground.attend(launched.pid, signals, creation.master)
    finally:
        if not keep:
            _clear(creation)


def _set_off(creation: Creation, launched: Launched) -> None:
    """COMMIT, GO, poststart hooks; nothing stays when the program cannot start."""
    try:
        main.go(launched, commit=True)
        hooks.poststart(creation.plan.hooks, creation.hook_state("running", launched.pid))
    except BaseException:
        creation.undo()
        raise
    creation.handle.unlock()


def _clear(creation: Creation) -> None:
    """The program has ended: nothing of the container stays."""
    try:
        creation.handle.lock()
    except NotFoundError:
        return  # `delete --force` was what ended it, and has cleared up
    if creation.cgroup.path:
        cgroupfs.kill(creation.cgroup.path)
        tree.remove(creation.cgroup.path, top=creation.cgroup.made)
    hooks.poststop(creation.plan.hooks, creation.hook_state("stopped", 0))
    store.remove(creation.handle)
    fds.close_quietly(creation.master)
