"""The maps of a new user namespace: which ids, and who writes them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.host.facts import Facts
from rootless_pyoki.host.id_range import IdRange
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan import idmap
from rootless_pyoki.plan.notes import Notes
from rootless_pyoki.record import replace
from tests.plan.plans import IN_PODMAN, ROOT
from tests.plan.plans import USER as SOMEBODY

USER = replace(SOMEBODY, subuids=((100000, 65536),), subgids=((100000, 65536),))
ALONE = replace(USER, subuids=(), subgids=())


def R(container: int, host: int, size: int) -> IdRange:  # noqa: N802
    return IdRange(container=container, host=host, size=size)


def config(*uids: IdRange, gids: tuple[IdRange, ...] | None = None) -> dict[str, Any]:
    """A new user namespace with these maps; the same for both kinds unless told."""

    def mappings(ranges: tuple[IdRange, ...]) -> list[dict[str, int]]:
        return [{"containerID": r.container, "hostID": r.host, "size": r.size} for r in ranges]

    return {
        "linux": {
            "namespaces": [{"type": "user"}],
            "uidMappings": mappings(uids),
            "gidMappings": mappings(uids if gids is None else gids),
        }
    }


def make(config: dict[str, Any], facts: Facts) -> idmap.IdMap:
    """A map of the configuration's own; no note is due."""
    notes = Notes()
    made = idmap.make(config, facts, notes)
    assert notes == []
    return made


# --- who writes


def test_root_writes_itself() -> None:
    """Whatever is asked for."""
    made = make(config(R(0, 100000, 65536)), ROOT)
    assert made.uids == made.gids == (R(0, 100000, 65536),)
    assert (made.writer, made.deny_setgroups) == ("direct", False)


def test_podmans_root_writes_itself() -> None:
    """It holds the capabilities in its own namespace, and newuidmap refuses it."""
    made = make(config(R(0, 0, 1), R(1, 1, 65536)), IN_PODMAN)
    assert (made.writer, made.deny_setgroups) == ("direct", False)


def test_a_map_of_the_own_ids_alone_is_written_directly() -> None:
    """Groups cost setgroups(2) then, user_namespaces(7)."""
    made = make(config(R(5, 1000, 1)), ALONE)
    assert (made.uids, made.writer, made.deny_setgroups) == ((R(5, 1000, 1),), "direct", True)
    assert not idmap.may_set_groups(made, ALONE)


@pytest.mark.parametrize("missing", [c.CAP_SETUID, c.CAP_SETGID])
def test_one_capability_is_not_enough(missing: int) -> None:
    """Both maps have the same writer."""
    facts = replace(USER, capabilities_effective=ROOT.capabilities_effective & ~(1 << missing))
    assert make(config(R(0, 1000, 1), R(1, 100000, 65536)), facts).writer == "helpers"


def test_anything_else_is_for_the_helpers() -> None:
    """setgroups(2) is theirs to decide: newgidmap leaves it where a range was granted."""
    made = make(config(R(0, 1000, 1), R(1, 100000, 65536)), USER)
    assert made.uids == (R(0, 1000, 1), R(1, 100000, 65536))
    assert (made.writer, made.deny_setgroups) == ("helpers", False)
    assert idmap.may_set_groups(made, USER)
    own_group = make(config(R(0, 100000, 5), gids=(R(0, 1000, 1),)), USER)
    assert own_group.writer == "helpers"
    assert not idmap.may_set_groups(own_group, USER)


# --- default maps


@pytest.mark.parametrize(
    ("linux", "pointer", "words"),
    [
        ({"namespaces": [{"type": "pid"}]}, "/linux/namespaces", "added a user namespace"),
        ({"namespaces": [{"type": "user"}]}, "/linux/uidMappings", "default map"),
    ],
)
def test_without_mappings_a_user_gets_all_that_is_granted(
    linux: dict[str, Any], pointer: str, words: str
) -> None:
    """Container 0 is the caller; a note says that it was not asked for."""
    notes = Notes()
    made = idmap.make({"linux": linux}, USER, notes)
    assert made.uids == made.gids == (R(0, 1000, 1), R(1, 100000, 65536))
    assert made.writer == "helpers"
    assert [note.pointer for note in notes] == [pointer]
    assert words in notes[0].text


def test_without_a_grant_a_user_gets_one_id() -> None:
    """The note says which file has no line."""
    notes = Notes()
    made = idmap.make({}, replace(USER, subgids=()), notes)
    assert made.uids == made.gids == (R(0, 1000, 1),)
    assert (made.writer, made.deny_setgroups) == ("direct", True)
    assert "no other id exists, as /etc/subgid grant dev nothing" in notes[0].text


def test_an_own_id_within_the_grant_is_mapped_once() -> None:
    """The kernel refuses an id that is mapped twice."""
    facts = replace(USER, euid=100010, subuids=((100000, 20),))
    made = idmap.make({}, facts, Notes())
    assert made.uids == (R(0, 100010, 1), R(1, 100000, 10), R(11, 100011, 9))


def test_root_must_say_what_to_map() -> None:
    """There is no obvious choice."""
    with pytest.raises(SpecError, match="needs uidMappings and gidMappings"):
        idmap.make({"linux": {"namespaces": [{"type": "user"}]}}, ROOT, Notes())


# --- refusals


def test_an_id_that_is_not_granted_is_refused_with_the_missing_line() -> None:
    """With the entry's pointer, and what the administrator has to do."""
    with pytest.raises(UnsupportedError, match="dev:200000:65536") as caught:
        make(config(R(0, 1000, 1), R(1, 200000, 65536)), USER)
    assert caught.value.pointer == "/linux/uidMappings/1"
    assert "/etc/subuid" in caught.value.message
    assert "usermod --add-subuids 200000-265535 dev" in caught.value.hint
    with pytest.raises(UnsupportedError, match="/etc/subgid lacks dev:0:1") as caught:
        make(config(R(0, 1000, 1), gids=(R(0, 1000, 1), R(1, 0, 1))), USER)
    assert caught.value.pointer == "/linux/gidMappings/1"


def test_only_the_missing_part_is_named() -> None:
    """Before and behind what is granted; a user without a name goes by number."""
    facts = replace(USER, user_name="", subuids=((100, 10), (120, 10)))
    with pytest.raises(UnsupportedError, match=r"1000:90:10 1000:110:10 1000:130:5$"):
        make(config(R(0, 90, 45)), facts)


def test_the_own_id_is_granted_alone_only() -> None:
    """newuidmap takes it as a range of one."""
    with pytest.raises(UnsupportedError, match="dev:1000:1"):
        make(config(R(0, 999, 2)), replace(USER, subuids=((999, 1),)))


def test_an_id_that_the_parent_does_not_have_is_refused() -> None:
    """The kernel would only say EPERM."""
    with pytest.raises(UnsupportedError, match="uids 65000 to 65999 are not all mapped") as caught:
        make(config(R(0, 0, 1), R(1, 65000, 1000)), IN_PODMAN)
    assert caught.value.pointer == "/linux/uidMappings/1"


# --- merging and splitting


def test_neighbours_are_merged() -> None:
    """In whatever order; but the own id stays alone for the helpers, which refuse it otherwise."""
    made = make(config(R(10, 110, 5), R(0, 100, 10), R(20, 500, 1)), ROOT)
    assert made.uids == (R(0, 100, 15), R(20, 500, 1))
    facts = replace(USER, euid=99999, egid=99999)
    made = make(config(R(0, 99999, 1), R(1, 100000, 10), R(11, 100010, 5)), facts)
    assert made.uids == (R(0, 99999, 1), R(1, 100000, 15))


def test_a_range_is_split_where_the_parents_map_is() -> None:
    """podman's first line is one id long: a map that starts at 0 spans two of its lines."""
    made = make(config(R(0, 0, 65537)), IN_PODMAN)
    assert made.uids == (R(0, 0, 1), R(1, 1, 65536))


def test_too_many_lines_are_refused() -> None:
    """After splitting; the kernel takes 340."""
    parent = tuple(R(n, 10 * n, 1) for n in range(400))
    facts = replace(IN_PODMAN, uid_map=parent)
    make(config(R(0, 0, 340)), facts)
    with pytest.raises(UnsupportedError, match="needs 341 lines"):
        make(config(R(0, 0, 341)), facts)


RANGES = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 3)), max_size=6
).map(
    lambda steps: [
        R(
            sum(size + inner for size, inner, _ in steps[:n]),
            sum(size + outer for size, _, outer in steps[:n]),
            size,
        )
        for n, (size, _, _) in enumerate(steps)
    ]
)


def meaning(ranges: Any) -> dict[int, int]:
    return {r.container + n: r.host + n for r in ranges for n in range(r.size)}


@given(RANGES)
def test_merging_changes_no_id(ranges: list[IdRange]) -> None:
    """The same function from ids to ids, in no more lines."""
    merged = idmap.merge(ranges[::-1])
    assert meaning(merged) == meaning(ranges)
    assert len(merged) <= len(ranges)


@given(RANGES, st.integers(0, 40), st.integers(1, 40))
def test_splitting_loses_only_what_the_parent_lacks(
    parent: list[IdRange], host: int, size: int
) -> None:
    """And each piece lies within one of the parent's lines."""
    wanted = R(7, host, size)
    pieces = idmap.split(wanted, parent)
    known = set(meaning(parent))
    assert meaning(pieces) == {k: v for k, v in meaning([wanted]).items() if v in known}
    for piece in pieces:
        assert any(
            line.container <= piece.host and piece.host + piece.size <= line.container + line.size
            for line in parent
        )


@given(RANGES, st.integers(0, 40), st.integers(1, 40))
def test_missing_is_what_is_asked_less_what_is_granted(
    ranges: list[IdRange], start: int, count: int
) -> None:
    """Id by id."""
    granted = [(r.host, r.size) for r in ranges]
    lacking = idmap.missing(start, count, granted)
    have = {i for low, size in granted for i in range(low, low + size)}
    assert [i for low, size in lacking for i in range(low, low + size)] == [
        i for i in range(start, start + count) if i not in have
    ]


def test_ids_are_translated_both_ways() -> None:
    """Ends included; what is not mapped is nobody inside."""
    ranges = (R(0, 1000, 1), R(1, 100000, 10))
    assert [idmap.to_host(ranges, i) for i in (0, 1, 10, 11)] == [1000, 100000, 100009, None]
    assert idmap.is_mapped(ranges, 10) and not idmap.is_mapped(ranges, 11)
    assert [idmap.to_container(ranges, i) for i in (1000, 100009, 100010)] == [0, 10, 65534]


def test_granted_ids_without_the_helpers() -> None:
    """Where newuidmap is not installed, the default map has the caller's own id alone, and says why."""
    notes = Notes()
    made = idmap.make({}, replace(USER, id_helpers=False), notes)

    assert made.uids == (IdRange(container=0, host=USER.euid, size=1),)
    assert made.gids == (IdRange(container=0, host=USER.egid, size=1),)
    assert (made.writer, made.deny_setgroups) == ("direct", True)
    assert "newuidmap is not installed" in notes[0].text
