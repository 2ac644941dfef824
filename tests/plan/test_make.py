"""The whole plan: namespaces, root, system parameters, hooks, and the words that describe it."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan import describe
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
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/1.forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
        ("kernel.msgmax", "kernel/msgmax"),
    ],
)
def test_sysctl(key: str, path: str) -> None:
    """sysctl(8): the first separator says what separates."""
    assert plans.make(plans.config(linux={"sysctl": {key: "1"}})).sysctl == ((path, "1"),)


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
        ("memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0"}),
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
    if field != "memoryPolicy":
        assert plans.make(plans.config(linux={field: empty})).id == "one"


def test_personality() -> None:
    """LINUX is what everybody has."""
    assert plans.make(plans.config(linux={"personality": {"domain": "LINUX"}})).id == "one"
    with pytest.raises(UnsupportedError) as caught:
        plans.make(plans.config(linux={"personality": {"domain": "LINUX32"}}))
    assert caught.value.pointer == "/linux/personality/domain"


def test_time_namespace() -> None:
    """A new one is refused, one to join is like any other."""
    made = plans.config()
    made["linux"]["namespaces"].append({"type": "time"})
    with pytest.raises(UnsupportedError) as caught:
        plans.make(made)
    assert caught.value.pointer == "/linux/namespaces/6"
    made["linux"]["namespaces"][-1]["path"] = "/proc/1/ns/time"
    assert plans.make(made).namespaces[-1].flag == c.CLONE_NEWTIME


def test_seccomp_listener() -> None:
    """A profile that needs somebody to listen is refused."""
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l.sock"}
    with pytest.raises(UnsupportedError) as caught:
        plans.make(plans.config(linux={"seccomp": profile}))
    assert caught.value.pointer == "/linux/seccomp/listenerPath"


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
    assert (second.path, second.args, second.env, second.timeout) == ("/bin/b", ("/bin/b",), (), 0)
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
            "resources": {"pids": {"limit": 5}, "devices": [{"allow": False}]},
            "maskedPaths": ["/proc/kcore"],
            "sysctl": {"kernel.msgmax": "9"},
        },
        hostname="box",
        hooks={"poststop": [{"path": "/bin/hook"}]},
        process={"capabilities": {"bounding": ["CAP_KILL"]}},
    )
    lines = describe.describe(plans.make(made))
    expected = [
        "container one: bundle /bundle",
        "new namespaces: pid, network, ipc, uts, mount, cgroup",
        "pids.max = 5",
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
    assert lines[-1].startswith("note: /linux/resources/devices: ")
