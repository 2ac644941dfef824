"""Read a bundle: a directory with config.json (bundle.md)."""

from __future__ import annotations

from errno import ENOTDIR

from rootless_pyoki.errors import PyokiError, SpecError, SyscallError, describe_errno
from rootless_pyoki.kernel import constants, fds, json, syscalls
from rootless_pyoki.record import Record
from rootless_pyoki.spec.fields import wrong_type

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Bundle(Record):
    path: str  # absolute
    config: Any  # types.Config once validate() has passed it; always an object
    raw: bytes  # config.json as it was read


def load(directory: str, config_file: str | None = None) -> Bundle:
    """The bundle in `directory` ("" is the current one).

    config_file: another configuration than the bundle's config.json, relative to the current
    directory. Nothing is validated but that it holds a JSON object.
    Raises PyokiError when it cannot be read, SpecError when it is no JSON object.
    """
    path = make_absolute(directory)
    name = config_file or f"{path}/config.json"
    try:
        bundle = fds.open_dir(path)
    except SyscallError as error:
        raise _unreadable("open the bundle", path, error) from None
    try:
        raw = fds.read_file(
            constants.AT_FDCWD if config_file else bundle, config_file or "config.json"
        )
    except SyscallError as error:
        raise _unreadable("read", name, error) from None
    finally:
        syscalls.close(bundle)
    return Bundle(path=path, config=parse(raw, name), raw=raw)


def load_process(path: str) -> dict[str, Any]:
    """The process object in the file that `exec --process` names."""
    return load_object(path)


def load_object(path: str) -> dict[str, Any]:
    """The JSON object in a file that an option names."""
    try:
        raw = fds.read_file(constants.AT_FDCWD, path)
    except SyscallError as error:
        raise _unreadable("read", path, error) from None
    return parse(raw, path)


def parse(raw: bytes, name: str) -> dict[str, Any]:
    """The JSON object in `raw`; errors name the file, and line and column where there is one.

    glossary.md, "JSON": objects MUST NOT include duplicate names.
    """
    try:
        value = json.loads(raw, unique=True)
    except ValueError as error:
        raise SpecError(f"{name} is not JSON: {error}") from None
    if type(value) is not dict:
        raise SpecError(f"{name}: {wrong_type('an object', value, '').message}")
    return value


def make_absolute(path: str) -> str:
    """The path from /, without empty and `.` components; `..` stays, since links may lead away."""
    if path[:1] != "/":
        path = f"{syscalls.getcwd()}/{path}"
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


def _unreadable(doing: str, path: str, error: SyscallError) -> PyokiError:
    number = error.errno or 0
    hint = "a bundle is a directory with config.json and the root filesystem"
    return PyokiError(
        f"{doing} {path}: {describe_errno(number, error.strerror or '')}",
        errno=number,
        hint=hint if number == ENOTDIR or path.endswith("/config.json") else "",
    )
