"""config.json against the specification: the first wrong thing is a SpecError with a pointer.

Types and closed sets come first (schema.py), then one function for each MUST, here and in
process_rules.py and linux_rules.py. What depends on the host (is this id mapped, does that path
exist) is decided later, where the plan is made.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec import OCI_VERSION, linux_rules, process_rules, schema, shapes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rootless_pyoki.spec.types import Config, Process

HOSTNAME_LENGTH = 64  # __NEW_UTS_LEN of uname(2)


def validate(config: Any) -> None:
    """A whole config.json; a process may be missing, as only `start` needs it (config.md, "Process").

    Members that are null are removed: afterwards they are not there at all.
    """
    if type(config) is dict and type(config.get("ociVersion")) is str:
        check_oci_version(config["ociVersion"])  # first: another major version has other types
    shapes.check(schema.CONFIG, config, "")
    _check_rules(config)


def _check_rules(config: Config) -> None:
    linux = config.get("linux", {})
    if "process" in config:
        process_rules.check_process(config["process"], "/process")
    namespaces = linux_rules.check_namespaces(linux)
    check_names(config, namespaces)
    check_mounts(config)
    check_hooks(config)
    linux_rules.check_linux(linux, namespaces)


def validate_process(process: Any, pointer: str = "") -> None:
    """A process object alone, as `exec --process` reads it."""
    shapes.check(schema.PROCESS, process, pointer)
    checked: Process = process
    process_rules.check_process(checked, pointer)


def validate_resources(resources: Any, pointer: str = "") -> None:
    """A LinuxResources object alone, as `update --resources` reads it."""
    shapes.check(schema.RESOURCES, resources, pointer)
    linux_rules.check_resources(resources, pointer)


def check_oci_version(version: str) -> None:
    """config.md, "Specification version": ociVersion MUST be in SemVer v2.0.0 format.

    All of 1.x is taken, as it is compatible with itself by the rules of the specification.
    """
    rest, plus, build = version.partition("+")
    core, minus, release = rest.partition("-")
    numbers = core.split(".")
    right = len(numbers) == 3 and all(_is_number(n) for n in numbers)
    if minus or plus:  # seldom
        right = right and _are_identifiers(minus, release, build=False)
        right = right and _are_identifiers(plus, build, build=True)
    if not right:
        raise SpecError(
            f"{version!r} is no semantic version such as {OCI_VERSION}", pointer="/ociVersion"
        )
    if numbers[0] != "1":
        raise SpecError(
            f"version {version} is not supported, 1.0.0 to {OCI_VERSION} are", pointer="/ociVersion"
        )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and (text == "0" or text[0] != "0")


def _are_identifiers(sign: str, text: str, *, build: bool) -> bool:
    """SemVer items 9 and 10: what follows - or + is words between dots, of letters, digits and -.

    Only in a build's may a number have leading zeros.
    """
    if not sign:
        return True
    for word in text.split("."):
        if not word.isascii() or not word.replace("-", "a").isalnum():
            return False
        if word.isdigit() and not build and not _is_number(word):
            return False
    return True


def check_names(config: Config, namespaces: dict[str, str]) -> None:
    """config.md, "Hostname" and "Domainname": they are set in the container's UTS namespace."""
    for key, name in (
        ("hostname", config.get("hostname", "")),
        ("domainname", config.get("domainname", "")),
    ):
        if not name:
            continue
        if "uts" not in namespaces:
            raise SpecError("needs a uts namespace in /linux/namespaces", pointer=f"/{key}")
        if len(name.encode()) > HOSTNAME_LENGTH:
            raise SpecError(f"must have at most {HOSTNAME_LENGTH} bytes", pointer=f"/{key}")


def check_mounts(config: Config) -> None:
    """config.md, "POSIX-platform Mounts": uidMappings and gidMappings MUST come together."""
    for index, mount in enumerate(config.get("mounts", ())):
        if "uidMappings" in mount or "gidMappings" in mount:
            linux_rules.check_mapping_pair(mount, f"/mounts/{index}")


def check_hooks(config: Config) -> None:
    """config.md, "POSIX-platform Hooks": env has the same semantics as the process's."""
    for kind, hooks in config.get("hooks", {}).items():
        if kind in schema.HOOK_KINDS:
            for index, hook in enumerate(hooks):
                process_rules.check_env(hook.get("env", ()), f"/hooks/{kind}/{index}/env")
