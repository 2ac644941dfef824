"""config-linux.md, "Devices" and "Network Devices"."""

from __future__ import annotations

import os
import re

import pytest

from tests.conformance.conftest import World, only
from tests.support import needs
from tests.support.bundles import Bundle

DEFAULT = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9",
           "tty": "5 0"}  # fmt: skip
FUSE = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}


@pytest.fixture(scope="module")
def nodes(world: World) -> dict[str, str]:
    bundle = world.bundle()
    bundle.linux["devices"] = [
        {"path": "/dev/mine", "type": "p", "fileMode": 0o640},
        {"path": "/elsewhere/null", "type": "c", "major": 1, "minor": 3},
    ]
    names = " ".join(f"/dev/{name}" for name in DEFAULT)
    return world.observe(
        bundle,
        {
            "types": f"for d in {names}; do stat -c '%n %F %t %T' $d; done",
            "work": "echo x > /dev/null && head -c 3 /dev/zero | wc -c; head -c 5 /dev/urandom | wc -c;"
            "echo x > /dev/full",
            "ptmx": "readlink /dev/ptmx; ls /dev/pts/ptmx; exec 3<>/dev/ptmx; ls /dev/pts",
            "mine": "stat -c '%F %a' /dev/mine",
            "elsewhere": "stat -c '%F %t %T' /elsewhere/null; echo x > /elsewhere/null && echo ok",
        },
    )


@pytest.mark.parametrize("name", DEFAULT)
def test_default_devices(nodes: dict[str, str], name: str) -> None:
    """config-linux.md, "Default Devices": the runtime MUST supply them."""
    line = next(x for x in nodes["types"].splitlines() if x.startswith(f"/dev/{name} "))
    assert line == f"/dev/{name} character special file {DEFAULT[name]}"


def test_default_devices_work(nodes: dict[str, str]) -> None:
    """config-linux.md, "Default Devices": what MUST be supplied can be used."""
    assert nodes["work"].splitlines()[:2] == ["3", "5"] and "space left" in nodes["work"]


def test_ptmx(nodes: dict[str, str]) -> None:
    """config-linux.md, "Default Devices": /dev/ptmx MUST lead to the container's own /dev/pts."""
    lines = nodes["ptmx"].split()
    assert lines[:2] == ["pts/ptmx", "/dev/pts/ptmx"] and "0" in lines[2:]


def test_console(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Default Devices": /dev/console MUST be the terminal, where there is one."""
    from tests.support.runtime import Terminal

    bundle.process["terminal"] = True
    script = "tty; stat -c %t:%T /dev/console; stat -c %t:%T $(tty); ls /dev/console"
    argv = world.runtime.argv("run", "--bundle", str(bundle.shell(script).path), world.id())
    terminal = Terminal(argv)
    assert terminal.wait() == 0
    numbers = re.findall(r"^\w+:\w+$", terminal.seen, re.MULTILINE)
    assert len(numbers) == 2 and numbers[0] == numbers[1], terminal.seen


def test_no_console_without_a_terminal(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Default Devices": /dev/console is only there with a terminal."""
    assert world.observe(bundle, {"ls": "ls /dev/console || true"})["ls"] != "/dev/console"


def test_configured_devices(nodes: dict[str, str]) -> None:
    """config-linux.md, "Devices": they MUST be available, anywhere in the container."""
    assert nodes["mine"] == "fifo 640"
    assert nodes["elsewhere"].splitlines() == ["character special file 1 3", "ok"]


def test_another_file_at_a_devices_path(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Devices": a file that does not match MUST be an error."""
    (bundle.rootfs / "elsewhere").write_text("a file")
    entry = {"path": "/elsewhere", "type": "c", "major": 1, "minor": 3}
    bundle.linux["devices"] = [entry]
    world.refused(bundle, "/linux/devices/0")
    assert (bundle.rootfs / "elsewhere").read_text() == "a file"


def test_a_device_that_cannot_be_had(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Devices": they MUST be available, else the container is refused."""
    only(not needs.real_root(), "the machine's root can make any device")
    bundle.linux["devices"] = [{"path": "/dev/odd", "type": "b", "major": 250, "minor": 77}]
    world.refused(bundle, "/linux/devices/0")


def test_network_devices_are_moved(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Network Devices": they MUST be moved, keep their addresses, and be set up.

    Their name may be a template. "Namespace Lifecycle and Container Termination": the runtime MUST
    NOT take them back. Where the runtime cannot move them it is an error, and nothing has changed.
    """
    only(os.getuid() == 0, "making a network device takes CAP_NET_ADMIN")
    needs.require_program("ip")
    # in a network namespace of its own, so that the machine's stays as it is
    script = (
        "ip link add pkhost type bridge && ip addr add 192.0.2.7/32 dev pkhost || exit 99;"
        '"$@"; code=$?; echo "@@ after"; ip -o addr show dev pkhost; exit $code'
    )
    prefix = (needs.require_program("unshare"), "--net", "sh", "-c", script, "sh")
    bundle.linux["netDevices"] = {"pkhost": {"name": "pkin%d"}}
    bundle.shell("echo '@@ inside'; ip addr show dev pkin0; true")
    result = world.run(bundle, prefix=prefix)
    needs.require(result.code != 99, "no network device of type bridge here")
    inside = result.out.partition("@@ inside")[2].partition("@@ after")[0]
    after = result.out.partition("@@ after")[2]
    if result.code == 0:
        assert "192.0.2.7/32" in inside and ",UP" in inside, str(result)
        assert "192.0.2.7" not in after, "a virtual device ends with its namespace"
    else:
        assert "/linux/netDevices" in result.err and not inside, str(result)
        assert "192.0.2.7/32" in after


def test_network_devices_that_cannot_be_moved(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Network Devices": the runtime MUST check if it is possible, else an error."""
    bundle.linux["netDevices"] = {"no-such-device": {"name": "inside"}}
    world.refused(bundle, "/linux/netDevices")


def test_a_network_device_whose_name_is_taken(world: World, bundle: Bundle) -> None:
    """config-linux.md, "Network Devices": a name that is there already MUST be an error."""
    bundle.linux["netDevices"] = {"lo": {"name": "lo"}}
    world.refused(bundle, "/linux/netDevices")
