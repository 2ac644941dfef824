"""A hostile process swaps directories and links beneath the root while containers are created.

Everything that pyoki looks up by a path of the container is a mechanism here. Each is raced with pyoki
as it is (with the newest system calls, and as on kernels without them), which must not lose once, and
with its defence patched away, which must lose: else the race would prove nothing. The long tests make
2,268 creations of it; with -s both say how many they needed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.record import Record
from tests.security.attack import SECRET, Outside, Victim, make_victim, swapping
from tests.security.weakened import OUTSIDE
from tests.support.bundles import Bundle

Make = Callable[..., Bundle]
Scene = tuple[Path, Path]  # what is swapped, and the link out that takes its place
FEW, MANY = 3, 162  # creations for each mechanism
WAYS: tuple[tuple[str, ...], ...] = ((), ("without_openat2",), ("without_move_mount",))  # in turn

TTL = "sys/net/ipv4/ip_default_ttl"
READ = "cat /s/a/inner/keep /masked 2>/dev/null; true"  # the program looks for the host's words


class Mechanism(Record):
    prepare: Callable[[Bundle, Path], None]  # config.json, and what is in the volume
    weaknesses: tuple[str, ...] = ("paths_checked_before",)
    swapped: str = "a"  # in the volume; or "rootfs/..."


def _no_dev(bundle: Bundle) -> None:
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if "/dev" not in m["destination"]]


def _mount(bundle: Bundle, destination: str, kind: str, **more: Any) -> None:
    bundle.config["mounts"].append({"destination": destination, "type": kind, **more})


def _mount_target(bundle: Bundle, volume: Path) -> None:
    _mount(bundle, "/s/a", "tmpfs", source="t")


def _parent_of_a_target(bundle: Bundle, volume: Path) -> None:
    _mount(bundle, "/s/a/new/directory", "tmpfs", source="t")


def _file_target(bundle: Bundle, volume: Path) -> None:
    _mount(bundle, "/s/a/file", "bind", source="/etc/passwd", options=["bind"])


def _device(bundle: Bundle, volume: Path) -> None:
    bundle.linux["devices"] = [
        {"path": "/s/a/dev/fifo", "type": "p", "fileMode": 0o666},
        {"path": "/s/a/dev/full", "type": "c", "major": 1, "minor": 7},
    ]


def _masked(bundle: Bundle, volume: Path) -> None:
    bundle.linux["maskedPaths"] = ["/s/a", "/s/a/inner", "/s/a/inner/keep"]


def _readonly(bundle: Bundle, volume: Path) -> None:
    bundle.linux["readonlyPaths"] = ["/s/a", "/s/a/inner", "/s/a/inner/keep"]


def _null(bundle: Bundle, volume: Path) -> None:
    _no_dev(bundle)
    (bundle.rootfs / "dev/null").touch()
    (bundle.rootfs / "masked").touch()
    bundle.linux["maskedPaths"] = ["/masked"]


def _console(bundle: Bundle, volume: Path) -> None:
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] != "/dev"]
    (bundle.rootfs / "dev/console").touch()
    bundle.process["terminal"] = True


def _cwd(bundle: Bundle, volume: Path) -> None:
    bundle.process["cwd"] = "/s/a/new/cwd"


def _copy_up(bundle: Bundle, volume: Path) -> None:
    """The tmpfs lies over the volume itself: a is an entry of what is copied."""
    _mount(bundle, "/s", "tmpfs", source="t", options=["tmpcopyup"])


def _dev(bundle: Bundle, volume: Path) -> None:
    """Every device and link is made in the image's own /dev."""
    _no_dev(bundle)


def _sysctl(bundle: Bundle, volume: Path) -> None:
    """A volume lies over /proc."""
    false = volume / "proc" / TTL
    false.parent.mkdir(parents=True)
    false.touch()
    mount = {"destination": "/proc", "type": "bind", "source": str(volume / "proc")}
    bundle.config["mounts"].insert(1, {**mount, "options": ["rbind"]})
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    bundle.linux["sysctl"] = {"net.ipv4.ip_default_ttl": "77"}


def _nothing(bundle: Bundle, volume: Path) -> None:
    """The mounts that every container has."""


MECHANISMS = {
    "mount-target": Mechanism(prepare=_mount_target),
    "parent-of-a-mount-target": Mechanism(prepare=_parent_of_a_target),
    "file-target": Mechanism(prepare=_file_target),
    "device": Mechanism(prepare=_device),
    "masked-path": Mechanism(prepare=_masked),
    "readonly-path": Mechanism(prepare=_readonly),
    "dev-null": Mechanism(
        prepare=_null, weaknesses=("any_null", "paths_of_the_host"), swapped="rootfs/dev/null"
    ),
    "dev-console": Mechanism(prepare=_console, swapped="rootfs/dev/console"),
    "dev": Mechanism(prepare=_dev, swapped="rootfs/dev"),
    "sysctl": Mechanism(prepare=_sysctl, weaknesses=("procfs_by_name",), swapped=f"proc/{TTL}"),
    "working-directory": Mechanism(prepare=_cwd, weaknesses=("cwd_before_the_pivot",)),
    "tmpcopyup": Mechanism(prepare=_copy_up, weaknesses=("copy_follows_links",)),
    "proc": Mechanism(
        prepare=_nothing,
        weaknesses=("proc_may_be_a_link", "masks_by_name", "paths_checked_before"),
        swapped="rootfs/proc",
    ),
    "sys": Mechanism(
        prepare=_nothing,
        weaknesses=("proc_may_be_a_link", "masks_by_name", "paths_checked_before"),
        swapped="rootfs/sys",
    ),
}


def _set_up(mechanism: Mechanism, bundle: Bundle, volume: Path, outside: Outside) -> Scene:
    """A bundle with a volume of two containers at /s; both names to swap exist."""
    (volume / "a/inner").mkdir(parents=True)
    (volume / "a/inner/keep").write_text("the volume's\n")
    _mount(bundle, "/s", "bind", source=str(volume), options=["rbind"])
    mechanism.prepare(bundle, volume)
    bundle.write()
    inside_rootfs = mechanism.swapped.startswith("rootfs/")
    one = (bundle.path if inside_rootfs else volume) / mechanism.swapped
    link = one.parent / "link"
    link.symlink_to(outside.path if one.is_dir() else outside.path / "keep")
    return one, link


def _lost(runtime: Victim, bundle: Bundle, id: str, outside: Outside) -> tuple[bool, bool]:
    """(has the host lost something?, did the container come up?) after one creation."""
    result = runtime.run(id, bundle.path)
    assert result.code == 0 or result.err.count("\n") == 1, str(result)
    assert "internal error" not in result.err, str(result)
    return SECRET in result.out or bool(outside.touched()), result.code == 0


def _race(
    name: str, bundle: Bundle, root: Path, outside: Outside, *, count: int, weak: bool
) -> tuple[int, int, bool]:
    """(creations, those that came up, lost?): until the first loss, or `count` creations."""
    mechanism = MECHANISMS[name]
    runtimes = []
    for names in [mechanism.weaknesses] if weak else WAYS:
        runtimes.append(make_victim(root, weak, ("probe", *names), []))
        runtimes[-1].env[OUTSIDE] = str(outside.path)
    one, other = _set_up(mechanism, bundle, root.parent / "volume", outside)
    up = 0
    with swapping(one, other):
        for number in range(1, count + 1):
            runtime = runtimes[number % len(runtimes)]
            lost, came_up = _lost(runtime, bundle, f"r{number}", outside)
            up += came_up
            if lost:
                break
    assert list(root.iterdir()) == []
    return number, up, lost


@pytest.mark.parametrize("name", MECHANISMS)
@pytest.mark.parametrize(
    "count",
    [
        pytest.param(FEW, id="few"),
        pytest.param(MANY, id="many", marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
def test_nothing_lands_outside(
    make_bundle: Make, state_root: Path, outside: Outside, name: str, count: int
) -> None:
    """No file, no mode, no time, no mount and no word of the host."""
    number, up, lost = _race(
        name, make_bundle("sh", "-c", READ), state_root, outside, count=count, weak=False
    )
    print(f"{name}: {number} creations, {up} came up, none landed outside")
    assert not lost, f"creation {number}: {outside.touched()}"
    assert up or count == FEW, "no container came up: nothing was raced"


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_race_is_lost_without_the_defence(
    make_bundle: Make, state_root: Path, outside: Outside, name: str
) -> None:
    """The same race: what is done by name lands outside soon."""
    number, up, lost = _race(
        name, make_bundle("sh", "-c", READ), state_root, outside, count=MANY, weak=True
    )
    print(f"{name}: lost at creation {number}, {up} came up")
    assert lost, f"{number} creations, {up} came up"
