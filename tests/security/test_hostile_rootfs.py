"""An image may hold anything: nothing of it leads pyoki out of the root, stops it or exhausts it."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
RENAME_EXCHANGE = 2
AT_FDCWD = -100
TRIES = 25


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """A process that exchanges two names for each other as fast as it can."""
    call = ctypes.CDLL(None).renameat2
    names = os.fsencode(one), os.fsencode(other)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        while os.getppid() == parent:
            call(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host that no container has any business with."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "keep").write_text("kept")
    (path / "keep").chmod(0o600)
    return path


def untouched(outside: Path) -> bool:
    return os.listdir(outside) == ["keep"] and (outside / "keep").stat().st_mode & 0o777 == 0o600


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
    runtime: Runtime, make_bundle: Make, identifier: str, outside: Path, name: str, kind: str
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
        targets = {"link": str(outside), "loop": name, "magic": "/proc/self/root"}
        place.symlink_to(targets[kind])
    result = runtime.run(identifier, bundle.path)
    assert result.code == 1 and result.err.count("\n") == 1, str(result)
    assert f"/{name} in the root filesystem is not a directory" in result.err
    assert "/destination)" in result.err
    assert untouched(outside)


def test_a_dev_that_leads_out_stays_inside(
    runtime: Runtime, make_bundle: Make, identifier: str, outside: Path
) -> None:
    """A link means its target beneath the root, whatever there is outside (CVE-2026-41579)."""
    bundle = make_bundle("busybox", "stat", "-c", "%F", "/dev/null")
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(outside)
    shutil.copy(bundle.rootfs / "etc/passwd", bundle.rootfs / "passwd")
    assert runtime.run(identifier, bundle.path).ok().out == "character special file\n"
    assert untouched(outside)


def test_mount_points_that_are_swapped_for_links(
    runtime: Runtime, make_bundle: Make, identifier: str, outside: Path, tmp_path: Path
) -> None:
    """Somebody with a shared directory turns what is mounted on into links out (CVE-2021-30465)."""
    shared = tmp_path / "shared"
    (shared / "a/masked").mkdir(parents=True)
    (shared / "link").symlink_to(outside)
    bundle = make_bundle("true")
    bundle.config["mounts"] += [
        {"destination": "/s", "type": "bind", "source": str(shared), "options": ["rbind"]},
        {"destination": "/s/a/new/directory", "type": "tmpfs", "source": "t"},
        {"destination": "/s/a/file", "type": "bind", "source": "/etc/passwd", "options": ["bind"]},
    ]
    bundle.linux["devices"] = [{"path": "/s/a/dev/fifo", "type": "p", "fileMode": 0o666}]
    bundle.linux["maskedPaths"].append("/s/a/masked")
    bundle.process["cwd"] = "/s/a/cwd"
    bundle.write()
    with swapping(shared / "a", shared / "link"):
        for number in range(TRIES):
            result = runtime.run(f"{identifier}-{number}", bundle.path)
            assert result.code == 0 or result.err.count("\n") == 1, str(result)
            assert untouched(outside), str(result)
    assert os.listdir(runtime.root) == []


def test_proc_that_is_swapped_for_a_link(
    runtime: Runtime, make_bundle: Make, identifier: str, outside: Path
) -> None:
    """What was found to be a directory is what is mounted on."""
    bundle = make_bundle("true")
    (bundle.rootfs / "link").symlink_to(outside)
    bundle.config["mounts"] = bundle.config["mounts"][:1]
    bundle.write()
    with swapping(bundle.rootfs / "proc", bundle.rootfs / "link"):
        for number in range(TRIES):
            result = runtime.run(f"{identifier}-{number}", bundle.path)
            assert result.code == 0 or result.err.count("\n") == 1, str(result)
    assert untouched(outside)
    assert not (bundle.rootfs / str(outside)[1:]).exists()


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
