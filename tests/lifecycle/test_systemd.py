"""Containers in scopes of the user's systemd: every verb, from a login session and from the user's slice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import buses, needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime, default_command

pytestmark = pytest.mark.session

Make = Callable[..., Bundle]


def systemctl(*words: str) -> str:
    command = ["systemctl", "--user", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30).stdout


def units(identifier: str) -> list[str]:
    """Units with this in their names, whatever has become of them."""
    lines = systemctl("list-units", "--all", "--plain", "--no-legend", f"*{identifier}*")
    return [line.split()[0] for line in lines.splitlines()]


def cgroups(identifier: str) -> list[Path]:
    top = Path(f"{needs.cgroup_mount()}{needs.user_manager()}")
    return [path for path in top.rglob(f"*{identifier}*") if path.is_dir()]


def cgroup_of(pid: int) -> str:
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


@pytest.fixture
def systemd(
    state_root: Path, leak_check: None, identifier: str, request: pytest.FixtureRequest
) -> Iterator[Runtime]:
    """pyoki --systemd-cgroup; at the end no unit and no cgroup of the test's may be left."""
    runtime = Runtime(default_command(), state_root, options=["--systemd-cgroup"])
    yield runtime
    runtime.clear()
    assert (units(identifier), cgroups(identifier)) == ([], [])


def keep_id(bundle: Bundle) -> Bundle:
    """The caller is a user in the container, as with podman's keep-id: root is a subordinate id."""
    for kind in ("uid", "gid"):
        subordinate = needs.subordinate_ids(kind)
        assert subordinate is not None
        own = os.getuid() if kind == "uid" else os.getgid()
        bundle.linux[f"{kind}Mappings"] = [
            {"containerID": 0, "hostID": subordinate[0], "size": 1000},
            {"containerID": 1000, "hostID": own, "size": 1},
            {"containerID": 1001, "hostID": subordinate[0] + 1000, "size": 1000},
        ]
    return bundle.write()


def test_a_life(systemd: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """create to delete: one scope, in which all of its processes live, and which ends with them."""
    unit = f"pyoki-{identifier}.scope"
    systemd.create(identifier, busybox_bundle.path).ok()
    wanted = "--property=Slice,Delegate,ActiveState,CollectMode,Description,DefaultDependencies"
    told = dict(line.split("=", 1) for line in systemctl("show", wanted, unit).splitlines())
    assert told.pop("Description").startswith(f"pyoki container {identifier} ")
    assert told == {
        "Slice": "user.slice", "Delegate": "yes", "ActiveState": "active",
        "CollectMode": "inactive-or-failed", "DefaultDependencies": "no",
    }  # fmt: skip
    systemd.start(identifier).ok()
    pid = systemd.state(identifier)["pid"]
    place = cgroup_of(pid)
    assert place == f"{needs.user_manager()}/user.slice/{unit}"

    systemd("exec", "--detach", identifier, "sleep", "1000").ok()
    pids = json.loads(systemd("ps", "--format", "json", identifier).ok().out)
    assert len(pids) == 2 and {cgroup_of(one) for one in pids} == {place}
    assert systemd.exec(identifier, "sh", "-c", "exit 3").code == 3

    systemd("pause", identifier).ok()
    assert systemd.status(identifier) == "paused"
    systemd("resume", identifier).ok()
    verbose = json.loads(systemd("state", "--verbose", identifier).ok().out)["pyoki"]["cgroup"]
    assert verbose == {
        "manager": "systemd", "unit": unit, "slice": "user.slice", "reason": "",
        "path": f"{needs.cgroup_mount()}{place}",
    }  # fmt: skip

    systemd.kill(identifier, "--all", "KILL").ok()
    systemd.wait_status(identifier, "stopped")
    systemd.delete(identifier).ok()
    assert (units(identifier), cgroups(identifier)) == ([], [])


def test_delete_ends_what_runs(systemd: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """delete --force of a running, of a paused and of a merely created container: nothing is left."""
    for state in ("running", "paused", "created"):
        systemd.create(identifier, busybox_bundle.path).ok()
        if state != "created":
            systemd.start(identifier).ok()
            systemd("exec", "--detach", identifier, "sleep", "1000").ok()
        if state == "paused":
            systemd("pause", identifier).ok()
        systemd.delete(identifier, force=True).ok()
        assert (units(identifier), cgroups(identifier)) == ([], []), state


def test_run_leaves_nothing(systemd: Runtime, make_bundle: Make, identifier: str) -> None:
    """A foreground run ends with its program: no scope, no cgroup; a detached one is deleted."""
    script = "cat /proc/self/cgroup; ls /proc/self/fd; exit 7"
    bundle = make_bundle("sh", "-c", script)
    done = systemd.run(identifier, bundle.path)
    assert done.code == 7, str(done)
    assert "0::/\n" in done.out  # the scope is the root of its cgroup namespace
    assert done.out.split()[-4:] == ["0", "1", "2", "3"]  # the last is of ls
    assert (units(identifier), cgroups(identifier)) == ([], [])
    systemd.run(identifier, bundle.path, "--detach").ok()
    systemd.wait_status(identifier, "stopped")
    systemd.delete(identifier).ok()


def test_auto_takes_systemd(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str, leak_check: None
) -> None:
    """Without a request the container gets a scope where systemd answers, and later verbs know."""
    runtime.create(identifier, busybox_bundle.path).ok()
    assert units(identifier) == [f"pyoki-{identifier}.scope"]
    runtime.delete(identifier, force=True).ok()
    assert (units(identifier), cgroups(identifier)) == ([], [])


@pytest.mark.parametrize(
    ("given", "unit"),
    [
        ("app.slice:prefix:{}", "prefix-{}.scope"),
        ("app.slice::{}", "{}.scope"),
        ("app.slice::{}.scope", "{}.scope"),
        ("app.slice:a+b:{}", "a\\x2bb-{}.scope"),
    ],
)
def test_the_path_names_unit_and_slice(
    systemd: Runtime, busybox_bundle: Bundle, identifier: str, given: str, unit: str
) -> None:
    """/linux/cgroupsPath is slice:prefix:name."""
    busybox_bundle.linux["cgroupsPath"] = given.format(identifier)
    systemd.create(identifier, busybox_bundle.write().path).ok()
    place = cgroup_of(systemd.state(identifier)["pid"])
    assert place == f"{needs.user_manager()}/app.slice/{unit.format(identifier)}"
    systemd.exec(identifier, "true")  # created: nothing runs there yet, but the way in is the same
    systemd.delete(identifier, force=True).ok()


@pytest.mark.usefixtures("all_ids")
def test_another_uid(systemd: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """Where the container's root is a subordinate id: created, and entered, from wherever we are.

    From a login session systemd moves processes with the caller's uid only.
    """
    systemd.create(identifier, keep_id(busybox_bundle).path).ok()
    systemd.start(identifier).ok()
    place = cgroup_of(systemd.state(identifier)["pid"])
    systemd("exec", "--detach", identifier, "sleep", "1000").ok()
    systemd("exec", "--detach", "--user", "1000", identifier, "sleep", "1000").ok()
    pids = json.loads(systemd("ps", "--format", "json", identifier).ok().out)
    assert len(pids) == 3 and {cgroup_of(one) for one in pids} == {place}
    systemd("pause", identifier).ok()
    systemd.delete(identifier, force=True).ok()


@pytest.mark.usefixtures("all_ids")
@pytest.mark.parametrize("own_root", [True, False])
def test_exec_below(
    systemd: Runtime, busybox_bundle: Bundle, identifier: str, own_root: bool
) -> None:
    """exec --cgroup goes into a cgroup below the scope's, also where systemd has to move it."""
    bundle = busybox_bundle if own_root else keep_id(busybox_bundle)
    systemd.create(identifier, bundle.path).ok()
    systemd.start(identifier).ok()
    pid = systemd.state(identifier)["pid"]
    (below,) = cgroups(identifier)
    below = below / "below"
    below.mkdir()
    systemd("exec", "--detach", "--cgroup", "below", identifier, "sleep", "1000").ok()
    assert len((below / "cgroup.procs").read_text().split()) == 1
    assert f"{cgroup_of(pid)}/below" == str(below).removeprefix(str(needs.cgroup_mount()))
    systemd.delete(identifier, force=True).ok()


def test_two_of_one_name(
    systemd: Runtime, busybox_bundle: Bundle, identifier: str, tmp_path: Path
) -> None:
    """A unit of this name that lives is an error that names it, and is let live; one that fails to be
    made leaves nothing of its container."""
    other = Runtime(systemd.command, tmp_path / "other", options=systemd.options)
    systemd.create(identifier, busybox_bundle.path).ok()
    refused = other.create(identifier, busybox_bundle.path)
    assert refused.code == 1
    assert f"systemd unit pyoki-{identifier}.scope exists, and is active" in refused.err
    assert other.status(identifier) == "" and not list(other.root.iterdir())
    assert systemd.status(identifier) == "created"
    systemd.delete(identifier, force=True).ok()


def test_what_cannot_start_leaves_nothing(
    systemd: Runtime, make_bundle: Make, identifier: str
) -> None:
    """A program that is not there, and a mount that cannot be: the scope was made, and is gone."""
    assert systemd.create(identifier, make_bundle("/nothing").path).code != 0
    assert (units(identifier), cgroups(identifier)) == ([], [])
    bundle = make_bundle()
    bundle.config["mounts"].append({"destination": "/x", "source": "/nothing", "type": "bind"})
    assert systemd.run(identifier, bundle.write().path).code != 0


@pytest.mark.parametrize("delay", [0.02, 0.05, 0.08, 0.11, 0.15])
def test_a_killed_create(
    systemd: Runtime, busybox_bundle: Bundle, identifier: str, delay: float
) -> None:
    """kill -9 of create, whenever: delete --force leaves no scope and no process."""
    process = systemd.popen("create", "--bundle", str(busybox_bundle.path), identifier)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    systemd.delete(identifier, force=True).ok()
    assert systemd.status(identifier) == ""
    deadline = time.monotonic() + 5
    while (found := (units(identifier), cgroups(identifier))) != ([], []):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_a_strangers_unit_is_left_alone(
    systemd: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """The scope ended by itself, and another has its name now: delete does not end that one."""
    unit = f"pyoki-{identifier}.scope"
    systemd.create(identifier, busybox_bundle.path).ok()
    systemd.kill(identifier, "KILL").ok()
    systemd.wait_status(identifier, "stopped")
    deadline = time.monotonic() + 5
    while units(identifier):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    words = ["systemd-run", "--user", "--scope", "--quiet", "--slice=user.slice", f"--unit={unit}"]
    with subprocess.Popen([*words, "sleep", "1000"]) as stranger:
        try:
            while not cgroups(identifier):
                assert time.monotonic() < deadline
                time.sleep(0.02)
            systemd.delete(identifier, force=True).ok()
            assert stranger.poll() is None
            assert units(identifier) == [unit]
        finally:
            stranger.kill()


def test_a_controller_that_is_not_delegated(
    systemd: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """Refused before anything is made, with the controller, the field and what delegates it."""
    busybox_bundle.linux["resources"] = {"unified": {"rdma.max": "x hca_handle=1"}}
    refused = systemd.create(identifier, busybox_bundle.write().path)
    assert refused.code == 1 and "rdma" in refused.err
    assert "/linux/resources/unified/rdma.max" in refused.err
    assert systemd.status(identifier) == ""


def test_other_ways_to_the_manager(
    systemd: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """Without an environment the bus is in /run/user; a bus that is not systemd's is passed over."""
    bundle = make_bundle("true")
    home = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    words = ["env", "-i", *[f"{key}={value}" for key, value in home.items()]]
    systemd.run(identifier, bundle.path, prefix=words).ok()
    for address in ("unix:path=/nowhere", "autolaunch:", "disabled:"):
        systemd.run(identifier, bundle.path, env={"DBUS_SESSION_BUS_ADDRESS": address}).ok()
    with buses.dbus_daemon(tmp_path) as address:
        systemd.run(identifier, bundle.path, env={"DBUS_SESSION_BUS_ADDRESS": address}).ok()


def test_delete_without_a_bus(systemd: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """What lives is killed and its scope ends by itself: nobody has to be asked."""
    systemd.create(identifier, busybox_bundle.path).ok()
    hidden = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    hidden += ['mount -t tmpfs none /run/user && exec "$@"', "sh"]
    systemd("delete", "--force", identifier, prefix=hidden).ok()
    assert (units(identifier), cgroups(identifier)) == ([], [])


def test_another_pid_namespace(
    runtime: Runtime, systemd: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Process ids of ours are strangers' to the manager: an error, and no scope by `auto`."""
    bundle = make_bundle("true")
    inside = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    bundle.without_namespace("user")
    for kind in ("uid", "gid"):
        del bundle.linux[f"{kind}Mappings"]
    refused = systemd.run(identifier, bundle.write().path, prefix=inside)
    assert refused.code == 1 and "belongs to another pid namespace" in refused.err
    runtime.run(identifier, bundle.path, prefix=inside).ok()


@pytest.mark.usefixtures("all_ids")
def test_as_podman_calls_us(systemd: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """uid 0 of a user namespace, without a bus in the environment: the peer's credentials count."""
    busybox_bundle.without_namespace("user")
    for kind in ("uid", "gid"):
        del busybox_bundle.linux[f"{kind}Mappings"]
    busybox_bundle.linux["cgroupsPath"] = f"user.slice:libpod:{identifier}"
    busybox_bundle.write()
    words = ["unshare", "--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c"]
    holder = subprocess.Popen([*words, "echo; exec sleep 1000"], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline()
    inside = ["nsenter", "--user", "--mount", "--preserve-credentials", f"--target={holder.pid}"]
    inside += ["env", "-u", "DBUS_SESSION_BUS_ADDRESS"]
    systemd.create(identifier, busybox_bundle.path, prefix=inside).ok()
    systemd("start", identifier, prefix=inside).ok()
    assert units(identifier) == [f"libpod-{identifier}.scope"]
    systemd("exec", "--detach", identifier, "sleep", "1000", prefix=inside).ok()
    pids = json.loads(systemd("ps", "--format", "json", identifier, prefix=inside).ok().out)
    places = {cgroup_of(one) for one in pids}
    assert len(pids) == 2 and places == {
        f"{needs.user_manager()}/user.slice/libpod-{identifier}.scope"
    }
    systemd("pause", identifier, prefix=inside).ok()
    systemd("delete", "--force", identifier, prefix=inside).ok()
    holder.kill()
    holder.communicate()
