"""Directories of containers: made once, read whole, locked, removed, swept."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless_pyoki.errors import NotFoundError, StateError, UsageError
from rootless_pyoki.record import replace
from rootless_pyoki.state import container_state, leftover, store
from rootless_pyoki.state.container_state import StateNote


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def new(id: str, **changes: object) -> store.ContainerState:
    return replace(store.new_state(id=id, bundle="/b", rootfs="/b/rootfs"), **changes)


def make(root_fd: int, id: str, **changes: object) -> store.Handle:
    """A container as create leaves it: written, unlocked."""
    handle = store.create_container(root_fd, id)
    handle.write(new(id, phase="created", **changes))
    handle.write_config(b"{}")
    handle.unlock()
    return handle


def run_children(count: int, work: Callable[[int], int]) -> list[int]:
    """Exit codes of processes that start together and each do `work`."""
    reader, writer = os.pipe()
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            code = 99
            try:
                os.close(writer)
                os.read(reader, 1)  # returns for all when the parent closes its end
                code = work(number)
            finally:
                os._exit(code)
        pids.append(pid)
    os.close(reader)
    os.close(writer)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def dead_creator() -> dict[str, int]:
    """The pid and start time of a process that is gone."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return {"creator_pid": pid, "creator_start_time": 1}


# --- what is written is what is read


def test_a_state_comes_back_as_it_was(root_fd: int) -> None:
    """All fields, of every type."""
    handle = store.create_container(root_fd, "c1")
    state = store.new_state(
        id="c1",
        bundle="/b",
        rootfs="/b/r\udcffé",
        annotations={"a": "b"},
        cgroup_manager="systemd",
        cgroup_path="/x",
        terminal=True,
        notes=(StateNote(pointer="/mounts/3", text="bound"),),
        extras={"hooks": ["poststop"], "n": 5},
    )
    handle.write(state)
    assert handle.read() == state
    handle.write_config(b'{"raw":  1}')
    assert handle.read_config() == b'{"raw":  1}'
    handle.close()


def test_a_new_state_says_who_and_when() -> None:
    """The creator can be told from a later process with its pid."""
    before = time.time_ns()
    state = new("c1")
    after = time.time_ns()
    assert state.phase == "creating" and state.pid == 0
    assert state.creator_pid == os.getpid() and state.creator_start_time > 0
    assert state.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert container_state.timestamp(before) <= state.created <= container_state.timestamp(after)
    assert state.owner_uid == os.geteuid() and state.owner


def test_a_timestamp_is_rfc_3339_with_nanoseconds() -> None:
    """In UTC, whatever the zone; nine digits, so that strings sort."""
    assert container_state.timestamp(0) == "1970-01-01T00:00:00.000000000Z"
    assert container_state.timestamp(1795463040_000000007) == "2026-11-23T19:44:00.000000007Z"


def test_members_of_a_newer_program_are_kept() -> None:
    """It may be asked again, after us."""
    members = json.loads(container_state.encode(new("c1")))
    members["invented"] = {"later": [1]}
    state = container_state.decode(json.dumps(members).encode(), "c1")
    assert json.loads(container_state.encode(state)) == members


def test_a_newer_form_is_refused() -> None:
    """By its number, with what helps."""
    with pytest.raises(
        StateError, match="container c1 has format 2, this pyoki knows up to 1"
    ) as e:
        container_state.decode(b'{"format": 2}', "c1")
    assert "newer pyoki" in e.value.hint


def test_an_older_form_is_brought_up_to_date() -> None:
    """Step by step."""
    members = json.loads(container_state.encode(new("c1")))
    members["name"] = members.pop("id")

    def first(members: dict[str, object]) -> None:
        members["id"] = members.pop("name")

    def second(members: dict[str, object]) -> None:
        members["bundle"] = f"{members['bundle']}{members['id']}"

    raw = json.dumps(members).encode()
    state = container_state.decode(raw, "c1", current=3, migrations={1: first, 2: second})
    assert (state.id, state.bundle) == ("c1", "/bc1")
    with pytest.raises(StateError, match="format 1 was never in use"):
        container_state.decode(raw, "c1", current=2, migrations={})


@pytest.mark.parametrize("member", ["id", "pid", "annotations", "extras", "bootId"])
def test_a_damaged_state_says_so(member: str) -> None:
    """Rather than a traceback in some later step."""
    members = json.loads(container_state.encode(new("c1")))
    members[member] = None
    with pytest.raises(StateError, match=f"container c1 is damaged: {member}"):
        container_state.decode(json.dumps(members).encode(), "c1")


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"format": "1"}', b'{"format": 0}'])
def test_what_is_no_state_at_all_says_so(raw: bytes) -> None:
    """As after a disk ran full."""
    with pytest.raises(StateError, match="container c1 is damaged"):
        container_state.decode(raw, "c1")


# --- directories


def test_files_are_for_us_alone(root_fd: int, tmp_path: Path) -> None:
    """config.json may hold secrets in its environment."""
    handle = make(root_fd, "c1")
    assert stat.S_IMODE(os.fstat(handle.fd).st_mode) == 0o700
    assert sorted(os.listdir(tmp_path / "c1")) == ["config.json", "lock", "state.json"]
    for name in os.listdir(tmp_path / "c1"):
        assert stat.S_IMODE((tmp_path / "c1" / name).stat().st_mode) == 0o600
    handle.close()


def test_an_id_is_given_once(root_fd: int) -> None:
    """While its creator holds it, and afterwards."""
    handle = store.create_container(root_fd, "c1")
    with pytest.raises(StateError, match="container with id c1 already exists"):
        store.create_container(root_fd, "c1")
    handle.write(new("c1", phase="created"))
    handle.unlock()
    with pytest.raises(StateError, match="container with id c1 already exists"):
        store.create_container(root_fd, "c1")
    assert handle.read().phase == "created"
    handle.close()


def test_what_does_not_exist_says_so(root_fd: int) -> None:
    """In the words that callers look for."""
    with pytest.raises(NotFoundError, match=r"^container c1 does not exist$"):
        store.open_container(root_fd, "c1")


def test_a_removed_container_is_gone_and_its_id_free(root_fd: int, tmp_path: Path) -> None:
    """With everything that lay in its directory."""
    handle = make(root_fd, "c1")
    (tmp_path / "c1" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "c1" / "deep" / "er" / "file").write_text("x")
    (tmp_path / "c1" / "link").symlink_to("/etc")
    reader = store.open_container(root_fd, "c1")
    handle.lock()
    store.remove(handle)
    assert list(tmp_path.iterdir()) == []
    assert os.path.isdir("/etc")
    with pytest.raises(NotFoundError):
        reader.read()
    with pytest.raises(NotFoundError):
        reader.lock()
    reader.close()
    make(root_fd, "c1").close()


def test_removing_twice_is_no_error(root_fd: int, tmp_path: Path) -> None:
    """Two deletes may meet."""
    first, second = make(root_fd, "c1"), store.open_container(root_fd, "c1")
    first.lock()
    store.remove(first)
    store.remove(second)
    assert list(tmp_path.iterdir()) == []


def test_ids_are_listed_in_order(root_fd: int, tmp_path: Path) -> None:
    """Names that no container can have are not ours."""
    for id in ("b", "a", "C"):
        make(root_fd, id).close()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "with blank").mkdir()
    assert store.list_ids(root_fd) == ["C", "a", "b"]


@pytest.mark.parametrize("id", ["", ".", "..", ".x", "a/b", "a b", "ü", "a\n", "x" * 256, "a\0"])
def test_an_impossible_id_is_refused_before_anything_is_touched(root_fd: int, id: str) -> None:
    """No path can be made of an id."""
    for function in (store.create_container, store.open_container):
        with pytest.raises(UsageError, match="is no container id"):
            function(root_fd, id)
    assert not leftover.remove(root_fd, id)


@pytest.mark.parametrize("id", ["a", "x" * 255, "A-b_c+d.e", "-x", "0" * 64])
def test_a_possible_id_is_taken(root_fd: int, id: str) -> None:
    """The same as with other runtimes."""
    make(root_fd, id).close()


# --- locks


def test_a_lock_is_exclusive_and_can_be_had_later(root_fd: int) -> None:
    """Without waiting it says who is in the way; unlock() frees it."""
    handle = make(root_fd, "c1")
    other = store.open_container(root_fd, "c1")
    handle.lock()
    with pytest.raises(StateError, match="container c1 is in use"):
        other.lock(wait=False)
    handle.unlock()
    other.lock(wait=False)
    other.close()
    handle.close()


def test_unlock_frees_what_a_child_inherited(root_fd: int) -> None:
    """Children that never exec hold the same lock; it ends with us all the same."""
    handle = make(root_fd, "c1")
    handle.lock()
    child = os.fork()
    if child == 0:
        signal.pause()
        os._exit(0)
    try:
        handle.unlock()
        other = store.open_container(root_fd, "c1")
        other.lock(wait=False)
        other.close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    handle.close()


def test_who_waited_for_a_deleted_container_is_told(root_fd: int) -> None:
    """The lock is won on a file that is no longer there."""
    handle = make(root_fd, "c1")
    handle.lock()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            other = store.open_container(root_fd, "c1")
            os.write(writer, b"x")
            try:
                other.lock()
                code = 1
            except NotFoundError:
                code = 0
        finally:
            os._exit(code)
    os.read(reader, 1)
    time.sleep(0.05)
    store.remove(handle)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(reader)
    os.close(writer)


# --- leftovers


def test_an_empty_directory_is_no_container(root_fd: int, tmp_path: Path) -> None:
    """A create killed between mkdir and the first write leaves one; its id is free."""
    (tmp_path / "c1").mkdir(0o700)
    (tmp_path / "c2").mkdir(0o700)
    (tmp_path / "c2" / "lock").write_text("")
    (tmp_path / "c2" / "config.json").write_text("{}")
    for id in ("c1", "c2"):
        opened = store.open_container(root_fd, id)
        with pytest.raises(NotFoundError):
            opened.read()
        opened.close()
        handle = store.create_container(root_fd, id)
        assert os.listdir(handle.fd) == ["lock"]
        handle.close()


def test_a_leftover_without_state_can_be_cleared(root_fd: int, tmp_path: Path) -> None:
    """But not one that a creator is at, and no container."""
    (tmp_path / "c1").mkdir(0o700)
    assert leftover.remove(root_fd, "c1") is True
    assert leftover.remove(root_fd, "c1") is False
    creator = store.create_container(root_fd, "c1")
    assert leftover.remove(root_fd, "c1") is False
    creator.write(new("c1", phase="created"))
    creator.unlock()
    assert leftover.remove(root_fd, "c1") is False
    assert creator.read().id == "c1"
    creator.close()


def test_only_what_a_dead_creator_left_undone_is_sweepable() -> None:
    """Not the work of a living one, not a finished one; pids mean nothing after a reboot."""
    assert not container_state.sweepable(new("c1"))
    assert container_state.sweepable(new("c1", **dead_creator()))
    assert container_state.sweepable(new("c1", creator_start_time=1))
    assert container_state.sweepable(new("c1", boot_id="another"))
    assert not container_state.sweepable(new("c1", phase="created", **dead_creator()))


def test_a_sweepable_leftover_gives_its_id_back(root_fd: int) -> None:
    """At once when it had got nowhere; else after its processes and cgroup were ended."""
    for id, changes in (("c1", {}), ("c2", {"pid": 5}), ("c3", {"cgroup_path": "/x"})):
        handle = store.create_container(root_fd, id)
        handle.write(new(id, **dead_creator(), **changes))
        handle.close()
        swept: list[str] = []

        def sweep(
            leftover: store.Handle, state: store.ContainerState, swept: list[str] = swept
        ) -> None:
            assert leftover.lock_fd >= 0
            swept.append(state.id)

        if changes:
            with pytest.raises(StateError, match="already exists"):
                store.create_container(root_fd, id)
            again = store.create_container(root_fd, id, sweep=sweep)
            assert swept == [id]
        else:
            again = store.create_container(root_fd, id)
        assert os.listdir(again.fd) == ["lock"]
        again.close()


def test_a_damaged_or_newer_container_keeps_its_id(root_fd: int, tmp_path: Path) -> None:
    """It is not ours to throw away."""
    for id, raw in (("c1", b"{"), ("c2", b'{"format": 99}')):
        make(root_fd, id).close()
        (tmp_path / id / "state.json").write_bytes(raw)
        with pytest.raises(StateError, match="already exists"):
            store.create_container(root_fd, id)
        assert (tmp_path / id / "state.json").read_bytes() == raw


# --- at the same time


def test_of_two_creators_one_wins(root_fd: int, tmp_path: Path) -> None:
    """However close they come."""
    for round in range(15):
        id = f"c{round}"

        def create(number: int, id: str = id) -> int:
            try:
                handle = store.create_container(root_fd, id)
            except StateError:
                return 1
            handle.write(new(id, phase="created", extras={"winner": number}))
            handle.unlock()
            return 0

        codes = run_children(4, create)
        assert sorted(codes) == [0, 1, 1, 1]
        winner = store.open_container(root_fd, id)
        assert winner.read().extras == {"winner": codes.index(0)}
        winner.close()


def test_of_two_creators_at_a_leftover_one_wins(root_fd: int, tmp_path: Path) -> None:
    """The directory is there already, and locked by nobody."""
    for round in range(10):
        id = f"c{round}"
        (tmp_path / id).mkdir(0o700)

        def create(number: int, id: str = id) -> int:
            try:
                store.create_container(root_fd, id).write(new(id, phase="created"))
            except StateError:
                return 1
            return 0

        assert sorted(run_children(4, create)) == [0, 1, 1, 1]


def test_create_and_delete_do_not_hurt_each_other(root_fd: int, tmp_path: Path) -> None:
    """At the end each container is whole or gone, and no error but the expected ones came up."""
    deadline = time.monotonic() + 0.5

    def work(number: int) -> int:
        done = 0
        while time.monotonic() < deadline:
            try:
                if number % 2:
                    handle = store.create_container(root_fd, "c")
                    handle.write(new("c", phase="created"))
                    handle.write_config(b"{}")
                    handle.unlock()
                    handle.close()
                else:
                    handle = store.open_container(root_fd, "c")
                    try:
                        handle.lock()
                        handle.read()
                    except BaseException:
                        handle.close()
                        raise
                    store.remove(handle)
                done += 1
            except StateError:
                pass
        return 0 if done else 1

    assert run_children(4, work) == [0, 0, 0, 0]
    if os.listdir(tmp_path):
        assert sorted(os.listdir(tmp_path / "c")) == ["config.json", "lock", "state.json"]
        left = store.open_container(root_fd, "c")
        left.lock(wait=False)
        assert left.read().phase == "created"
        store.remove(left)
    assert os.listdir(tmp_path) == []


def test_a_reader_never_sees_half_a_state(root_fd: int) -> None:
    """While it is being replaced by a much longer and a shorter one."""
    handle = make(root_fd, "c1")
    long = new("c1", phase="created", extras={"long": "x" * 50_000})
    short = new("c1", phase="created", extras={})
    deadline = time.monotonic() + 0.4

    def work(number: int) -> int:
        if number == 0:
            while time.monotonic() < deadline:
                handle.write(long)
                handle.write(short)
            return 0
        seen = set()
        while time.monotonic() < deadline:
            mine = store.open_container(root_fd, "c1")
            seen.add(len(str(mine.read().extras.get("long", ""))))
            mine.close()
        return 0 if seen <= {0, 50_000} else 1

    assert run_children(3, work) == [0, 0, 0]
    handle.close()


def test_a_lock_ends_with_its_process(root_fd: int) -> None:
    """kill -9 of a creator leaves a directory that the next one may have."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        handle = store.create_container(root_fd, "c1")
        handle.write(new("c1"))
        os.write(writer, b"x")
        signal.pause()
        os._exit(0)
    os.read(reader, 1)
    with pytest.raises(StateError, match="already exists"):
        store.create_container(root_fd, "c1")
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    store.create_container(root_fd, "c1").close()
    os.close(reader)
    os.close(writer)


def test_descriptors_do_not_leak_into_programs(root_fd: int) -> None:
    """All are close-on-exec, and failures leave none open."""
    before = set(os.listdir("/proc/self/fd"))
    handle = store.create_container(root_fd, "c1")
    for fd in (handle.fd, handle.lock_fd):
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    for _ in range(3):
        with pytest.raises(StateError):
            store.create_container(root_fd, "c1")
    handle.close()
    assert set(os.listdir("/proc/self/fd")) == before
