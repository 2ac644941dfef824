"""Where systemd, its bus, or cgroup v2 is missing: what happens is said in a line, and nothing hangs.

Each case is one way to be called: the scene, a shell command that changes what is mounted, and the
environment. Three requests are made in each: a container without limits, one with a memory limit, and
one with --systemd-cgroup. tests/vm runs those that need a real session.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from rootless_pyoki.cgroups import dbus
from tests.support import buses, units
from tests.support.bundles import Bundle
from tests.support.runtime import CHECKOUT, TIMEOUT, Runtime, default_command

SECONDS = 4.0 * TIMEOUT / 30  # besides the container itself; twice what an idle machine may need
REQUESTS = ("plain", "limit", "systemd")
Answers = dict[str, tuple[int, str]]  # request → exit code, what was said
KEPT = ("PATH", "PYTHONPATH")

HIDE = "[ ! -d /run/user ] || mount -t tmpfs none /run/user"
READ_ONLY = "mount --bind /sys/fs/cgroup /sys/fs/cgroup; mount -o remount,bind,ro /sys/fs/cgroup"
COVER = "mount -t tmpfs none /sys/fs/cgroup; mkdir /sys/fs/cgroup/memory"
HYBRID = (
    "mkdir -p $scratch/v2; mount --bind /sys/fs/cgroup $scratch/v2; mount -t tmpfs none /sys/fs/cgroup; "
    "mkdir /sys/fs/cgroup/memory /sys/fs/cgroup/unified; mount --bind $scratch/v2 /sys/fs/cgroup/unified"
)


class Caller:
    """Makes the three requests, and tells what came of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bundles = {}
        for name in ("plain", "limit"):
            (folder / name).mkdir()
            self.bundles[name] = Bundle(folder / name, "true", applets=["true"]).single_map()
        self.bundles["limit"].linux["resources"] = {"memory": {"limit": 64 << 20}}
        self.bundles["limit"].write()
        self.bundles["systemd"] = self.bundles["plain"]
        self.mark = f"s{os.getpid()}"
        self.count = 0
        self.usual = 0.0
        self.usual = self.once("plain", ["--cgroup-manager=disabled"], [])[2]

    def argv(self, request: str, id: str) -> list[str]:
        """The command line of a container that is run in the foreground."""
        runtime = Runtime(default_command(), self.folder / "state")
        options = ["--systemd-cgroup"] if request == "systemd" else []
        return [*runtime.argv(), *options, "run", "-b", str(self.bundles[request].path), id]

    def once(
        self, request: str, options: Sequence[str], prefix: Sequence[str]
    ) -> tuple[int, str, float]:
        """Exit code, what was said, and the seconds; nothing may be left."""
        self.count += 1
        given = [*options, *(["--systemd-cgroup"] if request == "systemd" else [])]
        runtime = Runtime(default_command(), self.folder / "state", options=given)
        begin = time.monotonic()
        path = self.bundles[request].path
        done = runtime.run(f"{self.mark}-{self.count}", path, prefix=prefix)
        seconds = time.monotonic() - begin - self.usual
        left = os.listdir(runtime.root) if runtime.root.exists() else []
        assert left == [], f"{request}: {left} is left: {done}"
        return done.code, done.out + done.err, seconds

    def requests(
        self, case: str, scene: str = "", asked: Sequence[str] = REQUESTS, **environment: str
    ) -> Answers:
        """scene: shell commands, as root of a user namespace that has the mounts for itself."""
        variables = {name: os.environ[name] for name in KEPT if name in os.environ} | environment
        prefix = ["env", "-i", *[f"{name}={value}" for name, value in variables.items()]]
        if scene:
            scratch = self.folder / "scratch"
            scratch.mkdir(exist_ok=True)
            ids = f"--map-user={os.getuid()} --map-group={os.getgid()}"
            script = f'set -e; scratch={scratch}; {scene}; exec unshare --user {ids} "$@"'
            words = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
            prefix = [*words, *prefix]
        found = {}
        for request in asked:
            code, said, seconds = self.once(request, [], prefix)
            tell(case, request, code, said, seconds)
            found[request] = code, said
        return found


def tell(case: str, request: str, code: int, said: str, seconds: float) -> None:
    """A line of the table. What fails has said so in one line, the rest nothing."""
    print(f"{case:32} {request:8} {code:3} {max(seconds, 0):5.1f} s  {said.strip()}")
    assert seconds < SECONDS, f"{case}, {request}: {seconds:.1f} s more than usual"
    assert said.count("\n") == (1 if code else 0), f"{case}, {request}: {said}"


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Caller:
    print(f"\n{'case':32} {'request':8} exit   more  said")
    return Caller(tmp_path_factory.mktemp("s"))


def refused(answer: tuple[int, str], pattern: str) -> None:
    code, said = answer
    assert code == 1 and re.search(pattern, said), answer


def limited_or_refused(answer: tuple[int, str]) -> None:
    """As the machine has it: where the controller can be had, the limit is set."""
    if answer[0]:
        refused(answer, NO_MEMORY)
        assert "/linux/resources/memory/limit" in answer[1] and "hint: " in answer[1]


NO_MEMORY = r"memory\.max needs a cgroup with the memory|lacks the memory controller"
NOBODY = r"no systemd manager answers \(.*{}.*\); hint: the user's systemd manager has to run"


@contextmanager
def impolite(folder: Path, kind: str) -> Iterator[str]:
    """An address at which something listens that is no bus: dead, silent, rude, chatty."""
    path = str(folder / "bus")
    with ExitStack() as stack:
        if kind == "dead":
            with socket.socket(socket.AF_UNIX) as server:
                server.bind(path)
        else:
            server = stack.enter_context(buses.listener(path))
        if kind in ("rude", "chatty"):
            said = b"SSH-2.0-x\r\n" if kind == "chatty" else b""
            thread = threading.Thread(target=answer, args=(server, said), daemon=True)
            thread.start()
            stack.callback(server.shutdown, socket.SHUT_RDWR)
        yield f"unix:path={path}"
    if kind == "dead":
        os.unlink(path)


def answer(server: socket.socket, said: bytes) -> None:
    while True:
        try:
            one, _ = server.accept()
        except OSError:
            return
        with one:
            one.sendall(said)


@pytest.mark.parametrize(
    ("case", "scene"),
    [
        ("no bus", HIDE),
        ("no bus, read-only cgroups", f"{HIDE}; {READ_ONLY}"),
        ("no bus, hybrid", f"{HIDE}; {HYBRID}"),
        ("no bus, no cgroup v2", f"{HIDE}; {COVER}"),
    ],
    ids=["v2", "read-only", "hybrid", "no-v2"],
)
def test_without_a_bus(caller: Caller, case: str, scene: str) -> None:
    """As from cron, su, or CI: a container without limits runs; what cannot be has its reason."""
    found = caller.requests(case, scene)
    assert found["plain"] == (0, "")
    limited_or_refused(found["limit"])
    if case.endswith(("read-only cgroups", "no cgroup v2")):
        refused(found["limit"], r"is not writable|no cgroup v2 is mounted")
    refused(found["systemd"], NOBODY.format("no address is known"))


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("dead", "ECONNREFUSED"),
        ("silent", f"has not answered for {dbus.PATIENCE:g} s"),
        ("rude", "it has closed the connection before it knew us"),
        ("chatty", "what it answers is no D-Bus handshake"),
    ],
    ids=["dead", "silent", "rude", "chatty"],
)
def test_what_is_no_bus(caller: Caller, tmp_path: Path, kind: str, reason: str) -> None:
    """Where something else listens, or nobody any more: as without."""
    asked = ("plain", "systemd") if kind in ("rude", "chatty") else REQUESTS
    with impolite(tmp_path, kind) as address:
        found = caller.requests(f"a {kind} bus", HIDE, asked, DBUS_SESSION_BUS_ADDRESS=address)
    assert found["plain"] == (0, "")
    limited_or_refused(found.get("limit", (0, "")))
    refused(found["systemd"], NOBODY.format(reason))


@pytest.mark.session
@pytest.mark.parametrize(
    ("case", "scene"),
    [
        ("env -i", ""),
        ("a bus, read-only cgroups", READ_ONLY),
        ("a bus, hybrid", HYBRID),
        ("a bus, no cgroup v2", COVER),
    ],
    ids=["v2", "read-only", "hybrid", "no-v2"],
)
def test_with_a_bus(caller: Caller, case: str, scene: str) -> None:
    """The bus is found without any environment, and systemd makes scopes whatever we see of them."""
    found = caller.requests(case, scene)
    assert found["plain"] == found["systemd"] == (0, "")
    limited_or_refused(found["limit"])
    assert units.left(caller.mark) == []


@pytest.mark.session
def test_what_names_no_bus_of_ours(caller: Caller, tmp_path: Path) -> None:
    """su keeps the variables of another user, and a bus may hang: then our own is taken."""
    theirs = {
        "XDG_RUNTIME_DIR": "/run/user/0",
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/0/bus",
    }
    found = [caller.requests("su", **theirs)]
    with impolite(tmp_path, "silent") as address:
        found.append(caller.requests("a silent bus, and ours", DBUS_SESSION_BUS_ADDRESS=address))
    for one in found:
        assert one["plain"] == one["systemd"] == (0, "")
        limited_or_refused(one["limit"])
    assert units.left(caller.mark) == []


def surroundings(folder: Path, binds: Sequence[Path]) -> Bundle:
    """A container with this machine's programs, as another user of the machine would see them."""
    folder.mkdir()
    outer = Bundle(folder, applets=["true"]).single_map()
    shutil.rmtree(outer.rootfs / "bin")
    skipped = ("proc", "sys", "dev", "tmp", "run")
    folders = [path for path in sorted(Path("/").iterdir()) if path.name not in skipped]
    # of tests that are tried out from there
    ours = [path for path in (CHECKOUT, Path(sys.prefix)) if path.parts[1] in skipped]
    for path in [*folders, *ours, *binds]:
        if path.is_symlink():
            (outer.rootfs / path.name).symlink_to(path.readlink())
        elif path.is_dir():
            bind = {"destination": str(path), "source": str(path), "type": "bind"}
            outer.config["mounts"].append({**bind, "options": ["rbind"]})
    # a container within it maps its root, which user_namespaces(7) allows with CAP_SETFCAP only
    for names in outer.process["capabilities"].values():
        names.append("CAP_SETFCAP")
    outer.linux["maskedPaths"] = outer.linux["readonlyPaths"] = []  # for a proc of its own
    return outer.write()


@pytest.mark.parametrize(
    "bus", [False, pytest.param(True, marks=pytest.mark.session)], ids=["no-bus", "bus"]
)
def test_inside_a_container(tmp_path: Path, bus: bool) -> None:
    """pyoki in pyoki: systemd outside knows other process ids, and is left alone."""
    (tmp_path / "s").mkdir()
    caller = Caller(tmp_path / "s")
    for bundle in caller.bundles.values():
        for kind in ("uid", "gid"):
            bundle.linux[f"{kind}Mappings"][0]["hostID"] = 0
        bundle.write()
    run = Path(f"/run/user/{os.getuid()}")
    outer = surroundings(tmp_path / "outer", [caller.folder, *([run] if bus else [])])
    outer.process["env"] = [f"PATH={os.environ['PATH']}", f"XDG_RUNTIME_DIR={run}"]
    runtime = Runtime(default_command(), tmp_path / "state")
    found = {}
    for request in REQUESTS:
        outer.args(*caller.argv(request, f"{caller.mark}-inner"))
        begin = time.monotonic()
        done = runtime.run(f"{caller.mark}-outer", outer.path)
        seconds = time.monotonic() - begin - 2 * caller.usual
        found[request] = done.code, done.out + done.err
        tell(f"in a container{', a bus' if bus else ''}", request, *found[request], seconds)
    assert found["plain"] == (0, "")
    refused(found["limit"], NO_MEMORY)
    reason = "it belongs to another pid namespace" if bus else "no address is known"
    refused(found["systemd"], NOBODY.format(reason))
    assert not bus or units.left(caller.mark) == []
