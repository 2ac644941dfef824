"""What this runtime can do, features.md: read off the tables that creation itself uses."""

from __future__ import annotations

import sys

import rootless_pyoki
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.plan import annotations as plan_annotations
from rootless_pyoki.plan import mount_options, namespaces, scheduling, seccomp_abi
from rootless_pyoki.spec import OCI_VERSION, OLDEST_OCI_VERSION, schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "io.github.rootless-pyoki"


def features() -> dict[str, Any]:
    """The Features structure, as a JSON object."""
    return {
        "ociVersionMin": OLDEST_OCI_VERSION,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(schema.HOOK_KINDS),
        "mountOptions": sorted(mount_options.OPTIONS),
        "linux": {
            "namespaces": sorted(namespaces.NAMESPACES),
            "capabilities": list(c.CAPABILITIES),
            "cgroup": {
                "v1": False,
                "v2": True,
                "systemd": True,
                "systemdUser": True,
                "rdma": True,
            },
            "seccomp": _seccomp(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": False},
            "memoryPolicy": {
                "modes": list(scheduling.MEMORY_MODES),
                "flags": list(scheduling.MEMORY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": False},
        },
        "annotations": {
            f"{PREFIX}.version": rootless_pyoki.__version__,
            f"{PREFIX}.commit": rootless_pyoki.commit(),
            f"{PREFIX}.checkpoint.enabled": "false",
        },
        "potentiallyUnsafeConfigAnnotations": list(plan_annotations.UNSAFE),
    }


def _seccomp() -> dict[str, Any]:
    """Actions and flags are those that the kernel knows too; architectures those of our byte order."""
    known = seccomp_abi.known_flags()
    return {
        "enabled": True,
        "actions": [
            name
            for name in seccomp_abi.known_actions()
            if syscalls.seccomp_has_action(seccomp_abi.ACTIONS[name])
        ],
        "operators": seccomp_abi.known_operators(),
        "archs": _architectures(),
        "knownFlags": known,
        "supportedFlags": [name for name in known if _has_flag(seccomp_abi.FLAGS[name])],
    }


def _has_flag(flag: int) -> bool:
    if flag == seccomp_abi.FLAG_WAIT_KILLABLE_RECV:
        flag |= seccomp_abi.FLAG_NEW_LISTENER  # alone it is refused
    return syscalls.seccomp_has_flags(flag)


def _architectures() -> list[str]:
    own = seccomp_abi.architecture(seccomp_abi.native(syscalls.uname()[4], sys.byteorder))
    known = {name: seccomp_abi.architecture(name) for name in seccomp_abi.known_architectures()}
    return [name for name, each in known.items() if own and each and each.big == own.big]
