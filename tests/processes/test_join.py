"""Namespaces that exist already: /linux/namespaces with a path (config-linux.md, "Namespaces")."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
LINKS = {
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "pid": "pid",
    "mount": "mnt",
    "cgroup": "cgroup",
}


@pytest.fixture
def pod(runtime: Runtime, make_bundle: Make) -> Iterator[int]:
    """The first process of a container whose namespaces others join."""
    bundle = make_bundle("sh", "-c", "touch /tmp/up; exec sleep 1003")
    bundle.config["hostname"] = "the-pod"
    runtime.run("pod", bundle.write().path, "--detach").ok()
    deadline = time.monotonic() + 5
    while not (bundle.rootfs / "tmp/up").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield runtime.state("pod")["pid"]
    for path in sorted(runtime.root.iterdir()):
        runtime.kill(path.name, "KILL")
    leaks.reap()  # the first process of a pid namespace ends after all others are waited for


def joining(bundle: Bundle, pid: int, *kinds: str) -> Bundle:
    """Join these namespaces of that process."""
    for kind in kinds:
        bundle.namespace(kind)["path"] = f"/proc/{pid}/ns/{LINKS[kind]}"
    if "user" in kinds:
        bundle.linux.pop("uidMappings")
        bundle.linux.pop("gidMappings")
    if "uts" in kinds:
        bundle.config.pop("hostname")
    return bundle.write()


def shown(runtime: Runtime, identifier: str, kinds: tuple[str, ...]) -> dict[str, str]:
    pid = runtime.state(identifier)["pid"]
    return {kind: os.readlink(f"/proc/{pid}/ns/{LINKS[kind]}") for kind in kinds}


@pytest.mark.parametrize(
    "kinds",
    [
        ("user",),
        ("user", "network"),
        ("user", "network", "ipc", "uts"),
        ("user", "pid"),
        ("user", "network", "ipc", "uts", "pid", "cgroup"),
    ],
    ids="+".join,
)
def test_of_another_container(
    runtime: Runtime, make_bundle: Make, identifier: str, pod: int, kinds: tuple[str, ...]
) -> None:
    """What podman's pods do: the user namespace with all that belongs to it."""
    bundle = joining(make_bundle("sleep", "1004"), pod, *kinds)
    runtime.run(identifier, bundle.path, "--detach").ok()
    expected = {kind: os.readlink(f"/proc/{pod}/ns/{LINKS[kind]}") for kind in kinds}
    assert shown(runtime, identifier, kinds) == expected
    others = tuple(set(LINKS) - set(kinds))
    mine, theirs = shown(runtime, identifier, others), shown(runtime, "pod", others)
    assert not {kind for kind in others if mine[kind] == theirs[kind]}
    if "uts" in kinds:
        assert runtime.exec(identifier, "hostname").ok().out == "the-pod\n"
    listed = runtime.exec(identifier, "ps", "-o", "args").ok().out
    assert ("sleep 1003" in listed) == ("pid" in kinds) and "sleep 1004" in listed
    assert "pyoki" not in listed
    runtime.kill(identifier, "KILL").ok()
    runtime.wait_status(identifier, "stopped")
    assert runtime.status("pod") == "running"
    runtime.delete(identifier).ok()


@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_one_alone(runtime: Runtime, make_bundle: Make, identifier: str, kind: str) -> None:
    """A namespace of the caller's, which has a user namespace of its own around it (podman's)."""
    if os.geteuid() == 0:
        pytest.skip("root needs no user namespace around it")
    bundle = make_bundle("sh", "-c", f"readlink /proc/self/ns/{LINKS[kind]}").single_map()
    for ids in ("uidMappings", "gidMappings"):
        bundle.linux[ids][0]["hostID"] = 0
    # a new mqueue shows the ipc namespace, which is not the container's own
    kinds = ("cgroup", "mqueue") if kind == "ipc" else ("cgroup",)
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] not in kinds]
    bundle.namespace(kind)["path"] = f"/proc/self/ns/{LINKS[kind]}"
    bundle.config.pop("hostname")
    bundle.write()
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    prefix = [
        *("unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc", "--uts", "sh", "-c"),
        f'readlink /proc/self/ns/{LINKS[kind]}; exec "$@"',
        "sh",
    ]
    outside, inside = plain.run(identifier, bundle.path, prefix=prefix).ok().out.split()
    assert outside == inside


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "pid"])
def test_refused(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, kind: str
) -> None:
    """The machine's own namespaces: the error names the entry."""
    if os.geteuid() == 0:
        pytest.skip("root may join them")
    bundle = make_bundle("true")
    entries = bundle.linux["namespaces"]
    index = [entry["type"] for entry in entries].index(kind)
    entries[index]["path"] = f"/proc/self/ns/{LINKS[kind]}"
    bundle.config.pop("hostname")
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "EPERM" in result.err, str(result)
    assert f"/linux/namespaces/{index}/path" in result.err


@pytest.mark.parametrize(
    ("path", "word"),
    [("/no/such/namespace", "ENOENT"), ("/proc/self/ns/uts", "EINVAL"), ("/etc/passwd", "EINVAL")],
)
def test_wrong_paths(
    runtime: Runtime, make_bundle: Make, identifier: str, path: str, word: str
) -> None:
    """Not there, another type's, or no namespace at all."""
    bundle = make_bundle("true")
    entries = bundle.linux["namespaces"]
    index = [entry["type"] for entry in entries].index("network")
    entries[index]["path"] = path
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and word in result.err, str(result)
    assert f"/linux/namespaces/{index}/path" in result.err


def test_its_own_user_namespace(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """setns(2) would say EINVAL and no more: the reason is told, and what to do."""
    bundle = joining(make_bundle("true"), os.getpid(), "user")
    result = runtime.run(identifier, bundle.path)
    assert result.code == 1 and "it is the caller's own" in result.err, str(result)
    assert "/linux/namespaces/5/path" in result.err and "hint:" in result.err


def test_a_mount_namespace(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """With its user namespace: the container is built in there, and is in there."""
    with subprocess.Popen(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", "echo; exec sleep 1005"],
        stdout=subprocess.PIPE,
    ) as other:
        try:
            assert other.stdout is not None
            other.stdout.readline()
            bundle = joining(make_bundle("sleep", "1006"), other.pid, "user", "mount")
            expected = os.readlink(f"/proc/{other.pid}/ns/mnt")
            runtime.run(identifier, bundle.path, "--detach").ok()
            assert shown(runtime, identifier, ("mount",)) == {"mount": expected}
            assert "bin" in runtime.exec(identifier, "ls", "/").ok().out
            runtime.delete(identifier, force=True).ok()
        finally:
            other.kill()


def test_killed_with_the_pod(
    runtime: Runtime, make_bundle: Make, identifier: str, pod: int
) -> None:
    """The end of a joined pid namespace ends who joined it."""
    bundle = joining(make_bundle(), pod, "user", "pid")
    runtime.run(identifier, bundle.path, "--detach").ok()
    runtime.kill("pod", "KILL").ok()
    runtime.wait_status(identifier, "stopped")
    runtime.delete(identifier).ok()
