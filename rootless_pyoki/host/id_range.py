"""One line of an id map or of /etc/subuid."""

from __future__ import annotations

from rootless_pyoki.record import Record


class IdRange(Record):
    """`size` ids from `container` on inside a user namespace are those from `host` on outside."""

    container: int
    host: int  # as seen from the caller's user namespace (in its own map: from the parent's)
    size: int
