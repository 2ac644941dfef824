"""run: create and start in one; in the foreground also wait, and delete."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import manager
from rootless_pyoki.errors import KilledError, NotFoundError, SpecError, SyscallError, UsageError
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
    from rootless_pyoki.lifecycle.exit_record import Witness
    from rootless_pyoki.lifecycle.sd_notify import Proxy
    from rootless_pyoki.processes.main import Launched


def run(
    request: Request, *, detach: bool = False, keep: bool = False, no_subreaper: bool = False
) -> int:
    """The program's exit code, 128 + its signal; 0 when detached."""
    preserve = create.preserved(request)  # before a descriptor of ours can fill a hole
    bundle, plan = create.decide(request)
    if not plan.process.args:
        raise SpecError("is required", pointer="/process")
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
    if not detach and "hooks" in bundle.config:  # which may take long
        creation.interrupt = foreground.interruption()
    launched = creation.bring_up(gate.RUN)
    witness = None
    if not detach and (keep or log.informing()):
        from rootless_pyoki.lifecycle import exit_record

        witness = exit_record.Witness(creation.cgroup.path)
    notify = _set_off(creation, launched, detach)
    if detach:
        if notify:
            notify.wait(syscalls.pidfd_open(launched.pid))
        return 0
    try:
        return foreground.attend(launched.pid, signals, creation.master, notify, witness)
    finally:
        if witness:
            _record(creation, witness, keep)
        if not keep:
            _clear(creation)


def _set_off(creation: Creation, launched: Launched, detach: bool) -> Proxy | None:
    """COMMIT, GO, poststart hooks; nothing stays when the program cannot start.

    Returns what hears READY=1, where somebody waits for it.
    """
    notify = None
    try:
        if creation.plan.notify_socket:
            from rootless_pyoki.lifecycle import sd_notify

            # in the foreground we are the process to watch: we end as the program ends
            watched = launched.pid if detach else syscalls.getpid()
            address = creation.plan.notify_socket
            notify = sd_notify.Proxy(creation.handle.fd, address, watched)
        main.go(launched, commit=True, interrupt=creation.interrupt)
        hooks.poststart(
            creation.plan.hooks,
            creation.hook_state("running", launched.pid),
            creation.plan.bundle,
            creation.interrupt,
        )
    except KilledError as error:
        raise creation.killed(error) from None
    except BaseException:
        creation.undo()
        raise
    fds.close_quietly(creation.interrupt)
    creation.handle.unlock()
    return notify


def _record(creation: Creation, witness: Witness, keep: bool) -> None:
    """How the program has ended, for `state` or for the log."""
    from rootless_pyoki.lifecycle import exit_record

    witness.close()
    log.debug(f"the program has ended: {exit_record.describe(witness.record)}")
    if witness.record["oomKilled"] is True:
        log.info(f"container {creation.plan.id}: {exit_record.OOM_KILLED}")
    if keep:
        try:
            creation.handle.lock()
        except NotFoundError:
            return  # deleted meanwhile
        creation.state = replace(creation.state, exit=witness.record)
        try:
            creation.handle.write(creation.state)
        except SyscallError as error:
            log.warning(f"how the program has ended could not be recorded: {error}")
        creation.handle.unlock()


def _clear(creation: Creation) -> None:
    """The program has ended: nothing of the container stays."""
    try:
        creation.handle.lock()
    except NotFoundError:
        return  # `delete --force` was what ended it, and has cleared up
    manager.kill(creation.cgroup)
    manager.remove(creation.cgroup)
    hooks.poststop(creation.plan.hooks, creation.hook_state("stopped", 0), creation.plan.bundle)
    store.remove(creation.handle)
    fds.close_quietly(creation.master)
