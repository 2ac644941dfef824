"""Filesystems that take more than a type: overlay, fuse; copy-up and propagation of the root."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.apply.mountinfo import parse
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


@pytest.fixture
def bundle(make_bundle: Make) -> Bundle:
    return make_bundle().single_map()


def overlay(at: str, *options: str) -> dict[str, Any]:
    return {"destination": at, "type": "overlay", "source": "o", "options": list(options)}


def test_overlays(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """Layers are directories of the host, relative ones of the bundle; however long the list is."""
    for name in ("low", "high", "up", "work"):
        (bundle.path / name).mkdir()
    (bundle.path / "low/file").write_text("low\n")
    (bundle.path / "low/gone").write_text("low\n")
    (bundle.path / "high/file").write_text("high\n")
    layers = f"lowerdir=high:{bundle.path}/low"
    bundle.config["mounts"] += [
        overlay("/rw", layers, "upperdir=up", f"workdir={bundle.path}/work", "userxattr"),
        overlay("/ro", f"lowerdir=high:{bundle.path}/low{'/../low' * 40}", "noexec"),
    ]
    bundle.shell(
        "cat /rw/file /ro/file /ro/gone; echo new >/rw/file; rm /rw/gone; ls /rw; cat /rw/file;"
        "touch /ro/x 2>&1; cat /proc/self/mountinfo"
    )
    out = runtime.run(identifier, bundle.path).ok().out
    words = out.splitlines()
    assert words[:5] == ["high", "high", "low", "file", "new"], out
    assert "Read-only file system" in words[5]
    seen = parse(out)
    assert seen["/rw"].kind == seen["/ro"].kind == "overlay"
    assert "noexec" in seen["/ro"].options
    assert (bundle.path / "up/file").read_text() == "new\n"
    assert (bundle.path / "low/gone").exists() and (
        bundle.path / "high/file"
    ).read_text() == "high\n"


def test_an_overlay_without_its_layer(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """The kernel's own words, and the mount's pointer."""
    bundle.config["mounts"].append(overlay("/x", "lowerdir=/no/such:/none"))
    result = runtime.run(identifier, bundle.write().path)
    index = len(bundle.config["mounts"]) - 1
    assert result.code == 1 and f"/mounts/{index}" in result.err, str(result)
    assert "no such file or directory" in result.err and "/no/such" in result.err


def fuse(kind: str, *options: str) -> dict[str, Any]:
    return {"destination": "/f", "type": kind, "source": "f", "options": list(options)}


FUSE = ("fd=3", "rootmode=40000", "user_id=0", "group_id=0")


def test_fuse_that_nobody_serves(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """No helper is run: refused with a way out; a descriptor of another namespace gets EINVAL."""
    index = len(bundle.config["mounts"])
    bundle.config["mounts"].append(fuse("fuse.sshfs", "allow_other"))
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and f"/mounts/{index}/type" in result.err, str(result)
    assert "served by a program" in result.err and "fusermount3" in result.err
    bundle.config["mounts"][-1] = fuse("fuse", *FUSE)
    needs.require(Path("/dev/fuse").exists(), "no /dev/fuse")
    with open("/dev/fuse", "r+b", buffering=0) as device:
        shell = f'exec "$@" 3<>/proc/self/fd/{device.fileno()}'
        result = runtime.run(
            f"{identifier}-2",
            bundle.write().path,
            "--preserve-fds",
            "1",
            prefix=["sh", "-c", shell, "sh"],
            pass_fds=(device.fileno(),),
        )
    assert result.code == 1 and "EINVAL" in result.err and "user namespace" in result.err


def test_fuse_that_is_served(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """A /dev/fuse opened in the namespace that mounts, its number handed through."""
    needs.require(Path("/dev/fuse").exists(), "no /dev/fuse")
    bundle.without_namespace("user")
    for kind in ("uid", "gid"):
        del bundle.linux[f"{kind}Mappings"]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    (bundle.rootfs / "f").mkdir()
    bundle.config["mounts"].append(fuse("fuse.test", *FUSE))
    bundle.args("cat", "/proc/self/mountinfo")
    prefix = ["unshare", "--user", "--map-root-user", "sh", "-c", 'exec "$@" 3<>/dev/fuse', "sh"]
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    result = plain.run(identifier, bundle.path, "--preserve-fds", "1", prefix=prefix)
    assert parse(result.ok().out)["/f"].kind == "fuse.test"


def test_copy_up(all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """What is covered is there: contents, modes, owners, links, empty directories; and it is a copy."""
    bundle = make_bundle()
    seed = bundle.rootfs / "seed"
    (seed / "deep/empty").mkdir(parents=True)
    (seed / "deep/file").write_bytes(b"x" * 70000)
    (seed / "deep/file").chmod(0o4751)
    (seed / "deep").chmod(0o1710)
    (seed / "broken").symlink_to("no/such")
    copies = [
        {"destination": "/seed", "type": "tmpfs", "options": ["tmpcopyup", "size=1m"]},
        {"destination": "/own", "type": "tmpfs", "options": ["tmpcopyup"]},
    ]
    bundle.process["capabilities"]["effective"].append("CAP_DAC_OVERRIDE")
    for kind in ("permitted", "bounding"):
        bundle.process["capabilities"][kind].append("CAP_DAC_OVERRIDE")
    (bundle.rootfs / "own").mkdir()
    # a first container gives a file to somebody else, the second copies it
    bundle.shell(
        "echo mine >/own/file; chown 5:6 /own/file; ln -s x /own/link; chown -h 5:6 /own/link"
    )
    runtime.run(identifier, bundle.path).ok()
    bundle.config["mounts"] += copies
    bundle.shell(
        "stat -c %a /seed/deep /seed/deep/empty /seed/deep/file; wc -c </seed/deep/file;"
        "readlink /seed/broken; stat -c %u:%g /own/file /own/link; rm -r /seed/deep && echo gone;"
        "rm -f /own/file /own/link"
    )
    result = runtime.run(f"{identifier}-2", bundle.path).ok()
    assert result.out.split() == [
        *("1710", "755", "4751", "70000", "no/such", "5:6", "5:6", "gone"),
    ]
    assert (seed / "deep/file").exists()
    bundle.shell("rm -rf /own")  # what belongs to another id only a container can remove
    del bundle.config["mounts"][-2:]
    runtime.run(f"{identifier}-3", bundle.write().path).ok()


def test_copy_up_of_too_much(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """What does not fit into size= is an error with the mount's pointer, and nothing is left."""
    (bundle.rootfs / "seed").mkdir()
    (bundle.rootfs / "seed/file").write_bytes(b"x" * 70000)
    mount = {"destination": "/seed", "type": "tmpfs", "options": ["tmpcopyup", "size=16k"]}
    bundle.config["mounts"].append(mount)
    index = len(bundle.config["mounts"]) - 1
    result = runtime.create(identifier, bundle.write().path)
    assert result.code == 1 and "ENOSPC" in result.err, str(result)
    assert f"/mounts/{index}" in result.err and runtime.status(identifier) == ""


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("private", set()),
        ("rprivate", set()),
        ("slave", {"master"}),
        ("rslave", {"master"}),
        ("shared", {"shared"}),
        ("rshared", {"shared"}),
        ("unbindable", {"unbindable"}),
        ("runbindable", {"unbindable"}),
        ("", {"master"}),
    ],
)
def test_rootfs_propagation_of_a_shared_host(
    runtime: Runtime, bundle: Bundle, identifier: str, value: str, expected: set[str]
) -> None:
    """Where the host's root is shared: only slave goes on following it; shared is no peer of it."""
    bundle.linux["uidMappings"][0]["hostID"] = bundle.linux["gidMappings"][0]["hostID"] = 0
    bundle.linux["rootfsPropagation"] = value
    if not value:
        del bundle.linux["rootfsPropagation"]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    bundle.args("cat", "/proc/self/mountinfo")
    prefix = [
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
        'mount --make-rshared / && exec "$@"',
        "sh",
    ]
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    out = plain.run(identifier, bundle.path, prefix=prefix).ok().out
    root = parse(out)["/"].propagation - {"propagate_from"}
    assert root - ({"master"} if expected == {"shared"} else set()) == expected
