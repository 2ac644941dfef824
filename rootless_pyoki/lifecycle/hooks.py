"""When hooks run and what their failure means: runtime.md "Lifecycle", config.md "POSIX-platform Hooks"."""

from __future__ import annotations

from rootless_pyoki import log
from rootless_pyoki.errors import PyokiError
from rootless_pyoki.kernel import json
from rootless_pyoki.spec import OCI_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rootless_pyoki.plan.plan import Hook, Hooks


def state_json(
    *, id: str, status: str, pid: int, bundle: str, annotations: dict[str, str]
) -> bytes:
    """The container's state as hooks read it on stdin; runtime.md "State"."""
    state: dict[str, object] = {"ociVersion": OCI_VERSION, "id": id, "status": status}
    if pid:
        state["pid"] = pid
    state["bundle"] = bundle
    state["annotations"] = annotations
    return json.dumps(state)


def create_runtime(hooks: Hooks, state: bytes, bundle: str, interrupt: int = -1) -> None:
    """prestart, then createRuntime; the first failure ends the creation."""
    if hooks.prestart or hooks.create_runtime:
        _run(hooks, hooks.prestart + hooks.create_runtime, state, bundle, interrupt)


def poststart(hooks: Hooks, state: bytes, bundle: str, interrupt: int = -1) -> None:
    """After the program runs; a failure is an error (since runtime-spec 1.3)."""
    if hooks.poststart:
        _run(hooks, hooks.poststart, state, bundle, interrupt)


def _run(hooks: Hooks, listed: tuple[Hook, ...], state: bytes, bundle: str, interrupt: int) -> None:
    """interrupt: a signalfd that ends them, and us (apply.hooks.heed); -1: nothing does."""
    from rootless_pyoki.apply import hooks as runner

    place = runner.open_place(hooks, bundle, interrupt)
    try:
        runner.run(listed, state, place)
    finally:
        runner.close_place(place)


def poststop(hooks: Hooks, state: bytes, bundle: str) -> None:
    """After the container is gone; a failure is a warning, and the others still run."""
    if not hooks.poststop:
        return
    from rootless_pyoki.apply import hooks as runner

    try:
        place = runner.open_place(hooks, bundle)
    except PyokiError as error:
        log.warning(f"poststop hooks: {error.message}")
        place = runner.Place(directory=bundle)
    for hook in hooks.poststop:
        try:
            runner.run_one(hook, state, place)
        except PyokiError as error:
            log.warning(f"poststop {error.message}")
    runner.close_place(place)
