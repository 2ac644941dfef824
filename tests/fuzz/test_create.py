"""Hundreds of mutated configurations through `create` on the real kernel."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, assume, given, seed, settings

from tests.fuzz import figures, mutations, oracle, runnable, schema
from tests.fuzz.mutations import Mutant
from tests.support import leaks
from tests.support.bundles import Bundle
from tests.support.runtime import Result, Runtime

SEED = 20260102
WHOLE = 300
SHORT = 10


class Trial:
    """One bundle whose configuration is another one each time."""

    def __init__(self, runtime: Runtime, bundle: Bundle, state_root: Path) -> None:
        self.runtime = runtime
        self.bundle = bundle
        self.roots = [state_root]
        self.outcomes: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()

    def take(self, mutant: Mutant) -> None:
        """Created and deleted, or refused in one line; nothing is left either way."""
        self.bundle.config = mutant.config
        self.bundle.write()
        log = self.bundle.path / "log"
        log.unlink(missing_ok=True)
        id = f"fuzz{self.outcomes.total()}"
        with leaks.nothing_left(self.roots, patience=5):
            created = self.runtime(
                *("--log", str(log), "--log-format", "json"),
                *("create", "--bundle", str(self.bundle.path), id),
            )
            if created.code == 0:
                self.outcomes["created"] += 1
                assert self.runtime.status(id) == "created", str(created)
                self.runtime.delete(id, force=True).ok()
            else:
                self.outcomes["refused"] += 1
                self.check_refusal(mutant, created, log)
                assert self.runtime.status(id) == ""

    def check_refusal(self, mutant: Mutant, created: Result, log: Path) -> None:
        """One line that names the field; the field is one that the change explains."""
        entries = [json.loads(line) for line in log.read_text().splitlines()]
        errors = [entry for entry in entries if entry["level"] == "error"]
        assert created.code == 1 and len(errors) == 1, f"{created}\n{errors}"
        assert created.err.count("\n") <= 1 and "Traceback" not in created.err, str(created)
        (error,) = errors
        assert "\n" not in error["msg"] and "internal error" not in error["msg"], error
        pointer = error.get("pointer", "")
        assert pointer, f"no field is named: {error}"
        assert any(oracle.explains(changed, pointer) for changed in mutant.pointers), (
            f"refused at {pointer}, where nothing was changed: {error['msg']}"
        )
        self.refusals[schema.pattern_of(pointer)] += 1

    def run(self, examples: int) -> None:
        patterns = [p for p in schema.nodes() if not p.startswith(runnable.PLATFORMS)]

        @seed(SEED)
        @settings(
            max_examples=examples,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(mutations.mutants(runnable.all_bases(), patterns, mild=True))
        def one(mutant: Mutant) -> None:
            assume(runnable.harmless(mutant.config))
            self.take(mutant)

        one()

    def tell(self, title: str) -> None:
        outcomes = figures.listing(self.outcomes)
        figures.tell(title, f"{self.outcomes.total()} run: {outcomes}, leftovers 0")
        figures.tell(f"{title}, refused at", figures.listing(self.refusals))


@pytest.fixture
def trial(runtime: Runtime, make_bundle: Callable[..., Bundle], state_root: Path) -> Trial:
    if os.geteuid() == 0:
        pytest.skip("mutated configurations are not for the machine's real root")
    return Trial(runtime, make_bundle(), state_root)


def test_ten_creations(trial: Trial) -> None:
    """A few mutants become containers or are refused; nothing is left of any."""
    trial.run(SHORT)
    trial.tell("created, short")
    assert trial.outcomes["created"] >= SHORT // 3


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_three_hundred_creations(trial: Trial) -> None:
    """So with 300, of which at least 150 become containers."""
    trial.run(WHOLE)
    trial.tell("created")
    assert trial.outcomes.total() >= WHOLE
    assert trial.outcomes["created"] >= WHOLE // 2
