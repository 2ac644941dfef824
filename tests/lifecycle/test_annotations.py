"""Annotations that ask the runtime for something: applied, told, or refused (plan/annotations.py)."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.plan import annotations
from rootless_pyoki.plan.make import RUNTIME_ANNOTATIONS
from rootless_pyoki.plan.process import KEEP_GROUPS, keeps_groups
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


def shell(script: str) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script]}


def test_each_is_known_by_its_beginning() -> None:
    """make loads the table for every annotation that stands in it, and each stands there once."""
    names = list(annotations.APPLIED)
    for table in (annotations.PASSED_OVER, annotations.REFUSED, annotations.PROTECTS):
        names += [name for name, _ in table]
    assert all(name.startswith(RUNTIME_ANNOTATIONS) for name in (*names, *annotations.UNSAFE))
    assert len(set(names)) == len(names)


def test_kept_groups() -> None:
    """run.oci.keep_original_groups: any value but 0 asks for it."""
    asked = [keeps_groups({KEEP_GROUPS: value}) for value in ("1", "true", "0", "")]
    assert asked == [True, True, False, False] and not keeps_groups({})


PASSED_OVER = {
    "run.oci.systemd.subgroup": "inner",
    "org.systemd.property.KillSignal": "10",
    "org.criu.config": "/etc/criu.conf",
    "krun.cpus": "2",
    "module.wasm.image/variant": "compat",
    "run.oci.mount_context_type": "fscontext",
    "run.oci.who/knows~it": "1",
}


def test_passed_over(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """What has no meaning here is told with its pointer and the reason; --unsupported=error refuses."""
    bundle = make_bundle()
    bundle.config["annotations"] = {**PASSED_OVER, "org.example": "x", "krun.empty": ""}
    runtime.options = ["--cgroup-manager", "disabled"]  # systemd would have use for two of them
    runtime.create(identifier, bundle.write().path).ok()
    notes = json.loads(runtime("state", "--verbose", identifier).ok().out)["pyoki"]["notes"]
    told = {note["pointer"]: note["text"] for note in notes if "annotations" in note["pointer"]}
    pointers = [key.replace("~", "~0").replace("/", "~1") for key in PASSED_OVER]
    assert sorted(told) == sorted(f"/annotations/{pointer}" for pointer in pointers)
    assert all(text.startswith("not applied: ") for text in told.values())
    runtime.options += ["--unsupported", "error"]
    for key, value in PASSED_OVER.items():
        bundle.config["annotations"] = {key: value}
        result = runtime.create(f"{identifier}x", bundle.write().path)
        assert result.code == 1 and "/annotations/" in result.err, str(result)


@pytest.mark.parametrize(
    ("key", "value", "lenient"),
    [
        ("run.oci.handler", "krun", True),
        ("run.oci.systemd.force_cgroup_v1", "/sys/fs/cgroup/systemd", True),
        ("run.oci.seccomp.plugins", "/usr/lib/p.so", False),
        ("run.oci.delegate-cgroup", "../x", False),
        ("run.oci.seccomp_bpf_data", "no base64!", False),
        ("run.oci.seccomp_bpf_data", "AAAA", False),
    ],
)
def test_refused(
    leak_check: None,
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    key: str,
    value: str,
    lenient: bool,
) -> None:
    """An error with the pointer; what protects, and nonsense, stays one whatever the user chose."""
    bundle = make_bundle("true")
    bundle.config["annotations"] = {key: value}
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and f"/annotations/{key}" in result.err, str(result)
    runtime.options = ["--unsupported", "ignore"]
    assert (runtime.run(identifier, bundle.path).code == 0) == lenient


def test_output_of_hooks(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """run.oci.hooks.stdout and .stderr: appended to, made where missing, relative to the bundle."""
    bundle = make_bundle("true")
    out, err = tmp_path / "out", bundle.path / "err"
    out.write_text("before\n")
    bundle.config["annotations"] = {
        "run.oci.hooks.stdout": str(out),
        "run.oci.hooks.stderr": "err",
    }
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    bundle.config["hooks"] = {kind: [shell(f"echo {kind}; echo {kind}2 >&2")] for kind in kinds}
    bundle.config["hooks"]["startContainer"] = [shell("echo inside")]
    result = runtime.run(identifier, bundle.write().path).ok()
    assert out.read_text().split() == ["before", *kinds]
    assert err.read_text().split() == [f"{kind}2" for kind in kinds]
    assert err.stat().st_mode & 0o777 == 0o600
    assert result.out == "inside\n"  # and a note says so
    runtime.options = ["--log-level", "debug"]
    told = runtime.create(identifier, bundle.path).ok().err
    assert "startContainer hooks run inside" in told
    runtime.delete(identifier, force=True).ok()


def test_output_of_hooks_that_cannot_be(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """A file that cannot be opened is an error, before the first hook."""
    for kind in ("createRuntime", "createContainer"):
        bundle = make_bundle("true")
        bundle.config["annotations"] = {"run.oci.hooks.stderr": "/no/where"}
        bundle.config["hooks"] = {kind: [shell("true")]}
        result = runtime.run(identifier, bundle.write().path)
        assert result.code == 1 and "/annotations/run.oci.hooks.stderr" in result.err, str(result)


def test_the_pidfd_receiver(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """run.oci.pidfd_receiver gets a pidfd of the container's first process."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen(1)
    bundle = make_bundle()
    bundle.config["annotations"] = {"run.oci.pidfd_receiver": str(tmp_path / "s")}
    runtime.create(identifier, bundle.write().path).ok()
    connection, _ = server.accept()
    with server, connection:
        _, (pidfd,), _, _ = socket.recv_fds(connection, 16, 1)
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    os.close(pidfd)
    pid = next(line.split()[1] for line in lines if line.startswith("Pid:"))
    assert int(pid) == runtime.state(identifier)["pid"]


def test_a_pidfd_receiver_that_is_not_there(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """The error names what was to be reached, and the annotation."""
    bundle = make_bundle()
    bundle.config["annotations"] = {"run.oci.pidfd_receiver": str(tmp_path / "nobody")}
    result = runtime.create(identifier, bundle.write().path)
    told = result.err
    assert (
        result.code == 1
        and "connect to pidfd socket" in told
        and "/annotations/run.oci.pidfd_receiver" in told
    )


def test_a_delegated_cgroup(
    leak_check: None, v2: Path, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The program lives below its cgroup's root, in a cgroup in which a manager can work; exec too."""
    script = (
        "grep ^0: /proc/self/cgroup; cd /sys/fs/cgroup/a/b; stat -c %u . cgroup.procs;"
        " mkdir manager && echo 1 > manager/cgroup.procs && grep ^0: /proc/self/cgroup; sleep 1000"
    )
    bundle = make_bundle("sh", "-c", script)
    for mount in bundle.config["mounts"]:
        if mount["type"] == "cgroup":
            mount["options"].remove("ro")
    bundle.config["annotations"] = {"run.oci.delegate-cgroup": "/a/b/"}
    process = runtime.popen(
        "run", "--bundle", str(bundle.write().path), identifier, stdout=-1, text=True
    )
    assert process.stdout is not None
    lines = [process.stdout.readline().strip() for _ in range(4)]
    assert lines[0].endswith("::/a/b") and lines[1:3] == ["0", "0"]
    assert lines[3].endswith("::/a/b/manager")
    state = json.loads((runtime.root / identifier / "state.json").read_text())
    own = Path(state["cgroupPath"])
    assert (own / "cgroup.procs").read_text() == ""
    inside = (own / "a/b/cgroup.controllers").read_text().split()
    assert inside == (own / "cgroup.controllers").read_text().split()
    seen = runtime.exec(identifier, "cat", "/proc/self/cgroup").ok().out
    assert seen.strip().endswith("::/a/b")
    runtime("pause", identifier).ok()
    runtime("resume", identifier).ok()
    runtime.kill(identifier, "KILL").ok()
    assert process.wait(10) == 137
    process.stdout.close()


def test_no_cgroup_to_delegate(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """An error where the container has none, or a note for who is lenient."""
    bundle = make_bundle("true")
    bundle.config["annotations"] = {"run.oci.delegate-cgroup": "a"}
    runtime.options = ["--cgroup-manager", "disabled"]
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and "/annotations/run.oci.delegate-cgroup" in result.err
    runtime.options += ["--unsupported", "warn", "--log-level", "warning"]
    result = runtime.run(identifier, bundle.path).ok()
    assert "delegate-cgroup" in result.err


def test_an_unknown_system_call(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Passed over with a note; an error with run.oci.seccomp_fail_unknown_syscall, unless it is 0."""
    bundle = make_bundle("true")
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["frobnicate"], "action": "SCMP_ACT_ERRNO"}],
    }
    for value, code in (("0", 0), ("1", 1)):
        bundle.config["annotations"] = {"run.oci.seccomp_fail_unknown_syscall": value}
        result = runtime.run(identifier, bundle.write().path)
        assert result.code == code and ("frobnicate" in result.err) == bool(code), str(result)


def test_a_ready_filter(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """run.oci.seccomp_bpf_data stands for /linux/seccomp, for the program and for exec's."""
    needs.require(os.uname().machine == "x86_64", "the filter is written for x86_64")
    mkdir, eperm = 83, 0x50001
    program = [
        (0x20, 0, 0, 0),  # the number of the call
        (0x15, 0, 1, mkdir),
        (0x06, 0, 0, eperm),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    data = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    bundle = make_bundle()
    bundle.config["annotations"] = {"run.oci.seccomp_bpf_data": base64.b64encode(data).decode()}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_KILL_PROCESS"}
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    result = runtime.exec(identifier, "mkdir", "/tmp/d")
    assert result.code == 1 and "not permitted" in result.err
    assert runtime.exec(identifier, "touch", "/tmp/f").code == 0
