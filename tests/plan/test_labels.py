"""apparmorProfile and selinuxLabel, by what the host has."""

from __future__ import annotations

from typing import Any

import pytest

from rootless_pyoki.errors import UnsupportedError
from rootless_pyoki.plan import describe
from rootless_pyoki.plan.plan import Label
from rootless_pyoki.record import replace
from tests.plan import plans

APPARMOR = replace(plans.USER, apparmor="apparmor/exec")
SELINUX = replace(plans.USER, selinux=True)
LABEL = "system_u:system_r:container_t:s0:c1,c2"


def label(facts: Any, **process: str) -> Label | None:
    return plans.make(plans.config(process=process), facts, unsupported="ignore").process.label


def refused(facts: Any, **process: str) -> UnsupportedError:
    with pytest.raises(UnsupportedError) as caught:
        label(facts, **process)
    return caught.value


@pytest.mark.parametrize("attribute", ["exec", "apparmor/exec"])
def test_a_profile(attribute: str) -> None:
    """As aa_change_onexec(3) writes it, to the file that this kernel has."""
    planned = label(replace(plans.USER, apparmor=attribute), apparmorProfile="box")
    assert planned == Label(
        module="apparmor",
        attribute=attribute,
        value="exec box",
        pointer="/process/apparmorProfile",
    )


def test_an_selinux_label() -> None:
    """As setexeccon(3) writes it."""
    planned = label(SELINUX, selinuxLabel=LABEL)
    assert planned == Label(
        module="selinux", attribute="exec", value=LABEL, pointer="/process/selinuxLabel"
    )


def test_unconfined() -> None:
    """No demand, but of a caller that is confined."""
    confined = replace(APPARMOR, apparmor_confined=True)
    for facts in (plans.USER, APPARMOR):
        assert label(facts, apparmorProfile="unconfined") is None
    planned = label(confined, apparmorProfile="unconfined")
    assert planned is not None and planned.value == "exec unconfined"
    for facts in (plans.USER, APPARMOR, confined):
        assert label(facts, apparmorProfile="", selinuxLabel="") is None


def test_what_the_host_lacks_is_refused() -> None:
    """With the pointer, and never passed over."""
    assert refused(SELINUX, apparmorProfile="box").pointer == "/process/apparmorProfile"
    assert refused(APPARMOR, selinuxLabel=LABEL).pointer == "/process/selinuxLabel"
    absent = replace(APPARMOR, apparmor_loaded=False)
    assert "no such profile" in refused(absent, apparmorProfile="box").message


def test_both_at_once() -> None:
    """No machine runs both modules."""
    both = replace(APPARMOR, selinux=True)
    error = refused(both, apparmorProfile="box", selinuxLabel=LABEL)
    assert error.pointer == "/process/selinuxLabel"


def test_it_is_described() -> None:
    """In the plan's words."""
    plan = plans.make(plans.config(process={"apparmorProfile": "box"}), APPARMOR)
    assert "exec box to /proc/self/attr/apparmor/exec" in describe.describe(plan)
