"""What the tests of whole containers share: runtimes, bundles, and a count of what is left."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import leaks, needs
from tests.support.bundles import Bundle
from tests.support.limits import DELEGATED
from tests.support.runtime import Runtime, default_command, hot_command, source_command

_numbers = itertools.count(1)


def pytest_configure() -> None:
    leaks.become_subreaper()
    # who starts us in the background ignores it for us, and so for all that the tests start
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """What the markers `session` and `controllers` need, or a skip."""
    if item.get_closest_marker("controllers"):
        needs.controllers("memory", "pids", "cpu", "cpuset", "io")
    elif item.get_closest_marker("session"):
        needs.session()


@pytest.fixture
def state_root(tmp_path: Path) -> Path:
    """A state root that does not exist yet, with a path short enough for sockets."""
    return tmp_path / "state"


@pytest.fixture
def runtime(state_root: Path) -> Iterator[Runtime]:
    """pyoki as it is installed (PYOKI_HOT), else as the checkout has it."""
    runtime = Runtime(default_command(), state_root)
    yield runtime
    runtime.clear()


@pytest.fixture(params=["bundle", "source"])
def both_ways(request: pytest.FixtureRequest, state_root: Path) -> Iterator[Runtime]:
    """pyoki from the bundle of code objects, and pyoki from its sources: the same modules."""
    if request.param == "bundle":
        hot = hot_command()
        if hot is None:
            pytest.skip("PYOKI_HOT does not name an installed launcher (tests/run.sh does that)")
        command = hot
    else:
        command = source_command()
    runtime = Runtime(command, state_root, name=f"pyoki-{request.param}")
    yield runtime
    runtime.clear()


@pytest.fixture(params=["systemd", "cgroupfs"])
def managed(request: pytest.FixtureRequest, runtime: Runtime) -> Runtime:
    """pyoki with each manager of cgroups, where each has the user manager's controllers."""
    if request.param == "cgroupfs":
        scope = ["systemd-run", "--user", "--scope", "--quiet", "--collect", "-p", "Delegate=yes"]
        runtime.command = [*scope, "--", "sh", "-c", DELEGATED, "sh", *runtime.command]
    runtime.options = ["--cgroup-manager", request.param]
    return runtime


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Bundle]:
    """make_bundle("sh", "-c", ...): a new bundle that runs this; `sleep 1000` by default."""

    def make(*args: str) -> Bundle:
        path = tmp_path / f"bundle{next(_numbers)}"
        path.mkdir()
        return Bundle(path, *args)

    return make


@pytest.fixture
def busybox_bundle(make_bundle: Callable[..., Bundle]) -> Bundle:
    """A bundle that sleeps."""
    return make_bundle()


@pytest.fixture
def identifier(request: pytest.FixtureRequest) -> str:
    """A container id of this test's own."""
    import os

    return f"t{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def v2() -> Path:
    """The cgroup v2 directory that is delegated to us, in a pure v2 view; skips elsewhere."""
    needs.require(needs.pure_v2(), "no delegated, pure cgroup v2 tree (tests/support/v2view)")
    directory = needs.delegated_cgroup()
    assert directory is not None
    return directory


@pytest.fixture
def all_ids() -> None:
    """The user has subordinate ids."""
    needs.require(needs.subordinate_ids(), "this user has no subordinate ids, or no newuidmap")


@pytest.fixture
def leak_check(state_root: Path) -> Iterator[None]:
    """Nothing may be left when the test ends. Ask for it before the runtime that it watches."""
    with leaks.nothing_left([state_root]):
        yield


@pytest.fixture
def memory() -> None:
    """Memory can be limited: in the bed of tests/vm, or where a subtree with it is delegated."""
    if "PYOKI_BED" not in os.environ:
        directory = needs.delegated_cgroup()
        needs.require(directory, "no cgroup v2 subtree is delegated to this user")
        assert directory is not None
        needs.require_controller(directory, "memory")
