"""AppArmor profiles and SELinux labels of the program (config.md, "Linux Process")."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from rootless_pyoki.host import facts, lsm
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]
PROFILE = "pyoki-test"
LOOK = (
    "cat /proc/self/attr/current; echo x >/tmp/allowed && echo allowed; "
    "echo x >/tmp/denied || echo denied"
)
CONFINED = f"{PROFILE} (enforce)\nallowed\ndenied\n"


@pytest.fixture
def profile() -> str:
    """A profile that is loaded here."""
    if not lsm.apparmor_attribute():
        needs.skip("AppArmor is not enabled on this host")
    if not facts.gather({"process": {"apparmorProfile": PROFILE}}).apparmor_loaded:
        source = Path(__file__).with_name("pyoki-test.apparmor")
        needs.skip(f"root has not loaded the profile: apparmor_parser --replace {source}")
    return PROFILE


@pytest.fixture
def apparmor_off() -> None:
    if lsm.apparmor_attribute():
        needs.skip("AppArmor is enabled on this host")


@pytest.fixture
def selinux_off() -> None:
    if facts.selinux_enabled():
        needs.skip("SELinux is enabled on this host")


# ---- where the host has no such module ----


@pytest.mark.usefixtures("apparmor_off")
@pytest.mark.parametrize("policy", ["", "ignore"])
def test_a_profile_without_apparmor_is_refused(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, policy: str
) -> None:
    """Nothing is made, whatever --unsupported says: it was to protect."""
    bundle = make_bundle("true")
    bundle.process["apparmorProfile"] = PROFILE
    options = ["--unsupported", policy] if policy else []
    strict = Runtime(runtime.command, runtime.root, options=options)
    result = strict.run(identifier, bundle.write().path)
    assert result.code == 1, str(result)
    assert "AppArmor is not enabled on this host" in result.err
    assert "/process/apparmorProfile" in result.err


@pytest.mark.usefixtures("apparmor_off")
@pytest.mark.parametrize("profile", ["", "unconfined"])
def test_no_profile_is_no_demand(
    runtime: Runtime, make_bundle: Make, identifier: str, profile: str
) -> None:
    """What engines write where AppArmor is off."""
    bundle = make_bundle("true")
    bundle.process["apparmorProfile"] = profile
    runtime.run(identifier, bundle.write().path).ok()


@pytest.mark.usefixtures("selinux_off")
def test_a_label_without_selinux_is_refused(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Nothing is made; "" asks for nothing."""
    bundle = make_bundle("true")
    bundle.process["selinuxLabel"] = "system_u:system_r:container_t:s0"
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "SELinux is not enabled on this host" in result.err, str(result)
    assert "/process/selinuxLabel" in result.err
    bundle.process["selinuxLabel"] = ""
    runtime.run(identifier, bundle.write().path).ok()


@pytest.mark.usefixtures("apparmor_off", "selinux_off")
def test_labels_of_exec_are_refused(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """--apparmor and --process-label, and what a process file says; the container lives on."""
    runtime.run(identifier, busybox_bundle.path, "--detach").ok()
    for option, pointer in (
        ("--apparmor", "/process/apparmorProfile"),
        ("--process-label", "/process/selinuxLabel"),
    ):
        result = runtime("exec", option, "some_label", identifier, "true")
        assert result.code in (1, 255) and pointer in result.err, str(result)
        assert "is not enabled on this host" in result.err
    runtime.exec(identifier, "true").ok()


# ---- where AppArmor is on ----


def test_a_profile(runtime: Runtime, make_bundle: Make, identifier: str, profile: str) -> None:
    """The program is confined from its first instruction, with no_new_privs and without."""
    bundle = make_bundle("sh", "-c", LOOK)
    bundle.process["apparmorProfile"] = profile
    for number, strict in enumerate((True, False)):
        bundle.process["noNewPrivileges"] = strict
        result = runtime.run(f"{identifier}-{number}", bundle.write().path).ok()
        assert result.out == CONFINED, str(result)


def test_exec_has_the_profile_of_the_container(
    runtime: Runtime, make_bundle: Make, identifier: str, profile: str
) -> None:
    """And one that --apparmor names where the container has none; hidden /proc files stay hidden."""
    for number, (own, option) in enumerate(((profile, ()), ("", ("--apparmor", profile)))):
        name = f"{identifier}-{number}"
        bundle = make_bundle()
        bundle.process["apparmorProfile"] = own
        runtime.create(name, bundle.write().path).ok()
        runtime.start(name).ok()
        seen = Path(f"/proc/{runtime.state(name)['pid']}/attr/current").read_text()
        assert seen == (f"{profile} (enforce)\n" if own else "unconfined\n")
        result = runtime("exec", *option, name, "sh", "-c", LOOK).ok()
        assert result.out == CONFINED, str(result)


def test_a_profile_with_a_read_only_procfs(
    runtime: Runtime, make_bundle: Make, identifier: str, profile: str
) -> None:
    """Written through a private one."""
    bundle = make_bundle("sh", "-c", "echo x >/tmp/denied || echo denied")
    bundle.config["mounts"][0]["options"] = ["ro"]
    bundle.process["apparmorProfile"] = profile
    assert runtime.run(identifier, bundle.write().path).ok().out == "denied\n"


def test_a_profile_without_a_procfs(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, profile: str
) -> None:
    """The kernel lets nobody in a user namespace see more of /proc than before: told."""
    bundle = make_bundle("true")
    mounts = bundle.config["mounts"]
    mounts[:] = [mount for mount in mounts if mount["destination"] != "/proc"]
    bundle.linux["readonlyPaths"] = bundle.linux["maskedPaths"] = []
    bundle.process["apparmorProfile"] = profile
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "/process/apparmorProfile" in result.err, str(result)
    assert "mount procfs on /proc" in result.err


def test_a_profile_that_is_not_loaded(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, profile: str
) -> None:
    """Refused before anything is made."""
    bundle = make_bundle("true")
    bundle.process["apparmorProfile"] = "no-such-profile"
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "no such profile is loaded" in result.err, str(result)
    assert "/process/apparmorProfile" in result.err


def test_the_waiting_gate_holds_no_procfs_of_the_host(
    runtime: Runtime, make_bundle: Make, identifier: str, profile: str
) -> None:
    """What it writes the label through shows the container's processes and no others."""
    bundle = make_bundle()
    bundle.process["apparmorProfile"] = profile
    bundle.process["capabilities"]["bounding"] = ["CAP_SYS_PTRACE"]
    runtime.create(identifier, bundle.write().path).ok()
    pid = runtime.state(identifier)["pid"]
    if os.geteuid() != 0:
        needs.skip("only root may look into the gate")
    directory = Path(f"/proc/{pid}/fd")
    held = [fd for fd in directory.iterdir() if (fd / "self").is_symlink()]
    assert len(held) == 1
    shown = {entry.name for entry in held[0].iterdir() if entry.name.isdigit()}
    assert shown == {"1"}


# ---- where SELinux is on ----


def test_an_unknown_selinux_label(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """The policy does not know it: told with its pointer."""
    if not facts.selinux_enabled():
        needs.skip("SELinux is not enabled on this host")
    bundle = make_bundle("true")
    bundle.process["selinuxLabel"] = "no_u:no_r:no_t:s0"
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "/process/selinuxLabel" in result.err, str(result)


def test_an_selinux_label(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """One that the policy knows and lets this caller set: the program has it, and so has exec's."""
    if not facts.selinux_enabled():
        needs.skip("SELinux is not enabled on this host")
    label = next(filter(_may_take, LABELS), "")
    needs.require(label, f"this policy lets us set none of {', '.join(LABELS)}")
    bundle = make_bundle()
    bundle.process["selinuxLabel"] = label
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    pid = runtime.state(identifier)["pid"]
    assert _label(Path(f"/proc/{pid}/attr/current").read_bytes()) == label
    assert _label(runtime.exec(identifier, *SHOW).ok().out.encode()) == label


LABELS = ("system_u:system_r:container_t:s0", "user_u:user_r:user_t:s0")
SHOW = ("cat", "/proc/self/attr/current")


def _label(content: bytes) -> str:
    return content.rstrip(b"\0\n ").decode()


def _may_take(label: str) -> bool:
    def take() -> None:
        Path("/proc/self/attr/exec").write_text(label)

    if label == _label(Path("/proc/self/attr/current").read_bytes()):
        return False
    try:
        shown = subprocess.run(SHOW, capture_output=True, check=False, preexec_fn=take).stdout
    except (OSError, subprocess.SubprocessError):
        return False
    return _label(shown) == label
