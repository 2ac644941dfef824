"""The session keyring of a container, keyrings(7)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rootless_pyoki.apply import process
from rootless_pyoki.errors import PyokiError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
POSSESSOR = 0x3F000000


@pytest.mark.parametrize("option", ["", "--no-new-keyring"])
def test_a_keyring_of_its_own(
    runtime: Runtime, make_bundle: Make, identifier: str, option: str
) -> None:
    """Named after the container, and its session's; the caller's with --no-new-keyring."""
    needs.require(Path("/proc/keys").exists(), "this kernel has no keyrings")
    bundle = make_bundle("cat", "/proc/keys")
    bundle.linux["maskedPaths"] = []
    options = [option] if option else []
    listed = runtime.run(identifier, bundle.write().path, *options).ok().out
    assert (f"_ses.{identifier}" in listed) == (not option), listed


@pytest.mark.parametrize("option", ["", "--no-new-keyring"])
def test_exec_has_the_keyring_of_the_container(
    runtime: Runtime, make_bundle: Make, identifier: str, option: str
) -> None:
    """Not its caller's, with what that user's session has in it; with --no-new-keyring the caller's."""
    needs.require(Path("/proc/keys").exists(), "this kernel has no keyrings")
    bundle = make_bundle()
    bundle.linux["maskedPaths"] = []
    options = [option] if option else []
    runtime.run(identifier, bundle.write().path, "--detach", *options).ok()

    def join() -> None:
        keyring = syscalls.join_session_keyring("_ses.the-caller")
        syscalls.keyctl_setperm(keyring, POSSESSOR)  # /proc/keys shows it to who possesses it

    listed = runtime("exec", identifier, "cat", "/proc/keys", preexec=join).ok().out
    assert ("_ses.the-caller" in listed) == bool(option), listed
    if not option:  # the very same, no second one of its name
        assert listed.count(f"_ses.{identifier}:") == 1, listed


def test_a_quota_that_is_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says what to do; without keyrings in the kernel the container goes without."""

    def fail(errno: int) -> Callable[[str], int]:
        def join(name: str) -> int:
            raise SyscallError(errno, "Reason", "keyctl", name)

        return join

    monkeypatch.setattr(syscalls, "join_session_keyring", fail(c.EDQUOT))
    with pytest.raises(PyokiError) as caught:
        process.join_session_keyring("box")
    assert caught.value.errno == c.EDQUOT and "--no-new-keyring" in caught.value.hint
    for errno in (c.ENOSYS, c.EPERM, c.EACCES):
        monkeypatch.setattr(syscalls, "join_session_keyring", fail(errno))
        process.join_session_keyring("box")
