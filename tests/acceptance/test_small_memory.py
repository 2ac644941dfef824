"""A limit of memory is the program's own: what we need to start it does not count.

Linux charges a waiting container with about 150 KiB, nearly all of it the kernel's (tables of pages,
the stack, namespaces): half a mebibyte is enough for a program that fits.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.bundles import Bundle
from tests.support.limits import cgroup, write_program
from tests.support.runtime import Runtime

pytestmark = pytest.mark.controllers
Make = Callable[..., Bundle]
KIB = 1 << 10


def limited(bundle: Bundle, limit: int) -> Bundle:
    bundle.linux["resources"] = {"memory": {"limit": limit, "swap": limit}}
    return bundle.write()


@pytest.mark.parametrize("program", ["tiny", "busybox true"])
def test_half_a_mebibyte(
    leak_check: None, managed: Runtime, make_bundle: Make, identifier: str, program: str
) -> None:
    """A static program starts, and ends as it wants, in 512 KiB."""
    bundle = make_bundle(*program.split())
    write_program(bundle.rootfs / "bin/tiny")
    assert managed.run(identifier, limited(bundle, 512 * KIB).path).ok().err == ""


def test_what_waiting_costs(
    leak_check: None, managed: Runtime, make_bundle: Make, identifier: str
) -> None:
    """A created container uses far less than that: hardly any is the gate's own memory, and what its
    namespaces cost the kernel is not charged to it."""
    managed.create(identifier, limited(make_bundle("true"), 512 * KIB).path).ok()
    path = cgroup(managed, identifier)
    assert int((path / "memory.current").read_text()) < 384 * KIB
    counts = dict(line.split() for line in (path / "memory.stat").read_text().splitlines())
    assert int(counts["anon"]) + int(counts["shmem"]) <= 64 * KIB
    assert int(counts["slab_unreclaimable"]) < 96 * KIB
    managed.delete(identifier, force=True).ok()
    assert not path.exists()


def test_too_little(leak_check: None, managed: Runtime, make_bundle: Make, identifier: str) -> None:
    """What cannot start for want of memory is told with the limit, soon, and nothing is left."""
    result = managed.run(identifier, limited(make_bundle("true"), 96 * KIB).path)
    assert result.code == 1
    assert "OOM killer" in result.err and "/linux/resources/memory/limit" in result.err
    assert managed.status(identifier) == ""


def test_too_little_to_become_the_program(
    leak_check: None, managed: Runtime, make_bundle: Make, identifier: str
) -> None:
    """What waits has enough, but the program cannot replace it: start tells the same."""
    managed.create(identifier, limited(make_bundle("true"), 512 * KIB).path).ok()
    path = cgroup(managed, identifier)
    for value in ("0", "max"):  # what is charged ahead is given back: no more than is used is left
        (path / "memory.high").write_text(value)
    (path / "memory.max").write_text((path / "memory.current").read_text())
    result = managed.start(identifier)
    assert result.code == 1
    assert "OOM killer" in result.err and "/linux/resources/memory/limit" in result.err
    managed.delete(identifier).ok()
    assert not path.exists()
