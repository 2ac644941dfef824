"""What some types of filesystems and some labels need before they are mounted.

overlay takes host paths in its options, fuse a program that serves it, SELinux a context.
"""

from __future__ import annotations

from rootless_pyoki.errors import UnsupportedError

_LAYERS = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir")
# as runc: what shows the kernel's own objects has labels of its own
UNLABELLED = ("bind", "proc", "sysfs", "cgroup", "cgroup2", "mqueue")


def overlay(data: list[tuple[int, str]], bundle: str) -> list[tuple[int, str]]:
    """Directories of an overlay: those that are relative lie in the bundle, as sources of binds do.

    The kernel looks them up as root of the container, while the host's files can still be seen.
    """
    found = []
    for index, text in data:
        key, equals, value = text.partition("=")
        if equals and key in _LAYERS:
            value = _layers(value, bundle) if key == "lowerdir" else _absolute(value, bundle)
        found.append((index, f"{key}{equals}{value}"))
    return found


def _layers(value: str, bundle: str) -> str:
    r"""Split at colons; one that belongs to a name is written \:, and :: comes before data layers."""
    prefix = bundle.replace("\\", "\\\\").replace(":", "\\:")
    names = [""]
    escaped = False
    for letter in value:
        if letter == ":" and not escaped:
            names.append("")
        else:
            names[-1] += letter
        escaped = letter == "\\" and not escaped
    return ":".join([_absolute(name, prefix) for name in names])


def _absolute(name: str, bundle: str) -> str:
    return name if not name or name[0] == "/" else f"{bundle}/{name}"


def check_fuse(kind: str, data: list[tuple[int, str]], pointer: str) -> None:
    """fuse(4): a mount wants the descriptor of an opened /dev/fuse, and a program behind it."""
    if any(text.startswith("fd=") for _, text in data):
        return
    raise UnsupportedError(
        f"mount of type {kind}: a fuse filesystem is served by a program that has /dev/fuse open and "
        "passes it as option fd=N; no mount helper is run for it",
        pointer=f"{pointer}/type",
        hint="mount it on the host with its own program (fusermount3) and bind that, or list /dev/fuse "
        "in /linux/devices and mount it from inside",
    )


def label(kind: str, context: str, data: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """linux.mountLabel as option context, selinux(8); an option of the mount's own goes before."""
    if kind in UNLABELLED or any(text.startswith("context=") for _, text in data):
        return data
    return [*data, (-1, f"context={context}")]
