"""One container's making: the state directory, the cgroup, the processes, and their undoing.

processes.main calls back here whenever something is to be remembered; only this room and its
neighbours write state.
"""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.errors import KilledError, PyokiError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.lifecycle import container, handed, hooks, pid_file
from rootless_pyoki.lifecycle.own_cgroup import OwnCgroup
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.processes import main
from rootless_pyoki.record import Record, replace
from rootless_pyoki.state import root as state_root
from rootless_pyoki.state import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.cgroups.manager import Cgroup
    from rootless_pyoki.errors import ChildError
    from rootless_pyoki.plan.plan import IdRange, Plan
    from rootless_pyoki.processes.main import Launched
    from rootless_pyoki.spec.bundle import Bundle

PIDFD_RECEIVER = "run.oci.pidfd_receiver"  # annotation: crun's name for --pidfd-socket


class Request(Record):
    """What the command line of create and run asks for."""

    id: str
    bundle: str | None = None
    config: str | None = None
    root: str | None = None
    console_socket: str | None = None
    pid_file: str | None = None
    pidfd_socket: str | None = None
    preserve_fds: int = 0
    no_pivot: bool = False
    no_new_keyring: bool = False
    cgroup_manager: str = "auto"
    systemd_cgroup: bool = False
    rootless: str = "auto"  # "false": a container that gets no cgroup is an error
    unsupported: str | None = None  # plan/notes.py
    debug: bool = False


class Creation:
    """What has been made so far of a container that is being created."""

    def __init__(self, request: Request, bundle: Bundle, plan: Plan, *, preserve: int) -> None:
        self.request = request
        self.plan = plan
        self.bundle = bundle
        self.preserve = preserve
        self.notes = list(plan.notes)
        self.master = -1
        self.interrupt = -1  # a signalfd that ends hooks, and us; foreground.interruption
        self.launched: Launched | None = None
        self.listener = handed.connect_agent(plan)  # nobody there: refused before anything is made
        root = state_root.open_root(state_root.choose_root(request.root), create=True)
        try:
            # the id first: whoever has it may live in the very cgroup that we would choose
            self.handle = store.create_container(root, plan.id, sweep=container.sweep)
        except BaseException:
            self._leave_agent()
            raise
        finally:
            syscalls.close(root)
        try:
            self.own = OwnCgroup(request, plan, self._note)
            self.state = self._first_state()
        except BaseException:
            self._leave_agent()
            store.remove(self.handle)
            raise

    @property
    def cgroup(self) -> Cgroup:
        return self.own.cgroup

    def bring_up(self, mode: int) -> Launched:
        """Up to a gate that waits, with everything recorded; undone when this raises."""
        try:
            self.handle.write(self.state)
            self.handle.write_config(self.bundle.raw)
            if self.plan.notify_socket:
                from rootless_pyoki.lifecycle import sd_notify

                sd_notify.make_directory(self.handle.fd)
            held: list[int] = []
            try:
                ends = handed.make(self, mode, held)
                self.launched = main.launch(self.plan, ends, self._calls())
                self._tell_agent(self.launched.pid)
            finally:  # also where they were too many: undo() needs some
                for fd in held:
                    fds.close_quietly(fd)
                self._leave_agent()
            self.own.finish(self.launched.pid)
            main.limit(self.launched, self.plan.process)
            if self.own.scope:  # known since it was settled, which may be after `_cloned`
                self.state = self._with_cgroup()
            self.state = replace(self.state, phase="created", notes=self.notes)
            self.handle.write(self.state)
            pid_file.write(self.request.pid_file, self.launched.pid)
            pid_file.send_pidfd(self.request.pidfd_socket, self.launched.pid)
            receiver = self.plan.annotations.get(PIDFD_RECEIVER)
            pid_file.send_pidfd(receiver, self.launched.pid, f"/annotations/{PIDFD_RECEIVER}")
            return self.launched
        except KilledError as error:
            raise self.killed(error) from None
        except BaseException:
            self.undo()
            raise

    def _leave_agent(self) -> None:
        for fd in self.listener:
            fds.close_quietly(fd)

    def _tell_agent(self, pid: int) -> None:
        seccomp = self.plan.process.seccomp
        if seccomp and seccomp.agent:
            from rootless_pyoki.lifecycle import seccomp_listener

            state = self.hook_state("created", pid)
            seccomp_listener.tell(self.listener[1], seccomp.agent, pid, state)

    def commit(self) -> None:
        """Let the gate outlive us."""
        assert self.launched is not None
        try:
            main.commit(self.launched)
        except BaseException:
            self.undo()
            raise
        self.handle.unlock()

    def killed(self, error: KilledError) -> ChildError:
        """Undo; the error with what the cgroup said of it before."""
        told = self.own.explain(error)
        self.undo()
        return told

    def undo(self) -> None:
        """Nothing stays: processes, cgroup, poststop hooks, directory."""
        if self.launched is not None:
            try:
                syscalls.kill(self.launched.pid, c.SIGKILL)
                syscalls.waitpid(self.launched.pid, 0)
            except SyscallError:
                pass
        try:
            self.own.undo()
        except (OSError, PyokiError) as error:
            log.debug(f"undo: {error}")
        hooks.poststop(self.plan.hooks, self.hook_state("stopped", 0), self.plan.bundle)
        store.remove(self.handle)

    def _first_state(self) -> store.ContainerState:
        return store.new_state(
            id=self.plan.id,
            oci_version=self.bundle.config["ociVersion"],
            bundle=self.plan.bundle,
            rootfs=self.plan.rootfs.path,
            terminal=self.plan.process.terminal,
            annotations=self.plan.annotations,
            cgroup_manager=self.cgroup.manager,
            cgroup_path=self.cgroup.path,
            cgroup_scope=self.cgroup.unit,
            notes=self.notes,
            extras=self._extras(),
        )

    def _extras(self) -> dict[str, object]:
        """What later verbs need to know of the plan."""
        uid, gid = self.plan.working_ids()
        flags = 0
        for namespace in self.plan.namespaces:
            flags |= namespace.flag
        return {
            "program": bool(self.plan.process.args),
            "notify_socket": self.plan.notify_socket,
            "user_namespace": bool(flags & c.CLONE_NEWUSER),
            "uid_map": _stored(self.plan.idmap.uids) if self.plan.idmap else [],
            "gid_map": _stored(self.plan.idmap.gids) if self.plan.idmap else [],
            "groups_refused": "" if self.plan.process.set_groups else container.GROUPS_REFUSED,
            "own_pid_namespace": self.plan.hosts_new("pid"),
            "working_ids": [uid, gid],
            "set_groups": self.plan.process.set_groups,
            "keyring": self.plan.new_keyring,
            "cgroup_reason": self.cgroup.reason,
            "cgroup_made": self.cgroup.made,
            "delegated_cgroup": self.own.inner(),
            "hooks": [kind for kind in ("poststart", "poststop") if getattr(self.plan.hooks, kind)],
            **(self.cgroup.particulars() if self.cgroup.unit else {}),
        }

    def _calls(self) -> main.Calls:
        return main.Calls(
            cgroup=self.own.make,
            started=self.own.started if self.cgroup.unit else None,
            settle=self.own.settle,
            cloned=self._cloned,
            runtime_hooks=self._runtime_hooks,
            note=self._note,
            console=self._console,
            interrupt=self.interrupt,
        )

    def _cloned(self, pid: int) -> None:
        """Written down at once: from now on `delete --force` finds it, whatever becomes of us."""
        start_time = procfs.start_time(pid) or 0
        self.state = replace(self._with_cgroup(), pid=pid, start_time=start_time)
        self.handle.write(self.state)

    def _with_cgroup(self) -> store.ContainerState:
        return replace(
            self.state,
            cgroup_manager=self.cgroup.manager,
            cgroup_path=self.cgroup.path,
            cgroup_scope=self.cgroup.unit,
            extras=self._extras(),
        )

    def _runtime_hooks(self, pid: int) -> None:
        state = self.hook_state("creating", pid)
        hooks.create_runtime(self.plan.hooks, state, self.plan.bundle, self.interrupt)

    def _note(self, note: Note) -> None:
        container.tell((note,), self.request.unsupported)
        self.notes.append(note)

    def _console(self, master: int) -> None:
        self.master = master

    def hook_state(self, status: str, pid: int) -> bytes:
        return hooks.state_json(
            id=self.plan.id,
            status=status,
            pid=pid,
            bundle=self.plan.bundle,
            annotations=self.plan.annotations,
        )


def _stored(ranges: tuple[IdRange, ...]) -> list[list[int]]:
    return [[r.container, r.host, r.size] for r in ranges]
