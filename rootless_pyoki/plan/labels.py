"""The label that the program gets from a security module (config.md "Linux Process").

apparmorProfile and selinuxLabel protect: where the host's module is off they are refused, never left
out. At most one of the two modules runs on a machine.
"""

from __future__ import annotations

from rootless_pyoki.errors import UnsupportedError
from rootless_pyoki.plan.plan import Label

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.host.facts import Facts

UNCONFINED = "unconfined"  # what AppArmor calls a process without a profile


def make(process: dict[str, Any], facts: Facts, pointer: str) -> Label | None:
    """What is to be written below /proc/self/attr, just before execve; None: nothing."""
    profile = _apparmor(process.get("apparmorProfile") or "", facts, f"{pointer}/apparmorProfile")
    label = _selinux(process.get("selinuxLabel") or "", facts, f"{pointer}/selinuxLabel")
    if profile and label:
        raise UnsupportedError(
            "the program cannot have an AppArmor profile and an SELinux label",
            pointer=f"{pointer}/selinuxLabel",
        )
    return profile or label


def _apparmor(profile: str, facts: Facts, pointer: str) -> Label | None:
    """ "unconfined" asks for nothing where nobody is confined."""
    if not profile or (profile == UNCONFINED and not facts.apparmor_confined):
        return None
    if not facts.apparmor:
        raise UnsupportedError(
            f"apply AppArmor profile {profile}: AppArmor is not enabled on this host",
            pointer=pointer,
            hint="leave the profile out, or boot with AppArmor (podman: --security-opt "
            "apparmor=unconfined)",
        )
    if not facts.apparmor_loaded:
        raise UnsupportedError(
            f"apply AppArmor profile {profile}: no such profile is loaded",
            pointer=pointer,
            hint="root loads it with apparmor_parser --replace",
        )
    return Label(
        module="apparmor", attribute=facts.apparmor, value=f"exec {profile}", pointer=pointer
    )


def _selinux(label: str, facts: Facts, pointer: str) -> Label | None:
    if not label:
        return None
    if not facts.selinux:
        raise UnsupportedError(
            f"apply SELinux label {label}: SELinux is not enabled on this host",
            pointer=pointer,
            hint="leave the label out (podman: --security-opt label=disable)",
        )
    return Label(module="selinux", attribute="exec", value=label, pointer=pointer)
