"""Which cgroup a container gets."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import _cffi_backend
import pytest

from rootless_pyoki.cgroups import here, manager, systemd_bus
from rootless_pyoki.errors import HostError, SpecError, StateError, UnsupportedError
from tests.support import needs

REAL_ADDRESSES = here.bus_addresses
LIMIT = (("memory.max", "/linux/resources/memory/limit"),)


def choose(
    requested: str = "auto",
    *,
    systemd_cgroup: bool = False,
    cgroups_path: str = "",
    id: str = "test-choice",
    wants_limits: tuple[tuple[str, str], ...] = (),
) -> manager.Cgroup:
    return manager.choose(
        requested,
        systemd_cgroup=systemd_cgroup,
        cgroups_path=cgroups_path,
        id=id,
        wants_limits=wants_limits,
    )


@pytest.fixture(autouse=True)
def no_systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is done where no systemd answers, which a test may have changed."""
    systemd_bus.close()
    monkeypatch.setattr(here, "bus_addresses", list)
    yield
    systemd_bus.close()


@pytest.fixture
def delegated() -> Path:
    directory = needs.delegated_cgroup()
    needs.require(directory, "no cgroup v2 subtree is delegated to this user")
    assert directory is not None
    return directory


def test_disabled_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """`disabled` does not even look for cgroups."""
    monkeypatch.setattr(here, "find_mount", lambda: pytest.fail("looked for cgroups"))
    chosen = choose("disabled", cgroups_path="/x")
    assert (chosen.manager, chosen.path) == ("disabled", "")


def test_disabled_with_limits() -> None:
    """Limits without cgroups are an error at the field."""
    with pytest.raises(UnsupportedError, match="cannot set limits without cgroups") as caught:
        choose("disabled", wants_limits=LIMIT)
    assert caught.value.pointer == "/linux/resources/memory/limit"


@pytest.mark.parametrize("path", ["/a/../b", "..", "../x", "/", "a\nb", "."])
def test_paths_that_cannot_be(path: str, delegated: Path) -> None:
    """`..`, the root itself and a newline are refused at /linux/cgroupsPath."""
    with pytest.raises(SpecError) as caught:
        choose(cgroups_path=path)
    assert caught.value.pointer == "/linux/cgroupsPath"


def test_own_cgroup_is_refused(delegated: Path) -> None:
    """A container in our own cgroup, or above it, would be killed together with us."""
    own, mount = needs.own_cgroup(), needs.cgroup_mount()
    assert own is not None and mount is not None
    if own == mount:
        pytest.skip("our own cgroup is the root here, which no path can name")
    with pytest.raises(SpecError, match="holds pyoki itself"):
        choose(cgroups_path="/" + str(own.relative_to(mount)))


def test_no_path_goes_beside_our_own(delegated: Path) -> None:
    """Beside, for a cgroup with processes cannot pass controllers on."""
    assert choose(id="abc").path == f"{delegated}/abc"


def test_relative_and_absolute_paths(delegated: Path) -> None:
    """Absolute is below the mount, relative is where the default would be; slashes do not count."""
    mount = needs.cgroup_mount()
    assert mount is not None
    below = str(delegated.relative_to(mount)).lstrip(".")
    prefix = f"/{below}" if below else ""
    assert choose(cgroups_path="x//./y/").path == f"{delegated}/x/y"
    assert choose(cgroups_path=f"{prefix}/x/y").path == f"{delegated}/x/y"


def test_a_cgroup_in_use_is_refused(delegated: Path) -> None:
    """Whoever lives there would be killed with the container."""
    path = delegated / f"test-used-{os.getpid()}"
    path.mkdir()
    process = subprocess.Popen(["sleep", "100"])
    try:
        (path / "cgroup.procs").write_text(str(process.pid))
        with pytest.raises(StateError, match="holds processes"):
            choose(id=path.name)
    finally:
        process.kill()
        process.wait()
        path.rmdir()


def test_create_and_remove(delegated: Path) -> None:
    """From the choice to the directory, and back to nothing."""
    chosen = choose(id=f"test-make-{os.getpid()}/inner")
    made = manager.create(chosen, ())
    assert made.path == chosen.path and Path(made.path).is_dir()
    assert made.made == os.path.dirname(made.path)
    manager.remove(made)
    assert not Path(made.made).exists()


def test_a_missing_controller_is_named(delegated: Path) -> None:
    """Limits without their controller: error at the field, and nothing is made."""
    with pytest.raises(UnsupportedError, match="lacks the nonsense controller") as caught:
        choose(id="test-nonsense", wants_limits=(("nonsense.max", "/linux/resources/unified"),))
    assert caught.value.pointer == "/linux/resources/unified"
    assert "cpu, cpuset, io, memory, pids only" in caught.value.hint
    assert not (delegated / "test-nonsense").exists()


def test_core_files_need_no_controller(delegated: Path) -> None:
    """cgroup.max.descendants and the like exist everywhere."""
    assert choose(wants_limits=(("cgroup.max.depth", "/linux/resources/unified"),)).path


def test_a_controller_that_is_there_reaches_the_cgroup(delegated: Path) -> None:
    """Where the controller is delegated, it is enabled on the way down, and limits are written."""
    needs.require_controller(delegated, "pids")
    wants = (("pids.max", "/linux/resources/pids/limit"),)
    made = manager.create(choose(id=f"test-pids-{os.getpid()}/x", wants_limits=wants), wants)
    try:
        manager.apply(made, (("pids.max", "33", "/linux/resources/pids/limit"),))
        assert Path(made.path, "pids.max").read_text() == "33\n"
    finally:
        manager.remove(made)


def test_without_rights_there_is_none() -> None:
    """No permission and no limits: manager "none", with the reason; with limits an error."""
    mount = needs.cgroup_mount()
    if os.geteuid() == 0 or mount is None:
        pytest.skip("root may make cgroups anywhere")
    refused = "/sys/fs/cgroup is not" if needs.pure_v2() else "is not writable"
    if needs.delegated_cgroup() == mount:
        pytest.skip("the whole visible tree is delegated to this user")
    chosen = choose(cgroups_path="/test-refused")
    assert chosen.manager == "none" and refused in chosen.reason
    with pytest.raises(UnsupportedError, match=r"memory\.max needs a cgroup") as caught:
        choose(cgroups_path="/test-refused", wants_limits=LIMIT)
    assert caught.value.pointer == "/linux/resources/memory/limit"
    assert "delegate.conf" in caught.value.hint or "unified_cgroup" in caught.value.hint


@pytest.mark.parametrize("how", [{"requested": "systemd"}, {"systemd_cgroup": True}])
def test_systemd_that_does_not_answer(
    how: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Asked for, it is an error that says which addresses were tried, and what to do."""
    monkeypatch.setattr(here, "bus_addresses", lambda: [f"unix:path={tmp_path}/bus"])
    with pytest.raises(HostError, match="no systemd manager answers") as caught:
        choose(**how)
    assert str(tmp_path) in caught.value.message
    assert "XDG_RUNTIME_DIR" in caught.value.hint and "--cgroup-manager" in caught.value.hint


def test_auto_without_systemd(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A socket that nobody listens on is as good as none: the cgroup is made as without."""
    monkeypatch.setattr(here, "bus_addresses", lambda: [f"unix:path={tmp_path}/bus"])
    assert choose().manager != "systemd"


@pytest.mark.parametrize("path", ["", "user.slice:pyoki:x"])
def test_auto_looks_for_systemd(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a path, and with one of systemd's form; the path of a directory is for cgroupfs."""
    asked: list[str] = []
    monkeypatch.setattr(here, "bus_addresses", lambda: asked.append(path) or [])
    choose(cgroups_path=path)
    assert asked == [path]
    choose("cgroupfs", cgroups_path=path)
    choose(cgroups_path="a/b:c:d")
    assert asked == [path]


class TestAddresses:
    """Where a user's systemd may answer, by two or three looks at the file system."""

    @pytest.fixture(autouse=True)
    def bare(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(here, "is_real_root", lambda: False)
        monkeypatch.setattr(here, "bus_addresses", REAL_ADDRESSES)

    def test_the_environment_first(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What DBUS_SESSION_BUS_ADDRESS says, then the runtime directory, then systemd itself."""
        (tmp_path / "systemd").mkdir()
        (tmp_path / "systemd/private").touch()
        (tmp_path / "bus").touch()
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=x")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        assert here.bus_addresses() == [
            "unix:abstract=x",
            f"unix:path={tmp_path}/bus",
            f"unix:path={tmp_path}/systemd/private",
        ]

    def test_nothing_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """An empty runtime directory, and none of ours in /run/user, is no sign of systemd."""
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setattr(here, "_outer_uid", lambda: 2**31)
        assert here.bus_addresses() == []

    def test_somebody_elses(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A socket of another user is not looked at further."""
        (tmp_path / "bus").touch()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        monkeypatch.setattr(here, "_outer_uid", lambda: 2**31)
        monkeypatch.setattr(here.syscalls, "geteuid", lambda: 2**31)
        assert here.bus_addresses() == []

    def test_escapes(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """What an address gives a meaning to is escaped, as the specification has it."""
        place = tmp_path / "a;b,c=%\u00e9 d-e_f.g"
        place.mkdir()
        (place / "bus").touch()
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(place))
        assert here.bus_addresses() == [f"unix:path={tmp_path}/a%3bb%2cc%3d%25%c3%a9%20d-e_f.g/bus"]


def test_nothing_happens_without_a_cgroup() -> None:
    """Every verb may be called on none and disabled."""
    for kind in ("none", "disabled"):
        nowhere = manager.restore(kind, "", "why")
        manager.attach(nowhere, 1)
        manager.apply(nowhere, (("x", "1", "/x"),))
        manager.kill(nowhere)
        manager.remove(nowhere)
        assert manager.processes(nowhere) == []
        assert not manager.frozen(nowhere)


def test_the_manager_is_cheap_to_import() -> None:
    """`state` and `kill` load it, and ask it: no other module of ours comes with it but those that
    every verb has.
    """
    program = (
        f"sys.path.append({str(Path(_cffi_backend.__file__).parent)!r});"
        "import rootless_pyoki.cli.entry, rootless_pyoki.kernel.fds; before = set(sys.modules);"
        "from rootless_pyoki.cgroups import manager;"
        "manager.frozen(manager.Cgroup(manager='cgroupfs', path='/sys/fs/cgroup/none'));"
        "print(*sorted(set(sys.modules) - before))"
    )
    root = Path(__file__).parents[2]
    answer = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(root)!r});{program}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.split() == ["rootless_pyoki.cgroups", "rootless_pyoki.cgroups.manager"]
