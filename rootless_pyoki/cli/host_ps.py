"""The host's ps program, reduced to one container's processes."""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError, UsageError, from_oserror
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls

DEFAULT_PATH = "/usr/local/bin:/usr/bin:/bin"  # callers may give us no PATH at all
MISSING = "no ps program found: it belongs to the package procps (or use --format json)"


def output(options: list[str]) -> str:
    """What `ps options` prints; HostError when there is no ps, UsageError when it refuses them."""
    program = _find("ps")
    environment = [f"{name}={value}" for name, value in syscalls.environ().items()]
    reader, writer = syscalls.pipe()
    spawned = syscalls.spawn(program, ["ps", *options], environment, stdout=writer, stderr=2)
    syscalls.close(writer)
    fds.close_quietly(spawned.pidfd)
    try:
        syscalls.spawn_result(spawned)
        text = fds.read_all(reader).decode("utf-8", "replace")
    except SyscallError as error:
        raise from_oserror(error, "run ps") from error
    finally:
        syscalls.close(reader)
        _, status = syscalls.waitpid(spawned.pid, 0)
    if status:
        raise UsageError(f"ps {' '.join(options)} failed")
    return text


def only(text: str, pids: list[int]) -> str:
    """The header, and the lines whose PID column names one of `pids`."""
    header, *lines = text.splitlines() or [""]
    titles = header.split()
    if "PID" not in titles:
        raise UsageError("ps printed no PID column: give it other options")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [line for line in lines if wanted.intersection(line.split()[column : column + 1])]
    return "".join(f"{line}\n" for line in (header, *kept))


def _find(name: str) -> str:
    path = syscalls.environ().get("PATH") or DEFAULT_PATH
    for directory in path.split(":"):
        if directory.startswith("/") and syscalls.faccessat(
            c.AT_FDCWD, f"{directory}/{name}", c.X_OK
        ):
            return f"{directory}/{name}"
    raise HostError(MISSING)
