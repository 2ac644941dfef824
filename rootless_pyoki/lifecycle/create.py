"""create: config.json + what this host allows → a plan → processes → state; runtime.md "Create"."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.errors import SyscallError, UsageError, from_oserror
from rootless_pyoki.host import facts
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.lifecycle import container
from rootless_pyoki.lifecycle.creation import Creation, Request
from rootless_pyoki.plan import make
from rootless_pyoki.processes import gate
from rootless_pyoki.record import replace
from rootless_pyoki.spec import bundle as bundles
from rootless_pyoki.spec import validate
from rootless_pyoki.state import root as state_root
from rootless_pyoki.state import store

__all__ = ["Request", "create", "decide", "preserved"]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Plan
    from rootless_pyoki.spec.bundle import Bundle


def create(request: Request) -> None:
    """Everything up to the waiting gate; nothing of the container is left when this raises."""
    preserve = preserved(request)  # before a descriptor of ours can fill a hole
    bundle, plan = decide(request)
    if plan.process.terminal and not request.console_socket:
        raise UsageError(
            "cannot allocate tty if pyoki will detach without setting console socket",
            pointer="/process/terminal",
        )
    creation = Creation(request, bundle, plan, preserve=preserve)
    creation.bring_up(gate.CREATE)
    creation.commit()


def decide(request: Request) -> tuple[Bundle, Plan]:
    """Read, validate and plan: nothing is made yet."""
    store.require_valid_id(request.id)
    bundle = bundles.load(request.bundle or syscalls.getcwd(), request.config)
    validate.validate(bundle.config)
    if "process" not in bundle.config:  # all else is made; `start` will say that it is missing
        bundle.config["process"] = {"cwd": "/", "args": []}
    linux = bundle.config.get("linux") or {}
    if any(entry.get("path") for entry in linux.get("namespaces") or ()):
        from rootless_pyoki.host import joined

        joined.check(linux)
    plan = make.make(
        bundle,
        facts.gather(bundle.config),
        id=request.id,
        no_pivot=request.no_pivot,
        no_new_keyring=request.no_new_keyring,
        unsupported=request.unsupported or "",
        seccomp_receiver=container.seccomp_receiver(bundle.config),
    )
    if request.console_socket and not plan.process.terminal:
        raise UsageError(
            "cannot use console socket if pyoki will not allocate tty", pointer="/process/terminal"
        )
    plan = _pass_listen_fds(plan)
    notify_socket = syscalls.environ().get("NOTIFY_SOCKET")
    if notify_socket:
        from rootless_pyoki.lifecycle import sd_notify

        directory = f"{state_root.choose_root(request.root)}/{request.id}"
        plan = sd_notify.prepare(plan, notify_socket, directory)
    container.tell(plan.notes, request.unsupported)
    if log.debugging():
        from rootless_pyoki.plan import describe

        for line in describe.describe(plan):
            log.debug(f"plan: {line}")
    return bundle, plan


def preserved(request: Request) -> int:
    """How many fds from 3 on belong to the program: --preserve-fds and LISTEN_FDS, sd_listen_fds(3)."""
    count = request.preserve_fds + _listen_fds()
    try:
        fds.require_open(3, count)
    except SyscallError as error:
        raise from_oserror(error, f"preserve {count} fds from 3 on") from None
    return count


def _listen_fds() -> int:
    count = syscalls.environ().get("LISTEN_FDS", "")
    if not count.isascii() or not count.isdigit():
        return 0  # as sd_listen_fds(3): not for us
    return int(count[:10])  # more than there can be fds: refused as the hole that it is


def _pass_listen_fds(plan: Plan) -> Plan:
    """The program is the process that the sockets are for: it will be pid 1 of its namespace."""
    count = _listen_fds()
    if not count:
        return plan
    env = [e for e in plan.process.env if not e.startswith(("LISTEN_FDS=", "LISTEN_PID="))]
    env += [f"LISTEN_FDS={count}", "LISTEN_PID=1"]
    return replace(plan, process=replace(plan.process, env=tuple(env)))
