"""An image may hold anything: nothing of it leads pyoki out of the root, stops it or exhausts it."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.security.attack import Outside, Victim, swapping
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


def test_a_huge_passwd_is_not_read_whole(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """A container that is exec'ed into must not eat the host's memory."""
    bundle = make_bundle("sh", "-c", "echo $HOME")
    os.truncate(bundle.rootfs / "etc/passwd", 3 << 30)
    limit = (1 << 30, 1 << 30)
    result = runtime.run(
        identifier, bundle.path, preexec=lambda: resource.setrlimit(resource.RLIMIT_AS, limit)
    ).ok()
    assert result.out == "/root\n"


def test_a_home_that_no_environment_can_hold(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """An entry with a NUL is passed over."""
    bundle = make_bundle("sh", "-c", "echo $HOME")
    (bundle.rootfs / "etc/passwd").write_bytes(b"root:x:0:0:root:/ro\0ot:/bin/sh\n")
    assert runtime.run(identifier, bundle.path).ok().out == "/\n"


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("kind", ["link", "loop", "magic", "file", "fifo"])
def test_proc_and_sys_must_be_directories(
    runtime: Runtime, make_bundle: Make, identifier: str, outside: Outside, name: str, kind: str
) -> None:
    """Mounted elsewhere, what is to be masked in them would not be (CVE-2019-19921)."""
    bundle = make_bundle("true")
    place = bundle.rootfs / name
    place.rmdir()
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "file":
        place.touch()
    else:
        targets = {"link": str(outside.path), "loop": name, "magic": "/proc/self/root"}
        place.symlink_to(targets[kind])
    result = runtime.run(identifier, bundle.path)
    assert result.code == 1 and result.err.count("\n") == 1, str(result)
    assert f"/{name} in the root filesystem is not a directory" in result.err
    assert "/destination)" in result.err
    assert not outside.touched()


def test_a_dev_that_leads_out_stays_inside(
    runtime: Runtime, make_bundle: Make, identifier: str, outside: Outside
) -> None:
    """A link means its target beneath the root, whatever there is outside (CVE-2026-41579)."""
    bundle = make_bundle("busybox", "stat", "-c", "%F", "/dev/null")
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(outside.path)
    shutil.copy(bundle.rootfs / "etc/passwd", bundle.rootfs / "passwd")
    assert runtime.run(identifier, bundle.path).ok().out == "character special file\n"
    assert not outside.touched()


@pytest.mark.parametrize("runtime", [(False, ("slow_copy",))], ids=["slow"], indirect=True)
def test_a_fifo_that_takes_a_files_place_is_not_waited_for(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """tmpcopyup has seen a file, and opens what somebody has put there since."""
    volume = tmp_path / "volume"
    volume.mkdir()
    (volume / "file").write_text("copied\n")
    os.mkfifo(tmp_path / "fifo")
    bundle = make_bundle("ls", "-l", "/s")
    bundle.config["mounts"] += [
        {"destination": "/s", "type": "bind", "source": str(volume), "options": ["bind"]},
        {"destination": "/s", "type": "tmpfs", "source": "t", "options": ["tmpcopyup"]},
    ]
    with swapping(volume / "file", tmp_path / "fifo"):
        found = [
            runtime.run(f"{identifier}-{number}", bundle.write().path, timeout=10).ok().out
            for number in range(4)
        ]
    assert not any("prw" in listing for listing in found)


def test_the_callers_own_mount_namespace_is_not_joined(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """pivot_root(2) would take the root from everybody in there."""
    bundle = make_bundle("true")
    bundle.namespace("mount")["path"] = f"/proc/{os.getpid()}/ns/mnt"
    before = os.listdir("/")
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "the caller's own" in result.err, str(result)
    assert "/linux/namespaces/" in result.err
    assert os.listdir("/") == before
