"""One container's making: the state directory, the cgroup, the processes, and their undoing.

processes.main calls back here whenever something is to be remembered; only this room and its
neighbours write state.
"""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import cgroupfs, manager, tree
from rootless_pyoki.errors import HostError, KilledError, PyokiError, SyscallError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.lifecycle import container, handed, hooks, pid_file
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.processes import main
from rootless_pyoki.record import Record, replace
from rootless_pyoki.state import root as state_root
from rootless_pyoki.state import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.cgroups.systemd_scope import Start
    from rootless_pyoki.errors import ChildError
    from rootless_pyoki.plan.plan import IdRange, Plan
    from rootless_pyoki.processes.main import Launched
    from rootless_pyoki.spec.bundle import Bundle

    Limits = tuple[tuple[str, str], ...]


PIDFD_RECEIVER = "run.oci.pidfd_receiver"  # annotation: crun's name for --pidfd-socket
TIGHT = 1 << 20  # bytes
DELEGATE = "leave out --rootless=false, or run where a cgroup v2 subtree is delegated to the user"


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
        self.limits = plan.resources.files
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
        self.owns_cgroup = False
        self.scope: Start | None = None  # systemd's, in the making
        try:
            self.cgroup = self.choose_cgroup(request.cgroup_manager)
            self.state = self._first_state()
        except BaseException:
            self._leave_agent()
            store.remove(self.handle)
            raise

    def choose_cgroup(self, requested: str) -> manager.Cgroup:
        """By this manager, see manager.choose. HostError where there must be one and cannot be."""
        chosen = self._with_limits(
            lambda limits: manager.choose(
                requested,
                systemd_cgroup=self.request.systemd_cgroup,
                cgroups_path=self.plan.cgroups_path,
                id=self.plan.id,
                wants_limits=limits,
            )
        )
        if chosen.reason:
            log.debug(f"no cgroup: {chosen.reason}")
        if self.plan.unit_properties or self.plan.subgroup:
            from rootless_pyoki.lifecycle import delegation

            delegation.without_unit(chosen, self.plan, self.request.unsupported or "", self._note)
        if self.request.rootless == "false" and chosen.manager == "none":
            raise HostError(f"no cgroup can be made: {chosen.reason}", hint=DELEGATE)
        return chosen

    def _with_limits(self, do: Callable[[Limits], manager.Cgroup]) -> manager.Cgroup:
        """Do it for (cgroup file, pointer) of each limit; again without one that cannot be set."""
        while True:
            try:
                return do(tuple((file, pointer) for file, _, pointer in self.limits))
            except UnsupportedError as error:
                self._leave_out(error)

    def _leave_out(self, error: PyokiError) -> None:
        """A limit that cannot be set: an error, or a note where the user is lenient."""
        kept = tuple(entry for entry in self.limits if entry[2] != error.pointer)
        if not self.plan.process.lenient or len(kept) == len(self.limits):
            raise error
        self.limits = kept
        self._note(Note(pointer=error.pointer, text=f"not applied: {error.message}"))

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
            if self.cgroup.path or self.scope:
                self._apply_limits(self.launched.pid)
                self._give_cgroup(self.launched.pid)
            if self.plan.resources.device_filter:
                from rootless_pyoki.lifecycle import device_access

                strictness = self.request.unsupported or ""
                device_access.limit(self.cgroup, self.plan, strictness, self._note)
            main.limit(self.launched, self.plan.process)
            self.state = replace(self.state, phase="created", notes=self.notes)
            if self.scope:
                self.scope.close()
                self.state = self._with_cgroup()
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

    def _inner_cgroup(self) -> str:
        """Below the cgroup: where the container's processes live, where that is another one."""
        if not self.plan.subgroup and not self.plan.delegate_cgroup:
            return ""
        from rootless_pyoki.lifecycle import delegation

        return delegation.inner(self.cgroup, self.plan)

    def _give_cgroup(self, pid: int) -> None:
        """To the container, as far as it may change it."""
        if not self.cgroup.path:
            return
        pointer = self.plan.writable_cgroup
        if pointer:
            from rootless_pyoki.lifecycle import ownership

            path = self.cgroup.path
            if self.cgroup.unit and self.plan.subgroup:
                path += f"/{self.plan.subgroup}"
            ownership.give(path, self.plan, pointer, self._note)
        if self.plan.delegate_cgroup:
            from rootless_pyoki.lifecycle import delegation

            delegation.delegate(self.cgroup, self.plan, pid)

    def _apply_limits(self, pid: int) -> None:
        """pid: the gate, which a memory limit may kill."""
        guard = None
        if any(file == "memory.max" for file, _, _ in self.limits):
            from rootless_pyoki.lifecycle import oom

            guard = oom.Guard(self.cgroup.path, self.limits)
        try:
            manager.apply(
                self.cgroup,
                self.limits,
                optional=self.plan.resources.optional,
                bfq_weight=self.plan.resources.bfq_weight,
                leave_out=self._leave_out,
                fresh=True,
            )
        finally:
            if guard:
                guard.require(pid)

    def killed(self, error: KilledError) -> ChildError:
        """Undo; the error with what the cgroup said of it before."""
        from rootless_pyoki.lifecycle import oom

        limits = [value for file, value, _ in self.limits if file == "memory.max"]
        told = oom.explain(self.cgroup.path, error, "".join(limits[-1:]))
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
            if self.cgroup.path and self.owns_cgroup:  # else it may be somebody's who was faster
                manager.kill(self.cgroup)
                manager.remove(self.cgroup)
            if self.scope:
                self.scope.abandon()
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
            "delegated_cgroup": self._inner_cgroup(),
            "hooks": [kind for kind in ("poststart", "poststop") if getattr(self.plan.hooks, kind)],
            **(self.cgroup.particulars() if self.cgroup.unit else {}),
        }

    def _calls(self) -> main.Calls:
        return main.Calls(
            cgroup=self._make_cgroup,
            started=self._started if self.cgroup.unit else None,
            settle=self._settle,
            cloned=self._cloned,
            runtime_hooks=self._runtime_hooks,
            note=self._note,
            console=self._console,
            interrupt=self.interrupt,
        )

    def _make_cgroup(self) -> int:
        chosen = self.cgroup
        if chosen.unit:  # it will be made around a process
            properties = self.plan.unit_properties
            self.scope = manager.scope(chosen, self.plan.id, self.limits, properties)
            return -1
        self.cgroup = self._with_limits(lambda limits: manager.create(chosen, limits))
        self.owns_cgroup = True
        self._require_delegation()
        if not self.cgroup.path or self._is_tight():
            return -1
        return tree.open_cgroup(self.cgroup.path)

    def _is_tight(self) -> bool:
        """Is the memory limit near to what namespaces cost? Then they are made before the move."""
        return any(
            file == "memory.max" and value.isdigit() and int(value) < TIGHT
            for file, value, _ in self.limits
        )

    def _require_delegation(self) -> None:
        if self.plan.delegate_cgroup:
            from rootless_pyoki.lifecycle import delegation

            delegation.require(self.cgroup, self.plan, self._note)

    def _started(self, pid: int) -> None:
        assert self.scope is not None
        self.scope.begin(pid)

    def _settle(self, pid: int) -> None:
        if self.scope:
            from rootless_pyoki.lifecycle import scope

            scope.settle(self, self.scope, pid)
            self._require_delegation()
        elif self.cgroup.path:
            cgroupfs.attach(self.cgroup.path, pid)

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
