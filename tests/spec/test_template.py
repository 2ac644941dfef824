"""What `spec` writes."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.spec import template
from rootless_pyoki.spec.validate import validate

GRANTED = ((100000, 65536),)


def options_of(config: dict[str, Any], destination: str) -> list[str]:
    return next(m for m in config["mounts"] if m["destination"] == destination).get("options", [])


@pytest.mark.parametrize("net", ["private", "host"])
@pytest.mark.parametrize("granted", [(), GRANTED, ((5, 10), (900, 300), (4000, 1))])
@pytest.mark.parametrize("user_namespace", [True, False])
def test_the_template_is_right(net: str, granted: Any, user_namespace: bool) -> None:
    """It passes our own validation for every kind of caller."""
    config = template.make(
        uid=1000, gid=1000, subuids=granted, subgids=granted, net=net, user_namespace=user_namespace
    )
    validate(config)


def test_the_whole_of_what_is_granted_is_mapped() -> None:
    """Container 0 is the caller, the rest follows without a gap."""
    config = template.make(uid=1000, gid=1001, subuids=GRANTED, subgids=((7, 2), (20, 3)))
    assert config["linux"]["uidMappings"] == [
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 65536},
    ]
    assert config["linux"]["gidMappings"] == [
        {"containerID": 0, "hostID": 1001, "size": 1},
        {"containerID": 1, "hostID": 7, "size": 2},
        {"containerID": 3, "hostID": 20, "size": 3},
    ]


def test_without_a_grant_of_both_kinds_one_id_is_mapped() -> None:
    """And devpts is not given a group that does not exist."""
    config = template.make(uid=1000, gid=1000, subuids=GRANTED)
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert "gid=5" not in options_of(config, "/dev/pts")
    assert "gid=5" in options_of(
        template.make(uid=1, gid=1, subuids=GRANTED, subgids=((100, 5),)), "/dev/pts"
    )
    assert "gid=5" not in options_of(
        template.make(uid=1, gid=1, subuids=GRANTED, subgids=((100, 4),)), "/dev/pts"
    )


@pytest.mark.parametrize(
    ("own", "granted", "hosts"),
    [
        (105, [(100, 10)], [(100, 5), (106, 4)]),
        (100, [(100, 10)], [(101, 9)]),
        (109, [(100, 10)], [(100, 9)]),
        (100, [(100, 1)], []),
    ],
)
def test_the_callers_own_id_is_mapped_once(own: int, granted: Any, hosts: Any) -> None:
    """Even where it lies inside of what was granted."""
    mappings = template.default_mappings(own, granted)
    assert mappings[0] == {"containerID": 0, "hostID": own, "size": 1}
    assert [(m["hostID"], m["size"]) for m in mappings[1:]] == hosts
    following = 1
    for mapping in mappings[1:]:
        assert mapping["containerID"] == following
        following += mapping["size"]


def test_the_hosts_network_has_no_sysfs_of_its_own() -> None:
    """The kernel refuses a sysfs to who does not own the network namespace."""
    config = template.make(uid=1000, gid=1000, net="host")
    assert "network" not in [n["type"] for n in config["linux"]["namespaces"]]
    assert options_of(config, "/sys")[0] == "rbind"
    assert "ro" in options_of(config, "/sys")


def test_a_limit_that_we_could_not_set_is_left_out() -> None:
    """An unprivileged process cannot raise its hard limit."""
    assert "rlimits" not in template.make(uid=1, gid=1, nofile_hard=512)["process"]
    assert template.make(uid=1, gid=1, nofile_hard=2048)["process"]["rlimits"] == [
        {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024}
    ]


def test_two_templates_share_nothing() -> None:
    """Who changes one does not change the next."""
    first = template.make(uid=1, gid=1)
    first["linux"]["maskedPaths"].append("/x")
    first["process"]["capabilities"]["bounding"].clear()
    second = template.make(uid=1, gid=1)
    assert "/x" not in second["linux"]["maskedPaths"]
    assert second["process"]["capabilities"]["bounding"] == list(template.CAPABILITIES)
