"""--unsupported: what becomes of each kind of field that a user cannot have."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Result, Runtime

Make = Callable[..., Bundle]
CHOICES = ["", "error", "warn", "ignore"]


def ask(bundle: Bundle, process: dict[str, Any], linux: dict[str, Any]) -> Bundle:
    bundle.process.update(process)
    bundle.linux.update(linux)
    return bundle.write()


def create(
    runtime: Runtime, id: str, bundle: Bundle, unsupported: str, log: Path, *options: str
) -> Result:
    """With a JSON log, as podman has it."""
    choice = ("--unsupported", unsupported) if unsupported else ()
    line = (*choice, *options, "--log", str(log), "--log-format", "json", "create")
    return runtime(*line, "--bundle", str(bundle.path), id)


def notes(runtime: Runtime, id: str) -> dict[str, str]:
    """The list of `state --verbose`: pointer → text."""
    state = json.loads(runtime("state", "--verbose", id).ok().out)
    return {note["pointer"]: note["text"] for note in state["pyoki"]["notes"]}


@pytest.fixture
def ordinary() -> None:
    if os.geteuid() == 0:
        pytest.skip("root may do all of it")
    needs.require(resource.getrlimit(resource.RLIMIT_RTPRIO)[0] == 0, "this user has RLIMIT_RTPRIO")


NOFILE = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # by the plan
    "/process/scheduler/policy": (
        {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 9999, "deadline": 9999}},
        {},
    ),
    "/process/ioPriority/class": ({"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 0}}, {}),
    "/process/rlimits/0/hard": (
        {"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": NOFILE + 1}]},
        {},
    ),
    "/linux/netDevices": ({}, {"netDevices": {"eth7": {}}}),
    "/linux/intelRdt": ({}, {"intelRdt": {"closID": "x"}}),
    "/linux/resources/cpu/realtimePeriod": ({}, {"resources": {"cpu": {"realtimePeriod": 1000}}}),
    # by the kernel, in intermediate and in init
    "/process/oomScoreAdj": ({"oomScoreAdj": -1000}, {}),
    "/linux/sysctl/net.ipv4.no_such": ({}, {"sysctl": {"net.ipv4.no_such": "1"}}),
    # by the cgroup
    "/linux/resources/hugepageLimits/0": (
        {},
        {"resources": {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}},
    ),
    "/linux/resources/unified/nonsense.max": (
        {},
        {"resources": {"unified": {"nonsense.max": "1"}}},
    ),
}


@pytest.mark.parametrize(
    "pointer",
    [
        "/linux/netDevices",
        "/process/rlimits/0/hard",
        "/process/oomScoreAdj",
        "/linux/sysctl/net.ipv4.no_such",
        "/linux/resources/unified/nonsense.max",
    ],
)
def test_by_default_an_error(
    ordinary: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    tmp_path: Path,
    pointer: str,
    leak_check: None,
) -> None:
    """Each names its field, and nothing is left behind."""
    bundle = ask(make_bundle("true"), *REFUSED[pointer])
    log = tmp_path / "log"
    result = create(runtime, identifier, bundle, "", log)
    assert result.code == 1
    [line] = log.read_text().splitlines()
    assert json.loads(line)["pointer"] == pointer
    assert runtime.status(identifier) == ""


def together() -> tuple[dict[str, Any], dict[str, Any]]:
    process: dict[str, Any] = {}
    linux: dict[str, Any] = {}
    for more_process, more_linux in REFUSED.values():
        process.update(more_process)
        resources = {**linux.get("resources", {}), **more_linux.get("resources", {})}
        linux.update(more_linux)
        linux["resources"] = resources
    return process, linux


@pytest.mark.parametrize("unsupported", ["warn", "ignore"])
def test_left_out_where_asked(
    ordinary: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    tmp_path: Path,
    unsupported: str,
) -> None:
    """All of them at once: the container runs, `state --verbose` lists each with its reason, and
    neither stderr nor the JSON log has a word.
    """
    bundle = ask(make_bundle("sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj"), *together())
    log = tmp_path / "log"
    result = create(runtime, identifier, bundle, unsupported, log).ok()
    found = notes(runtime, identifier)
    assert set(REFUSED) <= set(found)
    assert f"above the caller's {NOFILE}, which is taken" in found["/process/rlimits/0/hard"]
    assert "-1000 asked, it stays" in found["/process/oomScoreAdj"]
    for pointer in set(REFUSED) - {"/process/rlimits/0/hard", "/process/oomScoreAdj"}:
        assert found[pointer].startswith("not applied: "), found[pointer]
    assert (result.err, log.exists() and log.read_text()) in (("", False), ("", ""))
    runtime.start(identifier).ok()
    runtime.wait_status(identifier, "stopped")
    own = Path("/proc/self/oom_score_adj").read_text().strip()
    assert result.out.split() == ["10", own]


def test_clamped_soft_limit(
    ordinary: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The gate, which sets RLIMIT_NOFILE itself, gets what can be had."""
    bundle = make_bundle("sh", "-c", "ulimit -n; ulimit -H -n")
    wanted = NOFILE + 1000
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": wanted, "hard": wanted}]
    runtime.options += ["--unsupported", "warn"]
    result = runtime.run(identifier, bundle.write().path)
    assert result.ok().out.split() == [str(NOFILE)] * 2


def test_one_limit_of_two(
    v2: Path, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """The limits that can be set are set."""
    unified = {"cgroup.max.depth": "7"}  # a core file, which every cgroup has
    resources = {"unified": unified, "hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}
    bundle = ask(make_bundle(), {}, {"resources": resources})
    create(runtime, identifier, bundle, "ignore", tmp_path / "log").ok()
    assert list(notes(runtime, identifier)) == ["/linux/resources/hugepageLimits/0"]
    state = json.loads(runtime("state", "--verbose", identifier).out)
    cgroup = Path(state["pyoki"]["cgroup"]["path"])
    assert (cgroup / "cgroup.max.depth").read_text() == "7\n"


def test_no_cgroup_at_all(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """Every limit is left out and told."""
    resources = {"pids": {"limit": 7}, "memory": {"limit": 1 << 30}, "cpu": {"shares": 2}}
    bundle = ask(make_bundle("true"), {}, {"resources": resources})
    log = tmp_path / "log"
    for choice in ("", "error"):
        result = create(runtime, identifier, bundle, choice, log, "--cgroup-manager", "disabled")
        assert result.code == 1
    create(runtime, identifier, bundle, "warn", log, "--cgroup-manager", "disabled").ok()
    assert set(notes(runtime, identifier)) == {
        f"/linux/resources/{field}" for field in ("pids/limit", "memory/limit", "cpu/shares")
    }


@pytest.mark.parametrize("unsupported", CHOICES)
def test_what_every_runtime_passes_over(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path, unsupported: str
) -> None:
    """Fields without a counterpart in cgroup v2 are told; only `error` makes them errors."""
    asked = {"resources": {"memory": {"swappiness": 5}, "network": {"classID": 3}}}
    bundle = ask(make_bundle("true"), {}, asked)
    log = tmp_path / "log"
    result = create(runtime, identifier, bundle, unsupported, log)
    if unsupported == "error":
        assert result.code == 1
        [line] = log.read_text().splitlines()
        assert json.loads(line)["pointer"] == "/linux/resources/memory/swappiness"
        return
    result.ok()
    assert set(notes(runtime, identifier)) == {
        "/linux/resources/memory/swappiness",
        "/linux/resources/network/classID",
    }
    assert (result.err, log.exists() and log.read_text()) in (("", False), ("", ""))


@pytest.mark.parametrize(
    ("process", "linux", "word"),
    [
        ({"apparmorProfile": "no-such-profile"}, {}, "/process/apparmorProfile"),
        ({}, {"seccomp": {"defaultAction": "SCMP_ACT_FLY"}}, "/linux/seccomp"),
        (
            {"rlimits": [{"type": "RLIMIT_FUN", "soft": 1, "hard": 1}]},
            {},
            "/process/rlimits/0/type",
        ),
        ({"user": {"uid": 4000000, "gid": 0}}, {}, "/process/user/uid"),
        ({"scheduler": {"policy": "SCHED_FIFO"}}, {}, "/process/scheduler/priority"),
    ],
)
def test_never_left_out(
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    process: dict[str, Any],
    linux: dict[str, Any],
    word: str,
) -> None:
    """What protects, and what the specification makes an error, stays one for the lenient."""
    bundle = ask(make_bundle("true"), process, linux)
    runtime.options += ["--unsupported", "ignore"]
    result = runtime.run(identifier, bundle.path)
    assert result.code == 1 and word in result.err, str(result)


def test_exec(
    ordinary: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """The same choice for a process file; what is left out is a warning in the log where asked for."""
    runtime.run(identifier, make_bundle().path, "--detach").ok()
    file = tmp_path / "process.json"
    wanted = {
        "args": ["sh", "-c", "ulimit -n; cat /proc/self/oom_score_adj"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
        "oomScoreAdj": -1000,
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": NOFILE + 1, "hard": NOFILE + 1}],
        "scheduler": {"policy": "SCHED_FIFO", "priority": 1},
    }
    file.write_text(json.dumps(wanted))
    line = ("exec", "--process", str(file), identifier)
    for choice in ((), ("--unsupported", "error")):
        result = runtime(*choice, *line)
        assert result.code != 0 and "/rlimits/0/hard" in result.err, str(result)
    log = tmp_path / "log"
    options = ("--log", str(log), "--log-format", "json", "--log-level", "warning")
    result = runtime("--unsupported", "warn", *options, *line).ok()
    own = Path("/proc/self/oom_score_adj").read_text().strip()
    assert (result.out.split(), result.err) == ([str(NOFILE), own], "")
    told = "".join(json.loads(text)["msg"] for text in log.read_text().splitlines())
    for pointer in ("/rlimits/0/hard: ", "/oomScoreAdj: ", "/scheduler/policy: not applied"):
        assert pointer in told


@pytest.mark.parametrize("unsupported", ["error", "ignore"])
def test_unknown_capabilities(
    runtime: Runtime, make_bundle: Make, identifier: str, unsupported: str
) -> None:
    """config.md: in a configuration no reason to fail, whatever is asked for; on the command line an
    error.
    """
    bundle = make_bundle()
    bundle.process["capabilities"]["bounding"].append("CAP_FLY")
    runtime.options += ["--unsupported", unsupported]
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    assert "CAP_FLY" in "".join(notes(runtime, identifier).values())
    result = runtime("exec", "--cap", "fly", identifier, "true")
    assert result.code != 0 and "CAP_FLY" in result.err, str(result)
