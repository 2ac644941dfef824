"""CVEs of paths: an image, or another container, puts a link where the runtime is going to work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.security.attack import SECRET, Outside, Victim, swapping, versus
from tests.support.bundles import Bundle

Make = Callable[..., Bundle]
TRIES = 6  # creations that must not lose; the weakened runtime gets MOST to lose one
MOST = 200


def share(bundle: Bundle, shared: Path, *mounts: dict[str, Any]) -> None:
    """A volume at /s, with more mounts on places in it."""
    bundle.config["mounts"] += [
        {"destination": "/s", "type": "bind", "source": str(shared), "options": ["rbind"]},
        *mounts,
    ]
    bundle.write()


@pytest.fixture
def shared(tmp_path: Path, outside: Outside) -> Path:
    """A volume of two containers: a directory, and a link out of it."""
    path = tmp_path / "shared"
    (path / "a").mkdir(parents=True)
    (path / "link").symlink_to(outside.path)
    return path


def creations_until_lost(
    runtime: Victim, bundle: Bundle, identifier: str, outside: Outside
) -> tuple[int, int]:
    """(creations, those that succeeded): until something is touched, or there were enough."""
    succeeded = 0
    for number in range(1, (MOST if runtime.weak else TRIES) + 1):
        result = runtime.run(f"{identifier}-{number}", bundle.path)
        assert result.code == 0 or result.err.count("\n") == 1, str(result)
        succeeded += result.code == 0
        if outside.touched():
            return number, succeeded
    return number, succeeded


@versus("proc_may_be_a_link", "masks_by_name", "paths_of_the_host")
@pytest.mark.parametrize("name", ["proc", "sys"])
def test_cve_2019_19921_proc_is_a_link(
    runtime: Victim, make_bundle: Make, identifier: str, outside: Outside, name: str
) -> None:
    """2019-19921, 2023-27561, 2023-28642: what is to be masked in /proc would not be there.

    Won by the attacker when the program runs without a procfs (sysfs) at its place.
    """
    place = "/proc/self" if name == "proc" else "/sys/kernel"
    bundle = make_bundle("sh", "-c", f"[ -e {place} ] || echo nothing there")
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / name).symlink_to(outside.path)
    result = runtime.run(identifier, bundle.path)
    assert (result.out == "nothing there\n") is runtime.weak, str(result)
    if not runtime.weak:
        assert f"/{name} in the root filesystem is not a directory" in result.err
        assert not outside.touched()


@versus("paths_checked_before")
def test_cve_2021_30465_mount_target_is_swapped_by_another_container(
    runtime: Victim, make_bundle: Make, identifier: str, outside: Outside, shared: Path
) -> None:
    """A container with the same volume exchanges the mount's target for a link to the host."""
    other = make_bundle()
    share(other, shared)
    runtime.run(f"{identifier}-other", other.path, "--detach").ok()
    pid = runtime.state(f"{identifier}-other")["pid"]
    bundle = make_bundle("true")
    share(bundle, shared, {"destination": "/s/a/new", "type": "tmpfs", "source": "t"})
    with swapping(Path("/s/a"), Path("/s/link"), container=pid):
        count, succeeded = creations_until_lost(runtime, bundle, identifier, outside)
    assert bool(outside.touched()) is runtime.weak, f"{count} creations, {succeeded} well"
    assert runtime.weak or succeeded


@versus("paths_checked_before")
def test_cve_2024_45310_files_are_made_on_the_host(
    runtime: Victim, make_bundle: Make, identifier: str, outside: Outside, shared: Path
) -> None:
    """While mount points are made, the directory above them becomes a link to the host."""
    bundle = make_bundle("true")
    source = {"type": "bind", "source": "/etc/passwd", "options": ["bind"]}
    share(bundle, shared, {"destination": "/s/a/deep/er/file", **source})
    with swapping(shared / "a", shared / "link"):
        count, succeeded = creations_until_lost(runtime, bundle, identifier, outside)
    assert bool(outside.touched()) is runtime.weak, f"{count} creations, {succeeded} well"
    assert runtime.weak or succeeded


@versus("paths_of_the_host")
def test_cve_2025_24965_a_file_of_the_runtime_lands_outside(
    runtime: Victim, make_bundle: Make, identifier: str, outside: Outside
) -> None:
    """The image's /etc/hosts is a link to where the caller's files are; the mount point is made."""
    bundle = make_bundle("cat", "/etc/hosts")
    (bundle.rootfs / "etc/hosts").symlink_to(outside.path / "made")
    hosts = bundle.path / "hosts"
    hosts.write_text("the container's\n")
    mount = {"destination": "/etc/hosts", "type": "bind", "source": str(hosts)}
    bundle.config["mounts"].append({**mount, "options": ["bind"]})
    result = runtime.run(identifier, bundle.write().path)
    assert ("made" in outside.touched()) is runtime.weak, str(result)
    if not runtime.weak:
        assert result.ok().out == "the container's\n"
        assert not outside.touched()


@versus("paths_of_the_host")
def test_cve_2026_41579_dev_is_a_link(
    runtime: Victim, make_bundle: Make, identifier: str, outside: Outside
) -> None:
    """2026-41579, 2026-47766: device nodes and links would be made wherever /dev leads."""
    bundle = make_bundle("busybox", "stat", "-c", "%F", "/dev/null")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if "/dev" not in m["destination"]]
    (bundle.rootfs / "dev").rmdir()
    (bundle.rootfs / "dev").symlink_to(outside.path)
    result = runtime.run(identifier, bundle.write().path)
    assert ("stdin" in outside.touched()) is runtime.weak, str(result)
    if not runtime.weak:
        assert result.ok().out == "character special file\n"
        assert not outside.touched()


def swap_by_hook(bundle: Bundle, script: str) -> None:
    """A createRuntime hook as the one who is faster: the devices are there, the masks are not yet."""
    hook = {"path": "/bin/sh", "args": ["sh", "-ec", f"cd {bundle.rootfs}; {script}"]}
    bundle.config["hooks"] = {"createRuntime": [hook]}
    bundle.write()


@versus("masks_by_name")
@pytest.mark.parametrize(
    "name, below",
    [("proc", "keys"), ("sys", "firmware"), ("s", "deep/secret"), ("s/deep", "secret")],
    ids=["proc", "sys", "volume", "volume-in-a-volume"],
)
def test_cve_2019_19921_a_mount_is_renamed_before_masking(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path, name: str, below: str
) -> None:
    """Another directory gets the name: there is nothing to mask, and what was mounted lies elsewhere.

    For a container in the volume, which is another's root, the place within is as easily renamed.
    """
    (tmp_path / "volume/deep").mkdir(parents=True)
    (tmp_path / "volume/deep/secret").touch()
    bundle = make_bundle("ls", "-d", f"/{name}.old/{below}")
    share(bundle, tmp_path / "volume")
    (bundle.rootfs / name).mkdir(exist_ok=True, parents=True)
    where = bundle.rootfs
    if name == "s/deep":
        volume = {"type": "bind", "source": str(tmp_path / "volume/deep"), "options": ["bind"]}
        bundle.config["mounts"].append({"destination": "/s/deep", **volume})
        where = tmp_path / "volume"
    bundle.linux["maskedPaths"] = [f"/{name}/{below}"]
    last = name.rpartition("/")[2]
    swap_by_hook(bundle, f"cd {where}; mv {last} {last}.old; mkdir {last}")
    result = runtime.run(identifier, bundle.path)
    assert (result.out == f"/{name}.old/{below}\n") is runtime.weak, str(result)
    assert runtime.weak or f"what was mounted on /{name} is not there any more" in result.err


@versus("any_null", "paths_of_the_host")
def test_cve_2025_31133_null_is_swapped_before_masking(
    runtime: Victim, make_bundle: Make, identifier: str, outside: Outside
) -> None:
    """Masks are made of what /dev/null is: as a link to a file it would be bound on the masked path."""
    bundle = make_bundle("cat", "/masked")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if "/dev" not in m["destination"]]
    (bundle.rootfs / "masked").touch()
    bundle.linux["maskedPaths"] = ["/masked"]
    swap_by_hook(bundle, f"mv dev/null dev/old; ln -s {outside.path}/keep dev/null")
    result = runtime.run(identifier, bundle.path)
    assert (SECRET in result.out) is runtime.weak, str(result)
    assert runtime.weak or (result.code == 1 and "/linux/maskedPaths" in result.err)


@versus("any_null")
@pytest.mark.parametrize("there", ["file", "link", "other-device"])
def test_cve_2025_31133_null_is_another_file_of_the_image(
    runtime: Victim, make_bundle: Make, identifier: str, there: str
) -> None:
    """Inside the root too: a masked path must not become a file that somebody chose."""
    bundle = make_bundle("sh", "-c", "[ /masked -ef /dev/zero ] && echo zero; head -c 3 /masked")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if "/dev" not in m["destination"]]
    (bundle.rootfs / "masked").touch()
    bundle.linux["maskedPaths"] = ["/masked"]
    put = {
        "file": "echo chosen > dev/null",
        "link": "ln -s /etc/passwd dev/null",
        "other-device": "ln -s zero dev/null",
    }
    swap_by_hook(bundle, f"mv dev/null dev/old; {put[there]}")
    result = runtime.run(identifier, bundle.path)
    assert (result.code == 0 and result.out != "") is runtime.weak, str(result)
    assert runtime.weak or "/dev/null is not the null device" in result.err


@versus("console_by_name")
def test_cve_2025_52565_pts_is_a_link(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """/dev/pts is somebody's directory: its ptmx is real, its 0, 1, 2 ... are links to a file."""
    bundle = make_bundle("sh", "-c", "[ -c /dev/console ] || cat /dev/console")
    false = tmp_path / "pts"
    false.mkdir()
    (false / "ptmx").symlink_to("/pts/ptmx")
    for number in range(20):
        (false / str(number)).symlink_to("/etc/passwd")
    devpts = next(m for m in bundle.config["mounts"] if m["type"] == "devpts")
    devpts["destination"] = "/pts"
    mount = {"destination": "/dev/pts", "type": "bind", "source": str(false)}
    bundle.config["mounts"].append({**mount, "options": ["bind"]})
    bundle.process["terminal"] = True
    result = runtime.run(identifier, bundle.write().path)
    assert ("root:x:0" in result.out) is runtime.weak, str(result)
    assert runtime.weak or result.code == 0, str(result)


@versus("paths_of_the_host")
def test_cve_2025_52565_console_is_a_link(
    runtime: Victim, make_bundle: Make, identifier: str, outside: Outside
) -> None:
    """The place for /dev/console leads out."""
    bundle = make_bundle("true")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    (bundle.rootfs / "dev/console").symlink_to(outside.path / "console")
    bundle.process["terminal"] = True
    result = runtime.run(identifier, bundle.write().path)
    assert ("console" in outside.touched()) is runtime.weak, str(result)
    assert runtime.weak or not outside.touched()
