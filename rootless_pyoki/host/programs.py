"""Where the programs are that we call, even where a caller leaves no PATH."""

from __future__ import annotations

from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls

USUAL = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def find(name: str) -> str:
    """The first executable of that name on PATH, then where systems keep such; "" if there is none."""
    for directory in f"{syscalls.environ().get('PATH', '')}:{USUAL}".split(":"):
        candidate = f"{directory}/{name}"
        if directory[:1] == "/" and syscalls.faccessat(c.AT_FDCWD, candidate, c.X_OK):
            return candidate
    return ""


def id_helpers() -> bool:
    """Whether newuidmap and newgidmap are installed."""
    return bool(find("newuidmap") and find("newgidmap"))
