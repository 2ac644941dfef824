"""kernel.fds: whole files, and which descriptors are open."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, fds, syscalls
from tests.kernel.conftest import InChild
from tests.kernel.test_processes import filter_refusing

CLOSE_RANGE = 436


def test_whole_files(tmp_path: Path, no_leak: None) -> None:
    """What write_all() wrote, read_file() reads, however long."""
    content = os.urandom(3 * fds.CHUNK + 17)
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_WRONLY)
    fds.write_all(fd, content)
    os.close(fd)
    directory = fds.open_dir(str(tmp_path))
    try:
        assert fds.read_file(directory, "file") == content
        with pytest.raises(SyscallError) as caught:
            fds.read_file(directory, "none")
        assert (caught.value.errno, caught.value.filename) == (constants.ENOENT, "none")
    finally:
        os.close(directory)


@pytest.mark.parametrize("size", [0, 1, fds.RECORD - 1, fds.RECORD, 2 * fds.RECORD + 17])
def test_records(tmp_path: Path, size: int, no_leak: None) -> None:
    """read_file(record=True) gives a regular file of any size whole."""
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert fds.read_file(constants.AT_FDCWD, f"{tmp_path}/file", record=True) == content


def test_write_all_goes_on_after_a_short_write(in_child: InChild) -> None:
    """A pipe takes part of a large write at a time when its reader is slow."""
    reader, writer = syscalls.pipe()
    data = os.urandom(1 << 18)
    pid = syscalls.clone(0)
    if pid == 0:
        try:
            os.close(reader)
            fds.write_all(writer, data)
        finally:
            os._exit(0)
    os.close(writer)
    assert fds.read_all(reader) == data
    os.close(reader)
    assert syscalls.waitpid(pid)[1] == 0


def test_open_dir_wants_a_directory(tmp_path: Path) -> None:
    """A file is ENOTDIR; the fd is good for lookups only."""
    (tmp_path / "file").touch()
    with pytest.raises(SyscallError, match="ENOTDIR"):
        fds.open_dir(str(tmp_path / "file"))
    fd = fds.open_dir(str(tmp_path))
    with pytest.raises(SyscallError, match=rf"getdents64 fd {fd}: .*EBADF"):
        syscalls.listdir(fd)
    assert os.path.samefile(fds.fd_path(fd), tmp_path)
    fds.close_quietly(fd)
    fds.close_quietly(fd)
    fds.close_quietly(-1)


@pytest.mark.parametrize("refused", [0, constants.ENOSYS, constants.EPERM, constants.EINVAL])
def test_cloexec_from(in_child: InChild, refused: int) -> None:
    """Everything from a number on gets the flag, nothing below it, also without close_range(2)."""

    def child() -> list[list[bool]]:
        if refused:
            syscalls.prctl(constants.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.seccomp_set_filter(0, filter_refusing(CLOSE_RANGE, refused))
        numbers = [50, 51, 52, 60, 900]
        for number in numbers:
            os.dup2(0, number)
        fds.cloexec_from(52)
        first = [os.get_inheritable(number) for number in numbers]
        syscalls.set_cloexec(60, False)
        return [first, [os.get_inheritable(60)]]

    assert in_child(child) == [[True, True, False, False, False], [True]]


def test_require_open_names_the_hole() -> None:
    """The first number that is not open is in the error."""
    fd = syscalls.dup(0, 100)
    try:
        fds.require_open(fd, 1)
        fds.require_open(3, 0)
        with pytest.raises(SyscallError) as caught:
            fds.require_open(fd, 3)
        assert (caught.value.errno, caught.value.filename) == (constants.EBADF, f"fd {fd + 1}")
    finally:
        os.close(fd)


def test_open_fds_is_what_proc_says(no_leak: None) -> None:
    """Ours without the one that the listing needs."""
    fd = os.open("/", os.O_PATH)
    listed = fds.open_fds()
    os.close(fd)
    assert {0, 1, 2, fd} <= set(listed)
    assert all(_is_open(number) for number in set(listed) - {fd})
    assert listed == sorted(listed)


def _is_open(fd: Any) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_connect(tmp_path: Path, no_leak: None) -> None:
    """A socket is reached however long its path; errors name the path that was given."""
    folder = tmp_path / ("d" * 150)
    folder.mkdir()
    path = str(folder / ("s" * 150))
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(SyscallError) as caught:
            fds.connect(client.fileno(), path)
        assert (caught.value.errno, caught.value.filename) == (constants.ENOENT, path)
        server.bind(str(tmp_path / "short"))
        os.rename(tmp_path / "short", path)
        with pytest.raises(SyscallError) as caught:
            fds.connect(client.fileno(), path)
        assert (caught.value.errno, caught.value.filename) == (constants.ECONNREFUSED, path)
        server.listen(1)
        fds.connect(client.fileno(), path)
