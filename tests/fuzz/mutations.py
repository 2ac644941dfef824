"""One to three changes of a real configuration, anywhere the schema knows a place."""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import schema, values
from tests.fuzz.bases import Base, Config
from tests.fuzz.schema import EVERY, Node

Pick = Callable[[Sequence[Any]], Any]  # one of these
_MILD = ["right"] * 12 + ["schema", "drop", "repeat", "unknown"]
_WILD = (
    ["right"] * 11 + ["schema"] * 2 + ["beyond"] * 2 + ["type"] * 2 + ["text", "null", "null"]
    + ["drop"] * 2 + ["repeat", "unknown", "replace"]
)  # fmt: skip
HOWS = ("right", "schema", "beyond", "type", "text", "null", "drop", "repeat", "unknown", "replace")


class Mutant:
    """A configuration, and where and how it was changed."""

    def __init__(self, base: Base) -> None:
        self.base = base
        self.config: Config = copy.deepcopy(base.config)
        self.changed: list[tuple[str, str]] = []  # (JSON pointer, how)
        self.patterns: set[str] = set()

    @property
    def pointers(self) -> list[str]:
        return [pointer for pointer, _ in self.changed]

    def __repr__(self) -> str:
        shown = [
            f"{how} {pointer} = {get(self.config, pointer)!r}" for pointer, how in self.changed
        ]
        return f"<{self.base}: {'; '.join(shown)}>"


def get(config: Any, pointer: str) -> Any:
    """What stands at a pointer; None where nothing does."""
    for token in pointer.split("/")[1:]:
        token = token.replace("~1", "/").replace("~0", "~")
        if isinstance(config, list):
            config = config[int(token)] if token.isdigit() and int(token) < len(config) else None
        elif isinstance(config, dict):
            config = config.get(token)
        else:
            return None
    return config


def present(config: Any, patterns: Sequence[str]) -> list[str]:
    """The patterns that fall on something in this configuration."""

    def lies(value: Any, tokens: list[str]) -> bool:
        if not tokens:
            return True
        first, rest = tokens[0], tokens[1:]
        if first == EVERY:
            inner = value if isinstance(value, list) else list(value.values())
            return any(lies(item, rest) for item in inner)
        return isinstance(value, dict) and first in value and lies(value[first], rest)

    return [pattern for pattern in patterns if lies(config, pattern.split("/")[1:])]


@st.composite
def mutants(
    draw: Callable[..., Any], bases: Sequence[Base], patterns: Sequence[str], mild: bool = False
) -> Mutant:
    """One to three changes of one of the bases; mild: mostly such as leave it right."""

    def pick(choices: Sequence[Any]) -> Any:
        return draw(st.sampled_from(choices))

    mutant = Mutant(pick(bases))
    there = present(mutant.base.config, patterns)
    for _ in range(pick([1, 1, 1, 2, 2, 3])):
        pattern = pick(there if pick([True, False]) else patterns)
        how = pick(_MILD if mild else _WILD)
        free = None
        if how == "text":
            free = draw(st.text(max_size=12) | st.none())
        elif how == "schema":
            free = draw(values.by_schema_at_large(schema.nodes()[pattern]))
        change(mutant, pattern, how, pick, free)
    return mutant


def sweep(bases: Sequence[Base], patterns: Sequence[str], seed: int) -> Iterator[Mutant]:
    """Every pattern changed in every way, the bases in turn."""
    random_numbers = random.Random(seed)
    turn = itertools.cycle(bases)
    for how in HOWS:
        for pattern in patterns:
            mutant = Mutant(next(turn))
            change(mutant, pattern, how, random_numbers.choice)
            yield mutant


def change(mutant: Mutant, pattern: str, how: str, pick: Pick, free: Any = None) -> None:
    """Change one place of the pattern; what is missing on the way to it is made first.

    free: the value to put there instead of one out of the lists.
    """
    node, parent, key, pointer, first_made = _reach(mutant.config, pattern, pick)
    mutant.patterns.add(pattern)
    mutant.changed.append((first_made or pointer, how))
    if free is not None:
        parent[key] = copy.deepcopy(free)
    elif how == "null":
        parent[key] = None
    elif how == "drop":
        del parent[key]
    elif how == "repeat" and isinstance(parent, list):
        parent.append(copy.deepcopy(parent[key]))
        mutant.changed.append((f"{_up(pointer)}/{len(parent) - 1}", how))
    elif how == "unknown" and isinstance(parent, dict):
        parent["unknownMember"] = pick(values.WRONG_TYPES)
        mutant.changed.append((f"{_up(pointer)}/unknownMember", how))
    elif how == "replace":  # with what stands elsewhere in the same list
        others = parent if isinstance(parent, list) else values.right(node)
        parent[key] = copy.deepcopy(pick(others))
    else:
        parent[key] = copy.deepcopy(pick(values.choices(node, how)))


def _up(pointer: str) -> str:
    return pointer.rpartition("/")[0]


def _reach(config: Config, pattern: str, pick: Pick) -> tuple[Node, Any, Any, str, str]:
    """(node, parent, key in it, pointer, pointer of the first thing that had to be made or "")."""
    node = schema.tree()
    value: Any = {"": config}
    parent, key, pointer, first_made = value, "", "", ""
    for token in pattern.split("/")[1:]:
        wanted = dict if node.kind == "object" else list
        inner = parent[key]
        if not isinstance(inner, wanted):  # an earlier change put something else there
            inner = parent[key] = wanted()
            first_made = first_made or pointer
        child = node.children[token]
        if token == EVERY and isinstance(inner, list):
            following: Any = pick(range(len(inner))) if inner else 0
            if not inner:
                inner.append(values.least(child))
                first_made = first_made or f"{pointer}/0"
        else:
            following = pick([*inner, node.map_name]) if token == EVERY else token
            if following not in inner:
                inner[following] = values.least(child)
                first_made = first_made or f"{pointer}/{schema.escape(following)}"
        pointer = f"{pointer}/{schema.escape(str(following))}"
        node, parent, key = child, inner, following
    return node, parent, key, pointer, first_made
