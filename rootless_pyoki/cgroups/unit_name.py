"""Names of systemd units and slices, from /linux/cgroupsPath: systemd.unit(5), systemd.slice(5). Pure."""

from __future__ import annotations

from rootless_pyoki.errors import SpecError, UnsupportedError

POINTER = "/linux/cgroupsPath"
LONGEST = 255  # bytes, systemd's UNIT_NAME_MAX without the NUL
PREFIX = "pyoki"
OBJECTS = "/org/freedesktop/systemd1/unit/"
_ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
# "@" is left out: it would make a unit of a template
_ALLOWED = frozenset((_ALNUM + ":-_.\\").encode())


def is_form(cgroups_path: str) -> bool:
    """Whether this is "slice:prefix:name", and no path of a cgroup."""
    return cgroups_path.count(":") == 2 and "/" not in cgroups_path


def of(cgroups_path: str, id: str, default_slice: str) -> tuple[str, str]:
    """(unit, slice) for "slice:prefix:name", or for none ("").

    As in runc: no slice is the default one, the unit is PREFIX-NAME.scope; without a prefix it is
    NAME.scope. Raises SpecError, UnsupportedError.
    """
    if not cgroups_path:
        return _checked(f"{PREFIX}-{escape(id)}.scope"), default_slice
    if not is_form(cgroups_path):
        raise SpecError(
            f"{cgroups_path!r} is not of the form slice:prefix:name, which the systemd manager needs",
            pointer=POINTER,
        )
    slice, prefix, name = cgroups_path.split(":")
    if not name:
        raise SpecError(f"{cgroups_path!r} has no name after the last colon", pointer=POINTER)
    if name.endswith(".slice"):
        raise UnsupportedError(
            f"{name} would be a slice, which holds no processes: a container is a scope",
            pointer=POINTER,
            hint="put the slice before the first colon",
        )
    unit = escape(f"{prefix}-{name}" if prefix else name)
    if prefix or not unit.endswith(".scope") or unit == ".scope":
        unit += ".scope"
    return _checked(unit), checked_slice(slice) if slice else default_slice


def _checked(unit: str) -> str:
    if len(unit) > LONGEST:
        raise SpecError(
            f"the name of unit {unit} has {len(unit)} bytes, and systemd takes {LONGEST}",
            pointer=POINTER,
        )
    return unit


def escape(text: str) -> str:
    r"""What systemd does not allow in a unit's name becomes \xNN, as systemd-escape(1) writes it."""
    raw = text.encode("utf-8", "surrogateescape")
    return "".join([chr(byte) if byte in _ALLOWED else f"\\x{byte:02x}" for byte in raw])


def checked_slice(slice: str) -> str:
    """The slice's name; SpecError unless it is one: dashes part what lies in each other."""
    stem = slice.removesuffix(".slice")
    parts = stem.split("-")
    well_formed = stem != slice and (stem == "-" or all(parts))
    if not well_formed or not _ALLOWED.issuperset(slice.encode("utf-8", "surrogateescape")):
        raise SpecError(f"{slice!r} is not the name of a systemd slice", pointer=POINTER)
    return _checked(slice)


def object_path(unit: str) -> str:
    """The unit's object on the bus: letters, digits but a leading one, and _NN for all else."""
    found = OBJECTS
    for index, byte in enumerate(unit.encode()):
        letter = chr(byte)
        plain = letter in _ALNUM and (index or not letter.isdigit())
        found += letter if plain else f"_{byte:02x}"
    return found
