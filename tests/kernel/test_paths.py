"""kernel.paths: nothing beneath a root leads out of it, with openat2 and without."""

from __future__ import annotations

import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, paths, syscalls
from tests.kernel.conftest import InChild
from tests.kernel.test_processes import filter_refusing

O_PATH, O_NOFOLLOW, O_DIRECTORY = constants.O_PATH, constants.O_NOFOLLOW, constants.O_DIRECTORY
OPENAT2 = 437


@pytest.fixture(params=["openat2", "walk"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything here is tried by the kernel's lookup and by our own."""
    monkeypatch.setattr(paths, "force_walk", request.param == "walk")
    return str(request.param)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """A root with links of all kinds, a secret beside it, and the root's descriptor."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    root = tmp_path / "root"
    build_tree(root)
    fd = os.open(root, O_PATH)
    yield fd, root
    os.close(fd)
    assert sorted(os.listdir(tmp_path)) == ["outside", "root", "secret"]
    assert os.listdir(tmp_path / "outside") == []


def build_tree(root: Path) -> None:
    for directory in ("a/b/c", "etc", "ä", "sticky"):
        (root / directory).mkdir(parents=True)
    for file in ("a/file", "etc/passwd", "secret"):
        (root / file).write_text(f"inside {file}")
    for link, target in {
        "absolute": "/etc/passwd",
        "absolute_directory": "/a/b",
        "up": "../../../../secret",
        "a/b/up": "../../../../../etc",
        "a/relative": "b/c",
        "to_slash": "a/",
        "to_file_slash": "a/file/",
        "dangling": "/not/there",
        "dangling_up": "../../outside/made",
        "self_loop": "self_loop",
        "loop_a": "loop_b/x",
        "loop_b": "loop_a/y",
        "root_link": "/",
        "dots": "././a/../a/./b",
        "to_dotdot": "..",
        "to_absolute": "absolute",
        "double": "//a//b",
    }.items():
        (root / link).symlink_to(target)
    (root / "chain0").symlink_to("a")
    for number in range(1, 41):
        (root / f"chain{number}").symlink_to(f"chain{number - 1}")


# path -> what it means inside the root, or the errno
TABLE: dict[str, str | int] = {
    "/etc/passwd": "etc/passwd",
    "etc/passwd": "etc/passwd",
    "//etc///passwd": "etc/passwd",
    "ä": "ä",
    "/": "",
    ".": "",
    "..": "",
    "../../..": "",
    "../etc/passwd": "etc/passwd",
    "a/../../../etc/passwd": "etc/passwd",
    "a/b/../../etc": "etc",
    "absolute": "etc/passwd",
    "absolute_directory/c": "a/b/c",
    "absolute_directory/../file": "a/file",
    "up": "secret",
    "a/b/up/passwd": "etc/passwd",
    "a/relative": "a/b/c",
    "a/relative/..": "a/b",
    "to_slash": "a",
    "to_slash/file": "a/file",
    "root_link": "",
    "root_link/..": "",
    "root_link/a": "a",
    "dots/c": "a/b/c",
    "to_dotdot": "",
    "to_dotdot/etc": "etc",
    "to_absolute": "etc/passwd",
    "double/c": "a/b/c",
    "chain39": "a",
    "chain39/file": "a/file",
    "a/": "a",
    "a/.": "a",
    "": constants.ENOENT,
    "missing": constants.ENOENT,
    "missing/..": constants.ENOENT,
    "a/missing/x": constants.ENOENT,
    "dangling": constants.ENOENT,
    "dangling/x": constants.ENOENT,
    "dangling_up": constants.ENOENT,
    "a/file/": constants.ENOTDIR,
    "a/file/.": constants.ENOTDIR,
    "a/file/..": constants.ENOTDIR,
    "a/file/x": constants.ENOTDIR,
    "to_file_slash": constants.ENOTDIR,
    "absolute/": constants.ENOTDIR,
    "self_loop": constants.ELOOP,
    "self_loop/x": constants.ELOOP,
    "loop_a": constants.ELOOP,
    "chain40": constants.ELOOP,
    "x" * 256: constants.ENAMETOOLONG,
}


def outcome(fd: int, path: str, flags: int = O_PATH) -> Any:
    """(device, inode) of what is found, or the errno."""
    try:
        found = paths.resolve(fd, path, flags)
    except SyscallError as error:
        assert error.filename == path or not path
        return error.errno
    try:
        assert not os.get_inheritable(found)
        status = os.fstat(found)
        return [status.st_dev, status.st_ino]
    finally:
        os.close(found)


def expected(root: Path, meaning: str | int) -> Any:
    if isinstance(meaning, int):
        return meaning
    status = os.lstat(root / meaning)
    return [status.st_dev, status.st_ino]


@pytest.mark.parametrize(
    "path, meaning",
    [
        ("a/b/c", "a/b/c"),
        ("a/relative/../c", "a/b/c"),
        ("chain3/file", "a/file"),
        ("absolute", constants.EXDEV),
        ("root_link/a", constants.EXDEV),
        ("up", constants.EXDEV),
        ("a/../../secret", constants.EXDEV),
        ("self_loop", constants.ELOOP),
        ("a/none", constants.ENOENT),
    ],
)
def test_beneath(way: str, tree: tuple[int, Path], path: str, meaning: str | int) -> None:
    """What leads out of the directory is an error there, not something inside."""
    fd, root = tree
    if isinstance(meaning, int):
        with pytest.raises(SyscallError) as caught:
            paths.resolve_beneath(fd, path)
        assert caught.value.errno == meaning
        return
    found = paths.resolve_beneath(fd, path)
    assert os.path.samestat(os.stat(found), os.lstat(root / meaning))
    os.close(found)


@pytest.mark.parametrize("path", TABLE)
def test_table(way: str, tree: tuple[int, Path], path: str, no_leak: None) -> None:
    """What each path means inside the root."""
    fd, root = tree
    assert outcome(fd, path) == expected(root, TABLE[path])


@pytest.mark.parametrize(
    "path",
    ["absolute", "a/relative", "a/relative/", "self_loop", "dangling", "a", "a/..", "chain40"],
)
@pytest.mark.parametrize(
    "flags", [O_PATH | O_NOFOLLOW, O_NOFOLLOW, O_PATH | O_NOFOLLOW | O_DIRECTORY]
)
def test_nofollow(way: str, tree: tuple[int, Path], path: str, flags: int, no_leak: None) -> None:
    """O_NOFOLLOW is about the last name only: the link itself, ELOOP when it is to be opened."""
    fd, root = tree
    link = path in ("absolute", "a/relative", "self_loop", "dangling", "chain40")
    if not link:
        wanted = expected(root, {"a/relative/": "a/b/c", "a": "a", "a/..": ""}[path])
    elif flags & O_DIRECTORY:
        wanted = constants.ENOTDIR
    else:
        wanted = expected(root, path) if flags & O_PATH else constants.ELOOP
    assert outcome(fd, path, flags) == wanted


def test_open_for_reading(way: str, tree: tuple[int, Path]) -> None:
    """Other flags than O_PATH reach the file that was found; O_DIRECTORY on a file is ENOTDIR."""
    fd, _ = tree
    found = paths.resolve(fd, "to_absolute", constants.O_RDONLY)
    with open(found, "rb") as stream:
        assert stream.read() == b"inside etc/passwd"
    assert outcome(fd, "absolute", O_DIRECTORY) == constants.ENOTDIR
    assert outcome(fd, "absolute", O_PATH | O_DIRECTORY) == constants.ENOTDIR
    for directory in (".", "/", "a/..", "a"):
        opened = paths.resolve(fd, directory, constants.O_RDONLY | O_DIRECTORY)
        assert os.listdir(opened)
        os.close(opened)


@pytest.mark.parametrize(
    "path",
    ["proc/self/root", "proc/self/root/etc", "proc/self/cwd/x", "proc/self/exe", "proc/self/fd/0",
     "proc/thread-self/fd/0", "proc/self/ns/mnt", "proc/1/root/etc/passwd"],
)  # fmt: skip
def test_magic_links_are_refused(way: str, path: str) -> None:
    """They lead anywhere: ELOOP (or EACCES where not even the link may be read)."""
    fd = os.open("/", O_PATH)
    try:
        assert outcome(fd, path) in (constants.ELOOP, constants.EACCES)
        if not path.startswith("proc/1/"):
            assert outcome(fd, path) == constants.ELOOP
    finally:
        os.close(fd)


def test_plain_links_of_procfs_are_followed(way: str) -> None:
    """/proc/self and /proc/mounts are text, and what a magic link is by itself may be asked."""
    fd = os.open("/", O_PATH)
    try:
        for path in ("proc/self/status", "proc/mounts", "proc/self"):
            status = os.stat("/" + path)
            assert outcome(fd, path) == [status.st_dev, status.st_ino]
        status = os.lstat("/proc/self/exe")
        assert outcome(fd, "proc/self/exe", O_PATH | O_NOFOLLOW) == [status.st_dev, status.st_ino]
    finally:
        os.close(fd)


def test_search_permission(way: str, tree: tuple[int, Path], in_user_namespace: InChild) -> None:
    """A directory that may not be searched stops "." and ".." as well."""
    fd, root = tree
    os.chmod(root / "sticky", 0o600)

    def child() -> list[Any]:
        syscalls.capset(0, 0, 0)
        return [outcome(fd, path) for path in ("sticky/..", "sticky/.", "sticky/x", "sticky")]

    refused = constants.EACCES
    try:
        assert in_user_namespace(child) == [refused, refused, refused, expected(root, "sticky")]
    finally:
        os.chmod(root / "sticky", 0o700)


def test_nosymfollow_mounts(way: str, tree: tuple[int, Path], in_user_namespace: InChild) -> None:
    """MS_NOSYMFOLLOW (Linux 5.10) holds for our own lookup too."""
    _, root = tree

    def child() -> Any:
        syscalls.mount("none", str(root), "tmpfs", constants.MS_NOSYMFOLLOW, None)
        (root / "file").touch()
        (root / "link").symlink_to("file")
        fd = os.open(root, O_PATH)
        return [outcome(fd, "link"), outcome(fd, "file") != constants.ELOOP]

    assert in_user_namespace(child) == [constants.ELOOP, True]


def test_mount_points_are_crossed(
    way: str, tree: tuple[int, Path], in_user_namespace: InChild
) -> None:
    """Both ways: into a mount, and by ".." out of it again."""
    _, root = tree

    def child() -> list[Any]:
        fd = os.open(root, O_PATH)  # of the new mount namespace
        syscalls.mount("none", str(root / "a"), "tmpfs", 0, None)
        (root / "a/new").mkdir()
        return [
            outcome(fd, "a/new") == expected(root, "a/new"),
            outcome(fd, "a/new/../../etc") == expected(root, "etc"),
            outcome(fd, "a/b") == constants.ENOENT,
        ]

    assert in_user_namespace(child) == [True, True, True]


# ---- making what is missing ----


def shape(root: Path) -> list[str]:
    """Everything in the tree, one line each: kind, name, a link's target."""
    lines = []
    for folder, directories, files in os.walk(root):
        for name in directories + files:
            full = os.path.join(folder, name)
            kind = "l" if os.path.islink(full) else "d" if os.path.isdir(full) else "f"
            target = os.readlink(full) if kind == "l" else ""
            lines.append(f"{kind} {os.path.relpath(full, root)} {target}")
    return sorted(lines)


MADE_DIRECTORIES = {
    "new": "new",
    "new/and/deep": "new/and/deep",
    "/a/b/c": "a/b/c",
    "absolute_directory/new": "a/b/new",
    "dangling": "not/there",
    "dangling/below": "not/there/below",
    "dangling_up/x": "outside/made/x",
    "a/../../new": "new",
    "missing/../other": "other",
    "up/../x": constants.ENOTDIR,
    "a/file": constants.ENOTDIR,
    "a/file/x": constants.ENOTDIR,
    "absolute": constants.ENOTDIR,
    "self_loop/x": constants.ELOOP,
    "self_loop": constants.ELOOP,
    "": constants.ENOENT,
}


@pytest.mark.parametrize("path", MADE_DIRECTORIES)
def test_make_directory(way: str, tree: tuple[int, Path], path: str, no_leak: None) -> None:
    """Missing directories are made, where links dangle at their target, always inside the root."""
    fd, root = tree
    meaning = MADE_DIRECTORIES[path]
    before = shape(root)
    try:
        made = paths.make_directory(fd, path, 0o711)
    except SyscallError as error:
        assert error.errno == meaning
        assert shape(root) == before
        return
    status = os.fstat(made)
    os.close(made)
    assert isinstance(meaning, str)
    assert os.path.samestat(status, os.lstat(root / meaning))
    fresh = f"d {meaning} " not in before
    assert not fresh or status.st_mode & 0o777 == 0o711
    assert set(before) <= set(shape(root))


def test_make_file(way: str, tree: tuple[int, Path], no_leak: None) -> None:
    """Existing files stay as they are, missing ones are empty, directories are EISDIR."""
    fd, root = tree
    for path, meaning in {
        "a/file": "a/file",
        "absolute": "etc/passwd",
        "new/file": "new/file",
        "dangling": "not/there",
        "dangling_up": "outside/made",
        "a/b/up/hostname": "etc/hostname",
    }.items():
        made = paths.make_file(fd, path, 0o640)
        assert os.path.samestat(os.fstat(made), os.lstat(root / meaning)), path
        os.close(made)
    assert (root / "a/file").read_text() == "inside a/file"
    status = os.lstat(root / "new/file")
    assert (status.st_size, status.st_mode) == (0, constants.S_IFREG | 0o640)
    for path, errno in {
        "a": constants.EISDIR,
        "/": constants.EISDIR,
        "root_link": constants.EISDIR,
        "a/file/x": constants.ENOTDIR,
        "self_loop": constants.ELOOP,
    }.items():
        with pytest.raises(SyscallError) as caught:
            paths.make_file(fd, path)
        assert caught.value.errno == errno, path


def test_a_name_with_a_slash_is_no_file(way: str, tree: tuple[int, Path], no_leak: None) -> None:
    """ "new/" can only be a directory, so make_file refuses and leaves nothing but that."""
    fd, root = tree
    with pytest.raises(SyscallError):
        paths.make_file(fd, "etc/new_file/")
    assert not (root / "etc/new_file").is_file()


def test_make_symlink(way: str, tree: tuple[int, Path], no_leak: None) -> None:
    """Made as it is told, parents too; the same again is fine, anything else there is EEXIST."""
    fd, root = tree
    paths.make_symlink(fd, "dev/fd", "/proc/self/fd")
    paths.make_symlink(fd, "/dev/fd", "/proc/self/fd")
    assert os.readlink(root / "dev/fd") == "/proc/self/fd"
    for path in ("dev/fd", "a/file", "etc"):
        with pytest.raises(SyscallError) as caught:
            paths.make_symlink(fd, path, "elsewhere")
        assert caught.value.errno == constants.EEXIST


def test_parent(way: str, tree: tuple[int, Path], no_leak: None) -> None:
    """The directory is looked up or made, the last name is left alone."""
    fd, root = tree
    for path, directory, name in (
        ("absolute_directory/x", "a/b", "x"),
        ("x", "", "x"),
        ("/self_loop", "", "self_loop"),
        ("new/dir/x/", "new/dir", "x"),
    ):
        found, last = paths.parent(fd, path)
        assert os.path.samestat(os.fstat(found), os.lstat(root / directory))
        assert last == name
        os.close(found)
    for path in ("/", "", "a/..", ".", ".."):
        with pytest.raises(SyscallError) as caught:
            paths.parent(fd, path)
        assert caught.value.errno == constants.EINVAL
    with pytest.raises(SyscallError) as caught:
        paths.parent(fd, "gone/x", create=False)
    assert caught.value.errno == constants.ENOENT


def test_exists(way: str, tree: tuple[int, Path], no_leak: None) -> None:
    """Links are followed; a loop is an error and no answer."""
    fd, _ = tree
    answers = {
        path: paths.exists(fd, path) for path in ("a", "absolute", "dangling", "a/file/x", "no")
    }
    assert list(answers.values()) == [True, True, False, False, False]
    with pytest.raises(SyscallError):
        paths.exists(fd, "self_loop")


# ---- openat2 refused for real ----


@pytest.mark.parametrize("errno", [constants.ENOSYS, constants.EPERM])
def test_without_openat2(tree: tuple[int, Path], in_child: InChild, errno: int) -> None:
    """A seccomp filter around us that knows no openat2: the whole table comes out the same."""
    fd, root = tree

    def child() -> list[Any]:
        syscalls.prctl(constants.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.seccomp_set_filter(0, filter_refusing(OPENAT2, errno))
        try:
            syscalls.openat2(fd, "a", O_PATH)
        except SyscallError as error:
            assert error.errno == errno
        answers = [outcome(fd, path) for path in TABLE]
        os.close(paths.make_directory(fd, "dangling/below"))
        return answers

    assert platform.machine() in ("x86_64", "aarch64")  # where openat2 is number 437
    assert in_child(child) == [expected(root, meaning) for meaning in TABLE.values()]
    assert (root / "not/there/below").is_dir()


# ---- random trees ----

NAME = st.sampled_from(["a", "b", "c", "d"])
PATH = st.builds(
    lambda lead, names, tail: lead + "/".join(names) + tail,
    st.sampled_from(["", "/", "//"]),
    st.lists(NAME | st.sampled_from(["..", ".", "a", "b"]), min_size=1, max_size=6),
    st.sampled_from(["", "", "/"]),
)
ENTRY = st.tuples(
    st.sampled_from(["dir", "file", "link", "link"]), st.lists(NAME, min_size=1, max_size=3), PATH
)
FLAGS = st.sampled_from(
    [O_PATH, O_PATH | O_NOFOLLOW, O_PATH | O_DIRECTORY, O_PATH | O_DIRECTORY | O_NOFOLLOW,
     constants.O_RDONLY, O_NOFOLLOW, O_DIRECTORY | O_NOFOLLOW]
)  # fmt: skip


def plant(root: Path, entries: list[tuple[str, list[str], str]]) -> None:
    root.mkdir()
    for kind, names, target in entries:
        spot = root.joinpath(*names)
        try:
            if not os.path.realpath(spot.parent).startswith(str(root)):
                continue
            spot.parent.mkdir(parents=True, exist_ok=True)
            if kind == "dir":
                spot.mkdir()
            elif kind == "file":
                spot.touch(exist_ok=False)
            else:
                spot.symlink_to(target)
        except OSError:
            continue


def both_ways(action: Callable[[], Any]) -> tuple[Any, Any]:
    paths.force_walk = False
    kernels = action()
    paths.force_walk = True
    try:
        return kernels, action()
    finally:
        paths.force_walk = False


@settings(max_examples=300, deadline=None)
@given(st.lists(ENTRY, max_size=10), st.lists(st.tuples(PATH, FLAGS), min_size=1, max_size=8))
def test_walk_finds_what_openat2_finds(
    entries: list[tuple[str, list[str], str]], questions: list[tuple[str, int]]
) -> None:
    """In any tree, any path gives the same inode or the same errno both ways."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(os.path.realpath(folder)) / "root"
        plant(root, entries)
        fd = os.open(root, O_PATH)
        try:
            for path, flags in questions:
                kernels, ours = both_ways(lambda path=path, flags=flags: outcome(fd, path, flags))
                assert kernels == ours, (path, flags, shape(root))
        finally:
            os.close(fd)


@settings(max_examples=150, deadline=None)
@given(st.lists(ENTRY, max_size=8), PATH)
def test_making_stays_inside(entries: list[tuple[str, list[str], str]], path: str) -> None:
    """In any tree, making a directory changes nothing outside and removes nothing inside."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(os.path.realpath(folder))
        root = top / "root"
        plant(root, entries)
        before = shape(root)
        fd = os.open(root, O_PATH)
        try:
            made = paths.make_directory(fd, path)
        except SyscallError as error:
            assert error.errno in (constants.ENOTDIR, constants.ELOOP), error
        else:
            status = os.fstat(made)
            os.close(made)
            assert outcome(fd, path) == [status.st_dev, status.st_ino]
        finally:
            os.close(fd)
        assert os.listdir(top) == ["root"]
        assert set(before) <= set(shape(root))
