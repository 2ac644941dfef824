"""What is done to cgroups and the processes in them, in a real cgroup v2 tree."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless_pyoki.cgroups import cgroupfs, limits, manager, tree
from rootless_pyoki.errors import (
    HostError,
    PyokiError,
    SpecError,
    StateError,
    SyscallError,
    UnsupportedError,
)
from tests.support import needs


def frozen(path: str) -> bool:
    return manager.frozen(manager.Cgroup(manager="cgroupfs", path=path))


@pytest.fixture
def mount() -> str:
    needs.require(needs.cgroup_mount(), "no cgroup v2 is mounted")
    return str(needs.cgroup_mount())


@pytest.fixture
def parent(mount: str) -> Path:
    """A directory of the cgroup tree in which we may do as we like."""
    directory = needs.delegated_cgroup()
    needs.require(directory, "no cgroup v2 subtree is delegated to this user")
    assert directory is not None
    return directory


@pytest.fixture
def cgroup(parent: Path, mount: str) -> Iterator[str]:
    path = f"{parent}/test-{os.getpid()}"
    cgroupfs.create(path, mount)
    yield path
    cgroupfs.kill(path)
    cgroupfs.remove(path)


@pytest.fixture
def sleeper() -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    started = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(["sleep", "100"]))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_create_makes_missing_parents_and_remove_takes_them_away(parent: Path, mount: str) -> None:
    """`create` tells the topmost directory that it made, and `remove` goes up to that one."""
    path = f"{parent}/test-a-{os.getpid()}/b/c"
    top = cgroupfs.create(path, mount)
    try:
        assert top == f"{parent}/test-a-{os.getpid()}"
        assert Path(path, "cgroup.procs").exists()
    finally:
        cgroupfs.remove(path, top=top)
    assert not Path(top).exists()


def test_create_leaves_existing_parents(parent: Path, mount: str) -> None:
    """Parents that were there before are not removed."""
    outer = Path(f"{parent}/test-p-{os.getpid()}")
    outer.mkdir()
    try:
        top = cgroupfs.create(f"{outer}/leaf", mount)
        assert top == f"{outer}/leaf"
        cgroupfs.remove(f"{outer}/leaf", top=top)
        assert outer.exists()
    finally:
        outer.rmdir()


def test_create_refuses_a_cgroup_in_use(
    cgroup: str, mount: str, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A cgroup with processes belongs to somebody, and stays."""
    cgroupfs.attach(cgroup, sleeper().pid)
    with pytest.raises(StateError, match="holds processes"):
        cgroupfs.create(cgroup, mount)
    assert len(cgroupfs.processes(cgroup)) == 1


def test_remove_spares_parents_that_others_use(parent: Path, mount: str) -> None:
    """A parent that we made but that holds another cgroup by now stays."""
    outer = f"{parent}/test-q-{os.getpid()}"
    top = cgroupfs.create(f"{outer}/one", mount)
    other = cgroupfs.create(f"{outer}/two", mount)
    assert (top, other) == (outer, f"{outer}/two")
    cgroupfs.remove(f"{outer}/one", top=top)
    assert Path(f"{outer}/two").exists()
    cgroupfs.remove(f"{outer}/two", top=outer)
    assert not Path(outer).exists()


def test_attach_and_processes(
    cgroup: str, mount: str, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """`processes` sees the cgroup and everything below, to any depth."""
    first, second = sleeper(), sleeper()
    deep = cgroup + "/x" * 40
    cgroupfs.create(deep, mount)
    cgroupfs.create(f"{cgroup}/x/y", mount)
    cgroupfs.attach(cgroup, first.pid)
    cgroupfs.attach(deep, second.pid)
    before = os.listdir("/proc/self/fd")
    assert sorted(cgroupfs.processes(cgroup)) == sorted([first.pid, second.pid])
    assert os.listdir("/proc/self/fd") == before


def test_processes_of_threaded_cgroups(
    cgroup: str, mount: str, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A process whose threads live in threaded cgroups below counts once, with those deep below."""
    cgroupfs.create(f"{cgroup}/deep/er", mount)
    cgroupfs.create(f"{cgroup}/domain/threads", mount)
    Path(cgroup, "domain/threads/cgroup.type").write_text("threaded")
    first, second, third = sleeper(), sleeper(), sleeper()
    cgroupfs.attach(cgroup, first.pid)
    cgroupfs.attach(f"{cgroup}/deep/er", second.pid)
    cgroupfs.attach(f"{cgroup}/domain", third.pid)
    Path(cgroup, "domain/threads/cgroup.threads").write_text(str(third.pid))
    with pytest.raises(OSError):
        Path(cgroup, "domain/threads/cgroup.procs").read_text()
    assert sorted(cgroupfs.processes(cgroup)) == sorted([first.pid, second.pid, third.pid])
    cgroupfs.kill(cgroup)
    assert {each.wait(5) for each in (first, second, third)} == {-signal.SIGKILL}


def test_kill_below_a_frozen_cgroup(
    cgroup: str, mount: str, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """What cannot be thawed, since a cgroup above is frozen, dies all the same and is removed."""
    for kill in (cgroupfs.kill, cgroupfs.kill_each):
        below = f"{cgroup}/below"
        cgroupfs.create(below, mount)
        process = sleeper()
        cgroupfs.attach(below, process.pid)
        cgroupfs.freeze(cgroup)
        kill(below)
        assert process.wait(5) == -signal.SIGKILL
        cgroupfs.remove(below)
        cgroupfs.thaw(cgroup)


def test_processes_of_a_cgroup_that_is_gone(parent: Path) -> None:
    """Nobody lives there."""
    assert cgroupfs.processes(f"{parent}/test-none") == []


def test_attach_says_which_process_and_cgroup(cgroup: str) -> None:
    """A process that does not exist is ESRCH, with both names in the message."""
    with pytest.raises(HostError, match=r"move process 4194305 into cgroup /.*ESRCH|EINVAL"):
        cgroupfs.attach(cgroup, 4194305)


def test_freeze_returns_when_everything_stands(
    cgroup: str, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """After `freeze` nothing runs, manager.frozen agrees, and `thaw` undoes it."""
    program = "import time\nwhile True: open('/dev/null').close()"  # busy in and out of the kernel
    busy = subprocess.Popen(["python3", "-S", "-c", program])
    try:
        cgroupfs.attach(cgroup, busy.pid)
        assert not frozen(cgroup)
        cgroupfs.freeze(cgroup)
        assert frozen(cgroup)
        stat = Path(f"/proc/{busy.pid}/stat").read_text().rpartition(")")[2].split()
        used = stat[11:13]
        time.sleep(0.05)
        stat = Path(f"/proc/{busy.pid}/stat").read_text().rpartition(")")[2].split()
        assert stat[11:13] == used
        cgroupfs.thaw(cgroup)
        assert not frozen(cgroup)
    finally:
        busy.kill()
        busy.wait()


def test_freeze_of_an_empty_cgroup(cgroup: str) -> None:
    """An empty cgroup is frozen at once: no waiting for an event that never comes."""
    cgroupfs.freeze(cgroup, timeout=1)
    assert frozen(cgroup)
    cgroupfs.thaw(cgroup, timeout=1)
    assert not frozen(cgroup)


def test_frozen_of_a_cgroup_that_is_gone(parent: Path) -> None:
    """What does not exist is not frozen."""
    assert not frozen(f"{parent}/test-none")


@pytest.mark.parametrize("kill", [cgroupfs.kill, cgroupfs.kill_each])
@pytest.mark.parametrize("stopped", [False, True])
def test_kill_reaches_everybody(
    cgroup: str,
    mount: str,
    sleeper: Callable[[], subprocess.Popen[bytes]],
    kill: Callable[[str], None],
    stopped: bool,
) -> None:
    """By cgroup.kill and without it, frozen or not, and in cgroups below."""
    cgroupfs.create(f"{cgroup}/below", mount)
    first, second = sleeper(), sleeper()
    cgroupfs.attach(cgroup, first.pid)
    cgroupfs.attach(f"{cgroup}/below", second.pid)
    if stopped:
        cgroupfs.freeze(cgroup)
    kill(cgroup)
    assert first.wait(5) == second.wait(5) == -signal.SIGKILL
    assert cgroupfs.wait_empty(cgroup, 5)


def test_kill_where_files_can_only_be_read(
    cgroup: str,
    mount: str,
    sleeper: Callable[[], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One by one: systemd may have made the cgroup for us, and our mount of it be read-only."""

    def write(fd: int, name: str, value: str) -> None:
        raise SyscallError(errno.EROFS, "Read-only file system", "openat", name)

    cgroupfs.create(f"{cgroup}/below", mount)
    first, second = sleeper(), sleeper()
    cgroupfs.attach(cgroup, first.pid)
    cgroupfs.attach(f"{cgroup}/below", second.pid)
    with monkeypatch.context() as context:
        context.setattr(tree, "write", write)
        cgroupfs.kill(cgroup)
    assert first.wait(5) == second.wait(5) == -signal.SIGKILL


def test_kill_of_a_cgroup_that_is_gone(parent: Path) -> None:
    """Nothing to kill is no error."""
    cgroupfs.kill(f"{parent}/test-none")


def test_wait_empty_waits(cgroup: str) -> None:
    """It returns when the last process has gone, and says so when the time is over before."""
    process = subprocess.Popen(["sleep", "0.3"])
    cgroupfs.attach(cgroup, process.pid)
    assert not cgroupfs.wait_empty(cgroup, 0.05)
    assert cgroupfs.wait_empty(cgroup, 5)
    process.wait()


def test_remove_waits_for_the_dying(parent: Path, mount: str) -> None:
    """A cgroup whose last process is about to end is removed when it has ended."""
    path = f"{parent}/test-dying-{os.getpid()}"
    cgroupfs.create(f"{path}/below", mount)
    process = subprocess.Popen(["sleep", "0.3"])
    cgroupfs.attach(f"{path}/below", process.pid)
    cgroupfs.remove(path)
    assert not Path(path).exists()
    process.wait()


def test_remove_gives_up_and_says_so(
    cgroup: str, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A cgroup in use is an error after the time given, not a hang."""
    cgroupfs.attach(cgroup, sleeper().pid)
    with pytest.raises(HostError, match="still in use"):
        cgroupfs.remove(cgroup, timeout=0.1)


def test_remove_of_a_deep_and_wide_tree(cgroup: str, mount: str) -> None:
    """However deep a container nests its cgroups, all go, with one descriptor at a time."""
    for name in ("a", "b", "c"):
        cgroupfs.create(f"{cgroup}/{name}" + "/deep" * 30, mount)
        cgroupfs.create(f"{cgroup}/{name}/other", mount)
    before = len(os.listdir("/proc/self/fd"))
    cgroupfs.remove(cgroup)
    assert not Path(cgroup).exists()
    assert len(os.listdir("/proc/self/fd")) == before
    cgroupfs.remove(cgroup)  # once more is fine


def test_only_cgroup_directories_are_touched(tmp_path: Path) -> None:
    """A path that is not in a cgroup v2 filesystem is refused and left alone."""
    (tmp_path / "inner").mkdir()
    with pytest.raises(HostError, match="not in a cgroup v2"):
        cgroupfs.remove(str(tmp_path))
    with pytest.raises(HostError, match="not in a cgroup v2"):
        cgroupfs.freeze(str(tmp_path))
    with pytest.raises(HostError, match="not in a cgroup v2"):
        cgroupfs.create(str(tmp_path / "inner"), str(tmp_path))
    assert (tmp_path / "inner").exists()


def test_a_controller_that_does_not_exist(cgroup: str, mount: str) -> None:
    """It is named, with the field that wanted it and how to get it."""
    with pytest.raises(UnsupportedError, match="lacks the nonsense controller") as caught:
        limits.enable(cgroup, mount, {"nonsense": "/linux/resources/unified/nonsense.max"})
    assert caught.value.pointer == "/linux/resources/unified/nonsense.max"
    assert "cpu, cpuset, io, memory, pids only" in caught.value.hint


def test_limits_are_written_in_order_and_errors_name_the_field(cgroup: str) -> None:
    """A value that the kernel refuses comes back with pointer and errno; the earlier ones stand."""
    cgroupfs.apply(cgroup, (("cgroup.max.depth", "3", "/x"), ("cgroup.max.descendants", "7", "/y")))
    assert Path(cgroup, "cgroup.max.depth").read_text() == "3\n"
    assert Path(cgroup, "cgroup.max.descendants").read_text() == "7\n"
    with pytest.raises(UnsupportedError, match=r"write '-1' to cgroup.max.depth: .*E") as caught:
        cgroupfs.apply(cgroup, (("cgroup.max.depth", "-1", "/linux/resources/unified"),))
    assert caught.value.pointer == "/linux/resources/unified"
    assert caught.value.errno
    with pytest.raises(UnsupportedError, match="no such file"):
        cgroupfs.apply(cgroup, (("nonsense.max", "1", "/x"),))


def test_limits_that_are_left_out(cgroup: str) -> None:
    """Whoever can do without a limit is told of each, and the others are written; those that only
    younger kernels have are nobody's loss.
    """
    told: list[PyokiError] = []
    asked = (
        ("nonsense.max", "1", "/a"),
        ("nonsense.rsvd.max", "1", "/b"),
        ("io.weight", "1", "/c"),
        ("cgroup.max.depth", "5", "/d"),
    )
    limits.apply(
        cgroup, asked, optional=("nonsense.rsvd.max",), bfq_weight=10, leave_out=told.append
    )
    assert Path(cgroup, "cgroup.max.depth").read_text() == "5\n"
    weight = [] if Path(cgroup, "io.weight").exists() else ["/c"]
    assert [error.pointer for error in told] == ["/a", *weight]
    with pytest.raises(SpecError):
        limits.apply(cgroup, (("a/b", "1", "/x"),), leave_out=told.append)


@pytest.mark.parametrize("name", ["../cgroup.procs", "/etc/passwd", "a/b"])
def test_limit_files_lie_in_the_cgroup(cgroup: str, name: str) -> None:
    """A file name with a slash would leave the container's cgroup."""
    with pytest.raises(SpecError, match="not the name of a cgroup file"):
        cgroupfs.apply(cgroup, ((name, "1", "/linux/resources/unified"),))


def test_attach_to_an_inner_cgroup(
    cgroup: str, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """A container that manages cgroups itself has made its own an inner one: exec gets a child."""
    name = needs.require_controller(Path(cgroup), "memory", "pids", "io")
    os.mkdir(f"{cgroup}/below")
    Path(cgroup, "cgroup.subtree_control").write_text(f"+{name}")
    process = sleeper()
    cgroupfs.attach(cgroup, process.pid)
    assert cgroupfs.processes(cgroup) == [process.pid]


def test_delegate_gives_the_right_files(cgroup: str) -> None:
    """To oneself it changes nothing; the limits stay the owner's."""
    cgroupfs.delegate(cgroup, os.geteuid(), os.getegid())
    assert Path(cgroup).stat().st_uid == os.geteuid()
    if os.geteuid() == 0:
        cgroupfs.delegate(cgroup, 12345, 12346)
        for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            status = Path(cgroup, name).stat()
            assert (status.st_uid, status.st_gid) == (12345, 12346), name
        assert Path(cgroup, "cgroup.freeze").stat().st_uid == 0
    else:
        with pytest.raises(SyscallError):
            cgroupfs.delegate(cgroup, 0, 0)


def test_walk_ends_when_cgroups_vanish(cgroup: str, mount: str) -> None:
    """A subtree that is removed while it is walked is no error."""
    for name in ("a", "b"):
        cgroupfs.create(f"{cgroup}/{name}/deep", mount)
    visited = 0
    for _ in tree.walk(tree.open_cgroup(cgroup)):
        visited += 1
        for name in ("a", "b"):
            cgroupfs.remove(f"{cgroup}/{name}")
    assert visited >= 1


def test_a_cgroup_that_goes_while_it_is_looked_at(
    parent: Path, mount: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd removes a scope as soon as it is empty: killing and removing it are fine at any step."""
    path = f"{parent}/test-goes-{os.getpid()}"
    opened = tree.open_cgroup
    entered = tree.enter

    def open_and_lose(place: str) -> int:
        fd = opened(place)
        os.rmdir(place)
        return fd

    def enter_and_lose(fd: int, name: str) -> int:
        below = entered(fd, name)
        if name == path and below >= 0:
            os.rmdir(path)
        return below

    cgroupfs.create(path, mount)
    with monkeypatch.context() as changed:
        changed.setattr(tree, "open_cgroup", open_and_lose)
        cgroupfs.kill(path)
    assert not Path(path).exists()
    for act in (cgroupfs.remove, cgroupfs.processes, lambda path: cgroupfs.wait_empty(path, 1.0)):
        cgroupfs.create(path, mount)
        with monkeypatch.context() as changed:
            changed.setattr(tree, "enter", enter_and_lose)
            act(path)
        assert not Path(path).exists()


def test_controllers_below_a_cgroup_with_processes(
    cgroup: str, mount: str, parent: Path, sleeper: Callable[[], subprocess.Popen[bytes]]
) -> None:
    """cgroup-v2.rst, "No Internal Process Constraint": the error says who is in the way, and the way out."""
    name = needs.require_controller(parent, "hugetlb", "pids", "memory")
    limits.enable(cgroup, mount, {name: "/p"})
    cgroupfs.attach(cgroup, sleeper().pid)
    cgroupfs.create(f"{cgroup}/below", mount)
    with pytest.raises(UnsupportedError, match=f"{cgroup} holds processes itself") as caught:
        limits.enable(f"{cgroup}/below", mount, {name: "/p"})
    assert "--cgroup-manager systemd" in caught.value.hint and caught.value.pointer == "/p"
