"""The verb events: one JSON object a line, as runc prints them."""

from __future__ import annotations

from rootless_pyoki.cli import show
from rootless_pyoki.kernel import json


def events(*, root: str | None, id: str, interval: float, stats: bool, all: bool) -> None:
    """Until the container ends, or nobody reads any more. interval: seconds."""
    from rootless_pyoki.lifecycle import events as source

    try:
        for event in source.events(
            root=root, id=id, interval=interval, once=stats, all=all, reader=1
        ):
            show.write(json.dumps(event).decode() + "\n")
    except BrokenPipeError:
        pass  # as if the reader had closed it before we had something to say
