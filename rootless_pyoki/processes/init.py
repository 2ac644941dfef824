"""Init: builds the container's root, enters it, and turns into the gate."""

from __future__ import annotations

from rootless_pyoki.apply import console, devices, hooks, mounts, process, rootfs
from rootless_pyoki.errors import SyscallError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import json, syscalls
from rootless_pyoki.plan.plan import Capabilities
from rootless_pyoki.processes import channel, gate, protocol
from rootless_pyoki.processes.ends import door, teller
from rootless_pyoki.record import replace
from rootless_pyoki.spec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from rootless_pyoki.plan.plan import Plan, Process
    from rootless_pyoki.processes.ends import Ends

CLIENT_DEADLINE = 5000  # milliseconds that one client of gate.sock may take to say start
NONE = Capabilities(bounding=0, effective=0, inheritable=0, permitted=0, ambient=0)


def start(
    plan: Plan, ends: Ends, main: int, root: int, sources: list[int], device_sources: list[int]
) -> NoReturn:
    """Run as init until the gate has replaced us. root: the attached root, the lists: detached mounts."""
    door(main, "init", lambda: run(plan, ends, main, root, sources, device_sources))


def run(
    plan: Plan, ends: Ends, main: int, root: int, sources: list[int], device_sources: list[int]
) -> None:
    # We are pid 1 of the new pid namespace (or, where one was joined or shared, still outside it) and
    # uid 0 of the container's user namespace: every capability in there, none outside. main waits for
    # our messages; the caller inherits us when main exits.
    syscalls.set_name("pyoki:[2:INIT]")
    syscalls.prctl(c.PR_SET_PDEATHSIG, c.SIGKILL)
    syscalls.setsid()
    syscalls.umask(0)  # mount points get the modes that they are made with

    process.name_the_host(plan)
    if plan.loopback_up:
        process.bring_loopback_up()
    places = rootfs.places(plan)
    late = mounts.mount_all(
        plan.mounts, root, sources, teller(main), places=places, joined_pid=plan.joins("pid")
    )
    devices.populate(plan.devices, root, device_sources)
    devices.make_links(root, ptmx=any(m.kind == "devpts" for m in plan.mounts))
    if plan.process.terminal:
        _make_terminal(plan, ends, main, root)
    mounts.make_readonly(late)

    if plan.hooks.prestart or plan.hooks.create_runtime:
        channel.ask(main, protocol.RUNTIME_HOOKS, protocol.HOOKS_DONE)
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
    if plan.hooks.create_container:
        hooks.run(plan.hooks.create_container, _state(plan), _hooks_place(plan, ends))

    process.write_sysctls(ends.proc, plan, teller(main))
    rootfs.make_readonly(plan.rootfs, root, places)
    rootfs.enter(plan.rootfs, root)
    if plan.new_keyring:
        _make_keyring(plan, ends)
    syscalls.umask(plan.process.umask)
    become_gate(plan.process, ends, main, root, fork=plan.joins("pid"), plan=plan)


def _make_terminal(plan: Plan, ends: Ends, main: int, root: int) -> None:
    master, slave = console.open_pair(root, ends.proc)
    if plan.process.console_rows or plan.process.console_columns:
        syscalls.set_window(slave, plan.process.console_rows, plan.process.console_columns)
    console.bind_console(root, slave)
    send_master(ends, main, master)
    console.become_stdio(slave)


def send_master(ends: Ends, main: int, master: int) -> None:
    """To the console socket that the caller gave, else to main, which copies bytes."""
    if ends.console >= 0:
        console.hand_over(ends.console, master)
    else:
        channel.send(main, protocol.CONSOLE, fds=(master,))
    syscalls.close(master)


def _hooks_place(plan: Plan, ends: Ends) -> hooks.Place:
    stdout, stderr = ends.hook_output
    return hooks.Place(directory=plan.bundle, stdout=stdout, stderr=stderr)


def _state(plan: Plan, pid: int | None = None) -> bytes:
    """The container's state for hooks that run inside: the pid is what we see (runtime.md, "State")."""
    return json.dumps(
        {
            "ociVersion": OCI_VERSION,
            "id": plan.id,
            "status": "creating" if pid is None else "created",
            "pid": syscalls.getpid() if pid is None else pid,
            "bundle": plan.bundle,
            "annotations": plan.annotations,
        }
    )


def _make_keyring(plan: Plan, ends: Ends) -> None:
    label = plan.process.label
    if label is None or label.module != "selinux":
        process.join_session_keyring(plan.id)
        return
    from rootless_pyoki.apply import labels

    labels.label_keyring(ends.proc, label)
    process.join_session_keyring(plan.id)
    labels.label_keyring(ends.proc, None)


def _label(program: Process, root: int, fork: bool) -> tuple[tuple[str, bytes] | None, int]:
    """What the gate writes for a security module, and the procfs for that."""
    label = program.label
    if label is None:
        return None, -1
    from rootless_pyoki.apply import labels

    value = label.value.encode("utf-8", "surrogateescape")
    return (label.attribute, value), labels.open_procfs(root, label, outside=fork)


def become_gate(
    program: Process, ends: Ends, main: int, root: int, *, fork: bool, plan: Plan | None = None
) -> NoReturn:
    """Look the program up, from inside, and become the gate that will execute it."""
    process.give_stdio(program)
    there = process.enter_cwd(root, program)
    env = process.environment(root, program)
    path = process.find_executable(program, env)
    if program.scheduling is not None:
        from rootless_pyoki.apply import scheduling

        scheduling.prepare(program, teller(main), forks=fork)
    start_hooks = plan.hooks.start_container if plan else ()
    label, proc_dir = _label(program, root, fork)
    start_hooks = tuple([h if h.env is not None else replace(h, env=env) for h in start_hooks])
    record = gate.GateRecord(
        mode=ends.mode,
        fork=fork,
        new_session=True,
        controlling_tty=program.terminal,
        path=path.encode("utf-8", "surrogateescape"),
        cwd=b"" if there else program.cwd.encode("utf-8", "surrogateescape"),
        uid=program.uid,
        gid=program.gid,
        groups=program.additional_gids if program.set_groups else None,
        no_new_privileges=program.no_new_privileges,
        capabilities=program.capabilities or NONE,
        filter=program.seccomp.program if program.seccomp else b"",
        filter_flags=program.seccomp.flags if program.seccomp else 0,
        nofile=next(((r.soft, r.hard) for r in program.rlimits if r.name == "RLIMIT_NOFILE"), None),
        channel=main,
        socket=ends.socket,
        lock=ends.lock,
        listener=ends.listener,
        listener_state=ends.listener_state,
        proc_dir=proc_dir,
        label=label,
        peer_uids=ends.peer_uids,
        preserve=ends.preserve,
        start_hooks=start_hooks,
        state=_state(plan, 1) if plan and start_hooks else b"",
        deadline_ms=CLIENT_DEADLINE,
    )
    try:
        gate.become(ends.memfd, record, program.args, env)
    except SyscallError as error:
        if error.errno != c.E2BIG:
            raise
        raise from_oserror(
            error, "pass args and env to the program", pointer=f"{program.pointer}/args"
        ) from None
