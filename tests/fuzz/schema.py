"""The OCI project's own JSON schema of config.json: every place it knows, and what it accepts.

The schema's folder (runtime-spec/schema) is named by PYOKI_OCI_SCHEMA; nothing of it is kept here.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from tests.support import needs

Schema = dict[str, Any]
EVERY = "*"  # in patterns: any index of a list, any name in a map
_MAP_NAMES = {  # a name that is right in each map, where the schema takes any
    "/annotations": "org.example.key",
    "/linux/sysctl": "net.ipv4.ip_forward",
    "/linux/netDevices": "eth0",
    "/linux/resources/unified": "memory.high",
    "/linux/resources/rdma": "mlx5_1",
}


class Node:
    """One place: `pattern` is its JSON pointer with * for indexes and free names."""

    def __init__(self, pattern: str, schema: Schema) -> None:
        self.pattern = pattern
        self.schema = schema  # references and allOf resolved, one level deep
        self.children: dict[str, Node] = {}

    @property
    def kind(self) -> str:
        """The schema's word: object, array, string, integer, boolean."""
        if "properties" in self.schema or "patternProperties" in self.schema:
            return "object"
        return str(self.schema.get("type", "string"))

    @property
    def is_map(self) -> bool:
        return self.kind == "object" and list(self.children) == [EVERY]

    @property
    def map_name(self) -> str:
        return _MAP_NAMES.get(self.pattern, "name")


def folder() -> Path:
    """Skips where the schema is not there."""
    path = os.environ.get("PYOKI_OCI_SCHEMA", "")
    if not path or not (Path(path) / "config-schema.json").is_file():
        pytest.skip("PYOKI_OCI_SCHEMA does not name the schema folder of the OCI runtime-spec")
    needs.require(os.access(path, os.R_OK), f"{path} cannot be read")
    return Path(path)


def read(name: str) -> Schema:
    made: Schema = json.loads((folder() / name).read_text())
    return made


@functools.cache
def tree() -> Node:
    """The whole configuration."""
    return _node("", {"$ref": "config-schema.json#"})


@functools.cache
def nodes() -> dict[str, Node]:
    """Every place but the document itself, by pattern, in the schema's order."""

    def below(node: Node) -> Iterator[Node]:
        for child in node.children.values():
            yield child
            yield from below(child)

    return {node.pattern: node for node in below(tree())}


@functools.cache
def _file(name: str) -> Schema:
    """A file of the schema, its references with the name of the file that they mean."""

    def complete(value: Any) -> Any:
        if isinstance(value, list):
            return [complete(item) for item in value]
        if not isinstance(value, dict):
            return value
        found = {key: complete(item) for key, item in value.items()}
        reference = found.get("$ref")
        if isinstance(reference, str) and reference.startswith("#"):
            found["$ref"] = name + reference
        return found

    made: Schema = complete(read(name))
    return made


def _resolve(schema: Schema) -> Schema:
    """Follow $ref, allOf and a lone anyOf until the words of one level stand together."""
    if "$ref" in schema:
        file, _, path = schema["$ref"].partition("#")
        target: Any = _file(file)
        for token in path.strip("/").split("/") if path.strip("/") else ():
            target = target[token]
        return _resolve(target)
    merged = {key: value for key, value in schema.items() if key not in ("allOf", "anyOf")}
    merged["properties"] = dict(merged.get("properties", {}))
    for part in (*schema.get("allOf", ()), *schema.get("anyOf", ())):
        found = _resolve(part)
        merged["properties"].update(found.get("properties", {}))
        merged["required"] = [*merged.get("required", []), *found.get("required", [])]
        merged.setdefault("type", found.get("type", "object"))
    if not merged["properties"]:
        del merged["properties"]
    return merged


def _node(pattern: str, schema: Schema) -> Node:
    found = _resolve(schema)
    node = Node(pattern, found)
    for name, child in found.get("properties", {}).items():
        node.children[name] = _node(f"{pattern}/{name}", child)
    any_name = [*found.get("patternProperties", {}).values(), found.get("additionalProperties")]
    for child in any_name:
        if isinstance(child, dict):
            node.children[EVERY] = _node(f"{pattern}/{EVERY}", child)
    if isinstance(found.get("items"), dict):
        node.children[EVERY] = _node(f"{pattern}/{EVERY}", found["items"])
    return node


@functools.cache
def _validator() -> jsonschema.Draft4Validator:
    resources = [
        (path.name, Resource.from_contents(json.loads(path.read_text()), DRAFT4))
        for path in sorted(folder().glob("*.json"))
    ]
    registry: Registry[Any] = Registry().with_resources(resources)
    start = {"$ref": "config-schema.json#"}
    return jsonschema.Draft4Validator(start, registry=registry)


def complaints(config: object) -> list[tuple[str, str]]:
    """What the schema has against it: (JSON pointer, message)."""
    pending = list(_validator().iter_errors(config))
    found = []
    while pending:
        error = pending.pop()
        if error.context:  # of anyOf: what its parts have against it
            pending.extend(error.context)
            continue
        pointer = "".join(f"/{escape(str(token))}" for token in error.absolute_path)
        found.append((pointer, error.message))
    return found


def escape(token: str) -> str:
    return token.replace("~", "~0").replace("/", "~1")


def pattern_of(pointer: str) -> str:
    """The schema's pattern that a pointer falls under; the rest of it stays where none does."""
    node: Node | None = tree()
    tokens = []
    for token in pointer.split("/")[1:]:
        if node is not None and token not in node.children and EVERY in node.children:
            token = EVERY
        node = node.children.get(token) if node is not None else None
        tokens.append(token)
    return "".join(f"/{token}" for token in tokens)
