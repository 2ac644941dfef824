"""Fixtures for tests that need a process of their own."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from rootless_pyoki.kernel import constants, syscalls

InChild = Callable[..., Any]


def run_in_child(function: Callable[[], Any], flags: int = 0) -> Any:
    """Call the function in a clone()d child: what it returns (through JSON), or its traceback."""
    reader, writer = syscalls.pipe()
    pid = syscalls.clone(flags)
    if pid == 0:
        code = 1
        try:
            try:
                answer = {"value": function()}
            except BaseException:
                answer = {"error": traceback.format_exc()}
            os.write(writer, json.dumps(answer).encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with open(reader, "rb") as stream:
        data = stream.read()
    _, status = syscalls.waitpid(pid)
    assert status == 0, f"child ended with status {status:#x}, having said {data!r}"
    answer = json.loads(data)
    if "error" in answer:
        pytest.fail(f"in the child:\n{answer['error']}")
    return answer["value"]


@pytest.fixture
def in_child() -> InChild:
    return run_in_child


@pytest.fixture
def in_user_namespace() -> InChild:
    """As in_child, uid 0 of a new user namespace with a mount namespace of its own."""

    def run(function: Callable[[], Any], flags: int = 0) -> Any:
        uid, gid = os.geteuid(), os.getegid()

        def inside() -> Any:
            syscalls.unshare(constants.CLONE_NEWUSER | constants.CLONE_NEWNS | flags)
            for name, text in (
                ("setgroups", "deny"),
                ("uid_map", f"0 {uid} 1"),
                ("gid_map", f"0 {gid} 1"),
            ):
                with open(f"/proc/self/{name}", "w") as file:
                    file.write(text)
            return function()

        return run_in_child(inside)

    return run


def open_fds() -> set[int]:
    """The numbers of this process's open descriptors."""
    return {int(name) for name in os.listdir("/proc/self/fd")} - {_listing_fd()}


def _listing_fd() -> int:
    # os.listdir's own descriptor takes the lowest free number
    probe = os.open("/", os.O_PATH)
    os.close(probe)
    return probe


@pytest.fixture
def no_leak() -> Any:
    """The test leaves as many descriptors open as it found."""
    before = open_fds()
    yield
    assert open_fds() == before
