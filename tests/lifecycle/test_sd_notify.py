"""NOTIFY_SOCKET: a service manager that started us hears when the program is ready, sd_notify(3)."""

from __future__ import annotations

import array
import os
import shutil
import signal
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless_pyoki.lifecycle import sd_notify
from rootless_pyoki.plan import describe
from tests.plan import plans
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

HERE = Path(__file__).parent


class Manager:
    """A service manager: its socket, what it has heard, and from whom."""

    def __init__(self, address: str, *, holds_barrier: bool = False) -> None:
        self.address = address
        self.heard: list[str] = []
        self.barriers: list[int] = []
        self.holds_barrier = holds_barrier
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address.replace("@", "\0", 1) if address[0] == "@" else address)
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            data, controls, _, _ = self.socket.recvmsg(4096, 64)
            if data == b"end":
                return
            fds = array.array("i")
            for _, _, content in controls:
                fds.frombytes(content)
            assert (data == b"BARRIER=1") == (len(fds) == 1)
            self.heard.append(data.decode())
            self.barriers += fds
            if not self.holds_barrier:
                self.lift()

    def lift(self) -> None:
        while self.barriers:
            os.close(self.barriers.pop())

    def expect(self, *messages: str) -> None:
        """These and no others, within ten seconds."""
        wait_until(lambda: len(self.heard) >= len(messages))
        assert self.heard == list(messages)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as own:
            own.sendto(b"end", self.socket.getsockname())
        self.thread.join(10)
        self.lift()
        self.socket.close()


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def notifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A static program that does what systemd-notify does."""
    output = tmp_path_factory.mktemp("notifier") / "notifier"
    compiler = needs.require_program("cc")
    subprocess.run([compiler, "-static", "-o", output, HERE / "notifier.c"], check=True)
    return output


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "manager.sock"))
    yield made
    made.close()


@pytest.fixture
def service(make_bundle: Callable[..., Bundle], notifier: Path) -> Bundle:
    """A program that waits for /tmp/go, says it is ready, and stays."""
    bundle = make_bundle()
    shutil.copy(notifier, bundle.rootfs / "bin/notifier")
    return bundle.shell(
        "notifier STATUS=begins MAINPID=1 NOT-READY=1 READY=0; while ! test -e /tmp/go; do sleep 0.02; done;"
        "notifier 'STATUS=up\nREADY=1' BARRIER=1 || exit 9; echo done; sleep 1000"
    )


def go(bundle: Bundle) -> None:
    (bundle.rootfs / "tmp/go").touch()


def told(pid: int) -> tuple[str, ...]:
    return "READY=1", f"MAINPID={pid}", "BARRIER=1"


@pytest.mark.parametrize("at_start", [False, True])
def test_start_waits(
    leak_check: None,
    runtime: Runtime,
    service: Bundle,
    identifier: str,
    manager: Manager,
    at_start: bool,
) -> None:
    """`start` returns when the program has said READY=1 and the manager has taken note. NOTIFY_SOCKET
    of create is remembered; that of start goes first."""
    address = str(service.path / "nobody") if at_start else manager.address
    env = {"NOTIFY_SOCKET": address}
    extra = Manager(address) if at_start else None
    created = runtime.create(identifier, service.path, env=env).ok()
    pid = runtime.state(identifier)["pid"]
    environment = dict(os.environ)
    environment.pop("NOTIFY_SOCKET", None)
    if at_start:
        environment["NOTIFY_SOCKET"] = manager.address
    starting = subprocess.Popen(runtime.argv("start", identifier), env=environment)
    runtime.wait_status(identifier, "running")
    time.sleep(0.2)
    assert starting.poll() is None
    assert manager.heard == []
    go(service)
    assert starting.wait(10) == 0
    manager.expect(*told(pid))
    wait_until(lambda: created.out == "done\n")
    if extra:
        assert extra.heard == []
        extra.close()
    runtime.delete(identifier, force=True).ok()


def test_run_detached_waits(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str, manager: Manager
) -> None:
    """So does `run --detach`."""
    line = runtime.argv("run", "--detach", "--bundle", str(service.path), identifier)
    environment = {**os.environ, "NOTIFY_SOCKET": manager.address}
    running = subprocess.Popen(line, env=environment, stdout=subprocess.DEVNULL)
    runtime.wait_status(identifier, "running")
    assert running.poll() is None
    go(service)
    assert running.wait(10) == 0
    manager.expect(*told(runtime.state(identifier)["pid"]))
    runtime.delete(identifier, force=True).ok()


def test_run_in_the_foreground(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str, manager: Manager
) -> None:
    """run passes it on while it attends, with itself as the process to watch; messages after READY=1
    go nowhere and hold nobody up."""
    service.shell(
        "notifier READY=1 BARRIER=1 || exit 9;"
        "for i in $(seq 200); do notifier WATCHDOG=1 || exit 8; done; exit 3"
    )
    env = {"NOTIFY_SOCKET": manager.address}
    done = runtime.run(identifier, service.path, env=env)
    assert done.code == 3, str(done)
    ready, main, barrier = manager.heard
    assert (ready, barrier) == ("READY=1", "BARRIER=1")
    assert main.startswith("MAINPID=")


def test_what_the_container_sees(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str, manager: Manager
) -> None:
    """The variable, a socket for everybody, a directory that it cannot write, for any user."""
    service.process["user"] = {"uid": 1000, "gid": 1000} if needs.subordinate_ids() else {}
    service.process["user"].setdefault("uid", 0)
    service.process["user"].setdefault("gid", 0)
    service.process["env"].append("NOTIFY_SOCKET=/elsewhere")
    service.shell(
        "echo $NOTIFY_SOCKET; env | grep -c NOTIFY; stat -c %A%a $NOTIFY_SOCKET; touch /run/notify/x;"
        "grep -c ' /run/notify ro,nosuid,nodev,noexec' /proc/mounts; notifier READY=1"
    )
    done = runtime.run(identifier, service.path, env={"NOTIFY_SOCKET": manager.address}).ok()
    lines = done.out.split("\n")
    assert lines[:3] == ["/run/notify/notify.sock", "1", "srwxrwxrwx777"]
    assert "Read-only file system" in done.err
    assert manager.heard[0] == "READY=1"  # said at the very end


def test_a_container_that_ends_unready(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str, manager: Manager
) -> None:
    """start has started it: no error, as in runc and crun, but a word in the log."""
    service.shell("notifier STATUS=no; exit 7")
    runtime.create(identifier, service.path, env={"NOTIFY_SOCKET": manager.address}).ok()
    started = runtime("--log-level", "warning", "start", identifier).ok()
    assert "has not said READY=1" in started.err
    assert manager.heard == []
    runtime.delete(identifier).ok()


def test_interrupted(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str, manager: Manager
) -> None:
    """Ctrl-C ends the waiting, not the container, which can be deleted, also while somebody waits."""
    runtime.create(identifier, service.path, env={"NOTIFY_SOCKET": manager.address}).ok()
    starting = runtime.popen("start", identifier)
    runtime.wait_status(identifier, "running")
    time.sleep(0.2)
    starting.send_signal(signal.SIGINT)
    assert starting.wait(10) == 130
    assert runtime.status(identifier) == "running"
    runtime.delete(identifier, force=True).ok()


def test_deleted_while_start_waits(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str, manager: Manager
) -> None:
    """Nobody holds the container's lock while waiting."""
    runtime.create(identifier, service.path, env={"NOTIFY_SOCKET": manager.address}).ok()
    starting = runtime.popen("start", identifier, stderr=subprocess.DEVNULL)
    runtime.wait_status(identifier, "running")
    time.sleep(0.1)
    runtime.delete(identifier, force=True).ok()
    assert starting.wait(10) == 0


def test_an_abstract_address(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str
) -> None:
    """NOTIFY_SOCKET=@name is an abstract one, as systemd in containers uses."""
    manager = Manager(f"@pyoki-test-{os.getpid()}")
    try:
        service.shell("notifier READY=1")
        runtime.run(identifier, service.path, env={"NOTIFY_SOCKET": manager.address}).ok()
        assert manager.heard[0] == "READY=1"
    finally:
        manager.close()


def test_nobody_there(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str, tmp_path: Path
) -> None:
    """No such socket: refused before anything is made; gone by the time of start: refused then."""
    for address, words in ((str(tmp_path / "none"), "ENOENT"), ("none", "neither a path")):
        refused = runtime.create(identifier, service.path, env={"NOTIFY_SOCKET": address})
        assert refused.code == 1
        assert "NOTIFY_SOCKET" in refused.err
        assert words in refused.err
        assert not runtime.root.is_dir() or list(runtime.root.iterdir()) == []
    manager = Manager(str(tmp_path / "manager.sock"))
    runtime.create(identifier, service.path, env={"NOTIFY_SOCKET": manager.address}).ok()
    manager.close()
    refused = runtime.start(identifier)
    assert refused.code == 1
    assert "ECONNREFUSED" in refused.err
    assert runtime.status(identifier) == "created"
    runtime.delete(identifier).ok()


def test_a_config_with_its_own(
    leak_check: None, runtime: Runtime, service: Bundle, identifier: str, manager: Manager
) -> None:
    """Something of config.json's own at /run/notify stays: podman brings its own socket there."""
    service.config["mounts"].append(
        {"destination": "/run/notify", "type": "tmpfs", "source": "tmpfs"}
    )
    service.shell("echo ${NOTIFY_SOCKET:-none}")
    done = runtime.run(identifier, service.path, env={"NOTIFY_SOCKET": manager.address}).ok()
    assert done.out == "none\n"


def test_a_hostile_image(
    leak_check: None,
    runtime: Runtime,
    service: Bundle,
    identifier: str,
    manager: Manager,
    tmp_path: Path,
) -> None:
    """A link at /run/notify leads nowhere outside."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (service.rootfs / "run/notify").symlink_to(outside)
    service.shell("notifier READY=1")
    runtime.run(identifier, service.path, env={"NOTIFY_SOCKET": manager.address}).ok()
    assert manager.heard[0] == "READY=1"
    assert list(outside.iterdir()) == []


def test_created_without(
    leak_check: None, runtime: Runtime, busybox_bundle: Bundle, identifier: str, manager: Manager
) -> None:
    """A container that was created for nobody is started at once, whatever start's environment."""
    runtime.create(identifier, busybox_bundle.path).ok()
    runtime("start", identifier, env={"NOTIFY_SOCKET": manager.address}).ok()
    assert manager.heard == []
    runtime.delete(identifier, force=True).ok()


def test_the_plan_says_so(manager: Manager) -> None:
    """The mount comes last, for whatever lies on /run; the plan tells who hears of it."""
    plan = sd_notify.prepare(plans.make(plans.config()), manager.address, "/state/id")
    lines = describe.describe(plan)
    mounts = [line for line in lines if line.split()[0] in ("bind", "rbind", "mount")]
    assert mounts[-1] == "bind /state/id/notify to /run/notify (ro,nosuid,nodev,noexec)"
    assert f"READY=1 of the program goes to {manager.address}" in lines
    assert "NOTIFY_SOCKET=/run/notify/notify.sock" in plan.process.env


def test_the_barrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BARRIER=1 is waited for until the manager lets go of what came with it, thirty seconds at most
    (here 0.3)."""
    manager = Manager(str(tmp_path / "manager"), holds_barrier=True)
    directory = os.open(tmp_path, os.O_PATH)
    sd_notify.make_directory(directory)
    mode = (tmp_path / "notify").stat().st_mode
    assert stat.S_IMODE(mode) == 0o755
    sleeper = subprocess.Popen(["sleep", "100"])
    pidfd = os.pidfd_open(sleeper.pid)
    try:
        for patience, least, most in ((0.3, 0.3, 2), (30, 0.4, 5)):
            monkeypatch.setattr(sd_notify, "BARRIER_TIMEOUT", int(patience * 1000))
            proxy = sd_notify.Proxy(directory, manager.address, 42)
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as program:
                program.sendto(b"READY=1", str(tmp_path / "notify/notify.sock"))
            timer = threading.Timer(0.5 if patience == 30 else 3, manager.lift)
            begin = time.monotonic()
            timer.start()
            proxy.wait(pidfd)
            assert least <= time.monotonic() - begin <= most
            timer.cancel()
            timer.join()
            assert tuple(manager.heard) == told(42)
            manager.heard.clear()
    finally:
        sleeper.kill()
        sleeper.wait()
        os.close(pidfd)
        os.close(directory)
        manager.close()
