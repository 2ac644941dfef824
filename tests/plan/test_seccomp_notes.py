"""What a seccomp profile names and no table knows is told, not passed over in silence."""

from __future__ import annotations

from tests.plan import plans


def test_unknown_system_calls_become_a_note() -> None:
    """The note names them and points at the rules."""
    made = plans.config(
        linux={
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [
                    {"names": ["mkdir", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
                ],
            }
        }
    )
    notes = [note for note in plans.make(made).notes if note.pointer == "/linux/seccomp/syscalls"]

    assert len(notes) == 1
    assert "no_such_call" in notes[0].text
    assert "mkdir" not in notes[0].text
