"""One container's making: the state directory, the cgroup, the processes, and their undoing.

processes.main calls back here whenever something is to be remembered; only this room and its
neighbours write state.
"""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.apply import console
from rootless_pyoki.cgroups import cgroupfs, limits, manager, tree
from rootless_pyoki.errors import HostError, PyokiError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, procfs, syscalls
from rootless_pyoki.lifecycle import container, hooks, pid_file
from rootless_pyoki.plan import idmap
from rootless_pyoki.plan.plan import Note
from rootless_pyoki.processes import gate, main
from rootless_pyoki.processes.ends import Ends
from rootless_pyoki.record import Record, replace
from rootless_pyoki.state import root as state_root
from rootless_pyoki.state import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import IdRange, Plan
    from rootless_pyoki.processes.main import Launched
    from rootless_pyoki.spec.bundle import Bundle


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
        self.wants_limits = tuple((file, pointer) for file, _, pointer in plan.resources.files)
        self.notes = list(plan.notes)
        self.master = -1
        self.launched: Launched | None = None
        root = state_root.open_root(state_root.choose_root(request.root), create=True)
        try:
            # the id first: whoever has it may live in the very cgroup that we would choose
            self.handle = store.create_container(root, plan.id, sweep=container.sweep)
        finally:
            syscalls.close(root)
        self.owns_cgroup = False
        try:
            self.cgroup = self._choose_cgroup()
            self.state = self._first_state()
        except BaseException:
            store.remove(self.handle)
            raise

    def _choose_cgroup(self) -> manager.Cgroup:
        chosen = manager.choose(
            self.request.cgroup_manager,
            systemd_cgroup=self.request.systemd_cgroup,
            cgroups_path=self.plan.cgroups_path,
            id=self.plan.id,
            wants_limits=self.wants_limits,
        )
        if chosen.reason:
            log.debug(f"no cgroup: {chosen.reason}")
        if self.request.rootless == "false" and chosen.manager == "none":
            raise HostError(f"no cgroup can be made: {chosen.reason}", hint=DELEGATE)
        return chosen

    def bring_up(self, mode: int) -> Launched:
        """Up to a gate that waits, with everything recorded; undone when this raises."""
        try:
            self.handle.write(self.state)
            self.handle.write_config(self.bundle.raw)
            ends = self._ends(mode)
            try:
                self.launched = main.launch(self.plan, ends, self._calls())
            finally:  # also where they were too many: undo() needs some
                for fd in (ends.lock, ends.socket, ends.console, ends.memfd):
                    fds.close_quietly(fd)
            if self.cgroup.path:
                limits.apply(self.cgroup.path, self.plan.resources.files)
            main.limit(self.launched, self.plan.process)
            self.state = replace(self.state, phase="created", notes=self.notes)
            self.handle.write(self.state)
            pid_file.write(self.request.pid_file, self.launched.pid)
            pid_file.send_pidfd(self.request.pidfd_socket, self.launched.pid)
            return self.launched
        except BaseException:
            self.undo()
            raise

    def commit(self) -> None:
        """Let the gate outlive us."""
        assert self.launched is not None
        try:
            main.commit(self.launched)
        except BaseException:
            self.undo()
            raise
        self.handle.unlock()

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
                cgroupfs.kill(self.cgroup.path)
                tree.remove(self.cgroup.path, top=self.cgroup.made)
        except (OSError, PyokiError) as error:
            log.debug(f"undo: {error}")
        hooks.poststop(self.plan.hooks, self.hook_state("stopped", 0))
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
            "user_namespace": bool(flags & c.CLONE_NEWUSER),
            "uid_map": _stored(self.plan.idmap.uids) if self.plan.idmap else [],
            "gid_map": _stored(self.plan.idmap.gids) if self.plan.idmap else [],
            "groups_refused": "" if self.plan.process.set_groups else container.GROUPS_REFUSED,
            "own_pid_namespace": self.plan.hosts_new("pid"),
            "working_ids": [uid, gid],
            "set_groups": self.plan.process.set_groups,
            "cgroup_reason": self.cgroup.reason,
            "cgroup_made": self.cgroup.made,
            "hooks": [kind for kind in ("poststart", "poststop") if getattr(self.plan.hooks, kind)],
        }

    def _ends(self, mode: int) -> Ends:
        socket = lock = -1
        if mode == gate.CREATE:
            socket, lock = self._gate_socket(), self._gate_lock()
        path = self.request.console_socket
        return Ends(
            proc=procfs.held(),
            memfd=gate.make_memfd(),
            mode=mode,
            preserve=self.preserve,
            console=console.connect(path) if path else -1,
            socket=socket,
            lock=lock,
            peer_uids=self._peer_uids(),
            stage=f"{state_root.choose_root(self.request.root)}/{self.plan.id}",
        )

    def _gate_socket(self) -> int:
        """gate.sock, listening: `start` connects to it. Nobody else can reach the directory."""
        socket = syscalls.socket(c.SOCK_SEQPACKET)
        before = syscalls.umask(0o177)
        try:
            syscalls.bind(socket, f"{fds.fd_path(self.handle.fd)}/gate.sock")
        finally:
            syscalls.umask(before)
        syscalls.listen(socket, 16)
        return socket

    def _gate_lock(self) -> int:
        """gate.lock, held as long as the gate waits: execve closes it."""
        flags = c.O_RDWR | c.O_CREAT | c.O_CLOEXEC
        lock = syscalls.openat(self.handle.fd, "gate.lock", flags, 0o600)
        syscalls.flock(lock, c.LOCK_EX)
        return lock

    def _peer_uids(self) -> tuple[int, ...]:
        """Who may say start: we, as we look from inside the container."""
        uid = syscalls.geteuid()
        if self.plan.idmap is None:
            return (uid,)
        return (idmap.to_container(self.plan.idmap.uids, uid),)

    def _calls(self) -> main.Calls:
        return main.Calls(
            cgroup=self._make_cgroup,
            settle=self._settle,
            cloned=self._cloned,
            runtime_hooks=self._runtime_hooks,
            note=self._note,
            console=self._console,
        )

    def _make_cgroup(self) -> int:
        self.cgroup = manager.create(self.cgroup, self.wants_limits)
        self.owns_cgroup = True
        return tree.open_cgroup(self.cgroup.path) if self.cgroup.path else -1

    def _settle(self, pid: int) -> None:
        if self.cgroup.path:
            cgroupfs.attach(self.cgroup.path, pid)

    def _cloned(self, pid: int) -> None:
        """Written down at once: from now on `delete --force` finds it, whatever becomes of us."""
        start_time = procfs.start_time(pid) or 0
        self.state = replace(
            self.state,
            pid=pid,
            start_time=start_time,
            cgroup_manager=self.cgroup.manager,
            cgroup_path=self.cgroup.path,
            extras=self._extras(),
        )
        self.handle.write(self.state)

    def _runtime_hooks(self, pid: int) -> None:
        hooks.create_runtime(self.plan.hooks, self.hook_state("creating", pid))

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
