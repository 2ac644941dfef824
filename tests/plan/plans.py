"""Callers and configurations to plan with."""

from __future__ import annotations

import copy
from typing import Any

from rootless_pyoki.host.facts import ALL_IDS, Facts
from rootless_pyoki.host.id_range import IdRange
from rootless_pyoki.plan import make as maker
from rootless_pyoki.plan.plan import Mount, Plan
from rootless_pyoki.record import replace
from rootless_pyoki.spec.bundle import Bundle
from rootless_pyoki.spec.validate import validate

LAST = 40
ALL_CAPABILITIES = (1 << LAST + 1) - 1
INFINITY = 2**64 - 1

ROOT = Facts(
    euid=0,
    egid=0,
    groups=(),
    capabilities_effective=ALL_CAPABILITIES,
    capabilities_permitted=ALL_CAPABILITIES,
    last_capability=LAST,
    in_initial_userns=True,
    uid_map=ALL_IDS,
    gid_map=ALL_IDS,
    setgroups_allowed=True,
    machine="x86_64",
    no_new_privileges=False,
    hard_limits={},
)
RANGE = ((100000, 65536),)
USER = replace(
    ROOT,
    euid=1000,
    egid=1000,
    groups=(1000,),
    capabilities_effective=0,
    capabilities_permitted=0,
    user_name="dev",
    subuids=RANGE,
    subgids=RANGE,
)
_PODMAN_MAP = (
    IdRange(container=0, host=1000, size=1),
    IdRange(container=1, host=100000, size=65536),
)
# uid 0 of the user namespace that rootless podman makes before it calls the runtime
IN_PODMAN = replace(ROOT, in_initial_userns=False, uid_map=_PODMAN_MAP, gid_map=_PODMAN_MAP)

KINDS = ("pid", "network", "ipc", "uts", "mount", "cgroup")
MINIMAL: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "root": {"path": "rootfs"},
    "process": {"args": ["true"], "cwd": "/"},
    "linux": {"namespaces": [{"type": kind} for kind in KINDS]},
}
MAPPINGS = {
    key: [
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 99},
    ]
    for key in ("uidMappings", "gidMappings")
}


def config(
    *,
    mounts: list[dict[str, Any]] | None = None,
    process: dict[str, Any] | None = None,
    linux: dict[str, Any] | None = None,
    without: tuple[str, ...] = (),
    own_user: bool = False,
    **top: Any,
) -> dict[str, Any]:
    """The smallest configuration and these members more.

    without: kinds of namespaces to leave out; own_user: with a user namespace that has ids 0-99.
    """
    made = copy.deepcopy(MINIMAL)
    spaces = [entry for entry in made["linux"]["namespaces"] if entry["type"] not in without]
    made["linux"]["namespaces"] = spaces
    if own_user:
        spaces.append({"type": "user"})
        made["linux"].update(copy.deepcopy(MAPPINGS))
    made.update(top)
    if mounts is not None:
        made["mounts"] = mounts
    made["process"].update(process or {})
    made["linux"].update(linux or {})
    return made


def make(configuration: dict[str, Any], facts: Facts = ROOT, **options: Any) -> Plan:
    """Validated as create does it, then planned."""
    configuration = copy.deepcopy(configuration)
    validate(configuration)
    bundle = Bundle(path="/bundle", config=configuration, raw=b"")
    return maker.make(bundle, facts, id="one", **options)


def make_mount(facts: Facts = ROOT, **members: Any) -> Mount:
    """The one mount of a configuration with these members of it."""
    members.setdefault("destination", "/there")
    (planned,) = make(config(mounts=[members]), facts).mounts
    return planned
