"""config-linux.md, "Namespaces", "User namespace mappings", "Masked Paths" and its like."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.conformance.conftest import World, only
from tests.support import needs
from tests.support.bundles import Bundle

LINKS = {"pid": "pid", "network": "net", "mount": "mnt", "ipc": "ipc", "uts": "uts",
         "user": "user", "cgroup": "cgroup"}  # fmt: skip


def read(pid: int | str) -> dict[str, str]:
    return {kind: os.readlink(f"/proc/{pid}/ns/{link}") for kind, link in LINKS.items()}


@pytest.fixture(scope="module")
def sleeper(world: World) -> dict[str, str]:
    """The namespaces of a container, by kind."""
    bundle = world.bundle()
    id = world.create(bundle)
    world.runtime.start(id).ok()
    found = read(world.runtime.state(id)["pid"])
    if "user" not in [entry["type"] for entry in bundle.linux["namespaces"]]:
        found.pop("user")
    return found


@pytest.mark.parametrize("kind", LINKS)
def test_new_namespaces(sleeper: dict[str, str], kind: str) -> None:
    """config-linux.md, "Namespaces": without a path a new namespace MUST be created."""
    only(kind in sleeper, "this container has no user namespace")
    assert sleeper[kind] != read("self")[kind]


def test_a_new_time_namespace(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Namespaces" and "Offset for Time Namespace": a time namespace is new too."""
    needs.require(os.path.exists("/proc/self/ns/time"), "no time namespaces in this kernel")
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 10_000_000}}
    seen = world.observe(bundle, {"time": "readlink /proc/self/ns/time; cat /proc/uptime"})["time"]
    link, uptime = seen.splitlines()
    assert link != os.readlink("/proc/self/ns/time")
    assert float(uptime.split()[0]) > 9_999_999


@pytest.mark.parametrize("kind", ["network", "ipc", "uts", "cgroup", "pid"])
def test_inherited_namespaces(world: World, bundle: Bundle, kind: str) -> None:
    """config-linux.md, "Namespaces": a type that is not specified MUST be inherited."""
    bundle.without_namespace(kind)
    if kind == "uts":
        del bundle.config["hostname"]
    # a new proc takes a new pid namespace, a new mqueue a new ipc namespace
    mounts = [
        m for m in bundle.config["mounts"] if m["destination"] not in ("/proc", "/dev/mqueue")
    ]
    mounts.insert(0, {"destination": "/proc", "source": "/proc", "options": ["rbind"]})
    bundle.config["mounts"] = mounts
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    seen = world.observe(bundle, {"link": f"readlink /proc/self/ns/{LINKS[kind]}"})
    assert seen["link"] == read("self")[kind]


@pytest.fixture(scope="module")
def holder(world: World) -> Iterator[int]:
    """A process with namespaces of its own, that containers may join."""
    unshare = needs.require_program("unshare")
    argv = [unshare, "--net", "--ipc", "--uts"]
    if not needs.real_root():
        argv += ["--user", "--map-root-user"]
    process = subprocess.Popen([*argv, "sh", "-c", "echo there; exec sleep 1000"],
                               stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    yield process.pid
    process.kill()
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("kind", ["network", "ipc", "uts"])
def test_joined_namespaces(world: World, bundle: Bundle, holder: int, kind: str) -> None:
    """config-linux.md, "Namespaces": the container MUST be placed in the namespace at path."""
    path = f"/proc/{holder}/ns/{LINKS[kind]}"
    bundle.namespace(kind)["path"] = path
    if not needs.real_root():  # the one that it belongs to must be joined with it
        bundle.namespace("user")["path"] = f"/proc/{holder}/ns/user"
        del bundle.linux["uidMappings"], bundle.linux["gidMappings"]
    if kind == "uts":
        del bundle.config["hostname"]
    bundle.config["mounts"] = [
        m for m in bundle.config["mounts"] if m["destination"] in ("/proc", "/dev")
    ]
    seen = world.observe(bundle, {"link": f"readlink /proc/self/ns/{LINKS[kind]}"})
    assert seen["link"] == os.readlink(path)


def test_a_namespace_of_another_type(world: World, bundle: Bundle, holder: int) -> None:
    """config-linux.md, "Namespaces": a path to a namespace of another type MUST be an error."""
    bundle.namespace("network")["path"] = f"/proc/{holder}/ns/ipc"
    world.refused(bundle, "/linux/namespaces/1/path")
    bundle.namespace("network")["path"] = "/etc/passwd"
    world.refused(bundle, "/linux/namespaces/1/path")


def test_id_mappings(world: World, bundle: Bundle) -> None:
    """config-linux.md, "User namespace mappings": the maps are those of the configuration."""
    only(not needs.real_root(), "the container of the machine's root has no user namespace")
    wanted = [[m["containerID"], m["hostID"], m["size"]] for m in bundle.linux["uidMappings"]]
    id = world.create(bundle)
    pid = world.runtime.state(id)["pid"]
    lines = open(f"/proc/{pid}/uid_map").read().splitlines()  # as we, in our own namespace, see it
    assert [[int(word) for word in line.split()] for line in lines] == wanted


@pytest.fixture(scope="module")
def paths(world: World) -> dict[str, str]:
    bundle = world.bundle()
    (bundle.rootfs / "secret").write_text("secret")
    (bundle.rootfs / "folder").mkdir()
    (bundle.rootfs / "folder/secret").write_text("secret")
    bundle.linux["maskedPaths"] += ["/secret", "/folder", "/not/there"]
    bundle.linux["readonlyPaths"] += ["/home/user", "/not/there"]  # beside /proc/sys
    return world.observe(
        bundle,
        {
            "masked": "cat /secret; ls /folder; cat /folder/secret; cat /proc/kcore; echo done",
            "readonly": "echo x > /home/user/x; echo 1 > /proc/sys/net/ipv4/ip_forward; true",
        },
    )


def test_masked_paths(paths: dict[str, str]) -> None:
    """config-linux.md, "Masked Paths": absolute paths in the container, that cannot be read."""
    assert paths["masked"].splitlines()[-1] == "done"
    assert "\nsecret" not in "\n" + paths["masked"]


def test_readonly_paths(paths: dict[str, str]) -> None:
    """config-linux.md, "Readonly Paths": absolute paths in the container, that cannot be written."""
    assert paths["readonly"].lower().count("read-only file system") == 2
