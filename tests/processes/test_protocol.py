"""The order of messages between main and its children."""

from __future__ import annotations

import pytest

from rootless_pyoki.processes import protocol as p
from rootless_pyoki.processes.protocol import ProtocolError, Sequence


def heard(*kinds: bytes) -> Sequence:
    sequence = Sequence()
    for kind in kinds:
        sequence.accept(kind)
    return sequence


@pytest.mark.parametrize(
    "kinds",
    [
        (p.ENTERED, p.INIT, p.READY),
        (p.ENTERED, p.INIT, p.RUNTIME_HOOKS, p.READY),
        (p.ENTERED, p.RUNTIME_HOOKS, p.PID, p.READY),
        (p.ENTERED, p.NOTE, p.INIT, p.NOTE, p.CONSOLE, p.READY),
        (p.PID, p.READY),
    ],
)
def test_the_drawn_orders_are_accepted(kinds: tuple[bytes, ...]) -> None:
    """Every path through the drawing in protocol.py is heard to its end."""
    assert heard(*kinds).last == p.READY


@pytest.mark.parametrize(
    ("before", "kind"),
    [
        ((p.ENTERED,), p.ENTERED),
        ((p.ENTERED, p.INIT), p.INIT),
        ((), p.INIT),
        ((p.ENTERED, p.INIT, p.RUNTIME_HOOKS), p.ENTERED),
        ((p.ENTERED, p.INIT, p.READY), p.READY),
        ((p.ENTERED, p.INIT, p.READY), p.NOTE),
        ((p.ENTERED, p.INIT, p.READY), p.CONSOLE),
        ((p.PID,), p.PID),
        ((), b"?"),
        ((), p.COMMIT),
    ],
)
def test_early_late_and_double_messages_are_refused(before: tuple[bytes, ...], kind: bytes) -> None:
    """What is not next in the drawing ends the launch instead of confusing it."""
    sequence = heard(*before)

    with pytest.raises(ProtocolError, match="may not follow"):
        sequence.accept(kind)


@pytest.mark.parametrize("before", [(), (p.ENTERED,), (p.ENTERED, p.INIT, p.READY)])
@pytest.mark.parametrize("kind", [p.FAILED, p.GATE_FAILED])
def test_a_failure_is_heard_at_any_time(before: tuple[bytes, ...], kind: bytes) -> None:
    """A child may fail whenever it likes, and main hears of it."""
    assert heard(*before).accept(kind) == kind
