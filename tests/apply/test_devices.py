"""What is in the container's /dev."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.apply.conftest import Preexec
from tests.apply.mountinfo import parse
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
DEFAULTS = {
    "null": "1:3",
    "zero": "1:5",
    "full": "1:7",
    "random": "1:8",
    "urandom": "1:9",
    "tty": "5:0",
}


@pytest.fixture
def bundle(make_bundle: Make) -> Bundle:
    return make_bundle().single_map()


def test_default_devices_and_links(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """runtime-linux.md, "Dev symbolic links" and config-linux.md, "Default Devices"; all of them work."""
    bundle.shell(
        "cd /dev; for d in null zero full random urandom tty; do"
        " echo $d=$((0x$(stat -c %t $d))):$((0x$(stat -c %T $d))); done;"
        "for l in fd stdin stdout stderr ptmx core; do echo $l=$(readlink $l); done;"
        "echo x > null; head -c 3 zero | wc -c; head -c 3 urandom | wc -c; echo via >> stdout"
    )
    words = runtime.run(identifier, bundle.path, preexec=kernel).ok().out.split()
    seen = dict(word.split("=") for word in words if "=" in word)
    assert {name: seen.get(name) for name in DEFAULTS} == DEFAULTS, words
    assert (seen["fd"], seen["stdin"]) == ("/proc/self/fd", "/proc/self/fd/0")
    assert (seen["stdout"], seen["stderr"]) == ("/proc/self/fd/1", "/proc/self/fd/2")
    assert seen["ptmx"] == "pts/ptmx"
    assert seen["core"] in ("/proc/kcore", "")
    assert words[-3:] == ["3", "3", "via"]


def test_asked_devices(runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec) -> None:
    """A character device and a fifo of the configuration, in directories that must be made."""
    bundle.linux["devices"] = [
        {"path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o620},
    ]
    bundle.shell("head -c 2 /dev/deep/zero | wc -c; stat -c '%F %a' /dev/pipe")
    result = runtime.run(identifier, bundle.path, preexec=kernel)
    assert result.ok().out.split() == ["2", "fifo", "620"]


def test_a_device_that_the_host_lacks(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """It can only be bound, so its absence is an error with the pointer."""
    if os.geteuid() == 0:
        bundle.namespace("user")  # root binds too, where the container has a user namespace
    bundle.linux["devices"] = [{"path": "/dev/no-such", "type": "c", "major": 240, "minor": 9}]
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "/linux/devices/0" in result.err
    assert "no such file or directory" in result.err.lower()


def test_a_bound_dev_stays_as_it_is(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """Where the configuration binds the host's /dev, nothing is put into it."""
    entries = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    entries.append(
        {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "ro"]}
    )
    bundle.config["mounts"] = entries
    bundle.args("cat", "/proc/self/mountinfo")
    seen = parse(runtime.run(identifier, bundle.path, preexec=kernel).ok().out)
    assert "/dev" in seen and "/dev/zero" not in seen


def test_a_dev_of_the_image(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """Without any mount on /dev the nodes are bound over files in the image."""
    bundle.config["mounts"] = [
        m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")
    ]
    bundle.shell("head -c 1 /dev/zero | wc -c; ls -l /dev/stderr >/dev/null && echo linked")
    result = runtime.run(identifier, bundle.path, preexec=kernel)
    assert result.ok().out.split() == ["1", "linked"]


def test_what_the_image_has_at_a_link(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """A file of the image where a link belongs stays, as with runc."""
    bundle.config["mounts"] = [
        m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")
    ]
    (bundle.rootfs / "dev/stdin").write_text("mine\n")
    bundle.args("cat", "/dev/stdin")
    assert runtime.run(identifier, bundle.path).ok().out == "mine\n"


@pytest.mark.root
def test_nodes_of_real_root(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Without a user namespace nodes are made, with mode and owner as asked."""
    needs.require(os.geteuid() == 0, "needs root")
    bundle = make_bundle().without_namespace("user", "cgroup")
    bundle.linux.pop("uidMappings")
    bundle.linux.pop("gidMappings")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    bundle.linux["devices"] = [
        {
            "path": "/dev/mine",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": 0o640,
            "uid": 5,
            "gid": 6,
        }
    ]
    bundle.shell("stat -c '%a %u %g %t:%T' /dev/mine /dev/null")
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    assert plain.run(identifier, bundle.path).ok().out.splitlines() == [
        "640 5 6 1:3",
        "666 0 0 1:3",
    ]
