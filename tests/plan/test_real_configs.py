"""Configurations as other programs write them, made by these programs when the test runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.host.facts import Facts
from tests.plan import plans
from tests.support.needs import require_program

SPY = """#!/bin/sh
# stands for a runtime: keeps the configuration, runs nothing
while [ $# -gt 0 ]; do
    case $1 in
    --bundle|-b) cp "$2/config.json" OUTPUT; shift ;;
    --version) echo "runc version 1.1.0"; exit 0 ;;
    esac
    shift
done
exit 1
"""


def template(program: str, directory: Path, *options: str) -> dict[str, Any]:
    path = require_program(program)
    answer = subprocess.run(
        [path, "spec", *options], cwd=directory, capture_output=True, text=True, check=False
    )
    if answer.returncode:
        pytest.skip(f"{program} spec says: {answer.stderr.strip()}")
    made: dict[str, Any] = json.loads((directory / "config.json").read_text())
    return made


@pytest.mark.parametrize("facts", [plans.ROOT, plans.USER, plans.IN_PODMAN])
def test_crun_template(tmp_path: Path, facts: Facts) -> None:
    """`crun spec` plans for everybody; the devices rule and idle ambient capabilities are noted."""
    plan = plans.make(template("crun", tmp_path), facts)
    kinds = {mount.destination: mount.kind for mount in plan.mounts}
    assert kinds["/proc"] == "proc"
    assert kinds["/dev/pts"] == "devpts"
    assert ("user" in [ns.kind for ns in plan.namespaces]) == (facts is plans.USER)
    assert len(plan.notes) <= 3


def test_runc_rootless_template(tmp_path: Path) -> None:
    """`runc spec --rootless` maps the caller alone, so setgroups is denied."""
    config = template("runc", tmp_path, "--rootless")
    facts = plans.replace(plans.USER, euid=os.geteuid(), egid=os.getegid())
    plan = plans.make(config, facts)
    assert plan.idmap is not None
    assert [(r.host, r.size) for r in plan.idmap.uids] == [(os.geteuid(), 1)]
    assert (plan.idmap.writer, plan.idmap.deny_setgroups) == ("direct", True)
    assert not plan.process.set_groups
    sysfs = next(mount for mount in plan.mounts if mount.destination == "/sys")
    assert (sysfs.kind, sysfs.recursive, sysfs.source) == ("bind", True, "/sys")


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function: options of podman run -> the configuration that podman gives its runtime."""
    program = require_program("podman")
    place = tmp_path_factory.mktemp("podman")
    (place / "xdg").mkdir(mode=0o700)
    (place / "rootfs").mkdir()
    spy = place / "spy"
    spy.write_text(SPY.replace("OUTPUT", str(place / "config.json")))
    spy.chmod(0o755)
    output = place / "config.json"
    environment = dict(
        os.environ,
        HOME=str(place),
        XDG_RUNTIME_DIR=str(place / "xdg"),
        CONTAINERS_CONF="/dev/null",
    )
    environment.pop("DBUS_SESSION_BUS_ADDRESS", None)
    where = ["--root", str(place / "root"), "--runroot", str(place / "run")]
    where += ["--tmpdir", str(place / "tmp"), "--storage-driver", "vfs"]
    common = [program, *where, "--cgroup-manager", "cgroupfs"]
    common += ["--events-backend", "none", "--runtime", str(spy)]

    def run(*options: str) -> dict[str, Any]:
        output.unlink(missing_ok=True)
        command = [*common, "run", "--rm", "--network", "none", *options]
        answer = subprocess.run(
            [*command, "--rootfs", str(place / "rootfs"), "true"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if not output.exists():
            pytest.skip(f"podman does not run here: {answer.stderr.strip()[-200:]}")
        made: dict[str, Any] = json.loads(output.read_text())
        return made

    yield run
    unshare = [] if os.geteuid() == 0 else [program, *where, "unshare"]
    subprocess.run(
        [*unshare, "rm", "-rf", str(place / "root"), str(place / "run")],
        env=environment,
        check=False,
    )
    if os.geteuid() != 0:  # ends the process that keeps podman's user namespace
        migrate = [program, *where, "system", "migrate"]
        subprocess.run(migrate, env=environment, capture_output=True, check=False)
    shutil.rmtree(place, ignore_errors=True)


def test_podman_run(podman: Any) -> None:
    """A plain `podman run`: no field is refused; notes tell of the device list, which binds make
    needless, and of system calls that the profile names for kernels and machines we do not know.
    """
    plan = plans.make(podman(), plans.IN_PODMAN)
    assert plan.process.args == ("true",)
    assert plan.process.seccomp is not None
    told = {note.pointer for note in plan.notes}
    assert told <= {"/linux/resources/devices", "/linux/seccomp/syscalls"}
    assert {device.kind for device in plan.devices} == {"bind"}


@pytest.mark.parametrize(
    "options",
    [
        ("--privileged",),
        ("--read-only", "--tmpfs", "/t:size=64k,mode=700", "-t"),
        ("--user", "1000:1000", "--group-add", "5", "--cap-drop", "all", "--umask", "0077"),
        ("--device", "/dev/null:/dev/mynull", "--ulimit", "nofile=10:20"),
        ("--pid", "host", "--uts", "host"),
        ("--sysctl", "net.ipv4.ip_forward=1", "-v", "/etc:/e:ro,rslave", "--init=false"),
    ],
)
def test_podman_options(podman: Any, options: tuple[str, ...]) -> None:
    """So with what people ask of podman."""
    config = podman(*options)
    plan = plans.make(config, plans.IN_PODMAN)
    assert [mount.destination for mount in plan.mounts] == [
        entry["destination"] for entry in config["mounts"]
    ]
    assert plan.process.uid == config["process"]["user"]["uid"]


def test_podman_user_namespace(podman: Any) -> None:
    """--userns: the map is podman's, written directly from inside its namespace."""
    plan = plans.make(podman("--uidmap", "0:1:1000", "--gidmap", "0:1:1000"), plans.IN_PODMAN)
    assert plan.idmap is not None
    assert plan.idmap.writer == "direct"
    assert sum(r.size for r in plan.idmap.uids) == 1000


def test_planning_is_quick(podman: Any) -> None:
    """Seccomp aside, a hundred plans of podman's configuration take far less than a second."""
    config = podman("--security-opt", "seccomp=unconfined")
    bundle = plans.Bundle(path="/b", config=config, raw=b"")
    begun = time.process_time()
    for _ in range(100):
        plans.maker.make(bundle, plans.IN_PODMAN, id="x")
    assert time.process_time() - begun < 1
