"""/annotations that ask the runtime for something: what becomes of each (crun.1, runc's features).

Only loaded for a container that has one of them (make.RUNTIME_ANNOTATIONS). Annotations of other owners
(org.opencontainers.image.*, io.podman.*, ...) are data: `state` and the hooks show them.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.plan.plan import Seccomp
from rootless_pyoki.spec.fields import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.plan.notes import Notes

DELEGATE_CGROUP = "run.oci.delegate-cgroup"
SUBGROUP = "run.oci.systemd.subgroup"
UNIT_PROPERTY = "org.systemd.property."
FAIL_UNKNOWN = "run.oci.seccomp_fail_unknown_syscall"
BPF_DATA = "run.oci.seccomp_bpf_data"
MOUNT_CONTEXT = "run.oci.mount_context_type"

# Applied, each where the field that it speaks of is planned or done.
APPLIED = (
    "run.oci.keep_original_groups",  # plan/process.py
    "run.oci.hooks.stdout",  # plan/hooks.py, apply/hooks.py
    "run.oci.hooks.stderr",
    "run.oci.pidfd_receiver",  # lifecycle/creation.py
    DELEGATE_CGROUP,  # lifecycle/delegation.py
    SUBGROUP,  # lifecycle/delegation.py; noted there where systemd does not manage the cgroup
    FAIL_UNKNOWN,  # plan/make.py
    BPF_DATA,
    "run.oci.seccomp.receiver",
)
# Names, or beginnings that end in a dot, with what hinders.
PASSED_OVER = (
    ("org.criu.", "containers cannot be checkpointed yet"),
    ("krun.", "it configures the krun handler, which is not there"),
    ("module.wasm.image/variant", "there is no handler for WebAssembly: the program is executed"),
)
REFUSED = (
    ("run.oci.handler", "programs are executed by the kernel: there is no other handler"),
    (
        "run.oci.systemd.force_cgroup_v1",
        "cgroup v1 cannot be delegated to a user: no hierarchy of it can be given to the container",
    ),
)
# A program in the container would be confined less than its configuration says: never left out.
PROTECTS = (("run.oci.seccomp.plugins", "plugins are code for libcrun's own process"),)

# features.md, "potentiallyUnsafeConfigAnnotations": names, or beginnings that end in a dot.
UNSAFE = ("run.oci.", "org.systemd.property.", "org.criu.", "krun.", "module.wasm.image/variant")


def check(config: dict[str, Any], notes: Notes) -> None:
    """Every annotation for the runtime: applied elsewhere, noted, or refused with its pointer."""
    for key, value in (config.get("annotations") or {}).items():
        if not key.startswith(UNSAFE) or not value:
            continue  # an empty value asks for nothing, as in crun
        pointer = join("/annotations", key)
        if key in APPLIED or key.startswith(UNIT_PROPERTY):  # both: lifecycle/delegation.py
            continue
        if key == MOUNT_CONTEXT:
            _check_mount_context(value, pointer, config, notes)
        elif why := _find(PROTECTS, key):
            raise UnsupportedError(why, pointer=pointer)
        elif why := _find(REFUSED, key):
            notes.refuse(pointer, why)
        else:
            notes.pass_over(pointer, _find(PASSED_OVER, key) or "no runtime is known to have it")
    _check_hook_output(config, notes)


def _find(table: tuple[tuple[str, str], ...], key: str) -> str:
    for name, why in table:
        if key == name or (name[-1] == "." and key.startswith(name)):
            return why
    return ""


def _check_mount_context(value: str, pointer: str, config: dict[str, Any], notes: Notes) -> None:
    """Which mount option carries /linux/mountLabel, mount(8): a label is never applied otherwise."""
    if value == "context":
        return  # as without it
    if (config.get("linux") or {}).get("mountLabel"):
        raise UnsupportedError(f"label mounts by {value}=: only context= is used", pointer=pointer)
    notes.pass_over(pointer, "there is no /linux/mountLabel that it could concern")


def _check_hook_output(config: dict[str, Any], notes: Notes) -> None:
    """The gate would keep a file of the host open inside the container for as long as it waits."""
    if not (config.get("hooks") or {}).get("startContainer"):
        return
    for key in ("run.oci.hooks.stdout", "run.oci.hooks.stderr"):
        if (config.get("annotations") or {}).get(key):
            notes.tell(
                join("/annotations", key),
                "startContainer hooks run inside and write where the program does",
            )


def delegate_cgroup(annotations: dict[str, str]) -> str:
    """The path, below the container's cgroup, of the one that is given to the container; "": none."""
    return _cgroup_below(annotations, DELEGATE_CGROUP)


def subgroup(annotations: dict[str, str]) -> str:
    """The path, below the cgroup of systemd's unit, of the container's own; "": that of the unit."""
    return _cgroup_below(annotations, SUBGROUP)


def unit_properties(annotations: dict[str, str]) -> tuple[tuple[str, str, Any], ...]:
    """(property, D-Bus signature, value) for the container's systemd unit."""
    if not any(key.startswith(UNIT_PROPERTY) for key in annotations):
        return ()
    from rootless_pyoki.plan import unit_annotations

    return unit_annotations.parse(annotations)


def _cgroup_below(annotations: dict[str, str], key: str) -> str:
    value = annotations.get(key, "")
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if value and (not parts or ".." in parts or "\n" in value or "\0" in value):
        raise SpecError(
            f"{value!r} is not the path of a cgroup below the container's",
            pointer=join("/annotations", key),
        )
    return "/".join(parts)


def fails_unknown(annotations: dict[str, str]) -> bool:
    """Are system calls that nobody knows an error?"""
    return annotations.get(FAIL_UNKNOWN, "0") != "0"


def raw_filter(annotations: dict[str, str]) -> Seccomp | None:
    """The ready filter that stands for /linux/seccomp; the kernel checks what it does, seccomp(2)."""
    value = annotations.get(BPF_DATA, "")
    if not value:
        return None
    pointer = join("/annotations", BPF_DATA)
    program = _decode_base64(value, pointer)
    if not program or len(program) % 8 or len(program) > 4096 * 8:
        raise SpecError(
            f"{len(program)} bytes are no filter: from 1 to 4096 instructions of 8 bytes",
            pointer=pointer,
        )
    return Seccomp(program=program, flags=0)


_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _decode_base64(text: str, pointer: str) -> bytes:
    """RFC 4648, section 4."""
    digits = text.rstrip("=")
    if len(text) % 4 or len(text) - len(digits) > 2:
        raise SpecError("is not base64: its length is not a multiple of 4", pointer=pointer)
    decoded = bytearray()
    for start in range(0, len(digits), 4):
        number, group = 0, digits[start : start + 4]
        for digit in group:
            value = _ALPHABET.find(digit)
            if value < 0:
                raise SpecError(f"is not base64: {digit!r}", pointer=pointer)
            number = number << 6 | value
        size = len(group) * 6 // 8
        decoded += (number >> (len(group) * 6 - size * 8)).to_bytes(size, "big")
    return bytes(decoded)
