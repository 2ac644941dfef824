"""`features`: its form is the specification's, and each thing that it names can be used."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.plan import seccomp_abi
from rootless_pyoki.plan.mount_options import OPTIONS
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


@pytest.fixture
def features(runtime: Runtime) -> dict[str, Any]:
    answer = runtime("features").ok()
    assert answer.err == ""
    told: dict[str, Any] = json.loads(answer.out)
    return told


def test_the_form_is_the_specifications(features: dict[str, Any]) -> None:
    """features.md: the structure is valid by the schema, and has no member that is not defined."""
    jsonschema = pytest.importorskip("jsonschema")
    referencing = pytest.importorskip("referencing")
    folder = needs.oci_schema()
    schema = json.loads((folder / "features-schema.json").read_text())

    def retrieve(uri: str) -> Any:
        return referencing.Resource.from_contents(
            json.loads((folder / uri).read_text()),
            default_specification=referencing.jsonschema.DRAFT4,
        )

    registry = referencing.Registry(retrieve=retrieve)
    jsonschema.Draft4Validator(schema, registry=registry).validate(features)
    assert set(features) <= set(schema["properties"])


def test_what_callers_look_for(runtime: Runtime, features: dict[str, Any]) -> None:
    """Engines read the versions, the annotations' version of us, and indent by four like runc."""
    assert features["ociVersionMin"] == "1.0.0"
    assert features["ociVersionMax"] == runtime("--version").ok().out.split("spec: ")[1].split()[0]
    version = features["annotations"]["io.github.rootless-pyoki.version"]
    assert runtime("--version").out.startswith(f"pyoki version {version}\n")
    assert runtime("features").out.startswith('{\n    "ociVersionMin"')


@pytest.mark.parametrize("end", ["ociVersionMin", "ociVersionMax"])
def test_versions(
    runtime: Runtime, make_bundle: Make, identifier: str, features: dict[str, Any], end: str
) -> None:
    """features.md, "Specification version": both ends MUST be accepted in a config.json."""
    bundle = make_bundle("true")
    bundle.config["ociVersion"] = features[end]
    runtime.run(identifier, bundle.write().path).ok()


def test_mount_options(features: dict[str, Any]) -> None:
    """Every listed option is one that test_mount_options.py uses in a real mount."""
    from tests.apply import test_mount_options

    assert set(features["mountOptions"]) == set(OPTIONS) == test_mount_options.proven()


def test_namespaces_and_capabilities(
    runtime: Runtime, make_bundle: Make, identifier: str, features: dict[str, Any]
) -> None:
    """A container with every listed namespace new and every listed capability in its bounding set."""
    linux = features["linux"]
    bundle = make_bundle("sh", "-c", "ls /proc/self/ns; grep CapBnd /proc/self/status")
    bundle.linux["namespaces"] = [{"type": kind} for kind in linux["namespaces"]]
    names = linux["capabilities"]
    bundle.process["capabilities"] = dict.fromkeys(("bounding", "permitted"), names)
    answer = runtime.run(identifier, bundle.write().path).ok()
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert int(answer.out.split("CapBnd:")[1], 16) == (1 << min(last + 1, len(names))) - 1
    assert len(linux["namespaces"]) == 8 and "time" in answer.out


def test_hooks(
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    features: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Every listed kind of hook runs, once."""
    seen = tmp_path / "seen"
    seen.touch(0o666)
    bundle = make_bundle("true")
    bundle.config["mounts"].append(
        {"destination": "/seen", "source": str(seen), "options": ["bind", "rw"]}
    )
    bundle.config["hooks"] = {
        kind: [
            {
                "path": "/bin/sh",
                "args": [
                    "sh",
                    "-c",
                    f"echo {kind} >>{'/seen' if kind == 'startContainer' else seen}",
                ],
            }
        ]
        for kind in features["hooks"]
    }
    runtime.run(identifier, bundle.write().path).ok()
    assert seen.read_text().split() == features["hooks"]


def seccomp(bundle: Bundle, **profile: Any) -> Bundle:
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **profile}
    return bundle.write()


# action of mkdir -> what the shell's line `mkdir /tmp/x && echo made` comes to: exit code and output
ENDS = {
    "SCMP_ACT_ALLOW": (0, "made"),
    "SCMP_ACT_LOG": (0, "made"),
    "SCMP_ACT_ERRNO": (1, "Operation not permitted"),
    "SCMP_ACT_TRACE": (1, "Function not implemented"),
    "SCMP_ACT_TRAP": (159, ""),
    "SCMP_ACT_KILL": (159, ""),
    "SCMP_ACT_KILL_THREAD": (159, ""),
    "SCMP_ACT_KILL_PROCESS": (159, ""),
}
NOTIFIED = "SCMP_ACT_NOTIFY"  # tests/lifecycle/test_seccomp_listener.py: it takes an agent


def test_every_action_is_tried(features: dict[str, Any]) -> None:
    """The kernel here knows all actions, and each has an expectation below."""
    assert set(features["linux"]["seccomp"]["actions"]) == {*ENDS, NOTIFIED}


@pytest.mark.parametrize("action", list(ENDS))
def test_actions(runtime: Runtime, make_bundle: Make, identifier: str, action: str) -> None:
    """Each listed action does to a system call what its name says; ALLOW: to all of them, where
    anything else is death.
    """
    bundle = make_bundle("sh", "-c", "mkdir /tmp/x 2>&1 && echo made; exit $?")
    profile: dict[str, Any] = {}
    names = ["mkdir", "mkdirat"]
    if action == "SCMP_ACT_ALLOW":
        own = seccomp_abi.architecture(seccomp_abi.native(os.uname().machine, sys.byteorder))
        assert own is not None
        profile["defaultAction"] = "SCMP_ACT_KILL_PROCESS"
        names = list(seccomp_abi.numbers(own.table))
    rules = [{"names": names, "action": action}]
    answer = runtime.run(identifier, seccomp(bundle, syscalls=rules, **profile).path)
    code, words = ENDS[action]
    assert answer.code == code and words in answer.out, str(answer)


# operator -> (value, valueTwo, a signal that does not fit); SIGCONT (18) fits, none ends a process
FITS = {
    "SCMP_CMP_EQ": (18, 0, "WINCH"),
    "SCMP_CMP_NE": (28, 0, "WINCH"),
    "SCMP_CMP_LT": (19, 0, "WINCH"),
    "SCMP_CMP_LE": (18, 0, "WINCH"),
    "SCMP_CMP_GE": (18, 0, "CHLD"),
    "SCMP_CMP_GT": (17, 0, "CHLD"),
    "SCMP_CMP_MASKED_EQ": (3, 2, "WINCH"),
}


def test_every_operator_is_tried(features: dict[str, Any]) -> None:
    """Each listed operator has an expectation below."""
    assert set(features["linux"]["seccomp"]["operators"]) == set(FITS)


@pytest.mark.parametrize("operator", list(FITS))
def test_operators(runtime: Runtime, make_bundle: Make, identifier: str, operator: str) -> None:
    """Each listed operator compares: the process is killed at the call that fits, not before."""
    value, second, unfit = FITS[operator]
    script = f"kill -{unfit} $$; echo before; kill -CONT $$; echo after"
    argument = {"index": 1, "value": value, "valueTwo": second, "op": operator}
    rule = {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS", "args": [argument]}
    bundle = make_bundle("sh", "-c", script)
    answer = runtime.run(identifier, seccomp(bundle, syscalls=[rule]).path)
    assert (answer.code, answer.out) == (159, "before\n"), str(answer)


def test_architectures_and_flags(
    runtime: Runtime, make_bundle: Make, identifier: str, features: dict[str, Any]
) -> None:
    """All listed architectures together, and each supported flag that needs no listener."""
    told = features["linux"]["seccomp"]
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 18}
    bundle = make_bundle("sh", "-c", "mkdir /tmp/x 2>&1")
    flags = [flag for flag in told["supportedFlags"] if "KILLABLE" not in flag]
    assert set(told["supportedFlags"]) <= set(told["knownFlags"])
    for one in [[], *([flag] for flag in flags)]:
        profile = {"architectures": told["archs"], "flags": one, "syscalls": [rule]}
        answer = runtime.run(identifier, seccomp(bundle, **profile).path)
        assert "cross-device" in answer.out.lower(), f"{one}: {answer}"
