"""What must come of a mutated configuration, decided without our validation's own tables.

The OCI schema says what is wrong by form. What the schema takes and we refuse must be refused at the
place that was changed, or where a rule of the specification ties another place to it.
"""

from __future__ import annotations

import copy
import re
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

from rootless_pyoki import log
from rootless_pyoki.errors import PyokiError, SpecError, UnsupportedError
from rootless_pyoki.plan.make import make
from rootless_pyoki.plan.plan import Plan
from rootless_pyoki.spec.bundle import Bundle
from rootless_pyoki.spec.validate import validate
from tests.fuzz import schema
from tests.fuzz.mutations import Mutant, get

# names keep their case: `RLIMIT_CORE is limited twice`, `CPU affinity of exec ...`
PROPER = r"(RLIMIT|SCMP|SCHED|MPOL|IOPRIO|CAP|SECCOMP)_|(AppArmor|SELinux|Intel RDT|CPU|I/O)\b"
SECONDS = 5  # of processor time that one configuration may take
Test = Callable[[Any], bool]


def _null(value: Any) -> bool:
    return value is None


class Leniency:
    """Something that the schema refuses and we take; example: a pointer and what is put there."""

    def __init__(
        self, name: str, places: str, why: str, example: tuple[str, Any], *, fits: Test
    ) -> None:
        self.name = name
        self.places = places  # regular expression of patterns
        self.why = why
        self.example = example
        self.fits = fits  # what the value must be like


LENIENT = [
    Leniency(
        "null",
        r".*",
        "Go programs write null for an empty list; it counts as not there",
        ("/process/rlimits", None),
        fits=_null,
    ),
    Leniency(
        "file mode",
        r"/linux/devices/\*/fileMode",
        "callers leave the type bits in",
        ("/linux/devices", [{"path": "/dev/p", "type": "p", "fileMode": 0o10666}]),
        fits=lambda value: type(value) is int and 0o777 < value < 2**32,
    ),
    Leniency(
        "propagation",
        r"/linux/rootfsPropagation",
        "podman writes rslave, and other runtimes take these too",
        ("/linux/rootfsPropagation", "rslave"),
        fits=lambda value: value in ("", "rprivate", "rshared", "rslave", "runbindable"),
    ),
    Leniency(
        "tasks without limit",
        r"/linux/resources/pids",
        "config-linux.md has the limit OPTIONAL, the schema does not",
        ("/linux/resources", {"pids": {}}),
        fits=lambda value: isinstance(value, dict) and value.get("limit") is None,
    ),
    Leniency(
        "other platforms",
        r"/(solaris|windows|vm|zos|freebsd)(/.*)?",
        "not for Linux: never read",
        ("/windows", {}),
        fits=lambda value: True,
    ),
    Leniency(
        "command line",
        r"/process/commandLine",
        "for Windows only: never read",
        ("/process/commandLine", 5),
        fits=lambda value: True,
    ),
]

# Places that a refusal may name though another place was changed: (refused, changed, rule).
TIED: list[tuple[str, str, str]] = [
    (r"/(hostname|domainname)", r"/linux(/namespaces.*)?", "names need a uts namespace"),
    (r"/linux/sysctl/.*", r"/linux/namespaces.*", "parameters belong to namespaces"),
    (r"/linux/(uid|gid)Mappings.*", r"/linux/namespaces.*", "maps need a user namespace"),
    (r"/linux/(uid|gid)Mappings.*", r"/linux/(uid|gid)Mappings.*", "maps come in pairs"),
    (r"/linux/namespaces.*", r"/linux/namespaces.*", "one namespace of each kind"),
    (r"/linux/namespaces", r"/linux", "a mount namespace is needed"),
    (r"/linux/netDevices.*", r"/linux/namespaces.*", "they need a network namespace"),
    (r"/linux/timeOffsets.*", r"/linux/namespaces.*", "they need a time namespace"),
    (r"/process/user/.*", r"/linux(/(uid|gid)Mappings.*|/namespaces.*)?", "ids must be mapped"),
    (r"/mounts/\d+/options/\d+", r"/linux(/(uid|gid)Mappings.*|/namespaces.*)?", "ids, again"),
    (r"/linux/devices/\d+/(uid|gid)", r"/linux/(uid|gid)Mappings.*", "ids, again"),
    (r"/linux/devices/\d+/(uid|gid)", r"/linux/namespaces.*", "ids, again"),
    (r"/process/rlimits/.*", r"/process/rlimits.*", "one limit of each type"),
    (r"/linux/devices/.*", r"/linux/devices/.*", "one device at each path"),
    (r"/mounts/\d+/.*", r"/mounts/\d+(/.*)?", "options against type and source"),
    (r"/mounts/\d+", r"/mounts(/\d+(/.*)?)?", "a mount may lie in another one"),
    (r"/mounts/\d+", r"/linux/namespaces.*", "proc and its like show namespaces that must be new"),
    (r"/linux/maskedPaths", r"(/linux/devices|/mounts).*", "/dev/null is what covers files"),
    (r"/linux/seccomp/.*", r"/linux/seccomp/.*", "actions take an errno or not"),
]


class Verdict:
    def __init__(self, error: PyokiError | None, complaints: list[tuple[str, str]]) -> None:
        self.error = error
        self.complaints = complaints  # of the schema
        self.exceptions: set[str] = set()  # of LENIENT that applied

    @property
    def kind(self) -> str:
        return "valid" if self.error is None else type(self.error).__name__


def judge(mutant: Mutant) -> Verdict:
    """Validate and plan it; AssertionError where the outcome is not what it must be."""
    verdict = Verdict(attempt(mutant), schema.complaints(mutant.config))
    if verdict.error is None:
        for pointer, message in verdict.complaints:
            verdict.exceptions.add(exception_for(mutant.config, pointer, message))
    else:
        check_error(mutant, verdict.error)
    return verdict


def attempt(mutant: Mutant, unsupported: str = "") -> PyokiError | None:
    """What `create` would say before it makes anything, within SECONDS of processor time."""

    def late(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"not done after {SECONDS} s of processor time: {mutant}")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)
    try:
        plan(mutant, unsupported)
    except (SpecError, UnsupportedError) as error:
        return error
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
    return None


def plan(mutant: Mutant, unsupported: str = "") -> Plan:
    """As `create` does it: a process may be missing until `start`."""
    config = copy.deepcopy(mutant.config)
    validate(config)
    config.setdefault("process", {"cwd": "/", "args": []})
    bundle = Bundle(path="/bundle", config=config, raw=b"")
    return make(bundle, mutant.base.facts, id="one", unsupported=unsupported)


def exception_for(config: Any, pointer: str, message: str) -> str:
    """Why we may take what the schema complains of."""
    pattern, value = schema.pattern_of(pointer), get(config, pointer)
    for entry in LENIENT:
        if re.fullmatch(entry.places, pattern) and entry.fits(value):
            return entry.name
    raise AssertionError(f"accepted, but the schema says at {pointer}: {message}")


def check_error(mutant: Mutant, error: PyokiError) -> None:
    """One line, lower case, at a place that exists and that the change explains."""
    message, pointer = log.printable(error.message), error.pointer  # as users read it
    assert message and message.isprintable(), f"not one printable line: {message!r}"
    assert message[0] == message[0].lower() or re.match(PROPER, message), message
    assert not message.endswith("."), message
    assert pointer.startswith("/"), f"no pointer: {message}"
    parent = get({"": mutant.config}, "/" + pointer.rpartition("/")[0])
    known = schema.pattern_of(pointer) in schema.nodes()
    assert known or parent is not None, f"{pointer} lies nowhere: {message}"
    assert any(explains(changed, pointer) for changed in mutant.pointers), (
        f"refused at {pointer}, where nothing was changed: {message}"
    )


def explains(changed: str, refused: str) -> bool:
    """Whether a change there may be the cause of a refusal here."""
    if lies_in(refused, changed) or lies_in(changed, refused):
        return True
    place = changed.rpartition("/")[0]
    if place.count("/") > 1 and lies_in(refused, place) and place not in _BROAD:
        return True
    return any(re.fullmatch(r, refused) and re.fullmatch(c, changed) for r, c, _ in TIED)


_BROAD = ("/linux/resources", "/process/capabilities")


def lies_in(pointer: str, place: str) -> bool:
    return pointer == place or pointer.startswith(place + "/")
