"""config.json and the host's facts → the Plan. Pure: no system call, nothing written.

The configuration has been validated (spec.validate): types are right and null members are gone.
What cannot be done here is refused with its JSON pointer; what is done differently becomes a Note.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan import devices, hooks, idmap, mounts, process, resources
from rootless_pyoki.plan.mount_options import PROPAGATION
from rootless_pyoki.plan.notes import Notes
from rootless_pyoki.plan.plan import Namespace, Plan, Rootfs
from rootless_pyoki.spec.linux_rules import sysctl_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.host.facts import Facts
    from rootless_pyoki.plan.plan import IdMap, IdRange, Note, Process, Seccomp
    from rootless_pyoki.spec.bundle import Bundle

NAMESPACES = {
    "user": c.CLONE_NEWUSER,
    "pid": c.CLONE_NEWPID,
    "network": c.CLONE_NEWNET,
    "mount": c.CLONE_NEWNS,
    "ipc": c.CLONE_NEWIPC,
    "uts": c.CLONE_NEWUTS,
    "cgroup": c.CLONE_NEWCGROUP,
    "time": c.CLONE_NEWTIME,
}


def make(
    bundle: Bundle,
    facts: Facts,
    *,
    id: str,
    no_pivot: bool = False,
    no_new_keyring: bool = False,
    unsupported: str = "",
) -> Plan:
    """Everything that will be done for container `id`. unsupported: see notes.py.

    Raises SpecError and UnsupportedError with the pointer of the field.
    """
    config: dict[str, Any] = bundle.config
    linux = config.get("linux") or {}
    notes = Notes(unsupported)
    _refuse_unsupported(linux)
    planned_namespaces = namespaces(linux, facts, notes)
    new = {ns.kind for ns in planned_namespaces if not ns.path}
    joined = {ns.kind for ns in planned_namespaces if ns.path}
    id_map = idmap.make(config, facts, notes) if "user" in new else None
    annotations = config.get("annotations") or {}
    credentials = _credentials(facts, id_map, "user" in joined, annotations)
    planned_mounts = mounts.make(
        config,
        mounts.Surroundings(
            bundle=bundle.path,
            new_user="user" in new,
            new_network="network" in new,
            new_ipc="ipc" in new,
            uids=credentials.uids,
            gids=credentials.gids,
        ),
        notes,
    )
    own_nodes = (
        facts.in_initial_userns
        and facts.has(c.CAP_MKNOD)
        and "user" not in new
        and "user" not in joined
    )
    return Plan(
        id=id,
        bundle=bundle.path,
        namespaces=planned_namespaces,
        idmap=id_map,
        rootfs=_rootfs(config, bundle.path, no_pivot),
        mounts=planned_mounts,
        devices=devices.make(
            config,
            planned_mounts,
            mknod=own_nodes,
            uids=credentials.uids,
            gids=credentials.gids,
            notes=notes,
        ),
        process=process.make(
            config["process"],
            facts,
            credentials,
            pointer="/process",
            seccomp=_seccomp(linux, facts, notes),
            notes=notes,
        ),
        hooks=hooks.make(config),
        sysctl=_sysctl(linux.get("sysctl") or {}),
        hostname=config.get("hostname") or "",
        domainname=config.get("domainname") or "",
        resources=resources.make(linux.get("resources") or {}, notes),
        cgroups_path=linux.get("cgroupsPath") or "",
        loopback_up="network" in new,
        new_keyring=not no_new_keyring,
        annotations=annotations,
        notes=tuple(notes),
    )


def make_exec_process(
    config: dict[str, Any],
    process_object: dict[str, Any],
    facts: Facts,
    *,
    uids: tuple[IdRange, ...] | None = None,
    gids: tuple[IdRange, ...] | None = None,
    groups_refused: str = "",
    own_user_namespace: bool = True,
    pointer: str = "",
    unsupported: str = "",
) -> tuple[Process, tuple[Note, ...]]:
    """A process that joins the container made from `config`; process_object is validated.

    uids, gids: the maps of the container's user namespace, None: not checked; groups_refused: why
    setgroups(2) is denied there, "" when it is not; own_user_namespace: whether the container has
    another user namespace than the caller. The container's seccomp profile applies to it too.
    """
    notes = Notes(unsupported)
    credentials = process.Credentials(
        uids=uids,
        gids=gids,
        groups_refused=groups_refused,
        held=_all_capabilities(facts) if own_user_namespace else facts.capabilities_permitted,
        keep_groups=(config.get("annotations") or {}).get(process.KEEP_GROUPS) == "1",
    )
    planned = process.make(
        process_object,
        facts,
        credentials,
        pointer=pointer,
        seccomp=_seccomp(config.get("linux") or {}, facts, notes),
        notes=notes,
    )
    return planned, tuple(notes)


def namespaces(linux: dict[str, Any], facts: Facts, notes: Notes) -> tuple[Namespace, ...]:
    """In the order of the configuration; a user namespace is added where it takes one to go on."""
    planned = []
    kinds = set()
    for index, entry in enumerate(linux.get("namespaces") or ()):
        kind, path = entry["type"], entry.get("path") or ""
        pointer = f"/linux/namespaces/{index}"
        if kind == "time" and not path:
            raise UnsupportedError("a new time namespace is not supported yet", pointer=pointer)
        kinds.add(kind)
        planned.append(Namespace(kind=kind, flag=NAMESPACES[kind], path=path, pointer=pointer))
    if "mount" not in kinds:
        raise SpecError("a mount namespace is needed", pointer="/linux/namespaces")
    if "user" not in kinds and not facts.privileged:
        added = Namespace(kind="user", flag=c.CLONE_NEWUSER, path="", pointer="/linux/namespaces")
        planned.insert(0, added)
    return tuple(planned)


def _credentials(
    facts: Facts, id_map: IdMap | None, joined: bool, annotations: dict[str, str]
) -> process.Credentials:
    keep = annotations.get(process.KEEP_GROUPS) == "1"
    if joined:
        return process.Credentials(
            uids=None,
            gids=None,
            groups_refused="",
            held=_all_capabilities(facts),
            keep_groups=keep,
        )
    refused = ""
    if not facts.setgroups_allowed:
        refused = "setgroups is denied in the caller's user namespace"
    if id_map is None:
        return process.Credentials(
            uids=facts.uid_map,
            gids=facts.gid_map,
            groups_refused=refused,
            held=facts.capabilities_permitted,
            keep_groups=keep,
        )
    if not idmap.may_set_groups(id_map, facts):
        refused = "a gid map of the caller's own group alone comes with setgroups denied"
    return process.Credentials(
        uids=id_map.uids,
        gids=id_map.gids,
        groups_refused=refused,
        held=_all_capabilities(facts),
        keep_groups=keep,
    )


def _all_capabilities(facts: Facts) -> int:
    """What the first process of a user namespace holds in it, user_namespaces(7)."""
    return (1 << facts.last_capability + 1) - 1


def _rootfs(config: dict[str, Any], bundle: str, no_pivot: bool) -> Rootfs:
    linux = config.get("linux") or {}
    root = config["root"]
    path = root["path"]
    propagation = linux.get("rootfsPropagation") or ""
    return Rootfs(
        path=path if path[:1] == "/" else f"{bundle}/{path}",
        readonly=bool(root.get("readonly")),
        propagation=PROPAGATION[propagation] if propagation else 0,
        no_pivot=no_pivot,
        masked_paths=tuple(linux.get("maskedPaths") or ()),
        readonly_paths=tuple(linux.get("readonlyPaths") or ()),
    )


def _seccomp(linux: dict[str, Any], facts: Facts, notes: Notes) -> Seccomp | None:
    profile = linux.get("seccomp")
    if not profile:
        return None
    from rootless_pyoki.plan import seccomp  # big tables, and many containers have no profile

    pointer = "/linux/seccomp"
    if profile.get("listenerPath"):
        raise UnsupportedError(
            "a seccomp listener is not supported yet", pointer=f"{pointer}/listenerPath"
        )
    filter = seccomp.compile(profile, arch=facts.machine, pointer=pointer)
    if filter.notify:
        raise UnsupportedError(
            "SCMP_ACT_NOTIFY is not supported yet", pointer=f"{pointer}/syscalls"
        )
    unknown = seccomp.unknown_names(profile, arch=facts.machine)
    if unknown:
        text = f"system calls that are not known are passed over: {', '.join(unknown)}"
        notes.tell(f"{pointer}/syscalls", text)
    return filter


def _sysctl(entries: dict[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple([("/".join(sysctl_parts(key)), value) for key, value in entries.items()])


_UNSUPPORTED = (
    ("timeOffsets", "time offsets", "not supported yet"),
    ("memoryPolicy", "a memory policy", "not supported yet"),
    ("netDevices", "moving network devices", "only root of the host could do it"),
    ("intelRdt", "Intel RDT", "resctrl is for root of the host only"),
    ("mountLabel", "SELinux labels", "not supported yet"),
)


def _refuse_unsupported(linux: dict[str, Any]) -> None:
    for key, what, why in _UNSUPPORTED:
        if linux.get(key):
            raise UnsupportedError(f"{what}: {why}", pointer=f"/linux/{key}")
    domain = (linux.get("personality") or {}).get("domain", "LINUX")
    if domain != "LINUX":
        raise UnsupportedError(
            f"personality {domain}: not supported yet", pointer="/linux/personality/domain"
        )
