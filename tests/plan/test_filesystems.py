"""Types of filesystems that need something before they are mounted, and labels."""

from __future__ import annotations

import pytest

from rootless_pyoki.errors import UnsupportedError
from rootless_pyoki.record import replace
from tests.plan import plans


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("lowerdir=/a:/b", "lowerdir=/a:/b"),
        ("lowerdir=a:/b:c/d", "lowerdir=/bundle/a:/b:/bundle/c/d"),
        (r"lowerdir=a\:b:c", r"lowerdir=/bundle/a\:b:/bundle/c"),
        (r"lowerdir=/x\\:y", r"lowerdir=/x\\:/bundle/y"),
        ("lowerdir=/a::b", "lowerdir=/a::/bundle/b"),
        ("lowerdir+=a:b", "lowerdir+=/bundle/a:b"),
        ("upperdir=u", "upperdir=/bundle/u"),
        ("workdir=/w", "workdir=/w"),
        ("metacopy=on", "metacopy=on"),
        ("userxattr", "userxattr"),
    ],
)
def test_directories_of_an_overlay(given: str, expected: str) -> None:
    """Relative ones lie in the bundle; what is no directory stays."""
    assert plans.make_mount(type="overlay", options=["ro", given]).data == (expected,)


@pytest.mark.parametrize("kind", ["fuse", "fuse.sshfs", "fuseblk"])
def test_fuse_without_a_server(kind: str) -> None:
    """No program would serve it: refused with what to do instead; a given descriptor is passed on."""
    with pytest.raises(UnsupportedError) as caught:
        plans.make_mount(type=kind, source="x", options=["allow_other"])
    assert caught.value.pointer == "/mounts/0/type" and "fusermount3" in caught.value.hint
    mount = plans.make_mount(type=kind, source="x", options=["fd=3", "rootmode=40000"])
    assert mount.data == ("fd=3", "rootmode=40000")


LABEL = "system_u:object_r:container_file_t:s0:c1,c2"


def test_mount_label() -> None:
    """SELinux's context of new filesystems; the kernel's own objects and binds have theirs."""
    facts = replace(plans.ROOT, selinux=True)
    entries = [
        {"destination": "/a", "type": "tmpfs", "options": ["size=1m"]},
        {"destination": "/b", "type": "proc"},
        {"destination": "/c", "type": "bind", "source": "/c"},
        {"destination": "/d", "type": "devpts"},
        {"destination": "/e", "type": "tmpfs", "options": ["context=mine"]},
        {"destination": "/a", "options": ["remount", "ro"]},
    ]
    plan = plans.make(plans.config(mounts=entries, linux={"mountLabel": LABEL}), facts)
    assert [mount.data for mount in plan.mounts] == [
        ("size=1m", f"context={LABEL}"),
        (),
        (),
        (f"context={LABEL}",),
        ("context=mine",),
        (),
    ]


def test_mount_label_without_selinux() -> None:
    """A label protects: it is never left out."""
    for policy in ("", "ignore"):
        with pytest.raises(UnsupportedError, match="SELinux is off") as caught:
            plans.make(plans.config(linux={"mountLabel": LABEL}), plans.ROOT, unsupported=policy)
        assert caught.value.pointer == "/linux/mountLabel"
