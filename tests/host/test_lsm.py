"""Security modules of the host, asked for labels only."""

from __future__ import annotations

from pathlib import Path

import pytest

from rootless_pyoki.host import facts, lsm
from rootless_pyoki.kernel import constants as c

ENABLED = Path("/sys/module/apparmor/parameters/enabled")


def test_they_are_asked_only_for_a_label(monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration without one costs nothing."""

    def asked(*_: object) -> dict[str, object]:
        raise AssertionError

    monkeypatch.setattr(lsm, "facts", asked)
    monkeypatch.setattr(facts, "selinux_enabled", asked)
    found = facts.gather({"process": {"apparmorProfile": "", "selinuxLabel": ""}})
    assert (found.apparmor, found.selinux) == ("", False)
    with pytest.raises(AssertionError):
        facts.gather({"process": {"apparmorProfile": "box"}})
    with pytest.raises(AssertionError):
        facts.gather({"process": {"selinuxLabel": "a:b:c"}})


def test_apparmor_as_the_kernel_has_it() -> None:
    """On where the module says so; the file for a profile exists then."""
    on = ENABLED.exists() and ENABLED.read_text()[:1] == "Y"
    attribute = lsm.apparmor_attribute()
    assert bool(attribute) == on
    if on:
        assert Path(f"/proc/self/attr/{attribute}").exists()


@pytest.mark.parametrize(("content", "on"), [("Y\n", True), ("N\n", False), (None, False)])
def test_what_turns_it_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, on: bool
) -> None:
    """/sys/module/apparmor/parameters/enabled, which is missing where it is not built in."""
    path = tmp_path / "enabled"
    if content is not None:
        path.write_text(content)
    monkeypatch.setattr(lsm, "ENABLED", str(path))
    assert bool(lsm.apparmor_attribute()) == on


def test_selinux_as_the_kernel_has_it() -> None:
    """selinuxfs can be mounted only where it was not turned off at boot."""
    names = Path("/proc/filesystems").read_text().split()
    assert facts.selinux_enabled() == ("selinuxfs" in names)


def test_time_namespaces_as_the_kernel_has_them() -> None:
    """/proc/self/timens_offsets; asked only where one is configured."""
    linux = {"namespaces": [{"type": "time", "path": "/x"}]}
    there = Path("/proc/self/ns/time").exists()
    assert facts.gather({"linux": linux, "process": {}}).time_namespaces == there


def test_a_refused_label_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the module that runs here: the field, and what to do for each errno."""
    path = tmp_path / "enabled"
    monkeypatch.setattr(lsm, "ENABLED", str(path))
    assert lsm.refusal(c.EINVAL, "")[0] == "/selinuxLabel"
    assert "no such label" in lsm.refusal(c.EINVAL, "/process")[1]
    assert "setexec" in lsm.refusal(c.EACCES, "/process")[1]
    path.write_text("Y\n")
    pointer, hint = lsm.refusal(c.ENOENT, "/process")
    assert pointer == "/process/apparmorProfile" and "apparmor_parser" in hint
    assert "apparmor_parser" not in lsm.refusal(c.EACCES, "/process")[1]
