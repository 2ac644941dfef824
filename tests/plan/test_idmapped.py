"""Which ids an idmapped mount shows, and who may have one."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.host.id_range import IdRange
from rootless_pyoki.plan import describe
from rootless_pyoki.plan.plan import MountIdmap
from tests.plan import plans

IDENTITY = ((0, 0, 1), (1, 1, 99))  # each line within one of the container's


def ranges(*triples: tuple[int, int, int]) -> tuple[IdRange, ...]:
    return tuple(IdRange(container=a, host=b, size=size) for a, b, size in triples)


def mappings(*triples: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": a, "hostID": b, "size": size} for a, b, size in triples]


def idmap_of(
    facts: Any,
    *options: str,
    uids: list[dict[str, int]] | None = None,
    own_user: bool = True,
    **members: Any,
) -> MountIdmap:
    """The mapping of one mount in a container whose ids 0-99 are 1000 and 100000-100098."""
    entry: dict[str, Any] = {"destination": "/m", "options": list(options), **members}
    if uids is not None:
        entry["uidMappings"] = entry["gidMappings"] = uids
    plan = plans.make(plans.config(mounts=[entry], own_user=own_user), facts)
    assert plan.mounts[0].data == ()
    idmap = plan.mounts[0].idmap
    assert idmap is not None
    words = describe.mount(plan.mounts[0])
    assert ("ridmap" if idmap.recursive else "idmap") in words
    return idmap


def test_a_new_filesystem_counts_from_inside() -> None:
    """hostID is an id of the host; the kernel is told which of the container's that is."""
    given = mappings((0, 1000, 1), (10, 100000, 5), (50, 100050, 4))
    idmap = idmap_of(plans.USER, "ridmap", uids=given, type="tmpfs")
    assert idmap.uids == idmap.gids == ranges((0, 0, 1), (10, 1, 5), (50, 51, 4))
    assert idmap.recursive and idmap.pointer == "/mounts/0/options/0"


def test_a_range_over_two_lines_of_the_container() -> None:
    """It is split where the container's map breaks, for the kernel wants each line within one."""
    facts = plans.IN_PODMAN
    linux = {
        f"{kind}idMappings": mappings((0, 0, 1), (1, 1, 50), (60, 51, 10)) for kind in ("u", "g")
    }
    entry = {"destination": "/m", "type": "tmpfs", "options": ["idmap"]}
    entry["uidMappings"] = entry["gidMappings"] = mappings((100, 0, 60))  # type: ignore[assignment]
    plan = plans.make(plans.config(mounts=[entry], own_user=True, linux=linux), facts)
    assert plan.mounts[0].idmap is not None
    assert plan.mounts[0].idmap.uids == ranges((100, 0, 1), (101, 1, 50), (151, 60, 9))


def test_the_containers_own_mapping() -> None:
    """Option idmap alone: identity inside, for what is made there; the container's maps for a bind."""
    assert idmap_of(plans.USER, "idmap", type="tmpfs").uids == ranges(*IDENTITY)
    own = ranges((0, 1000, 1), (1, 100000, 99))
    assert idmap_of(plans.ROOT, "bind", "idmap", source="/s").uids == own


def test_a_bind_of_root() -> None:
    """Who may mount on the host may idmap; the ids are the caller's."""
    given = mappings((0, 5000, 10))
    idmap = idmap_of(plans.ROOT, "rbind", "ridmap", uids=given, source="/s", own_user=False)
    assert idmap.uids == ranges((0, 5000, 10)) and idmap.recursive


def test_a_bind_of_root_in_a_container_around_us() -> None:
    """Lines are split as that container's map is."""
    given = mappings((7, 0, 3))
    idmap = idmap_of(plans.IN_PODMAN, "bind", "idmap", uids=given, source="/s", own_user=False)
    assert idmap.uids == ranges((7, 0, 1), (8, 1, 2))
    with pytest.raises(UnsupportedError, match="the caller's user namespace") as caught:
        idmap_of(plans.IN_PODMAN, "bind", uids=mappings((0, 70000, 1)), source="/s", own_user=False)
    assert caught.value.pointer == "/mounts/0/uidMappings/0/hostID"


@pytest.mark.parametrize("options", [("bind", "idmap"), ("rbind", "ridmap"), ("bind",)])
def test_a_bind_of_a_plain_user(options: tuple[str, ...]) -> None:
    """The host's filesystems are not ours to map: refused before anything is made, however lenient."""
    entry: dict[str, Any] = {"destination": "/m", "source": "/s", "options": list(options)}
    entry["uidMappings"] = entry["gidMappings"] = mappings((0, 1000, 1))
    for policy in ("", "ignore"):
        with pytest.raises(UnsupportedError) as caught:
            plans.make(plans.config(mounts=[entry], own_user=True), plans.USER, unsupported=policy)
        at = "uidMappings" if len(options) == 1 else "options/1"
        assert caught.value.pointer == f"/mounts/0/{at}"
        assert caught.value.errno == errno.EPERM and caught.value.hint


def test_mappings_without_the_option() -> None:
    """Taken as idmap; a bind's author is told that the mounts below are not meant."""
    given = mappings((0, 1, 1))
    assert not idmap_of(plans.ROOT, "rbind", uids=given, source="/s").recursive
    entry: dict[str, Any] = {"destination": "/m", "source": "/s", "options": ["rbind"]}
    entry["uidMappings"] = entry["gidMappings"] = given
    notes = plans.make(plans.config(mounts=[entry]), plans.ROOT).notes
    assert [note.pointer for note in notes] == ["/mounts/0/uidMappings"]


def test_no_mapping_to_take() -> None:
    """config.md: without mappings and without a user namespace idmap MUST be an error."""
    with pytest.raises(SpecError) as caught:
        idmap_of(plans.ROOT, "bind", "idmap", source="/s", own_user=False)
    assert caught.value.pointer == "/mounts/0/options/1"


def test_one_mapping_alone() -> None:
    """config.md: uidMappings MUST come with gidMappings."""
    with pytest.raises(SpecError) as caught:
        plans.make_mount(type="tmpfs", uidMappings=mappings((0, 0, 1)))
    assert caught.value.pointer == "/mounts/0/uidMappings"
    assert plans.make_mount(type="tmpfs", uidMappings=[], gidMappings=[]).idmap is None


def test_ids_that_are_not_mapped() -> None:
    """Nobody in the container would be that id: an error that names the entry."""
    with pytest.raises(UnsupportedError) as caught:
        idmap_of(plans.USER, "idmap", uids=mappings((0, 1000, 1), (1, 7, 2)), type="tmpfs")
    assert caught.value.pointer == "/mounts/0/uidMappings/1/hostID"


def test_crun_spelling() -> None:
    """Triplets of filesystem id, host id and size; with @ the second is the container's."""
    text = "idmap=uids=0-1000-1#10-100000-5;gids=@3-4-2"
    idmap = idmap_of(plans.USER, "ro", text, type="tmpfs")
    assert idmap.uids == ranges((0, 0, 1), (10, 1, 5))
    assert idmap.gids == ranges((3, 4, 2))
    idmap = idmap_of(plans.ROOT, "bind", "ridmap=uids=@0-0-3;gids=@0-1-1", source="/s")
    assert idmap.uids == ranges((0, 1000, 1), (1, 100000, 2))
    assert idmap.gids == ranges((0, 100000, 1)) and idmap.recursive


@pytest.mark.parametrize(
    "text",
    [
        "idmap=",
        "idmap=uids=0-0-1",
        "idmap=uids=0-0-1;uids=0-0-1",
        "idmap=uids=0-0;gids=0-0-1",
        "idmap=uids=0-0-0;gids=0-0-1",
        "idmap=uids=a-0-1;gids=0-0-1",
        "idmap=uids=@0-200-1;gids=0-1000-1",
        "idmap=people=0-0-1;gids=0-0-1",
    ],
)
def test_crun_spelling_that_is_wrong(text: str) -> None:
    """Whatever does not say ids is an error at the option."""
    with pytest.raises(SpecError) as caught:
        idmap_of(plans.USER, text, type="tmpfs")
    assert caught.value.pointer == "/mounts/0/options/0"


def test_two_mappings() -> None:
    """The option's and the field's contradict each other."""
    with pytest.raises(SpecError):
        idmap_of(
            plans.USER,
            "idmap=uids=0-1000-1;gids=0-1000-1",
            uids=mappings((0, 1000, 1)),
            type="tmpfs",
        )


def test_what_cannot_be_known() -> None:
    """A remount is too late, and a joined user namespace has maps that nobody has read."""
    with pytest.raises(UnsupportedError):
        plans.make_mount(options=["remount", "idmap"])
    made = plans.config(mounts=[{"destination": "/m", "type": "tmpfs", "options": ["idmap"]}])
    made["linux"]["namespaces"].append({"type": "user", "path": "/proc/1/ns/user"})
    with pytest.raises(UnsupportedError) as caught:
        plans.make(made, plans.ROOT)
    assert caught.value.pointer == "/mounts/0/options/0"
