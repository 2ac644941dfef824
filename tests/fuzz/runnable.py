"""Configurations that this user can really run, of the shapes of bases.py, to mutate mildly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from rootless_pyoki.spec import template
from tests.fuzz import bases
from tests.fuzz.bases import Base, Config
from tests.plan import plans
from tests.support import needs
from tests.support.bundles import base_config, id_mappings

SOURCES = ("/etc", "/dev/null", "/dev/zero")  # of the host, which may be bound
PLATFORMS = ("/solaris", "/windows", "/vm", "/zos", "/freebsd")


def all_bases() -> list[Base]:
    """The facts are those of this machine when `create` asks for them."""
    made = {"bundle": base_config(), "spec": ours()}
    made["podman"] = settle(bases.podman())
    made["containerd"] = settle(bases.containerd())
    return [Base(name, config, plans.USER) for name, config in made.items()]


def ours() -> Config:
    granted = {kind: needs.subordinate_ids(kind) for kind in ("uid", "gid")}
    config = template.make(
        uid=os.getuid(),
        gid=os.getgid(),
        subuids=[granted["uid"]] if granted["uid"] else (),
        subgids=[granted["gid"]] if granted["gid"] else (),
        args=("sleep", "1000"),
    )
    return without_cgroups(config)


def settle(config: Config) -> Config:
    """Give it the bundle's root, a user namespace of our own, and only files that are there."""
    config["root"]["path"] = "rootfs"
    linux = config["linux"]
    linux["namespaces"].append({"type": "user"})
    for kind in ("uid", "gid"):
        linux[f"{kind}Mappings"] = id_mappings(kind)
    linux.pop("cgroupsPath")
    for limited in ("memory", "pids"):
        linux["resources"].pop(limited, None)
    if needs.subordinate_ids() is None:
        config["process"]["user"].pop("additionalGids")
    config["mounts"] = [
        entry for entry in config["mounts"] if not entry["source"].startswith("/home")
    ]
    return without_cgroups(config)


def without_cgroups(config: Config) -> Config:
    if not needs.pure_v2():
        config["mounts"] = [entry for entry in config["mounts"] if entry["type"] != "cgroup"]
    return config


def harmless(config: Any) -> bool:
    """Whether it leaves the machine alone whatever a runtime makes of it: the root filesystem and
    what is bound lie in the bundle or are things that the user cannot change.
    """
    return all(path in SOURCES or not _leaves(path) for path in _paths(config))


def _leaves(path: object) -> bool:
    return isinstance(path, str) and (path.startswith("/") or ".." in path)


def _paths(config: Any) -> Iterator[object]:
    root = config.get("root")
    if isinstance(root, dict):
        yield root.get("path")
    mounts = config.get("mounts")
    for entry in mounts if isinstance(mounts, list) else ():
        if isinstance(entry, dict):
            yield entry.get("source")
