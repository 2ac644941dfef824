"""The whole plan: namespaces, root, system parameters, hooks, and the words that describe it."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan import describe
from rootless_pyoki.plan.plan import Agent, TimeOffset
from rootless_pyoki.record import replace
from tests.plan import plans

FLAGS = {
    "user": c.CLONE_NEWUSER,
    "pid": c.CLONE_NEWPID,
    "network": c.CLONE_NEWNET,
    "mount": c.CLONE_NEWNS,
    "ipc": c.CLONE_NEWIPC,
    "uts": c.CLONE_NEWUTS,
    "cgroup": c.CLONE_NEWCGROUP,
}


def test_namespaces_keep_their_order() -> None:
    """Kind, flag, path and pointer of each, as configured."""
    entries = [{"type": "uts"}, {"type": "mount"}, {"type": "network", "path": "/run/netns/x"}]
    planned = plans.make(plans.config(linux={"namespaces": entries})).namespaces
    assert [(ns.kind, ns.path, ns.pointer) for ns in planned] == [
        ("uts", "", "/linux/namespaces/0"),
        ("mount", "", "/linux/namespaces/1"),
        ("network", "/run/netns/x", "/linux/namespaces/2"),
    ]
    assert all(ns.flag == FLAGS[ns.kind] for ns in planned)


def test_a_user_namespace_is_added_for_an_unprivileged_caller() -> None:
    """Without one no other could be made; that it was added is noted."""
    plan = plans.make(plans.config(), plans.USER)
    assert plan.namespaces[0].kind == "user"
    assert plan.idmap is not None
    assert "/linux/namespaces" in [note.pointer for note in plan.notes]


@pytest.mark.parametrize("facts", [plans.ROOT, plans.IN_PODMAN])
def test_no_user_namespace_is_added_where_none_is_needed(facts: Any) -> None:
    """Root, and root of podman's user namespace, get what they ask for."""
    plan = plans.make(plans.config(), facts)
    assert "user" not in [ns.kind for ns in plan.namespaces]
    assert plan.idmap is None
    assert plan.notes == ()


def test_a_joined_user_namespace_has_its_maps() -> None:
    """None is added and nothing is mapped."""
    made = plans.config()
    made["linux"]["namespaces"].append({"type": "user", "path": "/proc/1/ns/user"})
    assert plans.make(made, plans.USER).idmap is None


def test_a_mount_namespace_is_needed() -> None:
    """Else the container's mounts would be the caller's."""
    with pytest.raises(SpecError) as caught:
        plans.make(plans.config(without=("mount",)))
    assert caught.value.pointer == "/linux/namespaces"


def test_loopback() -> None:
    """It is brought up in a new network namespace only."""
    assert plans.make(plans.config()).loopback_up
    assert not plans.make(plans.config(without=("network",))).loopback_up


@pytest.mark.parametrize(
    ("key", "path", "token"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward", "net.ipv4.ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward", "net~1ipv4~1ip_forward"),
        (
            "net.ipv4.conf.eth0/1.forwarding",
            "net/ipv4/conf/eth0.1/forwarding",
            "net.ipv4.conf.eth0~11.forwarding",
        ),
        (
            "net/ipv4/conf/eth0.1/forwarding",
            "net/ipv4/conf/eth0.1/forwarding",
            "net~1ipv4~1conf~1eth0.1~1forwarding",
        ),
        ("kernel.msgmax", "kernel/msgmax", "kernel.msgmax"),
    ],
)
def test_sysctl(key: str, path: str, token: str) -> None:
    """sysctl(8): the first separator says what separates; the pointer names the member as written."""
    planned = plans.make(plans.config(linux={"sysctl": {key: "1"}})).sysctl
    assert planned == ((path, "1", f"/linux/sysctl/{token}"),)


def test_rootfs() -> None:
    """The path is the bundle's unless absolute; propagation as mount(2) wants it."""
    linux = {
        "rootfsPropagation": "rslave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
    }
    made = plans.config(linux=linux, root={"path": "fs", "readonly": True})
    rootfs = plans.make(made, no_pivot=True).rootfs
    assert (rootfs.path, rootfs.readonly, rootfs.no_pivot) == ("/bundle/fs", True, True)
    assert rootfs.propagation == c.MS_SLAVE | c.MS_REC
    assert (rootfs.masked_paths, rootfs.readonly_paths) == (("/proc/kcore",), ("/proc/sys",))
    plain = plans.make(plans.config(root={"path": "/fs"})).rootfs
    assert (plain.path, plain.readonly, plain.propagation) == ("/fs", False, 0)


def test_keyring() -> None:
    """A new one unless it was declined."""
    assert plans.make(plans.config()).new_keyring
    assert not plans.make(plans.config(), no_new_keyring=True).new_keyring


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("intelRdt", {"closID": "x"}),
        ("netDevices", {"eth0": {}}),
        ("mountLabel", "system_u:object_r:container_file_t:s0"),
    ],
)
def test_what_is_not_supported(field: str, value: Any) -> None:
    """It is refused with its pointer; empty it asks for nothing."""
    with pytest.raises(UnsupportedError) as caught:
        plans.make(plans.config(linux={field: value}))
    assert caught.value.pointer == f"/linux/{field}"
    empty = "" if isinstance(value, str) else {}
    assert plans.make(plans.config(linux={field: empty})).id == "one"


def test_time_namespace() -> None:
    """A new one has its offsets; one to join is like any other."""
    made = plans.config(
        linux={"timeOffsets": {"boottime": {"secs": -5, "nanosecs": 7}, "monotonic": {}}}
    )
    made["linux"]["namespaces"].append({"type": "time"})
    plan = plans.make(made)
    assert plan.namespaces[-1].flag == c.CLONE_NEWTIME
    assert plan.time_offsets == (
        TimeOffset(clock="boottime", secs=-5, nanosecs=7, pointer="/linux/timeOffsets/boottime"),
        TimeOffset(clock="monotonic", secs=0, nanosecs=0, pointer="/linux/timeOffsets/monotonic"),
    )
    assert "clock boottime off by -5 s 7 ns" in describe.describe(plan)
    del made["linux"]["timeOffsets"]
    made["linux"]["namespaces"][-1]["path"] = "/proc/1/ns/time"
    plan = plans.make(made)
    assert plan.namespaces[-1].path == "/proc/1/ns/time" and plan.time_offsets == ()


@pytest.mark.parametrize("clock", ["realtime", "1"])
def test_a_clock_that_no_namespace_has(clock: str) -> None:
    """time_namespaces(7) knows two; the others are the machine's."""
    made = plans.config(linux={"timeOffsets": {clock: {"secs": 1}}})
    made["linux"]["namespaces"].append({"type": "time"})
    with pytest.raises((SpecError, UnsupportedError)) as caught:
        plans.make(made)
    assert caught.value.pointer == f"/linux/timeOffsets/{clock}"


@pytest.mark.parametrize("path", ["", "/proc/1/ns/time"])
def test_a_kernel_without_time_namespaces(path: str) -> None:
    """Refused where it stands, whatever --unsupported says."""
    made = plans.config()
    made["linux"]["namespaces"].append({"type": "time", "path": path})
    with pytest.raises(UnsupportedError) as caught:
        plans.make(made, replace(plans.ROOT, time_namespaces=False), unsupported="ignore")
    assert caught.value.pointer == "/linux/namespaces/6"
    assert "time namespaces" in caught.value.message


def test_seccomp_listener() -> None:
    """The plan names the agent where a rule notifies; a listenerPath alone is ignored."""
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l.sock"}
    idle = plans.make(plans.config(linux={"seccomp": profile})).process.seccomp
    assert idle is not None and idle.agent is None
    profile["syscalls"] = [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]
    plan = plans.make(plans.config(linux={"seccomp": profile}))
    assert plan.process.seccomp is not None
    assert plan.process.seccomp.agent == Agent(
        path="/run/l.sock", metadata="", pointer="/linux/seccomp/listenerPath"
    )
    assert "seccomp listener goes to /run/l.sock" in describe.describe(plan)


HOOKS = {
    "prestart": "prestart",
    "createRuntime": "create_runtime",
    "createContainer": "create_container",
    "startContainer": "start_container",
    "poststart": "poststart",
    "poststop": "poststop",
}


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks(kind: str) -> None:
    """All fields, in order, and only of that kind."""
    entries = [
        {"path": "/bin/a", "args": ["a", "b"], "env": ["X=y"], "timeout": 3},
        {"path": "/bin/b"},
    ]
    hooks = plans.make(plans.config(hooks={kind: entries})).hooks
    first, second = getattr(hooks, HOOKS[kind])
    assert (first.path, first.args, first.env, first.timeout) == ("/bin/a", ("a", "b"), ("X=y",), 3)
    assert (second.path, second.args, second.env, second.timeout) == (
        "/bin/b",
        ("/bin/b",),
        None,
        0,
    )
    assert second.pointer == f"/hooks/{kind}/1"
    assert all(getattr(hooks, other) == () for name, other in HOOKS.items() if name != kind)


def test_the_plan_in_words() -> None:
    """Steps come in the order in which they are done; what is left out is told at the end."""
    made = plans.config(
        mounts=[
            {"destination": "/proc", "type": "proc", "options": ["nosuid"]},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rro"]},
        ],
        linux={
            "resources": {
                "pids": {"limit": 5},
                "devices": [{"allow": False}],
                "network": {"classID": 1},
            },
            "maskedPaths": ["/proc/kcore"],
            "sysctl": {"kernel.msgmax": "9"},
        },
        hostname="box",
        annotations={
            "org.systemd.property.KillSignal": "9",
            "run.oci.systemd.subgroup": "inner",
        },
        hooks={"poststop": [{"path": "/bin/hook"}]},
        process={"capabilities": {"bounding": ["CAP_KILL"]}},
    )
    lines = describe.describe(plans.make(made))
    expected = [
        "container one: bundle /bundle",
        "new namespaces: pid, network, ipc, uts, mount, cgroup",
        "pids.max = 5",
        "filter devices: 57 BPF instructions",
        "unit property KillSignal = 9",
        "cgroup inner below the unit's is the container's own",
        "bring lo up",
        "root filesystem /bundle/rootfs",
        "mount proc on /proc (nosuid)",
        "rbind /srv to /data (rro)",
        "make device /dev/null c 1:3 mode 0666 owner 0:0",
        "mask /proc/kcore",
        "pivot_root",
        "hostname box",
        "sysctl kernel/msgmax = 9",
        "uid 0 gid 0 groups none",
        "bounding capabilities KILL",
        "exec true",
        "poststop, when it is deleted, hook /bin/hook",
    ]
    assert [line for line in lines if line in expected] == expected
    assert lines[-1].startswith("note: /linux/resources/network/classID: ")
