"""What the conformance tests share: a runtime for each module, and containers that look around.

The same tests run as an unprivileged user, as uid 0 of a user namespace (tests/support/userns), and
as the machine's root (tests/run.sh); only for the last are containers made without a user namespace.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.errors import SpecError
from rootless_pyoki.spec.validate import validate
from tests.spec import configs
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Result, Runtime, default_command

HERE = Path(__file__).parent
# what the containers here run: all of them would take longer to make than most containers live
APPLETS = (
    *("cat", "echo", "false", "head", "id", "ip", "ls", "mkdir", "readlink", "rmdir", "sed", "sh"),
    *("sleep", "stat", "stty", "touch", "tr", "true", "tty", "wc"),
)
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.conformance)


def only(fulfilled: object, reason: str) -> None:
    """Skip the test in those of the three settings that it is not about."""
    if not fulfilled:
        needs.skip(reason)


class World:
    """A runtime, its bundles and its containers; everything is deleted in the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runtime = Runtime(default_command(), path / "state")

    def bundle(self, *args: str) -> Bundle:
        path = self.path / f"bundle{next(_numbers)}"
        path.mkdir()
        bundle = Bundle(path, *args, applets=APPLETS)
        if needs.real_root():
            bundle.without_namespace("user")
            for key in ("uidMappings", "gidMappings"):
                del bundle.linux[key]
        return bundle.write()

    def id(self) -> str:
        return f"c{os.getpid()}-{next(_numbers)}"

    def observe(
        self, bundle: Bundle, commands: Mapping[str, str], *options: str, **more: Any
    ) -> dict[str, str]:
        """Run these shell commands in one container: what each of them printed, by its name."""
        script = "".join(
            f"echo '@@ {name}'\n{{ {text}\n}} 2>&1\n" for name, text in commands.items()
        )
        result = self.run(bundle.shell(script), *options, **more).ok()
        seen = {}
        for part in result.out.split("@@ ")[1:]:
            name, _, text = part.partition("\n")
            seen[name] = text.rstrip("\n")
        assert seen.keys() == commands.keys(), str(result)
        return seen

    def run(self, bundle: Bundle, *options: str, **more: Any) -> Result:
        return self.runtime.run(self.id(), bundle.write().path, *options, **more)

    def create(self, bundle: Bundle, *options: str, **more: Any) -> str:
        """A created container; its id."""
        id = self.id()
        self.runtime.create(id, bundle.write().path, *options, **more).ok()
        return id

    def refused(self, bundle: Bundle, pointer: str) -> Result:
        """`create` fails, says where, and leaves no container."""
        id = self.id()
        result = self.runtime.create(id, bundle.write().path)
        assert result.code != 0, str(result)
        assert pointer in result.err, str(result)
        assert self.runtime.status(id) == "" and not (self.runtime.root / id).exists()
        return result


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("w"))
    yield world
    world.runtime.clear()


@pytest.fixture
def bundle(world: World) -> Bundle:
    """A bundle that sleeps."""
    return world.bundle()


@pytest.fixture
def invalid() -> Callable[..., SpecError]:
    """invalid("/root/path", None): a right configuration with this value there is refused there.

    None takes the member away. pointer: where the error points, if elsewhere.
    """

    def check(at: str, value: Any, pointer: str | None = None) -> SpecError:
        config = configs.full()
        validate(configs.full())
        with pytest.raises(SpecError) as caught:
            validate(configs.put(config, at, value))
        assert caught.value.pointer == (at if pointer is None else pointer)
        return caught.value

    return check
