"""What fails, fails in one line that names the cause, and leaves nothing."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.state import store
from tests.support.bundles import Bundle
from tests.support.needs import require, require_program
from tests.support.runtime import Result, Runtime

Make = Callable[..., Bundle]


def refused(result: Result, *words: str) -> None:
    assert result.code == 1 and result.err.count("\n") == 1, str(result)
    for word in words:
        assert word in result.err, str(result)
    assert not result.err.rstrip("\n").endswith(".")


@pytest.mark.parametrize("name", ["n" * 200_000, "/" + "p" * 200_000, "ü" * 100_000])
def test_a_program_with_an_endless_name(
    runtime: Runtime, make_bundle: Make, identifier: str, name: str
) -> None:
    """The message fits the channel, and says where."""
    result = runtime.run(identifier, make_bundle(name).path)
    refused(result, "exec ", "ENAMETOOLONG" if name[0] == "/" else "$PATH", "/process/args/0")
    assert len(result.err) < 4096


def test_arguments_that_no_kernel_takes(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """One string may be 128 KiB long."""
    result = runtime.run(identifier, make_bundle("echo", "x" * (128 << 10)).path)
    refused(result, "argument list too long (E2BIG)", "/process/args")


def test_a_source_that_cannot_be_cloned(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Also where the second way to do it fails, the field is named."""
    bundle = make_bundle("true")
    mount = {"destination": "/x", "type": "bind", "source": "/proc/self/fd/0"}
    bundle.config["mounts"].append({**mount, "options": ["bind"]})
    number = len(bundle.config["mounts"]) - 1
    refused(runtime.run(identifier, bundle.write().path), f"/mounts/{number}/source")


@pytest.mark.parametrize("count", ["²", "-1", "x", ""])
def test_listen_fds_that_is_no_number(
    runtime: Runtime, make_bundle: Make, identifier: str, count: str
) -> None:
    """Not for us, as sd_listen_fds(3) sees it."""
    bundle = make_bundle("true")
    runtime.run(identifier, bundle.path, env={"LISTEN_FDS": count}).ok()


def test_listen_fds_of_many_digits(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A hole like any other."""
    result = runtime.run(identifier, make_bundle("true").path, env={"LISTEN_FDS": "9" * 6000})
    refused(result, "from 3 on", "EBADF")


def test_a_state_root_that_cannot_be_made(runtime: Runtime, make_bundle: Make) -> None:
    """procfs says ENOENT to every mkdir, however often it is asked."""
    runtime.root = Path("/proc/x/y")
    refused(runtime.run("c", make_bundle("true").path), "make the root of all state", "ENOENT")


def test_a_foreign_state_root_is_refused_by_uid_0_of_a_user_namespace(runtime: Runtime) -> None:
    """Who owns the directory decides what is killed, and which hooks run."""
    require(os.getuid() != 0, "root owns it all")
    unshare = require_program("unshare")
    probe = subprocess.run([unshare, "-Ur", "true"], capture_output=True, check=False)
    require(probe.returncode == 0, "no user namespaces")
    result = runtime("--root", "/usr", "state", "x", prefix=[unshare, "-Ur"])
    refused(result, "/usr belongs to uid 65534, not to us")


def _slow(bundle: Bundle, kind: str, seconds: str) -> Bundle:
    """A bundle whose hook of this kind takes its time."""
    path = shutil.which("sleep") if kind == "createRuntime" else "/bin/sleep"
    bundle.config["hooks"] = {kind: [{"path": path, "args": ["sleep", seconds]}]}
    return bundle.write()


def _wait_for_first_process(runtime: Runtime, id: str) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if json.loads((runtime.root / id / "state.json").read_text())["pid"]:
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    raise AssertionError(f"{id} was never born")


def test_init_is_killed_while_a_hook_runs(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """create says what happened to it, and undoes everything."""
    bundle = _slow(busybox_bundle, "createRuntime", "1")
    process = runtime.popen(
        "create", "--bundle", str(bundle.path), identifier, stderr=subprocess.PIPE
    )
    _wait_for_first_process(runtime, identifier)
    runtime.kill(identifier, "KILL").ok()
    _, words = process.communicate(timeout=20)
    assert process.returncode == 1
    assert words.startswith(b"error: init was killed by signal 9"), words
    assert words.count(b"\n") == 1
    assert os.listdir(runtime.root) == []


def test_delete_force_ends_a_start_that_hangs(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """A startContainer hook without an end holds the lock, but not for ever."""
    runtime.create(identifier, _slow(busybox_bundle, "startContainer", "1000").path).ok()
    start = runtime.popen("start", identifier, stderr=subprocess.PIPE)
    time.sleep(0.5)
    assert start.poll() is None
    runtime("delete", "--force", identifier, timeout=15).ok()
    start.communicate(timeout=10)
    assert os.listdir(runtime.root) == []


def test_delete_force_under_a_foreground_run(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """run ends with its program's code and not a word, since all is cleared already."""
    process = runtime.popen(
        "run", "--bundle", str(busybox_bundle.path), identifier, stderr=subprocess.PIPE
    )
    runtime.wait_status(identifier, "running")
    runtime.delete(identifier, force=True).ok()
    _, words = process.communicate(timeout=10)
    assert (process.returncode, words) == (137, b"")


def test_an_id_that_is_taken_is_said_first(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """Not that its cgroup is in use: callers look for these words."""
    runtime.run(identifier, busybox_bundle.path, "--detach").ok()
    refused(runtime.create(identifier, busybox_bundle.path), "already exists")
    assert runtime.status(identifier) == "running"


@pytest.mark.parametrize("boot", ["same", "another"])
def test_a_leftover_does_not_kill_who_has_its_cgroup_now(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str, v2: Path, boot: str
) -> None:
    """A create that died before it had a process, or before a reboot, owns nobody in that cgroup."""
    busybox_bundle.linux["cgroupsPath"] = f"/{identifier}"
    runtime.run(identifier, busybox_bundle.write().path, "--detach").ok()
    state = json.loads((runtime.root / identifier / "state.json").read_text())
    state.update(id="left", phase="creating", creatorPid=2**22 - 1, creatorStartTime=1)
    if boot == "same":
        state.update(pid=0, startTime=0)
    else:
        state.update(bootId="0" * 8)
    leftover = runtime.root / "left"
    leftover.mkdir(mode=0o700)
    (leftover / "lock").touch()
    (leftover / "state.json").write_text(json.dumps(state))
    runtime.delete("left", force=True).ok()
    assert runtime.status(identifier) == "running"
    assert not leftover.exists()


def test_a_directory_that_takes_no_lock_does_not_stay(tmp_path: Path) -> None:
    """Where the lock cannot be made, not even an empty directory is left."""
    root = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    free = os.dup(root)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))  # one more, and no second
    try:
        with pytest.raises(SyscallError, match="EMFILE"):
            store.create_container(root, "c")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        os.close(root)
    assert os.listdir(tmp_path) == []
