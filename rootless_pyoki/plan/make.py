"""config.json and the host's facts → the Plan. Pure: no system call, nothing written.

The configuration has been validated (spec.validate): types are right and null members are gone.
What cannot be done here is refused with its JSON pointer; what is done differently becomes a Note.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan import devices, hooks, idmap, mounts, namespaces, process, resources
from rootless_pyoki.plan.mount_options import PROPAGATION
from rootless_pyoki.plan.notes import Notes
from rootless_pyoki.plan.plan import Plan, Rootfs
from rootless_pyoki.spec.fields import join
from rootless_pyoki.spec.linux_rules import sysctl_parts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.host.facts import Facts
    from rootless_pyoki.plan.plan import IdMap, IdRange, Note, Process, Resources, Seccomp
    from rootless_pyoki.spec.bundle import Bundle

    UnitProperties = tuple[tuple[str, str, Any], ...]

# Where annotations for a runtime begin: plan/annotations.py is loaded for them.
RUNTIME_ANNOTATIONS = ("run.oci.", "org.systemd.property.", "org.criu.", "krun.", "module.wasm.")
SECCOMP_RECEIVER = "run.oci.seccomp.receiver"  # annotation: crun's name for listenerPath


def make(
    bundle: Bundle,
    facts: Facts,
    *,
    id: str,
    no_pivot: bool = False,
    no_new_keyring: bool = False,
    unsupported: str = "",
    seccomp_receiver: str = "",
) -> Plan:
    """Everything that will be done for container `id`. unsupported: see notes.py; seccomp_receiver:
    the seccomp agent's socket where config.json names none.

    Raises SpecError and UnsupportedError with the pointer of the field.
    """
    config: dict[str, Any] = bundle.config
    linux = config.get("linux") or {}
    notes = Notes(unsupported)
    _refuse_unsupported(linux, notes)
    planned_namespaces = namespaces.make(linux, facts)
    new = {ns.kind for ns in planned_namespaces if not ns.path}
    joined = {ns.kind for ns in planned_namespaces if ns.path}
    id_map = idmap.make(config, facts, notes) if "user" in new else None
    annotations = config.get("annotations") or {}
    delegate_cgroup, subgroup, unit_properties = _heed_annotations(config, notes)
    credentials = _credentials(facts, id_map, "user" in joined, annotations)
    planned_mounts = mounts.make(
        config,
        mounts.Surroundings(
            bundle=bundle.path,
            new=new,
            joined=joined,
            uids=credentials.uids,
            gids=credentials.gids,
            caller_uids=facts.uid_map,
            caller_gids=facts.gid_map,
            privileged=facts.privileged,
            label=_mount_label(linux, facts),
        ),
        notes,
    )
    stays = "user" not in new and "user" not in joined
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
            mknod=stays and facts.in_initial_userns and facts.has(c.CAP_MKNOD),
            uids=credentials.uids,
            gids=credentials.gids,
            notes=notes,
        ),
        process=process.make(
            config["process"],
            facts,
            credentials,
            pointer="/process",
            linux=linux,
            seccomp=_seccomp(config, facts, seccomp_receiver, notes),
            notes=notes,
        ),
        hooks=hooks.make(config),
        sysctl=_sysctl(linux.get("sysctl") or {}),
        hostname=config.get("hostname") or "",
        domainname=config.get("domainname") or "",
        resources=_resources(linux, facts, notes),
        cgroups_path=linux.get("cgroupsPath") or "",
        loopback_up="network" in new,
        new_keyring=not no_new_keyring,
        annotations=annotations,
        notes=tuple(notes),
        time_offsets=namespaces.time_offsets(linux),
        delegate_cgroup=delegate_cgroup,
        unit_properties=unit_properties,
        subgroup=subgroup,
        writable_cgroup=resources.writable_cgroup(config, planned_mounts, new, id_map, facts.euid),
    )


def _resources(linux: dict[str, Any], facts: Facts, notes: Notes) -> Resources:
    filters = facts.in_initial_userns and facts.has(c.CAP_SYS_ADMIN)
    return resources.make(linux.get("resources") or {}, notes, filters_devices=filters)


def _heed_annotations(config: dict[str, Any], notes: Notes) -> tuple[str, str, UnitProperties]:
    """What they ask of the runtime, applied, noted or refused.

    Returns the cgroup to delegate, that of the container below its unit's, the unit's properties.
    """
    found = config.get("annotations") or {}
    if not any(key.startswith(RUNTIME_ANNOTATIONS) for key in found):
        return "", "", ()
    from rootless_pyoki.plan import annotations

    annotations.check(config, notes)
    return (
        annotations.delegate_cgroup(found),
        annotations.subgroup(found),
        annotations.unit_properties(found),
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
    seccomp_receiver: str = "",
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
        keep_groups=process.keeps_groups(config.get("annotations") or {}),
    )
    planned = process.make(
        process_object,
        facts,
        credentials,
        pointer=pointer,
        linux=config.get("linux") or {},
        joins=True,
        seccomp=_seccomp(config, facts, seccomp_receiver, notes),
        notes=notes,
    )
    return planned, tuple(notes)


def _credentials(
    facts: Facts, id_map: IdMap | None, joined: bool, annotations: dict[str, str]
) -> process.Credentials:
    keep = process.keeps_groups(annotations)
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
        label=linux.get("mountLabel") or "",
    )


def _seccomp(config: dict[str, Any], facts: Facts, receiver: str, notes: Notes) -> Seccomp | None:
    annotations = config.get("annotations") or {}
    if any(key.startswith("run.oci.seccomp_") for key in annotations):
        from rootless_pyoki.plan.annotations import fails_unknown, raw_filter

        raw = raw_filter(annotations)
        if raw is not None:
            return raw
        strict = fails_unknown(annotations)
    else:
        strict = False
    profile = (config.get("linux") or {}).get("seccomp")
    if not profile:
        return None
    from rootless_pyoki.plan import seccomp  # big tables, and many containers have no profile

    pointer = "/linux/seccomp"
    named = annotations.get(SECCOMP_RECEIVER)
    filter = seccomp.compile(
        profile,
        arch=facts.machine,
        pointer=pointer,
        receiver=(named, f"/annotations/{SECCOMP_RECEIVER}") if named else (receiver, ""),
    )
    unknown = seccomp.unknown_names(profile, arch=facts.machine)
    if unknown:
        if strict:
            raise SpecError(f"not known: {', '.join(unknown)}", pointer=f"{pointer}/syscalls")
        text = f"system calls that are not known are passed over: {', '.join(unknown)}"
        notes.tell(f"{pointer}/syscalls", text)
    return filter


def _mount_label(linux: dict[str, Any], facts: Facts) -> str:
    label: str = linux.get("mountLabel") or ""
    if label and not facts.selinux:
        raise UnsupportedError(
            f"label mounts {label}: SELinux is off on this host",
            pointer="/linux/mountLabel",
            hint="leave the label out, as engines do where SELinux is off",
        )
    return label


def _sysctl(entries: dict[str, str]) -> tuple[tuple[str, str, str], ...]:
    return tuple(
        [
            ("/".join(sysctl_parts(key)), value, join("/linux/sysctl", key))
            for key, value in entries.items()
        ]
    )


# (member of /linux, why it cannot be had, what to do instead)
_OF_THE_HOST = (
    (
        "netDevices",
        "move network devices: it takes CAP_NET_ADMIN over the host's network namespace, which a "
        "rootless runtime never has: operation not permitted (EPERM)",
        "let root do it once the container is created: ip link set DEVICE netns PID; or make the "
        "device inside (slirp4netns, pasta)",
    ),
    (
        "intelRdt",
        "join a resctrl group: /sys/fs/resctrl is writable for root of the host only: permission "
        "denied (EACCES)",
        "let root do it once the container is created: write its pid to "
        "/sys/fs/resctrl/GROUP/tasks",
    ),
)


def _refuse_unsupported(linux: dict[str, Any], notes: Notes) -> None:
    for key, why, instead in _OF_THE_HOST:
        asked = linux.get(key)
        if asked and (key == "netDevices" or any(asked.values())):
            notes.refuse(f"/linux/{key}", why, hint=instead)
