"""The cgroup of a container that is being created: chosen, made, limited, given away, undone.

A directory is made before there is a process, a scope of systemd's around the first one.
"""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.cgroups import cgroupfs, manager, tree
from rootless_pyoki.errors import HostError, UnsupportedError
from rootless_pyoki.plan.plan import Note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.cgroups.systemd_scope import Start
    from rootless_pyoki.errors import ChildError, KilledError, PyokiError
    from rootless_pyoki.lifecycle.creation import Request
    from rootless_pyoki.plan.plan import Plan

    Limits = tuple[tuple[str, str], ...]

TIGHT = 1 << 20  # bytes
DELEGATE = "leave out --rootless=false, or run where a cgroup v2 subtree is delegated to the user"


class OwnCgroup:
    """`cgroup` is what is known of it so far; `limits` those that can be set."""

    def __init__(self, request: Request, plan: Plan, note: Callable[[Note], None]) -> None:
        self.request = request
        self.plan = plan
        self.note = note
        self.limits = plan.resources.files
        self.made = False  # by us: nobody else's is ever undone
        self.scope: Start | None = None  # systemd's, in the making
        self.cgroup = self.choose(request.cgroup_manager)

    def choose(self, requested: str) -> manager.Cgroup:
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

            delegation.without_unit(chosen, self.plan, self.request.unsupported or "", self.note)
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
        self.note(Note(pointer=error.pointer, text=f"not applied: {error.message}"))

    def make(self) -> int:
        """Before the first process is: a descriptor of where it shall be born, -1 for elsewhere."""
        chosen = self.cgroup
        if chosen.unit:  # it will be made around a process
            properties = self.plan.unit_properties
            self.scope = manager.scope(chosen, self.plan.id, self.limits, properties)
            return -1
        self.cgroup = self._with_limits(lambda limits: manager.create(chosen, limits))
        self.made = True
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

            delegation.require(self.cgroup, self.plan, self.note)

    def started(self, pid: int) -> None:
        """Ask for a scope around the first process; nothing is awaited."""
        assert self.scope is not None
        self.scope.begin(pid)

    def settle(self, pid: int) -> None:
        """Have it in there, before its ids change."""
        if self.scope:
            from rootless_pyoki.lifecycle import scope

            scope.settle(self, self.scope, pid)
            self._require_delegation()
        elif self.cgroup.path:
            cgroupfs.attach(self.cgroup.path, pid)

    def inner(self) -> str:
        """Below the cgroup: where the container's processes live, where that is another one."""
        if not self.plan.subgroup and not self.plan.delegate_cgroup:
            return ""
        from rootless_pyoki.lifecycle import delegation

        return delegation.inner(self.cgroup, self.plan)

    def finish(self, pid: int) -> None:
        """Limits, and what is the container's own, when nothing but the gate is in there."""
        if self.cgroup.path or self.scope:
            self._apply_limits(pid)
            self._give_cgroup(pid)
        if self.plan.resources.device_filter:
            from rootless_pyoki.lifecycle import device_access

            strictness = self.request.unsupported or ""
            device_access.limit(self.cgroup, self.plan, strictness, self.note)
        if self.scope:
            self.scope.close()

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
            ownership.give(path, self.plan, pointer, self.note)
        if self.plan.delegate_cgroup:
            from rootless_pyoki.lifecycle import delegation

            delegation.delegate(self.cgroup, self.plan, pid)

    def explain(self, error: KilledError) -> ChildError:
        """With what the cgroup says of it; to be asked before undo()."""
        from rootless_pyoki.lifecycle import oom

        limits = [value for file, value, _ in self.limits if file == "memory.max"]
        return oom.explain(self.cgroup.path, error, "".join(limits[-1:]))

    def undo(self) -> None:
        """Nothing of it stays, nor anybody in it. Raises HostError, SyscallError."""
        if self.cgroup.path and self.made:  # else it may be somebody's who was faster
            manager.kill(self.cgroup)
            manager.remove(self.cgroup)
        if self.scope:
            self.scope.abandon()
