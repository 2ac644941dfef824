"""crun's options about symbolic links at either end of a bind, on this kernel and older ones."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.apply.conftest import Preexec
from tests.apply.mountinfo import parse
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


@pytest.fixture
def bundle(make_bundle: Make) -> Bundle:
    return make_bundle().single_map()


def bind(source: Path, at: str, *options: str) -> dict[str, Any]:
    return {"destination": at, "source": str(source), "options": ["bind", *options]}


def test_links_at_both_ends(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """A link is copied, or bound itself, or covered; what is no link is bound as ever."""
    link, file = bundle.path / "link", bundle.path / "file"
    link.symlink_to("/the/target")
    file.write_text("text\n")
    (bundle.rootfs / "covered").symlink_to("elsewhere")
    (bundle.rootfs / "same").symlink_to("/the/target")
    bundle.config["mounts"] += [
        bind(link, "/made/copied", "copy-symlink"),
        bind(link, "/same", "copy-symlink"),
        bind(file, "/plain", "copy-symlink"),
        bind(link, "/bound", "src-nofollow"),
        bind(file, "/followed", "src-nofollow", "ro"),
        bind(file, "/covered", "dest-nofollow"),
        bind(file, "/new/file", "dest-nofollow"),
        bind(link, "/both", "src-nofollow", "dest-nofollow"),
        {"destination": "/fresh", "type": "tmpfs", "options": ["dest-nofollow"]},
    ]
    bundle.shell(
        "for l in /made/copied /same /bound /both; do readlink $l; done;"
        "cat /plain /followed /covered /new/file;"
        "cat /proc/self/mountinfo"
    )
    out = runtime.run(identifier, bundle.path, preexec=kernel).ok().out
    assert out.splitlines()[:8] == ["/the/target"] * 4 + ["text"] * 4
    seen = parse(out)
    assert "/made/copied" not in seen and "/same" not in seen
    assert {"/plain", "/bound", "/covered", "/new/file", "/both", "/fresh"} <= set(seen)
    assert "ro" in seen["/followed"].options
    assert os.readlink(bundle.rootfs / "made/copied") == "/the/target"
    assert not (bundle.rootfs / "elsewhere").exists()


@pytest.mark.parametrize("there", ["a file", "another link"])
def test_something_else_is_there(
    runtime: Runtime, bundle: Bundle, identifier: str, there: str
) -> None:
    """A link is not copied over what the image has: an error with the destination's pointer."""
    link = bundle.path / "link"
    link.symlink_to("/the/target")
    place = bundle.rootfs / "place"
    if there == "a file":
        place.write_text("mine")
    else:
        place.symlink_to("/my/target")
    bundle.config["mounts"].append(bind(link, "/place", "copy-symlink"))
    result = runtime.run(identifier, bundle.write().path)
    index = len(bundle.config["mounts"]) - 1
    assert result.code == 1 and f"/mounts/{index}/destination" in result.err, str(result)
    assert "something else" in result.err


def test_links_never_lead_out(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """Links before the last name are followed inside the root only."""
    (bundle.rootfs / "deep").symlink_to("../../../../outside")
    link = bundle.path / "link"
    link.symlink_to("x")
    bundle.config["mounts"] += [
        bind(link, "/deep/copied", "copy-symlink"),
        bind(link, "/deep/bound", "src-nofollow", "dest-nofollow"),
    ]
    bundle.shell("readlink /outside/copied; readlink /outside/bound")
    assert runtime.run(identifier, bundle.path).ok().out.split() == ["x", "x"]
    assert not Path("/outside").exists()
