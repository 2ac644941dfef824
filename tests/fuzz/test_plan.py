"""Thousands of mutated configurations through validation and planning, the OCI schema as oracle."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings

from rootless_pyoki.plan.describe import describe
from tests.fuzz import bases, figures, mutations, oracle, schema
from tests.fuzz.mutations import Mutant

SEED = 20260101
WHOLE = 10000  # configurations of the long run
SHORT = 300  # random ones of every run


class Count:
    """What came of the configurations so far."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.exceptions: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.patterns: set[str] = set()

    def take(self, mutant: Mutant) -> None:
        verdict = oracle.judge(mutant)
        self.patterns |= mutant.patterns
        self.kinds[verdict.kind] += 1
        self.exceptions.update(verdict.exceptions)
        if verdict.error is not None:
            self.refusals[verdict.error.pointer.split("/")[1]] += 1
        elif self.total % 10 == 0:
            check_accepted(mutant)

    @property
    def total(self) -> int:
        return self.kinds.total()

    def tell(self, title: str) -> None:
        by_kind = figures.listing(self.kinds)
        figures.tell(title, f"{self.total} tried, {len(self.patterns)} places: {by_kind}")
        figures.tell(f"{title}, refused below", figures.listing(self.refusals))
        figures.tell(f"{title}, against the schema's word", figures.listing(self.exceptions))


def check_accepted(mutant: Mutant) -> None:
    """What is planned can be told, and is planned too by a user who asks for less strictness."""
    assert all(describe(oracle.plan(mutant)))
    for choice in ("warn", "ignore"):
        error = oracle.attempt(mutant, choice)
        assert error is None, f"refused with --unsupported={choice} only: {error}"


def run_random(count: Count, examples: int) -> None:
    @seed(SEED)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutations.mutants(bases.all_bases(), list(schema.nodes())))
    def one(mutant: Mutant) -> None:
        count.take(mutant)

    one()


def test_a_few_hundred_mutants() -> None:
    """Every place of the schema changed once, in one way, and 300 random configurations: refused
    where the schema refuses, else accepted, or refused at a place that the change explains.
    """
    count = Count()
    patterns = list(schema.nodes())
    every = mutations.sweep(bases.all_bases(), patterns, SEED)
    for index, mutant in enumerate(every):
        if index % len(mutations.HOWS) == index // len(patterns):
            count.take(mutant)
    assert count.patterns == set(patterns)
    run_random(count, SHORT)
    count.tell("planned, short")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_thousand_mutants() -> None:
    """Every place changed in every way, random ones up to 10,000; two in five at least are right,
    and every exception to the schema's word is met.
    """
    count = Count()
    patterns = list(schema.nodes())
    for mutant in mutations.sweep(bases.all_bases(), patterns, SEED):
        count.take(mutant)
    assert count.patterns == set(patterns)
    run_random(count, WHOLE - count.total)
    count.tell("planned")
    assert count.total >= WHOLE
    assert count.kinds["valid"] >= 0.4 * count.total
    assert set(count.exceptions) == {entry.name for entry in oracle.LENIENT}


@pytest.mark.parametrize("entry", oracle.LENIENT, ids=lambda entry: entry.name.replace(" ", "-"))
def test_each_exception_is_one(entry: oracle.Leniency) -> None:
    """What the schema refuses and we take on purpose: both are still so."""
    mutant = Mutant(bases.all_bases()[0])
    pointer, value = entry.example
    way, _, last = pointer.rpartition("/")
    mutations.get(mutant.config, way)[last] = value
    assert schema.complaints(mutant.config)
    assert oracle.judge(mutant).exceptions == {entry.name}


def test_bases_are_right() -> None:
    """The configurations that are mutated are planned as they stand, by those who have them."""
    for base in bases.all_bases():
        assert oracle.attempt(Mutant(base)) is None, base
