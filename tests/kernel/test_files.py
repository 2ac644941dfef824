"""kernel.syscalls: files and descriptors, against what the `os` module sees."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, syscalls

O_PATH = constants.O_PATH


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_names_are_bytes_in_disguise(tmp_path: Path, folder: int) -> None:
    """A name that is no UTF-8 comes back from listdir() and readlinkat() and opens again."""
    raw = os.fsencode(tmp_path) + b"/caf\xe9"
    with open(raw, "wb"):
        pass
    os.symlink(b"caf\xe9", os.fsencode(tmp_path) + b"/link")
    assert sorted(syscalls.listdir(folder)) == ["caf\udce9", "link"]
    assert syscalls.readlinkat(folder, "link") == "caf\udce9"
    os.close(syscalls.openat(folder, "caf\udce9", os.O_RDONLY))


def test_names_in_a_latin_1_locale(tmp_path: Path) -> None:
    """The locale's encoding changes nothing: paths are UTF-8."""
    locales = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
    latin = [name for name in locales if name.lower().replace("-", "").endswith("iso88591")]
    encoding = ["-X", "utf8=0"]
    environment = {"LC_ALL": latin[0] if latin else "POSIX", "PYTHONCOERCECLOCALE": "0"}
    (tmp_path / "grün").touch()
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from rootless_pyoki.kernel import syscalls\n"
        "fd = syscalls.openat(-100, sys.argv[2], os.O_RDONLY)\n"
        "print(ascii(syscalls.listdir(fd)), sys.getfilesystemencoding())\n"
        "syscalls.fstatat(fd, 'gr\\u00fcn')\n"
    )
    root = syscalls.__file__.rsplit("/", 3)[0]
    done = subprocess.run(
        [sys.executable, *encoding, "-c", script, root, str(tmp_path)],
        capture_output=True, text=True, env=environment, check=True,
    )  # fmt: skip
    names, used = done.stdout.rsplit(" ", 1)
    assert names == "['gr\\xfcn']"
    assert used.strip() != "utf-8"


def test_files_and_links(tmp_path: Path, folder: int, no_leak: None) -> None:
    """Make, write, seek, cut, link, rename, remove: the kernel and `os` agree."""
    fd = syscalls.openat(folder, "file", os.O_CREAT | os.O_RDWR, 0o640)
    assert not os.get_inheritable(fd)
    assert syscalls.write(fd, b"0123456789") == 10
    assert syscalls.pread(fd, 4, 3) == b"3456"
    assert syscalls.lseek(fd, 2) == 2
    assert syscalls.read(fd, 3) == b"234"
    syscalls.ftruncate(fd, 5)
    syscalls.fsync(fd)
    assert syscalls.fstat(fd).st_size == 5
    syscalls.fchmod(fd, 0o600)
    syscalls.fchown(fd, -1, os.getegid())
    syscalls.close(fd)
    syscalls.fchmodat(folder, "file", 0o604)
    syscalls.fchownat(folder, "file", os.geteuid(), -1)
    assert stat.S_IMODE(os.stat(tmp_path / "file").st_mode) == 0o604
    syscalls.symlinkat("file", folder, "link")
    syscalls.fchownat(folder, "link", -1, os.getegid(), constants.AT_SYMLINK_NOFOLLOW)
    os.link(tmp_path / "file", tmp_path / "hard")
    assert syscalls.fstatat(folder, "hard").st_nlink == 2
    assert stat.S_ISLNK(syscalls.fstatat(folder, "link", constants.AT_SYMLINK_NOFOLLOW).st_mode)
    syscalls.mkdirat(folder, "directory", 0o700)
    syscalls.mknodat(folder, "fifo", constants.S_IFIFO | 0o600, 0)
    syscalls.renameat(folder, "hard", folder, "directory/hard")
    syscalls.unlinkat(folder, "directory/hard")
    syscalls.unlinkat(folder, "directory", constants.AT_REMOVEDIR)
    assert sorted(os.listdir(tmp_path)) == ["fifo", "file", "link"]


def test_path_descriptors(tmp_path: Path, folder: int) -> None:
    """An O_PATH fd can be asked, read as a link, and given away with an empty path."""
    (tmp_path / "link").symlink_to("nowhere")
    link = syscalls.openat(folder, "link", O_PATH | os.O_NOFOLLOW)
    assert syscalls.readlinkat(link, "") == "nowhere"
    assert syscalls.fstatat(link, "", constants.AT_EMPTY_PATH).st_size == len("nowhere")
    syscalls.fchownat(link, "", os.geteuid(), os.getegid(), constants.AT_EMPTY_PATH)
    os.close(link)


def test_faccessat(tmp_path: Path, folder: int) -> None:
    """An answer and no exception; execute permission is looked at even for root."""
    (tmp_path / "file").touch(0o600)
    assert syscalls.faccessat(folder, "file", constants.R_OK | constants.W_OK)
    assert not syscalls.faccessat(folder, "file", constants.X_OK)
    assert not syscalls.faccessat(folder, "missing", constants.F_OK)


def test_directories_of_the_process(tmp_path: Path, folder: int) -> None:
    """chdir, fchdir and getcwd."""
    before = os.open(".", O_PATH)
    try:
        syscalls.fchdir(folder)
        assert syscalls.getcwd() == os.path.realpath(tmp_path)
        syscalls.chdir("/")
        assert os.getcwd() == "/"
    finally:
        os.fchdir(before)
        os.close(before)


def test_duplicates_and_flags(no_leak: None) -> None:
    """dup() respects the minimum, dup2() the flag, also onto itself; all are close-on-exec."""
    reader, writer = syscalls.pipe()
    high = syscalls.dup(reader, 77)
    assert high >= 77
    assert [os.get_inheritable(fd) for fd in (reader, writer, high)] == [False] * 3
    assert syscalls.dup2(writer, high) == high
    assert os.path.sameopenfile(writer, high) and not os.get_inheritable(high)
    syscalls.dup2(high, high, cloexec=False)
    assert os.get_inheritable(high)
    syscalls.dup2(writer, high, cloexec=False)
    assert os.get_inheritable(high)
    syscalls.set_cloexec(high, True)
    assert not os.get_inheritable(high)
    syscalls.set_nonblock(reader, True)
    with pytest.raises(SyscallError) as caught:
        syscalls.read(reader, 1)
    assert caught.value.errno == constants.EAGAIN
    syscalls.set_nonblock(reader, False)
    assert os.get_blocking(reader)
    for fd in (reader, writer, high):
        syscalls.close(fd)
    with pytest.raises(SyscallError, match=rf"close fd {high}: .*EBADF"):
        syscalls.close(high)


def test_flock_of_another_description(tmp_path: Path) -> None:
    """A held lock is EWOULDBLOCK for a second opening of the file, and free after close."""
    first, second = (os.open(tmp_path, os.O_RDONLY) for _ in range(2))
    syscalls.flock(first, constants.LOCK_EX)
    with pytest.raises(SyscallError) as caught:
        syscalls.flock(second, constants.LOCK_EX | constants.LOCK_NB)
    assert caught.value.errno == constants.EWOULDBLOCK
    os.close(first)
    syscalls.flock(second, constants.LOCK_EX | constants.LOCK_NB)
    os.close(second)


def test_sealed_memfd() -> None:
    """Once sealed, no more writing, and the seals are there to be read."""
    fd = syscalls.memfd_create("record", constants.MFD_ALLOW_SEALING)
    assert not os.get_inheritable(fd)
    syscalls.write(fd, b"data")
    seals = constants.F_SEAL_WRITE | constants.F_SEAL_GROW | constants.F_SEAL_SEAL
    syscalls.add_seals(fd, seals)
    assert syscalls.get_seals(fd) == seals
    with pytest.raises(SyscallError) as caught:
        syscalls.write(fd, b"more")
    assert caught.value.errno == constants.EPERM
    os.close(fd)


def test_openat2_flags(tmp_path: Path, folder: int) -> None:
    """resolve flags reach the kernel, the fd is close-on-exec, nonsense is EINVAL."""
    (tmp_path / "link").symlink_to("/etc")
    fd = syscalls.openat2(folder, "new", os.O_CREAT | os.O_WRONLY, 0o600, constants.RESOLVE_BENEATH)
    assert not os.get_inheritable(fd)
    os.close(fd)
    for resolve, errno in (
        (constants.RESOLVE_BENEATH, constants.EXDEV),
        (constants.RESOLVE_NO_SYMLINKS, constants.ELOOP),
        (1 << 40, constants.EINVAL),
    ):
        with pytest.raises(SyscallError) as caught:
            syscalls.openat2(folder, "link", O_PATH, 0, resolve)
        assert caught.value.errno == errno


def test_close_range() -> None:
    """What lies between is closed."""
    numbers = [syscalls.dup(0, 200) for _ in range(3)]
    syscalls.close_range(numbers[0], numbers[-1])
    for number in numbers:
        with pytest.raises(OSError):
            os.fstat(number)


def test_device_numbers() -> None:
    """makedev, major and minor are each other's inverse and the kernel's."""
    status = os.stat("/dev/null")
    assert (syscalls.major(status.st_rdev), syscalls.minor(status.st_rdev)) == (1, 3)
    assert syscalls.makedev(1, 3) == status.st_rdev


MISSING: dict[str, Callable[[int], object]] = {
    "openat": lambda fd: syscalls.openat(fd, "no/x", 0),
    "openat2": lambda fd: syscalls.openat2(fd, "no/x", 0),
    "fstatat": lambda fd: syscalls.fstatat(fd, "no/x"),
    "mkdirat": lambda fd: syscalls.mkdirat(fd, "no/x", 0o700),
    "unlinkat": lambda fd: syscalls.unlinkat(fd, "no/x"),
    "symlinkat": lambda fd: syscalls.symlinkat("a", fd, "no/x"),
    "mknodat": lambda fd: syscalls.mknodat(fd, "no/x", constants.S_IFIFO, 0),
    "renameat": lambda fd: syscalls.renameat(fd, "no/y", fd, "no/x"),
    "readlinkat": lambda fd: syscalls.readlinkat(fd, "no/x"),
    "fchmodat": lambda fd: syscalls.fchmodat(fd, "no/x", 0o700),
    "fchownat": lambda fd: syscalls.fchownat(fd, "no/x", -1, -1),
}


@pytest.mark.parametrize("call", MISSING)
def test_failures_name_call_and_path(folder: int, call: str) -> None:
    """errno, the call's own name, and the path as it was given."""
    with pytest.raises(SyscallError) as caught:
        MISSING[call](folder)
    error = caught.value
    assert (error.errno, error.call, error.filename) == (constants.ENOENT, call, "no/x")
    assert str(error) == f"{call} no/x: no such file or directory (ENOENT)"
