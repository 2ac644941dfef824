"""Who may change a container's cgroup from inside: config-linux.md, "Cgroup ownership"."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless_pyoki.host.id_range import IdRange
from rootless_pyoki.lifecycle import ownership
from tests.support.bundles import CGROUP_MOUNT, Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
MANAGER = (
    "cd /sys/fs/cgroup; mkdir -p a/b/c && echo $$ > a/b/c/cgroup.procs && echo done; sleep 1000"
)


def writable(bundle: Bundle, *, uid: int = 0, gid: int = 0) -> Path:
    """The bundle, with a cgroup mount that can be written to, its program run by this user."""
    mounts = [mount for mount in bundle.config["mounts"] if mount["type"] != "cgroup"]
    options = [option for option in CGROUP_MOUNT["options"] if option != "ro"]
    bundle.config["mounts"] = [*mounts, {**CGROUP_MOUNT, "options": options}]
    bundle.config["process"]["user"] = {"uid": uid, "gid": gid}
    return bundle.write().path


def cgroup_of(runtime: Runtime, identifier: str) -> Path:
    state = json.loads((runtime.root / identifier / "state.json").read_text())
    return Path(state["cgroupPath"])


def started(runtime: Runtime, bundle: Path, identifier: str) -> tuple[str, Path]:
    """(the program's first line, the container's cgroup)."""
    process = runtime.popen(
        "run", "--keep", "--bundle", str(bundle), identifier, stdout=-1, stderr=-2, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline().strip()
    process.stdout.close()
    return line, cgroup_of(runtime, identifier)


def test_a_user_with_a_subordinate_id(
    leak_check: None,
    v2: Path,
    all_ids: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
) -> None:
    """It makes cgroups in its own; the caller keeps its way in, and can remove what was made."""
    bundle = writable(make_bundle("sh", "-c", MANAGER), uid=7, gid=7)
    line, cgroup = started(runtime, bundle, identifier)
    assert line == "done"
    status = (cgroup / "cgroup.procs").stat()
    assert status.st_uid == os.getuid() and status.st_gid not in os.getgroups()
    assert status.st_mode & 0o777 == 0o664 and cgroup.stat().st_mode & 0o777 == 0o775
    assert (cgroup / "cgroup.freeze").stat().st_mode & 0o777 == 0o644
    seen = runtime.exec(identifier, "cat", "/proc/self/cgroup").ok().out
    assert "0::/" in seen
    runtime.delete(identifier, force=True).ok()
    assert not cgroup.exists()


@pytest.mark.session
def test_in_a_scope_of_systemds(
    leak_check: None, all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The same where systemd has made the cgroup: given, and removed with all that lies below."""
    runtime.options = ["--cgroup-manager", "systemd"]
    bundle = make_bundle("sh", "-c", MANAGER)
    bundle.config["annotations"] = {"run.oci.systemd.subgroup": "inner"}
    line, cgroup = started(runtime, writable(bundle, uid=7, gid=7), identifier)
    assert line == "done"
    assert cgroup.stat().st_mode & 0o777 == 0o755
    assert (cgroup / "inner").stat().st_mode & 0o777 == 0o775
    runtime.exec(identifier, "true").ok()
    runtime.delete(identifier, force=True).ok()
    assert not cgroup.exists()


def test_root_that_is_the_caller(
    leak_check: None, v2: Path, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Owns the cgroup already: nothing about it is changed."""
    line, cgroup = started(runtime, writable(make_bundle("sh", "-c", MANAGER)), identifier)
    assert line == "done"
    assert cgroup.stat().st_mode & 0o777 == 0o755 and cgroup.stat().st_gid == os.getgid()
    runtime.delete(identifier, force=True).ok()


def test_a_mount_that_is_read_only(
    leak_check: None,
    v2: Path,
    all_ids: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
) -> None:
    """Nothing is given away: the mode and the group stay what they were."""
    bundle = make_bundle()
    bundle.config["process"]["user"] = {"uid": 7, "gid": 7}
    runtime.create(identifier, bundle.write().path).ok()
    cgroup = cgroup_of(runtime, identifier)
    assert cgroup.stat().st_mode & 0o777 == 0o755 and cgroup.stat().st_gid == os.getgid()


def test_a_group_that_is_the_callers(
    leak_check: None,
    v2: Path,
    all_ids: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
) -> None:
    """Others may be in it: the cgroup is not opened to them, and that is told."""
    bundle = writable(make_bundle(), uid=7, gid=0)
    runtime.options = ["--log-level", "debug"]
    told = runtime.create(identifier, bundle).ok().err
    assert "the cgroup stays the caller's" in told and "/mounts/" in told
    cgroup = cgroup_of(runtime, identifier)
    assert cgroup.stat().st_mode & 0o777 == 0o755


def test_the_callers_own_id_is_mapped_once() -> None:
    """Wherever it lies in the ranges, and all others follow without a hole."""

    def ranges(*parts: tuple[int, int]) -> tuple[IdRange, ...]:
        return tuple(IdRange(container=0, host=host, size=size) for host, size in parts)

    def mapped(*parts: tuple[int, int], own: int) -> list[tuple[int, int, int]]:
        made = ownership._with_caller(ranges(*parts), own)
        return [(r.container, r.host, r.size) for r in made]

    assert mapped(own=1000) == [(0, 1000, 1)]
    assert mapped((1000, 1), (100000, 5), own=1000) == [(0, 1000, 1), (1, 100000, 5)]
    assert mapped((998, 5), own=1000) == [(0, 1000, 1), (1, 998, 2), (3, 1001, 2)]


def test_a_delegated_cgroup_of_a_subordinate_root(
    leak_check: None,
    v2: Path,
    all_ids: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
) -> None:
    """run.oci.delegate-cgroup where the container's root is not the caller: its group may write."""
    script = "cd /sys/fs/cgroup/a && mkdir b && echo done; sleep 1000"
    bundle = make_bundle("sh", "-c", script)
    bundle.config["annotations"] = {"run.oci.delegate-cgroup": "a"}
    for key in ("uidMappings", "gidMappings"):
        own, others = bundle.linux[key]
        bundle.linux[key] = [
            {"containerID": 0, "hostID": others["hostID"], "size": 1000},
            {"containerID": 1000, "hostID": own["hostID"], "size": 1},
        ]
    os.chmod(bundle.path.parent, 0o755)
    line, cgroup = started(runtime, writable(bundle), identifier)
    assert line == "done"
    assert (cgroup / "a").stat().st_mode & 0o777 == 0o775
    runtime.delete(identifier, force=True).ok()
    assert not cgroup.exists()
