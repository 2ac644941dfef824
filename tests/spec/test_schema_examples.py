"""The examples of the specification's own schema folder, good and bad ones, against what we accept.

PYOKI_OCI_SCHEMA names the folder (schema/ of the specification's checkout); nothing of it is kept
here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec.bundle import parse
from rootless_pyoki.spec.validate import validate
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

# Good by the schema, which knows nothing of what members mean to each other: where we refuse, and
# what makes the example acceptable.
UTS = {"linux": {"namespaces": [{"type": "uts"}]}}
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "linux-netdevice.json": (
        "/linux/netDevices",  # moved from the runtime's network namespace to that same one
        {"linux/namespaces": [{"type": "network"}]},
    ),
    # a name, and no namespace to give it to
    "freebsd-example.json": ("/hostname", UTS),
    # another major version, that ours need not understand
    "spec-example.json": ("/ociVersion", {"ociVersion": "1.0.0"}),
    "zos-example.json": ("/ociVersion", {"ociVersion": "1.0.0", **UTS}),
}
BAD = {
    "invalid-json.json": "",
    "linux-hugepage.json": "/linux/resources/hugepageLimits/0/pageSize",
    "linux-netdevice.json": "/linux/netDevices/eth0/name",
    "linux-rdma.json": "/linux/resources/rdma/mlx5_1/hcaHandles",
}
FOREIGN = ("freebsd", "solaris", "vm", "windows", "zos")


def examples(kind: str) -> list[Path]:
    """The files of test/KIND; skips where there is no schema."""
    found = sorted((needs.oci_schema() / "test" / kind).glob("*.json"))
    assert found, f"no examples of {kind}"
    return found


def validator(name: str) -> jsonschema.Draft4Validator:
    folder = needs.oci_schema()

    def retrieve(uri: str) -> Resource[Any]:
        return DRAFT4.create_resource(json.loads((folder / uri.rpartition("/")[2]).read_text()))

    schema = json.loads((folder / name).read_text())
    return jsonschema.Draft4Validator(schema, registry=Registry(retrieve=retrieve))


def changed(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    for place, value in changes.items():
        *way, last = place.split("/")
        at = config
        for key in way:
            at = at[key]
        at[last] = value
    return config


def test_good_configurations() -> None:
    """They are accepted, those of other platforms too: what is theirs alone is unknown here.

    Unknown properties are ignored (config.md, "Extensibility"); a mount of a filesystem that Linux
    lacks fails when it is mounted.
    """
    for path in examples("config/good"):
        config = parse(path.read_bytes(), path.name)
        if path.name in REFUSED:
            pointer, changes = REFUSED[path.name]
            with pytest.raises(SpecError) as caught:
                validate(parse(path.read_bytes(), path.name))
            assert caught.value.pointer == pointer, path.name
            config = changed(config, changes)
        validate(config)


def test_bad_configurations() -> None:
    """They are refused where they are bad; what is bad on other platforms is not looked at."""
    names = set()
    for path in examples("config/bad"):
        if path.name.startswith(FOREIGN):
            validate(parse(path.read_bytes(), path.name))
            continue
        with pytest.raises(SpecError) as caught:
            validate(parse(path.read_bytes(), path.name))
        assert caught.value.pointer == BAD[path.name], path.name
        assert path.name in caught.value.message or caught.value.pointer
        names.add(path.name)
    assert names == BAD.keys()


@pytest.mark.parametrize("status", ["created", "running", "stopped"])
def test_our_state_is_good(
    runtime: Runtime, make_bundle: Callable[..., Bundle], identifier: str, status: str
) -> None:
    """What `state` prints adheres to state-schema.json, and has what the good example has."""
    checker = validator("state-schema.json")
    bundle = make_bundle()
    bundle.config["annotations"] = {"myKey": "myValue"}
    runtime.create(identifier, bundle.write().path).ok()
    if status != "created":
        runtime.start(identifier).ok()
    if status == "stopped":
        runtime.kill(identifier, "KILL").ok()
        runtime.wait_status(identifier, "stopped")
    state = runtime.state(identifier)
    assert state["status"] == status
    checker.validate(state)
    for path in examples("state/good"):
        good = json.loads(path.read_text())
        checker.validate(good)
        assert {key: type(state[key]) for key in good} == {k: type(v) for k, v in good.items()}


def test_a_state_can_be_bad() -> None:
    """The schema does refuse: an example that is not JSON, and a state without its status."""
    for path in examples("state/bad"):
        with pytest.raises(ValueError):
            json.loads(path.read_text())
    with pytest.raises(jsonschema.ValidationError):
        validator("state-schema.json").validate({"ociVersion": "1.0.0", "id": "x", "bundle": "/"})


def test_what_hooks_read_is_good(
    runtime: Runtime, make_bundle: Callable[..., Bundle], identifier: str
) -> None:
    """The state that hooks get on stdin adheres to state-schema.json as well."""
    checker = validator("state-schema.json")
    bundle = make_bundle("true")
    outside = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    places = {kind: f"{bundle.rootfs}/tmp/{kind}" for kind in outside}
    places["startContainer"] = "/tmp/startContainer"
    bundle.config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", f'read -r all; echo "$all" > {place}']}]
        for kind, place in places.items()
    }
    runtime.run(identifier, bundle.write().path).ok()
    for kind in places:
        checker.validate(json.loads((bundle.rootfs / "tmp" / kind).read_text()))
