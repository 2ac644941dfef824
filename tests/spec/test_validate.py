"""config.json against the specification."""

from __future__ import annotations

import copy
import json
import random
import time
from typing import Any

import pytest

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec.validate import validate, validate_process
from tests.spec import configs

full, put = configs.full, configs.put

MAP = {"containerID": 0, "hostID": 0, "size": 1}


def refused(config: Any) -> SpecError:
    with pytest.raises(SpecError) as caught:
        validate(config)
    return caught.value


def test_a_right_configuration_passes_unchanged() -> None:
    """With a field of every kind in it."""
    config = full()
    validate(config)
    assert config == configs.FULL


def test_the_least_configuration_passes() -> None:
    """What the specification requires; a process is, only when it is started."""
    least = {"ociVersion": "1.0.0", "root": {"path": "r"}}
    validate(dict(least))
    validate({**least, "process": {"cwd": "/", "args": ["x"]}})


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.3.0+dev.1", "1.99.0", "1.2.1-rc.1+b"])
def test_all_of_version_1_is_taken(version: str) -> None:
    """The 1.x series is compatible with itself."""
    validate(put(full(), "/ociVersion", version))


# what is put where, what the message must hold, and the pointer if it is another one
WRONG: list[tuple[str, Any, str, str | None]] = [
    ("/ociVersion", "2.0.0", "version 2.0.0 is not supported", None),
    ("/ociVersion", "0.5.0-dev", "is not supported", None),
    ("/ociVersion", "1.0", "no semantic version", None),
    ("/ociVersion", "1.0.x", "no semantic version", None),
    ("/ociVersion", "01.0.0", "no semantic version", None),
    ("/ociVersion", "", "no semantic version", None),
    ("/ociVersion", 1, "must be a string, not a number", None),
    ("/ociVersion", None, "is required", None),
    ("/root", None, "is required", None),
    ("/root", [], "must be an object, not a list", None),
    ("/root/path", "", "must not be empty", None),
    ("/root/path", "a\0b", "NUL", None),
    ("/root/readonly", "yes", "must be true or false, not a string", None),
    ("/process/cwd", None, "is required", None),
    ("/process/cwd", "tmp", "must be an absolute path, not 'tmp'", None),
    ("/process/args", None, "is required", None),
    ("/process/args", [], "must name a program", None),
    ("/process/args/1", 5, "must be a string, not a number", None),
    ("/process/args/0", "s\0h", "NUL", None),
    ("/process/args/0", "\ud800", "surrogate", None),
    ("/process/env/1", "NOVALUE", "must be of the form NAME=value", None),
    ("/process/env/0", "=x", "must be of the form NAME=value", None),
    ("/process/terminal", 1, "must be true or false, not a number", None),
    ("/process/consoleSize/height", 65536, "must be from 0 to 65535", None),
    ("/process/consoleSize/width", True, "must be a whole number, not a boolean", None),
    ("/process/user/uid", -1, "must be from 0 to 4294967294", None),
    ("/process/user/gid", 2**32 - 1, "must be from 0 to 4294967294", None),
    ("/process/user/umask", 0o1000, "must be from 0 to 511", None),
    ("/process/user/additionalGids/1", "6", "must be a whole number", None),
    ("/process/capabilities/ambient", "CAP_KILL", "must be a list, not a string", None),
    ("/process/rlimits/0/type", "RLIMIT_FUN", "no resource limit", None),
    ("/process/rlimits/1/type", "RLIMIT_NOFILE", "RLIMIT_NOFILE is limited twice", None),
    ("/process/rlimits/0/soft", 4096, "above the hard limit", None),
    ("/process/rlimits/0/hard", 2**64, "must be from 0 to", None),
    ("/process/rlimits/0/hard", None, "is required", None),
    ("/process/oomScoreAdj", -1001, "must be from -1000 to 1000", None),
    ("/process/scheduler/policy", "SCHED_FAST", "no scheduling policy", None),
    ("/process/scheduler/nice", 20, "must be from -20 to 19", None),
    ("/process/ioPriority/class", "IOPRIO_CLASS_X", "no I/O priority class", None),
    ("/process/ioPriority/priority", 8, "must be from 0 to 7", None),
    ("/process/execCPUAffinity/initial", "all", "not of the form 0-3,7", None),
    ("/hostname", "x" * 65, "at most 64 bytes", None),
    ("/domainname", 7, "must be a string", None),
    ("/mounts/0/destination", None, "is required", None),
    ("/mounts/0/destination", "", "must not be empty", None),
    ("/mounts/1/options/1", 5, "must be a string, not a number", None),
    ("/mounts/2/gidMappings", None, "needs gidMappings beside it", "/mounts/2/uidMappings"),
    ("/mounts/2/uidMappings/0/size", 0, "must be at least 1", None),
    ("/mounts/3", "x", "must be an object, not a string", None),
    ("/hooks/createRuntime/0/path", "hook", "must be an absolute path", None),
    ("/hooks/createRuntime/0/timeout", 0, "must be from 1 to", None),
    ("/hooks/createRuntime/0/env/0", "A", "NAME=value", None),
    ("/hooks/poststop", {}, "must be a list", None),
    ("/annotations/a~1b", 1, "must be a string", None),
    ("/annotations/", "x", "must not have an empty name", None),
    ("/linux/namespaces/0/type", "net", "'net' is no namespace type", None),
    ("/linux/namespaces/1/type", "user", "there are two user namespaces", None),
    ("/linux/namespaces/2/path", "ns/net", "must be an absolute path", None),
    ("/linux/uidMappings/0/size", 0, "must be at least 1", None),
    ("/linux/uidMappings/1/size", 2**32 - 1, "beyond the last id", "/linux/uidMappings/1"),
    ("/linux/uidMappings/1/containerID", 0, "overlaps the range of entry 0", None),
    ("/linux/uidMappings/1/hostID", 1000, "overlaps the range of entry 0", None),
    ("/linux/uidMappings/0/hostID", 165535, "overlaps", "/linux/uidMappings/1/hostID"),
    ("/linux/gidMappings", [], "needs gidMappings beside it", "/linux/uidMappings"),
    (
        "/linux/uidMappings",
        [{"containerID": n, "hostID": n, "size": 1} for n in range(341)],
        "at most 340 entries, not 341",
        None,
    ),
    ("/linux/timeOffsets/boottime/nanosecs", 10**9, "must be from 0 to 999999999", None),
    ("/linux/devices/0/type", "x", "no device type", None),
    ("/linux/devices/0/path", "dev/fuse", "must be an absolute path", None),
    ("/linux/devices/0/minor", None, "is required", None),
    ("/linux/devices/0/major", -1, "must be from 0 to 4095", None),
    ("/linux/devices/1/type", "u", "is required", "/linux/devices/1/major"),
    ("/linux/netDevices/eth0/name", "a/b", "no name of a network interface", None),
    ("/linux/netDevices/sixteen_letters_", {}, "no name of a network interface", None),
    ("/linux/resources/memory/limit", "1M", "must be a whole number", None),
    ("/linux/resources/memory/swappiness", 101, "must be from 0 to 100", None),
    ("/linux/resources/hugepageLimits/0/pageSize", "2MiB", "must be a size such as 2MB", None),
    ("/linux/resources/hugepageLimits/0/pageSize", "02MB", "must be a size such as 2MB", None),
    ("/linux/resources/unified/a~1b", "1", "the name of a file", None),
    ("/linux/resources/rdma/mlx5_1", 1, "must be an object", None),
    ("/linux/rootfsPropagation", "public", "no mount propagation", None),
    ("/linux/seccomp/defaultAction", None, "is required", None),
    ("/linux/seccomp/syscalls/0/names", [], "at least one entry", None),
    ("/linux/seccomp/syscalls/0/args/0/value", -1, "must be from 0 to", None),
    ("/linux/seccomp/listenerMetadata", "x", "needs listenerPath", None),
    ("/linux/sysctl/vm.overcommit_memory", "1", "belongs to the whole machine", None),
    ("/linux/sysctl/kernel.shmmax", 5, "must be a string, not a number", None),
    ("/linux/sysctl/net~1..~1kernel~1sem", "1", "no name of a kernel parameter", None),
    ("/linux/sysctl/kernel.sem.x", "1", "belongs to the whole machine", None),
    ("/linux/maskedPaths/0", "proc", "must be an absolute path", None),
    ("/linux/readonlyPaths/0", "", "must be an absolute path", None),
    ("/linux/personality/domain", "BSD", "no personality", None),
    ("/linux/personality/flags", ["X"], "no personality flag", "/linux/personality/flags/0"),
    ("/linux/intelRdt/memBwSchema", "L3:0=1", "starts with MB:", None),
    ("/linux/intelRdt/memBwSchema", "", "starts with MB:", None),
    ("/linux/memoryPolicy/mode", "MPOL_X", "no memory policy", None),
    ("/linux/memoryPolicy/nodes", "zero", "not of the form", None),
]


@pytest.mark.parametrize(("at", "value", "message", "pointer"), WRONG, ids=lambda v: str(v)[:60])
def test_what_is_wrong_is_refused_where_it_is(
    at: str, value: Any, message: str, pointer: str | None
) -> None:
    """One thing is wrong; the error names it and its place."""
    error = refused(put(full(), at, value))
    assert message in error.message
    assert error.pointer == (pointer or at)


@pytest.mark.parametrize(
    ("kind", "pointer"),
    [
        ("uts", "/hostname"),
        ("user", "/linux/uidMappings"),
        ("time", "/linux/timeOffsets"),
        ("network", "/linux/netDevices"),
        ("ipc", "/linux/sysctl/kernel.msgmax"),
    ],
)
def test_what_belongs_to_a_namespace_needs_it(kind: str, pointer: str) -> None:
    """Otherwise it would be the host's that is changed."""
    config = full()
    config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != kind]
    error = refused(config)
    assert error.pointer == pointer
    assert kind in error.message


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("net.core.somaxconn", "network"),
        ("net/ipv4/conf/eth0.1/forwarding", "network"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.shm_rmid_forced", "ipc"),
        ("kernel.domainname", "uts"),
        ("user.max_user_namespaces", "user"),
    ],
)
def test_a_parameter_of_a_namespace_may_be_set_in_it(key: str, kind: str) -> None:
    """And not without it."""
    config = full()
    config["linux"] = {"namespaces": [{"type": kind}], "sysctl": {key: "1"}}
    del config["hostname"], config["domainname"]
    validate(copy.deepcopy(config))
    config["linux"]["namespaces"] = []
    assert f"needs a {kind} namespace" in refused(config).message


def test_no_limit_for_neighbours_that_touch() -> None:
    """Ranges may meet, in any order, up to the last id."""
    config = full()
    config["linux"]["uidMappings"] = [
        {"containerID": 10, "hostID": 2**32 - 2, "size": 1},
        {"containerID": 0, "hostID": 5, "size": 10},
        {"containerID": 11, "hostID": 0, "size": 5},
    ]
    validate(config)


def test_null_members_are_removed() -> None:
    """So that nothing later meets a None; a null in a list is an error all the same."""
    config = full()
    config["mounts"][0]["options"] = None
    config["linux"]["resources"]["pids"] = None
    config["hooks"] = None
    validate(config)
    assert "options" not in config["mounts"][0]
    assert "pids" not in config["linux"]["resources"]
    assert "hooks" not in config
    assert refused(put(full(), "/mounts/0", None)).pointer == "/mounts/0"


def test_unknown_members_are_ignored() -> None:
    """config.md, "Extensibility"."""
    config = full()
    config["windows"] = 5
    config["linux"]["future"] = [None]
    config["process"]["capabilities"]["future"] = [1]
    validate(config)


def test_console_size_is_ignored_without_a_terminal() -> None:
    """config.md, "Process": MUST ignore."""
    config = put(full(), "/process/consoleSize/height", 2**40)
    config["process"]["terminal"] = False
    validate(config)


def test_a_joined_time_namespace_has_its_offsets() -> None:
    """They can be set in a new one only."""
    error = refused(put(full(), "/linux/namespaces/7/path", "/proc/1/ns/time"))
    assert error.pointer == "/linux/timeOffsets"


def test_a_process_alone_has_pointers_of_its_own() -> None:
    """What exec --process reads starts at the root of its own document."""
    validate_process({"cwd": "/", "args": ["x"]})
    for pointer in ("", "/process"):
        with pytest.raises(SpecError) as caught:
            validate_process({"cwd": "/", "args": ["x"], "env": [1]}, pointer)
        assert caught.value.pointer == f"{pointer}/env/0"
    with pytest.raises(SpecError) as caught:
        validate_process([])
    assert caught.value.pointer == ""


def test_nothing_but_a_spec_error_comes_out() -> None:
    """Whatever is put wherever: a right answer or a SpecError whose pointer leads somewhere."""
    rng = random.Random(7)
    values = [None, True, -1, 2**70, 0.5, "", "\0", "x", "/x", [], [None], [[]], {}, {"": None}]
    for _ in range(1500):
        config = full()
        at = config
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            key = rng.choice(keys)
            if not isinstance(at[key], (dict, list)) or not at[key] or rng.random() < 0.2:
                break
            at = at[key]
        at[key] = copy.deepcopy(rng.choice(values))
        try:
            validate(config)
        except SpecError as error:
            assert error.pointer == "" or error.pointer[0] == "/"


@pytest.mark.parametrize("value", [None, 1, "x", [], {}])
def test_a_document_that_is_no_configuration_is_refused(value: Any) -> None:
    """At its root."""
    refused(value)


def test_a_large_profile_is_quick() -> None:
    """Five hundred names of system calls take a tenth of a millisecond; the bound is generous."""
    config = full()
    config["linux"]["seccomp"]["syscalls"] = [
        {"names": [f"call{n}_{m}" for m in range(15)], "action": "SCMP_ACT_ALLOW"}
        for n in range(35)
    ]
    raw = json.dumps(config)
    best = 1.0
    for _ in range(20):
        config = json.loads(raw)
        start = time.perf_counter()
        validate(config)
        best = min(best, time.perf_counter() - start)
    assert best < 0.005
