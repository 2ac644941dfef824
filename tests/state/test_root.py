"""Where state is kept, and who may keep it there."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rootless_pyoki.errors import HostError, SyscallError, UsageError
from rootless_pyoki.state import root

EUID = os.geteuid()


@pytest.fixture
def as_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's root goes to /run/pyoki: look at what a user gets, even when run as root."""
    monkeypatch.setattr(root.procfs, "in_initial_user_namespace", lambda: False)


def test_an_explicit_root_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to where we are; dots are taken out."""
    monkeypatch.chdir(tmp_path)
    assert root.choose_root("x/./y//z/../w") == f"{tmp_path}/x/y/w"
    assert root.choose_root("/a/b/") == "/a/b"


@pytest.mark.parametrize("path", ["/", "//", "/.", "/x/..", "/..", ""])
def test_the_root_of_the_filesystem_is_refused(path: str) -> None:
    """Whatever it is spelled like."""
    with pytest.raises(UsageError, match="the root of all state must not be"):
        root.choose_root(path)


def test_the_machines_root_has_its_own_place() -> None:
    """And nobody else is sent there."""
    chosen = root.choose_root(None, {"XDG_RUNTIME_DIR": "/nowhere"})
    inode = os.stat("/proc/self/ns/user").st_ino
    assert (chosen == "/run/pyoki") == (EUID == 0 and inode == 0xEFFFFFFD)


def test_a_user_keeps_state_in_the_runtime_directory(as_user: None, tmp_path: Path) -> None:
    """XDG_RUNTIME_DIR, when it is ours and only ours."""
    tmp_path.chmod(0o700)
    assert root.choose_root(None, {"XDG_RUNTIME_DIR": str(tmp_path)}) == f"{tmp_path}/pyoki"


@pytest.mark.parametrize("what", ["gone", "relative", "a file", "open to all"])
def test_an_unusable_runtime_directory_is_passed_over(
    as_user: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """The next places are /run/user/UID and /tmp/pyoki-UID."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "place"
    if what == "a file":
        place.write_text("")
    elif what != "gone":
        place.mkdir()
        place.chmod(0o777 if what == "open to all" else 0o700)
    given = "place" if what == "relative" else str(place)
    monkeypatch.setenv("XDG_RUNTIME_DIR", given)
    uid = root._outer_uid(EUID)
    assert root.choose_root(None, {"XDG_RUNTIME_DIR": given}) in (
        f"/run/user/{uid}/pyoki",
        f"/tmp/pyoki-{uid}",
        f"/tmp/runtime-{uid}/pyoki",
    )


def test_somebody_elses_runtime_directory_is_passed_over(as_user: None) -> None:
    """After su or sudo the variable may still be the other user's."""
    others = "/" if EUID else "/proc/1/does-not-exist"
    chosen = root.choose_root(None, {"XDG_RUNTIME_DIR": others})
    assert not chosen.startswith(f"{others}/pyoki")


def test_a_new_root_is_for_us_alone(tmp_path: Path) -> None:
    """Sticky, so that cleaners leave it; whatever the umask; parents are made."""
    before = os.umask(0o777)
    try:
        (tmp_path / "a").mkdir(0o700)
        os.chmod(tmp_path / "a", 0o700)
        os.umask(0)
        fd = root.open_root(f"{tmp_path}/a/b/c", create=True)
    finally:
        os.umask(before)
    try:
        assert os.path.samestat(os.fstat(fd), os.stat(tmp_path / "a/b/c"))
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o1700
        assert stat.S_IMODE(os.stat(tmp_path / "a/b").st_mode) == 0o700
        assert os.listdir(fd) == []  # it can be read
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_an_existing_root_is_taken_as_it_is(tmp_path: Path) -> None:
    """Its mode is the owner's affair, as long as others cannot write."""
    tmp_path.chmod(0o755)
    os.close(root.open_root(str(tmp_path), create=True))
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_a_missing_root_is_not_made_for_readers(tmp_path: Path) -> None:
    """Asking for a container leaves nothing behind."""
    with pytest.raises(SyscallError) as caught:
        root.open_root(f"{tmp_path}/x", create=False)
    assert caught.value.errno == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_root_that_others_can_write_is_refused(tmp_path: Path, mode: int) -> None:
    """They could put containers there, or take ours away."""
    tmp_path.chmod(mode)
    with pytest.raises(HostError, match="can be written by others"):
        root.open_root(str(tmp_path), create=True)
    tmp_path.chmod(0o700)


def test_a_link_and_a_file_are_refused(tmp_path: Path) -> None:
    """In /tmp anybody may have laid a link that leads to a place of ours."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(HostError, match="no directory, or a symbolic link"):
            root.open_root(f"{tmp_path}/{name}", create=True)


@pytest.mark.skipif(EUID == 0, reason="root may use everybody's directories")
def test_somebody_elses_root_is_refused() -> None:
    """/ belongs to root and we do not."""
    with pytest.raises(HostError, match="belongs to uid"):
        root.open_root("/usr", create=False)


@pytest.mark.skipif(EUID == 0, reason="root may write everywhere")
def test_a_root_that_cannot_be_made_says_so() -> None:
    """With the call and the reason."""
    with pytest.raises(Exception, match=r"make the root of all state: .*permission denied"):
        root.open_root("/usr/pyoki-test/x", create=True)
