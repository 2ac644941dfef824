"""update: what is written, what is refused, and what is left as it was.

Here with the files that every cgroup has; tests/lifecycle/test_update_live.py has the controllers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.cli import grammar
from rootless_pyoki.errors import NotFoundError, PyokiError, UsageError
from rootless_pyoki.lifecycle import update as verb
from tests.support.bundles import Bundle
from tests.support.runtime import Result, Runtime

Make = Callable[..., Bundle]
DEPTH, DESCENDANTS = "cgroup.max.depth", "cgroup.max.descendants"


def update(runtime: Runtime, id: str, resources: object, *options: str, policy: str = "") -> Result:
    """With the resources on stdin."""
    text = resources if isinstance(resources, str) else json.dumps(resources)
    chosen = ("--unsupported", policy) if policy else ()
    return runtime(*chosen, "update", "--resources", "-", *options, id, input=text)


def refused(result: Result, *words: str) -> None:
    """One line, with all of these words."""
    assert result.code == 1, str(result)
    [line] = result.err.splitlines()
    for word in words:
        assert word in line, str(result)


def particulars(runtime: Runtime, id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(runtime("state", "--verbose", id).ok().out)["pyoki"]
    return found


def notes(runtime: Runtime, id: str) -> dict[str, str]:
    return {note["pointer"]: note["text"] for note in particulars(runtime, id)["notes"]}


@pytest.fixture
def created(runtime: Runtime, make_bundle: Make, identifier: str) -> str:
    runtime.create(identifier, make_bundle().path).ok()
    return identifier


@pytest.fixture
def cgroup(v2: Path, runtime: Runtime, created: str) -> Path:
    """The cgroup of a created container."""
    return Path(particulars(runtime, created)["cgroup"]["path"])


def says(cgroup: Path, *names: str) -> list[str]:
    return [(cgroup / name).read_text().strip() for name in names]


def test_only_what_is_given(
    runtime: Runtime, cgroup: Path, created: str, tmp_path: Path, leak_check: None
) -> None:
    """From a file, from stdin; created, running, paused; each file keeps what it was not told."""
    file = tmp_path / "resources.json"
    file.write_text(json.dumps({"unified": {DEPTH: "5"}, "memory": None, "pids": {}, "other": 1}))
    result = runtime("update", f"--resources={file}", created).ok()
    assert (result.out, result.err) == ("", "")
    assert says(cgroup, DEPTH, DESCENDANTS) == ["5", "max"]
    runtime.start(created).ok()
    update(runtime, created, {"unified": {DESCENDANTS: "7"}}).ok()
    assert says(cgroup, DEPTH, DESCENDANTS) == ["5", "7"]
    runtime("pause", created).ok()
    update(runtime, created, {"unified": {DEPTH: "6"}}).ok()
    assert says(cgroup, DEPTH, DESCENDANTS) == ["6", "7"]
    assert runtime.status(created) == "paused"
    assert particulars(runtime, created)["updated"] == {"unified": {DEPTH: "6", DESCENDANTS: "7"}}
    runtime.delete(created, force=True).ok()


def test_nothing_given(runtime: Runtime, created: str) -> None:
    """No option, an empty object, and zeros that mean nothing change nothing."""
    runtime("update", created).ok()
    update(runtime, created, {}).ok()
    update(runtime, created, {"memory": {"limit": 0, "swap": 0}, "cpu": {"cpus": ""}}).ok()
    runtime("update", "--cpuset-cpus", "", "--blkio-weight=0", created).ok()
    assert "updated" not in particulars(runtime, created)


def test_half_way(runtime: Runtime, cgroup: Path, created: str) -> None:
    """When one is refused, those before it go back to what they were."""
    update(runtime, created, {"unified": {DEPTH: "5"}}).ok()
    bad = {"unified": {DEPTH: "9", DESCENDANTS: "many"}}
    refused(update(runtime, created, bad), f"/unified/{DESCENDANTS}", "EINVAL", "'many'")
    assert says(cgroup, DEPTH, DESCENDANTS) == ["5", "max"]
    assert particulars(runtime, created)["updated"] == {"unified": {DEPTH: "5"}}


def test_half_way_for_the_lenient(runtime: Runtime, cgroup: Path, created: str) -> None:
    """They get what can be had, and a note of the rest: until an update can set it."""
    bad = {"unified": {DEPTH: "9", DESCENDANTS: "many"}}
    assert update(runtime, created, bad, policy="ignore").ok().err == ""
    assert says(cgroup, DEPTH, DESCENDANTS) == ["9", "max"]
    pointer = f"/linux/resources/unified/{DESCENDANTS}"
    assert notes(runtime, created)[pointer].startswith("not applied: write 'many'")
    assert particulars(runtime, created)["updated"] == {"unified": {DEPTH: "9"}}
    update(runtime, created, {"unified": {DESCENDANTS: "3"}}).ok()
    assert pointer not in notes(runtime, created)


def test_missing_controller(runtime: Runtime, cgroup: Path, created: str) -> None:
    """Named, with the field; nothing else of the same update is done."""
    asked = {"unified": {DEPTH: "5"}, "rdma": {"mlx5_0": {"hcaHandles": 3}}}
    if "rdma" in says(cgroup, "cgroup.controllers")[0]:
        pytest.skip("the rdma controller is delegated here")
    refused(update(runtime, created, asked), "lacks the rdma controller", "/rdma/mlx5_0", "hint: ")
    assert says(cgroup, DEPTH) == ["max"]
    update(runtime, created, asked, policy="warn").ok()
    assert says(cgroup, DEPTH) == ["5"]
    assert "rdma controller" in notes(runtime, created)["/linux/resources/rdma/mlx5_0"]


def test_controller_that_was_not_needed_before(
    v2: Path, runtime: Runtime, cgroup: Path, created: str
) -> None:
    """A controller that the cgroup's parent has is passed on now; its limits are put back too."""
    if "hugetlb" not in (v2 / "cgroup.controllers").read_text().split():
        pytest.skip("no hugetlb controller in this cgroup v2 tree")
    (cgroup.parent / "cgroup.subtree_control").write_text("-hugetlb")
    assert "hugetlb" not in says(cgroup, "cgroup.controllers")[0]
    size = next(Path("/sys/kernel/mm/hugepages").iterdir()).name.split("-")[1].removesuffix("kB")
    name = f"{int(size) // 1024}MB" if int(size) < 1 << 20 else f"{int(size) >> 20}GB"
    limit = int(size) * 1024 * 3
    asked = {"hugepageLimits": [{"pageSize": name, "limit": limit}]}
    update(runtime, created, asked).ok()
    files = [f"hugetlb.{name}.max", f"hugetlb.{name}.rsvd.max"]
    assert says(cgroup, *files) == [str(limit)] * 2
    asked["hugepageLimits"][0]["limit"] = 0
    result = update(runtime, created, {**asked, "unified": {DEPTH: "deep"}})
    refused(result, f"/unified/{DEPTH}")
    assert says(cgroup, *files) == [str(limit)] * 2


def test_no_cgroup(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Says so, with the field and the reason; the lenient are told in the notes."""
    runtime("--cgroup-manager=disabled", "create", "-b", str(make_bundle().path), identifier).ok()
    refused(
        runtime("update", "--pids-limit", "5", "--memory=1g", identifier),
        "memory.max needs a cgroup", identifier, "disabled", "/memory/limit",
    )  # fmt: skip
    runtime("--unsupported=ignore", "update", "--pids-limit", "5", "--memory=1g", identifier).ok()
    assert {"/linux/resources/memory/limit", "/linux/resources/pids/limit"} <= set(
        notes(runtime, identifier)
    )


def test_stopped(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """In the words that callers look for."""
    runtime.run(identifier, make_bundle("true").path, "--keep").ok()
    refused(runtime("update", "--memory", "1g", identifier), "container not running")
    refused(runtime("update", "--memory", "1g", "none-such"), "none-such does not exist")


def ask(**asked: Any) -> PyokiError:
    """The error that comes before the container is even looked for."""
    with pytest.raises(PyokiError) as caught:
        verb.update(verb.Request(id="none-such", root="/none-such", **asked))
    assert not isinstance(caught.value, NotFoundError)
    return caught.value


@pytest.mark.parametrize(
    ("text", "pointer", "words"),
    [
        ("", "", "FILE is not JSON"),
        ("memory: 5", "", "FILE is not JSON"),
        ("{", "", "line 1 column"),
        ("[]", "", "FILE: must be an object, not a list"),
        ('{"pids": {"limit": 1}, "pids": {}}', "", "two members named"),
        ('{"memory": {"limit": "512m"}}', "/memory/limit", "must be a whole number"),
        ('{"memory": {"limit": 1.5}}', "/memory/limit", "must be a whole number"),
        ('{"cpu": {"quota": 5, "burst": 6}}', "/cpu/burst", "more than the quota"),
        ('{"cpu": {"cpus": "one"}}', "/cpu/cpus", "0-3,7"),
        ('{"unified": {"memory.max": 5}}', "/unified/memory.max", "must be a string"),
        ('{"unified": {"../x.y": "5"}}', "/unified/..~1x.y", "name of a file in the cgroup"),
        (
            '{"hugepageLimits": [{"pageSize": "2", "limit": 1}]}',
            "/hugepageLimits/0/pageSize",
            "such as 2MB",
        ),
    ],
)
def test_bad_resources(tmp_path: Path, text: str, pointer: str, words: str) -> None:
    """Each names its field as it stands in the file, or the file."""
    file = tmp_path / "resources.json"
    file.write_text(text)
    error = ask(resources=str(file))
    assert error.pointer == pointer
    assert words.replace("FILE", str(file)) in error.message


def test_bad_input(v2: Path, runtime: Runtime, created: str, tmp_path: Path) -> None:
    """stdin is called so; a file that is not there has its name; what is refused for the container's
    sake names the field just as well.
    """
    gone = ask(resources=f"{tmp_path}/gone")
    assert gone.message == f"read {tmp_path}/gone: no such file or directory (ENOENT)"
    refused(update(runtime, created, "{"), "stdin is not JSON", "line 1 column")
    for given, *words in (
        ({"memory": {"limit": 5, "swap": 4}}, "/memory/swap", "less than the 5"),
        ({"cpu": {"realtimePeriod": 6}}, "/cpu/realtimePeriod", "no counterpart in cgroup v2"),
        ({"blockIO": {"weight": 5}}, "/blockIO/weight", "10 to 1000"),
        ({"unified": {"cgroup.freeze": "1"}}, "/unified/cgroup.freeze", "belongs to"),
    ):
        refused(update(runtime, created, given), *words)


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"blkio_weight": 70000}, "/blockIO/weight"),
        ({"cpuset_cpus": "x"}, "/cpu/cpus"),
        ({"l3_cache_schema": "L3:0=f"}, "/linux/intelRdt/l3CacheSchema"),
        ({"mem_bw_schema": "MB:0=20"}, "/linux/intelRdt/memBwSchema"),
    ],
)
def test_bad_options(asked: dict[str, Any], pointer: str) -> None:
    """Named as in a file."""
    assert ask(**asked).pointer == pointer


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--memory=12x", "--memory takes a size such as 512m or 1.5g, or -1, not '12x'"),
        ("--memory-swap=-2", "--memory-swap takes a size"),
        ("--cpu-period=-1", "--cpu-period takes a number"),
        ("--cpu-quota=1.5", "--cpu-quota takes a whole number"),
        ("--pids-limit=many", "--pids-limit takes a whole number"),
    ],
)
def test_bad_values(option: str, words: str) -> None:
    """What is no size or number is refused by the option's name."""
    with pytest.raises(UsageError, match=words):
        grammar.parse(grammar.VERBS["update"], [option, "x"])


def test_what_old_callers_pass(runtime: Runtime, cgroup: Path, created: str) -> None:
    """Kernel memory is noted; resctrl too where the user is lenient; both stay errors for the strict."""
    line = ["update", "--kernel-memory=5m", "--kernel-memory-tcp=-1"]
    assert runtime(*line, created).ok().err == ""
    told = notes(runtime, created)
    for member in ("kernel", "kernelTCP"):
        assert "no counterpart" in told[f"/linux/resources/memory/{member}"]
    refused(runtime("--unsupported=error", *line, created), "/memory/kernel")
    runtime("--unsupported=warn", "update", "--l3-cache-schema=L3:0=f", created).ok()
    assert "/sys/fs/resctrl" in notes(runtime, created)["/linux/intelRdt/l3CacheSchema"]


def test_other_options_beside_a_file(runtime: Runtime, cgroup: Path, created: str) -> None:
    """As with runc they are not looked at; --debug says so."""
    runtime.options.append("--debug")
    asked = {"unified": {DEPTH: "4"}}
    result = update(runtime, created, asked, "--memory=1g", "--l3-cache-schema=x").ok()
    assert "--resources is given: --memory, --l3-cache-schema not looked at" in result.err
    assert says(cgroup, DEPTH) == ["4"]
