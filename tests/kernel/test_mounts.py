"""kernel.syscalls: mounts, in a user and mount namespace of their own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants, syscalls
from tests.kernel.conftest import InChild

AT_FDCWD = constants.AT_FDCWD
EMPTY = constants.AT_EMPTY_PATH


def test_old_api(tmp_path: Path, in_user_namespace: InChild) -> None:
    """mount, statfs and umount2 agree about a tmpfs."""
    target = str(tmp_path)

    def child() -> list[Any]:
        syscalls.mount(
            "none", target, "tmpfs", constants.MS_NOSUID | constants.MS_NOEXEC, "size=64k"
        )
        inside = syscalls.statfs(target)
        fd = os.open(target, os.O_PATH)
        assert syscalls.fstatfs(fd) == inside
        os.close(fd)
        syscalls.umount2(target, constants.MNT_DETACH)
        outside = syscalls.statfs(target)
        wanted = constants.ST_NOSUID | constants.ST_NOEXEC
        return [inside.type, inside.flags & wanted == wanted, outside.flags & wanted == wanted]

    assert in_user_namespace(child) == [constants.TMPFS_MAGIC, True, False]


def test_new_api(tmp_path: Path, in_user_namespace: InChild) -> None:
    """fsopen, fsconfig, fsmount, move_mount, open_tree and mount_setattr make and move a tmpfs."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()

    def child() -> list[Any]:
        context = syscalls.fsopen("tmpfs")
        syscalls.fsconfig(context, constants.FSCONFIG_SET_STRING, "size", "64k")
        syscalls.fsconfig(context, constants.FSCONFIG_SET_FLAG, "inode32", None)
        syscalls.fsconfig(context, constants.FSCONFIG_CMD_CREATE, None, None)
        mounted = syscalls.fsmount(context, 0, constants.MOUNT_ATTR_NODEV)
        syscalls.move_mount(
            mounted, "", AT_FDCWD, str(tmp_path / "one"), constants.MOVE_MOUNT_F_EMPTY_PATH
        )
        (tmp_path / "one/file").write_text("content")
        copy = syscalls.open_tree(AT_FDCWD, str(tmp_path / "one"), constants.OPEN_TREE_CLONE)
        syscalls.mount_setattr(copy, "", EMPTY, attr_set=constants.MOUNT_ATTR_RDONLY)
        target = os.open(tmp_path / "two", os.O_PATH)
        syscalls.move_mount(
            copy,
            "",
            target,
            "",
            constants.MOVE_MOUNT_F_EMPTY_PATH | constants.MOVE_MOUNT_T_EMPTY_PATH,
        )
        assert not any(os.get_inheritable(fd) for fd in (context, mounted, copy))
        flags = [syscalls.statfs(str(tmp_path / name)).flags for name in ("one", "two")]
        return [
            (tmp_path / "two/file").read_text(),
            [bool(each & constants.ST_RDONLY) for each in flags],
            [bool(each & constants.ST_NODEV) for each in flags],
        ]

    assert in_user_namespace(child) == ["content", [False, True], [True, True]]


def test_the_kernel_s_own_words(in_user_namespace: InChild) -> None:
    """fs_context_message() says which option was wrong, once; "" when there is nothing to say."""

    def child() -> list[Any]:
        context = syscalls.fsopen("tmpfs")
        silence = syscalls.fs_context_message(context)
        try:
            syscalls.fsconfig(context, constants.FSCONFIG_SET_STRING, "nonsense", "1")
        except SyscallError as error:
            words = syscalls.fs_context_message(context)
            return [
                silence,
                words,
                syscalls.fs_context_message(context),
                error.filename,
                error.errno,
            ]
        return []

    silence, words, after, filename, errno = in_user_namespace(child)
    assert (silence, after) == ("", "")
    assert "nonsense" in words and not words.startswith("e ")
    assert (filename, errno) == ("nonsense=1", constants.EINVAL)


def test_propagation_and_pivot(tmp_path: Path, in_user_namespace: InChild) -> None:
    """A new root is pivoted to and the old one left behind."""

    def child() -> list[Any]:
        syscalls.mount(None, "/", None, constants.MS_REC | constants.MS_PRIVATE, None)
        syscalls.mount("none", str(tmp_path), "tmpfs", 0, None)
        (tmp_path / "here").touch()
        syscalls.mount_setattr(AT_FDCWD, str(tmp_path), 0, propagation=constants.MS_SLAVE)
        syscalls.chdir(str(tmp_path))
        syscalls.pivot_root(".", ".")
        syscalls.umount2(".", constants.MNT_DETACH)
        syscalls.chdir("/")
        syscalls.chroot("/")
        return os.listdir("/")

    assert in_user_namespace(child) == ["here"]


def test_failures_name_the_target(tmp_path: Path) -> None:
    """Each call says what it was about."""
    missing = str(tmp_path / "missing")
    null = os.open("/dev/null", os.O_RDONLY)
    calls = {
        "umount2": lambda: syscalls.umount2(missing, constants.UMOUNT_NOFOLLOW),
        "statfs": lambda: syscalls.statfs(missing),
        "open_tree": lambda: syscalls.open_tree(AT_FDCWD, missing, 0),
        "chroot": lambda: syscalls.chroot(missing),
    }
    for name, call in calls.items():
        with pytest.raises(SyscallError) as caught:
            call()
        assert (caught.value.call, caught.value.filename) == (name, missing)
    with pytest.raises(SyscallError) as caught:
        syscalls.fsconfig(null, constants.FSCONFIG_SET_STRING, "key", "value")
    assert caught.value.call == "fsconfig"
    os.close(null)
