"""Configurations that the specification forbids, each refused with the place of what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec.validate import validate
from tests.conformance.conftest import World
from tests.spec import configs
from tests.support.bundles import Bundle

Invalid = Callable[..., SpecError]
DEVICE = "/linux/resources/blockIO/throttleReadBpsDevice"
REQUIRED = [
    ("config.md, Specification version", "/ociVersion"),
    ("config.md, Root", "/root"),
    ("config.md, Root", "/root/path"),
    ("config.md, Mounts", "/mounts/0/destination"),
    ("config.md, Process", "/process/consoleSize/height"),
    ("config.md, Process", "/process/consoleSize/width"),
    ("config.md, Process", "/process/cwd"),
    ("config.md, Process", "/process/args"),
    ("config.md, POSIX process", "/process/rlimits/0/type"),
    ("config.md, POSIX process", "/process/rlimits/0/soft"),
    ("config.md, POSIX process", "/process/rlimits/0/hard"),
    ("config.md, Linux Process", "/process/scheduler/policy"),
    ("config.md, Linux Process", "/process/ioPriority/class"),
    ("config.md, Linux Process", "/process/ioPriority/priority"),
    ("config.md, POSIX-platform User", "/process/user/uid"),
    ("config.md, POSIX-platform User", "/process/user/gid"),
    ("config.md, POSIX-platform Hooks", "/hooks/prestart/0/path"),
    ("config.md, POSIX-platform Hooks", "/hooks/createRuntime/0/path"),
    ("config-linux.md, Namespaces", "/linux/namespaces/0/type"),
    ("config-linux.md, User namespace mappings", "/linux/uidMappings/0/containerID"),
    ("config-linux.md, User namespace mappings", "/linux/uidMappings/0/hostID"),
    ("config-linux.md, User namespace mappings", "/linux/gidMappings/0/size"),
    ("config-linux.md, Devices", "/linux/devices/0/type"),
    ("config-linux.md, Devices", "/linux/devices/0/path"),
    ("config-linux.md, Devices", "/linux/devices/0/major"),
    ("config-linux.md, Devices", "/linux/devices/0/minor"),
    ("config-linux.md, Allowed Device list", "/linux/resources/devices/0/allow"),
    ("config-linux.md, Block IO", "/linux/resources/blockIO/weightDevice/0/major"),
    ("config-linux.md, Block IO", "/linux/resources/blockIO/weightDevice/0/minor"),
    ("config-linux.md, Block IO", f"{DEVICE}/0/major"),
    ("config-linux.md, Block IO", f"{DEVICE}/0/minor"),
    ("config-linux.md, Block IO", f"{DEVICE}/0/rate"),
    ("config-linux.md, Block IO", f"{DEVICE.replace('Bps', 'IOPS')}/0/rate"),
    ("config-linux.md, Huge page limits", "/linux/resources/hugepageLimits/0/pageSize"),
    ("config-linux.md, Huge page limits", "/linux/resources/hugepageLimits/0/limit"),
    ("config-linux.md, Network", "/linux/resources/network/priorities/0/name"),
    ("config-linux.md, Network", "/linux/resources/network/priorities/0/priority"),
    ("config-linux.md, Memory policy", "/linux/memoryPolicy/mode"),
    ("config-linux.md, Seccomp", "/linux/seccomp/defaultAction"),
    ("config-linux.md, Seccomp", "/linux/seccomp/syscalls/0/names"),
    ("config-linux.md, Seccomp", "/linux/seccomp/syscalls/0/action"),
    ("config-linux.md, Seccomp", "/linux/seccomp/syscalls/0/args/0/index"),
    ("config-linux.md, Seccomp", "/linux/seccomp/syscalls/0/args/0/value"),
    ("config-linux.md, Seccomp", "/linux/seccomp/syscalls/0/args/0/op"),
    ("config-linux.md, Personality", "/linux/personality/domain"),
]


def whole() -> dict[str, Any]:
    """A right configuration in which everything that has a required member is there."""
    config = configs.full()
    config["hooks"]["prestart"] = copy.deepcopy(config["hooks"]["createRuntime"])
    resources = config["linux"]["resources"]
    throttle = [{"major": 8, "minor": 0, "rate": 600}]
    resources["blockIO"] = {
        "weightDevice": [{"major": 8, "minor": 0, "weight": 100}],
        "throttleReadBpsDevice": copy.deepcopy(throttle),
        "throttleReadIOPSDevice": copy.deepcopy(throttle),
    }
    resources["network"] = {"priorities": [{"name": "eth0", "priority": 1}]}
    return config


@pytest.mark.parametrize(("where", "at"), REQUIRED, ids=lambda v: v if v[0] == "/" else "")
def test_a_missing_member_is_refused(where: str, at: str) -> None:
    """config.md and config-linux.md, all sections: a REQUIRED member may not be missing."""
    validate(whole())
    config = whole()
    *way, last = at.split("/")[1:]
    parent: Any = config
    for key in way:
        parent = parent[int(key)] if isinstance(parent, list) else parent[key]
    del parent[last]
    with pytest.raises(SpecError) as caught:
        validate(config)
    assert caught.value.pointer == at and "required" in caught.value.message, where


@pytest.mark.parametrize(
    "version",
    ["1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3-a..b",
     "1.2.3+", "1.2.3-é", "1.2.3+a_b", " 1.2.3"],
)  # fmt: skip
def test_the_version_is_a_semantic_one(invalid: Invalid, version: str) -> None:
    """config.md, "Specification version": ociVersion MUST be in SemVer v2.0.0 format."""
    invalid("/ociVersion", version)


def test_semantic_versions_are_taken() -> None:
    """config.md, "Specification version": pre-releases and build metadata are part of the format."""
    for version in ("1.0.0", "1.3.0-dev", "1.2.1-rc.1+b.01", "1.0.0--.0a", "1.99.0"):
        validate(configs.put(configs.full(), "/ociVersion", version))


def test_the_root_filesystem_is_there(world: World, bundle: Bundle) -> None:
    """config.md, "Root": a directory MUST exist at the path of root."""
    bundle.config["root"]["path"] = "nowhere"
    world.refused(bundle, "/root/path")
    (bundle.path / "nowhere").write_text("a file is no directory")
    world.refused(bundle, "/root/path")


def test_mappings_of_a_mount_come_in_pairs(invalid: Invalid) -> None:
    """config.md, "POSIX-platform Mounts": uidMappings and gidMappings MUST be given together."""
    invalid("/mounts/2/gidMappings", None, "/mounts/2/uidMappings")
    invalid("/mounts/2/uidMappings", None, "/mounts/2/gidMappings")


def test_the_working_directory_is_absolute(invalid: Invalid) -> None:
    """config.md, "Process": cwd MUST be an absolute path."""
    invalid("/process/cwd", "tmp")


def test_there_is_a_program(invalid: Invalid) -> None:
    """config.md, "Process": at least one entry is REQUIRED in args."""
    invalid("/process/args", [])


def test_an_unknown_resource_limit(invalid: Invalid) -> None:
    """config.md, "POSIX process": what the kernel does not know MUST be an error."""
    invalid("/process/rlimits/0/type", "RLIMIT_PATIENCE")


def test_a_resource_limited_twice(invalid: Invalid) -> None:
    """config.md, "POSIX process": entries with the same type MUST be an error."""
    invalid("/process/rlimits/1/type", "RLIMIT_NOFILE")


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer", "startContainer",
                                  "poststart", "poststop"])  # fmt: skip
def test_hooks_have_absolute_paths_and_positive_timeouts(kind: str) -> None:
    """config.md, "POSIX-platform Hooks": path MUST be absolute, timeout MUST exceed zero."""
    for member, value in (("path", "bin/hook"), ("timeout", 0), ("timeout", -1)):
        config = configs.full()
        config["hooks"] = {kind: [{"path": "/bin/hook", "timeout": 1}]}
        validate(config)
        config["hooks"][kind][0][member] = value
        with pytest.raises(SpecError) as caught:
            validate(config)
        assert caught.value.pointer == f"/hooks/{kind}/0/{member}"


def test_annotations_are_a_map_of_strings(invalid: Invalid) -> None:
    """config.md, "Annotations": a map; keys and values MUST be strings, no key may be empty."""
    invalid("/annotations", [["a", "b"]])
    invalid("/annotations/a", 5)
    invalid("/annotations/a", ["b"])
    invalid("/annotations/", "b")


@pytest.mark.parametrize(
    ("at", "value"),
    [
        ("/process/terminal", "yes"),
        ("/process/oomScoreAdj", 1001),
        ("/process/scheduler/policy", "SCHED_SOON"),
        ("/process/ioPriority/class", "IOPRIO_CLASS_NOW"),
        ("/linux/namespaces/0/type", "moon"),
        ("/linux/rootfsPropagation", "wild"),
        ("/linux/memoryPolicy/mode", "MPOL_NEAR"),
        ("/linux/personality/domain", "MVS"),
        ("/linux/devices/0/type", "z"),
    ],
)
def test_invalid_values_are_errors(invalid: Invalid, at: str, value: Any) -> None:
    """config.md, "Valid values": invalid or unsupported values MUST be an error."""
    invalid(at, value)


def test_unknown_members_are_ignored() -> None:
    """config.md, "Extensibility" and "Annotations": unknown properties MUST be ignored."""
    config = configs.full()
    for at in (config, config["process"], config["linux"], config["root"], config["mounts"][0]):
        at["org.example.unknown"] = {"deep": [None, 1]}
    config["annotations"]["org.example.unknown"] = "x"
    config["annotations"]["org.opencontainers.unknown"] = "x"
    validate(config)


def test_a_namespaces_path_is_absolute(invalid: Invalid) -> None:
    """config-linux.md, "Namespaces": path MUST be an absolute path."""
    invalid("/linux/namespaces/2/path", "proc/1/ns/net")


def test_a_namespace_given_twice(invalid: Invalid) -> None:
    """config-linux.md, "Namespaces": duplicated namespaces MUST be an error."""
    invalid("/linux/namespaces/2/type", "user")


@pytest.mark.parametrize("entry", [{"major": 8, "minor": 0}])
def test_a_weight_of_a_device_names_a_weight(invalid: Invalid, entry: dict[str, int]) -> None:
    """config-linux.md, "Block IO": at least one of weight and leafWeight MUST be specified."""
    invalid("/linux/resources/blockIO/weightDevice", [entry],
            "/linux/resources/blockIO/weightDevice/0")  # fmt: skip


def test_a_limit_of_rdma_names_a_limit(invalid: Invalid) -> None:
    """config-linux.md, "RDMA": at least one of hcaHandles and hcaObjects MUST be specified."""
    invalid("/linux/resources/rdma/mlx5_1", {})


def test_a_burst_is_no_larger_than_the_quota(invalid: Invalid) -> None:
    """config-linux.md, "CPU": burst MUST be no larger than any positive quota."""
    cpu = {"quota": 1000, "burst": 1001, "period": 100000}
    invalid("/linux/resources/cpu", cpu, "/linux/resources/cpu/burst")
    for good in ({"quota": 1000, "burst": 1000}, {"quota": -1, "burst": 9}, {"burst": 9}):
        validate(configs.put(configs.full(), "/linux/resources/cpu", good))


def test_the_memory_bandwidth_is_one_line(invalid: Invalid) -> None:
    """config-linux.md, "IntelRdt": memBwSchema MUST start with MB: and MUST NOT hold newlines."""
    invalid("/linux/intelRdt/memBwSchema", "L3:0=7")
    invalid("/linux/intelRdt/memBwSchema", "MB:0=20\nL3:0=7")


def test_a_schema_is_one_line(invalid: Invalid) -> None:
    """config-linux.md, "IntelRdt": an element of schemata MUST NOT hold newlines."""
    invalid("/linux/intelRdt/schemata", ["L3:0=7", "L2:0=1\nMB:0=10"],
            "/linux/intelRdt/schemata/1")  # fmt: skip


def test_a_rule_of_seccomp_names_a_system_call(invalid: Invalid) -> None:
    """config-linux.md, "Seccomp": names MUST contain at least one entry."""
    invalid("/linux/seccomp/syscalls/0/names", [])


def test_metadata_without_a_listener(invalid: Invalid) -> None:
    """config-linux.md, "Seccomp": listenerMetadata MUST NOT be set without listenerPath."""
    invalid("/linux/seccomp/listenerMetadata", "x")


def test_masked_paths_are_absolute(invalid: Invalid) -> None:
    """config-linux.md, "Masked Paths": the values MUST be absolute paths."""
    invalid("/linux/maskedPaths/0", "proc/kcore")


def test_read_only_paths_are_absolute(invalid: Invalid) -> None:
    """config-linux.md, "Readonly Paths": the values MUST be absolute paths."""
    invalid("/linux/readonlyPaths/0", "proc/sys")


def test_a_configuration_is_utf_8(world: World, bundle: Bundle) -> None:
    """glossary.md, "JSON": all configuration MUST be encoded in UTF-8."""
    text = (bundle.path / "config.json").read_bytes()
    for bad in (text.replace(b"pyoki-test", b"pyok\xff"), text.decode().encode("utf-16")):
        (bundle.path / "config.json").write_bytes(bad)
        id = world.id()
        result = world.runtime.create(id, bundle.path)
        assert result.code == 1 and "config.json" in result.err, str(result)
        assert world.runtime.status(id) == ""


def test_the_configuration_is_config_json(world: World, bundle: Bundle) -> None:
    """bundle.md, "Container Format": config.json is REQUIRED, and MUST reside in the root of the bundle."""
    (bundle.path / "config.json").rename(bundle.path / "rootfs/config.json")
    result = world.runtime.create(world.id(), bundle.path)
    assert result.code == 1 and "config.json" in result.err, str(result)
