"""org.systemd.property.NAME: a property of the container's systemd unit, its value as GVariant text.

Only loaded for a container that has one. A NAME that ends in `Sec` counts seconds; the property's
own name on the bus ends in `USec`.
"""

from __future__ import annotations

from rootless_pyoki.errors import SpecError
from rootless_pyoki.plan import gvariant
from rootless_pyoki.plan.gvariant import BadValue
from rootless_pyoki.spec.fields import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PREFIX = "org.systemd.property."
# The runtime sets these itself, and what it does with the container's cgroup follows from them.
OURS = {
    "PIDs": "the processes are the container's own",
    "PIDFDs": "the processes are the container's own",
    "Delegate": "the container's cgroup is always delegated",
    "Slice": "the slice stands in /linux/cgroupsPath, as slice:prefix:name",
}
_MICROSECONDS = 1000000


def parse(annotations: dict[str, str]) -> tuple[tuple[str, str, Any], ...]:
    """(property, D-Bus signature, value) of each; SpecError with the annotation's pointer."""
    found = []
    for key, text in annotations.items():
        if not key.startswith(PREFIX) or not text:
            continue
        name = key[len(PREFIX) :]
        pointer = join("/annotations", key)
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise SpecError(f"{name!r} is not the name of a unit's property", pointer=pointer)
        if name in OURS:
            raise SpecError(f"{name} belongs to the runtime: {OURS[name]}", pointer=pointer)
        try:
            signature, value = gvariant.value_of(text)
            if name[-3:] == "Sec" and name[-4:-3].islower():
                name, signature, value = f"{name[:-3]}USec", "t", _microseconds(signature, value)
        except BadValue as bad:
            raise SpecError(
                f"{text!r} is not a value in GVariant text format: {bad}", pointer=pointer
            ) from None
        found.append((name, signature, value))
    return tuple(found)


def _microseconds(signature: str, value: Any) -> int:
    if signature not in "ynqiuxtd":
        raise BadValue("a number of seconds is wanted")
    if not 0 <= value < 2**64 // _MICROSECONDS:
        raise BadValue(f"{value} seconds cannot be")
    return int(value * _MICROSECONDS)
