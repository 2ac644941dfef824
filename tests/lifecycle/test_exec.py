"""exec: one more process in a living container."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import leaks, needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


@pytest.fixture
def bundle(make_bundle: Make) -> Bundle:
    return make_bundle()


@pytest.fixture
def running(runtime: Runtime, bundle: Bundle, identifier: str) -> Iterator[str]:
    runtime.run(identifier, bundle.path, "--detach").ok()
    yield identifier
    runtime.delete(identifier, force=True)


def status(text: str) -> dict[str, str]:
    return {n: v.strip() for n, _, v in (line.partition(":") for line in text.splitlines())}


def write(path: Path, **process: Any) -> str:
    base = {"args": ["true"], "cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"]}
    path.write_text(json.dumps({**base, **process}))
    return str(path)


def test_same_namespaces(runtime: Runtime, running: str) -> None:
    """The process is where the first one is, in every namespace, and has its limits of sight."""
    links = "for n in /proc/PID/ns/*; do case $n in *_for_*) ;; *) readlink $n;; esac; done"
    ours = runtime.exec(running, "sh", "-c", links.replace("PID", "self")).ok().out
    theirs = runtime.exec(running, "sh", "-c", links.replace("PID", "1")).ok().out
    assert ours == theirs and len(ours.split()) >= 7
    listed = runtime.exec(running, "ps", "-o", "pid,args").ok().out
    assert "pyoki" not in listed and "python" not in listed
    assert "sleep 1000" in listed


def test_user_groups_and_cwd(all_ids: None, runtime: Runtime, running: str) -> None:
    """--user UID:GID, --additional-gids, --cwd, HOME of that user."""
    result = runtime(
        *("exec", "--user", "1000:1001", "-g", "2000", "--cwd", "/tmp", running),
        *("sh", "-c", "id -u; id -g; grep Groups /proc/self/status; pwd; echo $HOME"),
    )
    assert result.ok().out.split() == ["1000", "1001", "Groups:", "2000", "/tmp", "/home/user"]


@pytest.mark.parametrize(
    "user", ["abc", "1:b", "-1", "", "4294967296", "1000:", "1:2:3", "+1", "1 "]
)
def test_bad_users(runtime: Runtime, running: str, user: str) -> None:
    """A user is UID or UID:GID in plain decimal (CVE-2026-30892)."""
    result = runtime("exec", "--user", user, running, "id")
    assert result.code in (1, 255) and result.out == "" and "--user" in result.err, str(result)


def test_capabilities(runtime: Runtime, running: str) -> None:
    """--cap adds to bounding, effective and permitted; inheritable stays empty (CVE-2022-29162)."""
    result = runtime(
        "exec", "--cap", "CAP_SYS_TIME", "--cap", "sys_nice", running, "cat", "/proc/self/status"
    )
    seen = status(result.ok().out)
    for kind in ("CapBnd", "CapEff", "CapPrm"):
        assert int(seen[kind], 16) >> 25 & 1 and int(seen[kind], 16) >> 23 & 1, kind
    assert int(seen["CapInh"], 16) == 0 and int(seen["CapAmb"], 16) == 0
    plain = status(runtime.exec(running, "cat", "/proc/self/status").ok().out)
    first = status(runtime.exec(running, "cat", "/proc/1/status").ok().out)
    assert {k: v for k, v in plain.items() if k.startswith("Cap")} == {
        k: v for k, v in first.items() if k.startswith("Cap")
    }


def test_signals_and_descriptors(runtime: Runtime, running: str) -> None:
    """Nothing blocked, ignored or open that is not the program's."""
    seen = status(
        runtime.exec(
            running,
            "cat",
            "/proc/self/status",
            preexec=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        ).out
    )
    assert [seen[name] for name in ("SigBlk", "SigIgn", "SigCgt")] == ["0" * 16] * 3
    assert runtime.exec(running, "ls", "/proc/self/fd").out.split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_exit_codes(runtime: Runtime, running: str, script: str, code: int) -> None:
    """The program's, 128+N for a signal."""
    assert runtime.exec(running, "sh", "-c", script).code == code


def test_a_process_file(all_ids: None, runtime: Runtime, running: str, tmp_path: Path) -> None:
    """Everything that a process object says holds for this process alone."""
    file = write(
        tmp_path / "p.json",
        args=["sh", "-c", "cat /proc/self/status; ulimit -n; umask; pwd"],
        user={"uid": 1000, "gid": 1000, "additionalGids": [2000], "umask": 0o007},
        capabilities={
            k: ["CAP_KILL"]
            for k in ("bounding", "permitted", "effective", "inheritable", "ambient")
        },
        rlimits=[{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 60}],
        cwd="/tmp",
        noNewPrivileges=True,
        oomScoreAdj=1000,
    )
    out = runtime("exec", "-p", file, running).ok().out
    seen = status(out)
    assert out.split()[-3:] == ["50", "0007", "/tmp"]
    assert seen["NoNewPrivs"] == "1" and seen["Groups"].split() == ["2000"]
    assert seen["CapEff"] == seen["CapAmb"] == f"{1 << 5:016x}"


def test_detached(runtime: Runtime, running: str, tmp_path: Path) -> None:
    """-d with --pid-file: the pid is our child's, and we can wait for it."""
    pid_file = tmp_path / "pid"
    result = runtime("exec", "-d", "--pid-file", str(pid_file), running, "sh", "-c", "exit 9")
    assert (result.code, result.err) == (0, "")
    text = pid_file.read_text()
    assert text.isdecimal()
    _, ended = os.waitpid(int(text), 0)
    assert os.waitstatus_to_exitcode(ended) == 9


def test_into_a_created_container(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """It has namespaces and a first process: that is enough."""
    runtime.create(identifier, bundle.path).ok()
    assert runtime.exec(identifier, "echo", "in").ok().out == "in\n"
    assert runtime.status(identifier) == "created"
    runtime.start(identifier).ok()


def test_into_a_stopped_container(runtime: Runtime, running: str) -> None:
    """The words that callers look for."""
    runtime.kill(running, "KILL").ok()
    runtime.wait_status(running, "stopped")
    result = runtime.exec(running, "true")
    assert result.code == 255 and "container not running" in result.err


def test_into_a_paused_container(v2: Path, runtime: Runtime, running: str) -> None:
    """Refused, but for --ignore-paused: that one runs as soon as the container does."""
    runtime("pause", running).ok()
    assert runtime.exec(running, "true").code == 255
    process = runtime.popen(
        "exec", "--ignore-paused", running, "echo", "late", stdout=subprocess.PIPE
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.6)
    runtime("resume", running).ok()
    assert process.communicate(timeout=10)[0] == b"late\n"


def test_many(leak_check: None, runtime: Runtime, running: str) -> None:
    """Twenty side by side; nothing of them is left."""
    before = leaks.processes()
    started = [
        runtime.popen("exec", running, "sh", "-c", f"echo {n}; exit {n}", stdout=subprocess.PIPE)
        for n in range(20)
    ]
    assert [p.communicate(timeout=60)[0] for p in started] == [f"{n}\n".encode() for n in range(20)]
    assert [p.returncode for p in started] == list(range(20))
    leaks.reap()
    assert leaks.processes() == before
    runtime.delete(running, force=True).ok()


def test_with_a_shared_pid_namespace(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Where the container has the host's pids."""
    bundle = make_bundle().without_namespace("pid")
    for mount in bundle.config["mounts"]:
        if mount["type"] == "proc":
            mount.update(type="bind", source="/proc", options=["rbind"])
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    result = runtime.exec(identifier, "sh", "-c", "echo $$; hostname; exit 3")
    assert result.code == 3 and result.out.split()[1] == "pyoki-test"
    assert int(result.out.split()[0]) > 2
    runtime.delete(identifier, force=True).ok()


def test_preserved_descriptors(runtime: Runtime, running: str, tmp_path: Path) -> None:
    """--preserve-fds; a hole among them is an error."""
    (tmp_path / "f").write_text("kept\n")
    fd = os.open(tmp_path / "f", os.O_RDONLY)
    try:

        def arrange() -> None:
            os.dup2(fd, 3)

        result = runtime(
            *("exec", "--preserve-fds", "1", running, "sh", "-c", "cat <&3"),
            preexec=arrange,
            pass_fds=(3,),
        )
        assert result.ok().out == "kept\n"
        hole = runtime("exec", "--preserve-fds", "9", running, "true")
        assert hole.code == 255 and "EBADF" in hole.err
    finally:
        os.close(fd)


def test_through_a_terminal_of_the_container(all_ids: None, runtime: Runtime, running: str) -> None:
    """stdin of exec reaches the program to its end."""
    result = runtime.exec(running, "wc", "-c", input="x" * 200_000)
    assert result.ok().out.strip() == "200000"


def test_seen_from_inside(runtime: Runtime, running: str) -> None:
    """While exec's process comes, the container never sees a Python or a host's file."""
    script = (
        "i=0; while [ $i -lt 300 ]; do i=$((i+1)); for p in /proc/[0-9]*; do"
        " readlink $p/exe; cat $p/comm; done; done 2>/dev/null | sort | uniq -c"
    )
    watcher = runtime.popen("exec", running, "sh", "-c", script, stdout=subprocess.PIPE)
    for _ in range(6):
        runtime.exec(running, "true").ok()
    seen = watcher.communicate(timeout=60)[0].decode()
    assert "python" not in seen and "/usr" not in seen, seen


def test_in_a_user_namespace_of_podmans(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Caller is root of a user namespace (podman unshare): maps are written by hand, exec enters."""
    needs.require_program("podman")
    if os.geteuid() == 0:
        pytest.skip("podman unshare is for other users than root")
    bundle = make_bundle("sleep", "1000")
    for kind in ("uid", "gid"):
        bundle.linux[f"{kind}Mappings"] = [{"containerID": 0, "hostID": 0, "size": 1000}]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    bundle.write()
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    script = (
        'set -e; "$@" run -d --bundle BUNDLE ID; "$@" exec --user 5:6 ID id -u;'
        ' "$@" exec ID cat /proc/self/uid_map; "$@" delete --force ID'
    )
    script = script.replace("BUNDLE", str(bundle.path)).replace("ID", identifier)
    answer = subprocess.run(
        ["podman", "unshare", "sh", "-c", script, "sh", *plain.argv()],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert answer.returncode == 0, answer
    uid, *ranges = answer.stdout.split()
    assert uid == "5"
    assert sum(int(size) for size in ranges[2::3]) == 1000


@pytest.mark.root
def test_as_real_root(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Root of the machine, without and with a user namespace."""
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    for number, kinds in enumerate((("cgroup", "user"), ("cgroup",))):
        id = f"{identifier}-{number}"
        bundle = make_bundle().without_namespace(*kinds)
        if "user" in kinds:
            bundle.linux.pop("uidMappings")
            bundle.linux.pop("gidMappings")
        bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
        plain.run(id, bundle.write().path, "--detach").ok()
        result = plain("exec", "--user", "7:8", id, "sh", "-c", "id -u; id -g; hostname")
        assert result.ok().out.split() == ["7", "8", "pyoki-test"]
        plain.delete(id, force=True).ok()
