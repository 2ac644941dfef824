"""What is in the container's /dev."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


def device(path: str, letter: str, major: int, minor: int, **more: int) -> dict[str, Any]:
    return {"path": path, "type": letter, "major": major, "minor": minor, **more}


def bound_only(runtime: Runtime, *options: str) -> Runtime:
    return Runtime(runtime.command, runtime.root, options=options)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (device("/dev/full", "c", 1, 99), "host's /dev/full is c 1:7"),
        (device("/dev/zero", "b", 1, 5), "host's /dev/zero is c 1:5"),
        (device("/dev/shm", "c", 240, 1), "host's /dev/shm is no device"),
        (device("/dev/no-such", "u", 240, 1), "no such file or directory"),
    ],
)
def test_what_the_host_has_not(
    runtime: Runtime, bundle: Bundle, identifier: str, asked: dict[str, Any], words: str
) -> None:
    """Another device than the one asked for is an error, with why and what to do; or left out."""
    if os.geteuid() == 0:
        pytest.skip("root makes nodes")
    bundle.linux["devices"] = [device("/dev/mine", "u", 1, 5), asked]
    bundle.shell("head -c 1 /dev/mine | wc -c; ls -l /dev/no-such; sleep 1000")
    result = runtime.run(identifier, bundle.path)
    assert result.code == 1 and "/linux/devices/1" in result.err, str(result)
    assert words in result.err.lower() and "mknod: EPERM" in result.err
    if words.startswith("no"):
        lenient = bound_only(runtime, "--unsupported", "ignore")
        lenient.create(f"{identifier}-2", bundle.path).ok()
        state = json.loads(runtime("state", "--verbose", f"{identifier}-2").ok().out)
        told = [n for n in state["pyoki"]["notes"] if n["pointer"] == "/linux/devices/1"]
        assert told and words in told[0]["text"].lower()


def test_a_device_that_the_caller_may_not_open(
    runtime: Runtime, bundle: Bundle, identifier: str
) -> None:
    """Nobody in the container could either: EACCES, or left out where the user says so."""
    found = None
    for path in sorted(Path("/dev").iterdir()):
        seen = path.lstat()
        kind = {stat.S_IFCHR: "c", stat.S_IFBLK: "b"}.get(stat.S_IFMT(seen.st_mode))
        if kind and not os.access(path, os.R_OK) and not os.access(path, os.W_OK):
            number = seen.st_rdev
            found = device(str(path), kind, os.major(number), os.minor(number))
            break
    if found is None:
        pytest.skip("this user may open every device of the host")
    bundle.linux["devices"] = [found]
    bundle.shell(f"[ -e {found['path']} ] || echo left out")
    result = runtime.run(identifier, bundle.path)
    assert result.code == 1 and "/linux/devices/0" in result.err and "EACCES" in result.err
    lenient = bound_only(runtime, "--unsupported", "ignore")
    assert lenient.run(f"{identifier}-2", bundle.path).ok().out == "left out\n"


def test_what_is_at_the_path(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """config-linux.md: a file that is not that device MUST be an error; the same one twice is none."""
    bundle.linux["devices"] = [
        device("/nodes/zero", "c", 1, 5),
        device("/nodes/zero", "c", 1, 5),
        device("/empty", "c", 1, 5, fileMode=0o600, uid=0),
    ]
    (bundle.rootfs / "empty").touch()
    bundle.shell("head -c 2 /nodes/zero /empty | wc -c; sleep 0")
    runtime.run(identifier, bundle.path).ok()
    for number, (path, other) in enumerate(
        [("/nodes/zero", 7), ("/full", 5), ("/tmp", 5), ("/bin/busybox", 5)]
    ):
        (bundle.rootfs / "full").write_text("mine")
        bundle.linux["devices"] = [
            device("/nodes/zero", "c", 1, 5),
            device(path, "c", 1, other),
        ]
        result = runtime.run(f"{identifier}-{number}", bundle.write().path)
        assert result.code == 1 and "/linux/devices/1" in result.err, str(result)
        assert "EEXIST" in result.err or "EISDIR" in result.err
    bundle.linux["devices"] = [{"path": "/full", "type": "p"}]
    result = runtime.run(f"{identifier}-p", bundle.write().path)
    assert result.code == 1 and "/linux/devices/0" in result.err and "EEXIST" in result.err


def test_links_of_the_image(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """Directories and nodes behind links of the image are the image's own; a fifo follows no link."""
    outside = bundle.path / "outside"
    outside.mkdir()
    (bundle.rootfs / "nodes").symlink_to(f"../../../../../..{outside}")
    (bundle.rootfs / "node").symlink_to("../../../../../etc/made")
    bundle.linux["devices"] = [
        device("/nodes/zero", "c", 1, 5),
        device("/node", "c", 1, 5),
        {"path": "/nodes/fifo", "type": "p", "uid": 0, "gid": 0},
    ]
    bundle.shell("head -c 2 /nodes/zero | wc -c; head -c 2 /etc/made | wc -c; [ -p /nodes/fifo ]")
    assert runtime.run(identifier, bundle.path).ok().out.split() == ["2", "2"]
    assert list(outside.iterdir()) == [] and not Path("/etc/made").exists()
    (bundle.rootfs / "pipe").symlink_to("/etc/passwd")
    bundle.linux["devices"] = [{"path": "/pipe", "type": "p"}]
    result = runtime.run(f"{identifier}-2", bundle.write().path)
    assert result.code == 1 and "EEXIST" in result.err and "/linux/devices/0" in result.err


def test_a_fifo_for_somebody(
    all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Anybody makes fifos: mode and owner are as asked."""
    bundle = make_bundle()
    pipe = {"path": "/run/deep/pipe", "type": "p", "fileMode": 0o604, "uid": 5, "gid": 6}
    bundle.linux["devices"] = [pipe]
    bundle.shell("stat -c '%F %a %u:%g' /run/deep/pipe; rm -r /run/deep")
    assert runtime.run(identifier, bundle.path).ok().out.split() == ["fifo", "604", "5:6"]


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
