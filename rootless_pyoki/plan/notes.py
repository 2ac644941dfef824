"""What becomes of a field that cannot be applied: refused, or left out and told.

`--unsupported` chooses; without it each field has the default that its meaning asks for. Fields that
protect (namespaces, seccomp, capabilities, labels, masked paths) are never left out: they do not
come here.
"""

from __future__ import annotations

from rootless_pyoki.errors import UnsupportedError
from rootless_pyoki.plan.plan import Note


class Notes(list[Note]):
    """The notes of one plan, in the order in which they came up."""

    def __init__(self, unsupported: str = "") -> None:
        """unsupported: "error", "warn" or "ignore"; "": every field's own default."""
        super().__init__()
        self.unsupported = unsupported

    @property
    def lenient(self) -> bool:
        """Is what would be refused left out instead?"""
        return self.unsupported in ("warn", "ignore")

    def tell(self, pointer: str, text: str) -> None:
        """The field is applied in another way than it says."""
        self.append(Note(pointer=pointer, text=text))

    def warn(self, pointer: str, text: str) -> None:
        """As tell(), where the specification demands that a warning is logged."""
        self.append(Note(pointer=pointer, text=text, warning=True))

    def pass_over(self, pointer: str, text: str) -> None:
        """The field is not applied, as in every runtime; text: `why`. UnsupportedError if strict."""
        if self.unsupported == "error":
            raise UnsupportedError(f"cannot be applied: {text}", pointer=pointer)
        self.append(Note(pointer=pointer, text=f"not applied: {text}"))

    def refuse(self, pointer: str, text: str, *, hint: str = "") -> None:
        """The field cannot be applied: UnsupportedError, or a note where the user is lenient.

        When this returns, the caller goes on without the field.
        """
        if not self.lenient:
            raise UnsupportedError(text, pointer=pointer, hint=hint)
        self.append(Note(pointer=pointer, text=f"not applied: {text}"))
