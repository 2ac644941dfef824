"""readonlyPaths and maskedPaths: found in the mounts that they lie in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

SECRET = "not for the container"


@pytest.mark.parametrize("whole", ["/sys", "/s", "/s/deep"])
@pytest.mark.parametrize("kind", ["readonlyPaths", "maskedPaths"])
def test_protected_in_what_is_protected(
    runtime: Runtime,
    make_bundle: Callable[..., Bundle],
    identifier: str,
    tmp_path: Path,
    whole: str,
    kind: str,
) -> None:
    """A whole mount, or what is around it, may be read-only or masked, and paths in it besides.

    A link in a mount that leads out of it means what it means from the root.
    """
    (tmp_path / "volume/deep").mkdir(parents=True)
    (tmp_path / "volume/deep/secret").write_text(SECRET)
    (tmp_path / "volume/link").symlink_to("/masked")
    bundle = make_bundle("sh", "-c", "cat /s/deep/secret /masked; ls /sys/kernel; touch /s/deep/x")
    (bundle.rootfs / "masked").write_text(SECRET)
    volume = {"type": "bind", "source": str(tmp_path / "volume"), "options": ["bind"]}
    deep = {"type": "bind", "source": str(tmp_path / "volume/deep"), "options": ["bind"]}
    bundle.config["mounts"] += [{"destination": "/s", **volume}, {"destination": "/s/deep", **deep}]
    paths = ["/s/link", whole, "/sys/kernel", "//s/deep/./secret", "/sys/kernel"]
    bundle.linux["maskedPaths"] = paths
    if kind == "readonlyPaths":
        paths.remove(whole)
        bundle.linux["readonlyPaths"] = [whole]
    result = runtime.run(identifier, bundle.write().path)
    assert SECRET not in result.out and result.out == "", str(result)
    assert (tmp_path / "volume/deep/x").exists() is (whole == "/sys"), str(result)
