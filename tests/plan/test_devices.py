"""Device nodes: made where the kernel allows it, else bound from the host."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.errors import SpecError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan.plan import Device
from rootless_pyoki.record import replace
from tests.plan import plans

DEFAULTS = {
    "/dev/null": (1, 3),
    "/dev/zero": (1, 5),
    "/dev/full": (1, 7),
    "/dev/random": (1, 8),
    "/dev/urandom": (1, 9),
    "/dev/tty": (5, 0),
}


def devices(facts: Any = plans.ROOT, *, own_user: bool = False, **linux: Any) -> dict[str, Device]:
    planned = plans.make(plans.config(linux=linux, own_user=own_user), facts).devices
    assert len({device.path for device in planned}) == len(planned)
    return {device.path: device for device in planned}


def test_defaults_are_made_by_root() -> None:
    """config-linux.md, "Default Devices": these six, open to everybody."""
    planned = devices()
    assert {path: (d.major, d.minor) for path, d in planned.items()} == DEFAULTS
    assert {(d.kind, d.mode, d.uid, d.gid) for d in planned.values()} == {
        ("mknod", c.S_IFCHR | 0o666, 0, 0)
    }


@pytest.mark.parametrize("caller", ["user", "podman", "no CAP_MKNOD", "root with a user namespace"])
def test_defaults_are_bound_in_a_user_namespace(caller: str) -> None:
    """mknod(2) asks for CAP_MKNOD in the initial user namespace."""
    mask = plans.ALL_CAPABILITIES & ~(1 << c.CAP_MKNOD)
    facts = {
        "user": plans.USER,
        "podman": plans.IN_PODMAN,
        "no CAP_MKNOD": replace(plans.ROOT, capabilities_effective=mask),
        "root with a user namespace": plans.ROOT,
    }[caller]
    planned = devices(facts, own_user=caller.startswith(("root", "user")))
    assert {path: d.source for path, d in planned.items()} == {path: path for path in DEFAULTS}
    assert {d.kind for d in planned.values()} == {"bind"}


def test_a_bound_dev_keeps_what_it_has() -> None:
    """Where /dev is the host's or the image's, no default node is put into it."""
    mount = {"destination": "/dev/", "type": "bind", "source": "/dev", "options": ["rbind"]}
    assert plans.make(plans.config(mounts=[mount])).devices == ()
    tmpfs = {"destination": "/dev", "type": "tmpfs"}
    assert len(plans.make(plans.config(mounts=[tmpfs])).devices) == len(DEFAULTS)


def test_a_bound_node_is_not_covered() -> None:
    """podman --privileged binds every node itself."""
    mount = {"destination": "/dev/null", "type": "bind", "source": "/dev/zero"}
    planned = plans.make(plans.config(mounts=[mount])).devices
    assert "/dev/null" not in [device.path for device in planned]
    assert len(planned) == len(DEFAULTS) - 1


def test_device_of_the_configuration_by_root() -> None:
    """Mode, owner and numbers are those asked for; type bits in fileMode do no harm."""
    entry = {"path": "/dev/sd", "type": "b", "major": 8, "minor": 1}
    entry.update(fileMode=0o060640, uid=3, gid=4)
    device = devices(devices=[entry])["/dev/sd"]
    assert (device.kind, device.mode) == ("mknod", c.S_IFBLK | 0o640)
    assert (device.major, device.minor, device.uid, device.gid) == (8, 1, 3, 4)
    assert device.pointer == "/linux/devices/0"


@pytest.mark.parametrize("letter", ["c", "u"])
def test_character_devices(letter: str) -> None:
    """u, unbuffered, is a character device to Linux; without fileMode it is open to everybody."""
    entry = {"path": "/dev/x", "type": letter, "major": 4, "minor": 64}
    assert devices(devices=[entry])["/dev/x"].mode == c.S_IFCHR | 0o666


def test_the_configuration_replaces_a_default() -> None:
    """One node a path."""
    entry = {"path": "/dev/tty", "type": "c", "major": 5, "minor": 0, "fileMode": 0o600}
    device = devices(devices=[entry])["/dev/tty"]
    assert (device.mode, device.pointer) == (c.S_IFCHR | 0o600, "/linux/devices/0")


@pytest.mark.parametrize(
    ("entry", "source"),
    [
        ({"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232}, "/dev/kvm"),
        ({"path": "/dev/mynull", "type": "c", "major": 1, "minor": 3}, "/dev/null"),
        ({"path": "/dev/my/fuse", "type": "c", "major": 10, "minor": 229}, "/dev/fuse"),
        ({"path": "/dev/ram3", "type": "b", "major": 1, "minor": 3}, "/dev/ram3"),
    ],
)
def test_bound_device_of_the_configuration(entry: dict[str, Any], source: str) -> None:
    """The host's node of the same path, but well-known numbers are found at their own place."""
    device = devices(plans.IN_PODMAN, devices=[entry])[entry["path"]]
    assert (device.kind, device.source) == ("bind", source)


def test_owner_and_mode_of_a_bound_device() -> None:
    """They are the host's, and whoever asked for others is told."""
    entry = {"path": "/dev/kvm", "type": "c", "major": 10, "minor": 232, "fileMode": 0o600}
    plan = plans.make(plans.config(linux={"devices": [entry]}), plans.IN_PODMAN)
    assert [note.pointer for note in plan.notes] == ["/linux/devices/0"]


def test_fifo() -> None:
    """Anybody may make a fifo; its owner must be mapped."""
    entry = {"path": "/run/f", "type": "p", "fileMode": 0o600, "uid": 7}
    device = devices(plans.IN_PODMAN, devices=[entry])["/run/f"]
    assert (device.kind, device.mode, device.uid) == ("fifo", c.S_IFIFO | 0o600, 7)
    entry["uid"] = 70000
    with pytest.raises(SpecError) as caught:
        devices(plans.IN_PODMAN, devices=[entry])
    assert caught.value.pointer == "/linux/devices/0/uid"
