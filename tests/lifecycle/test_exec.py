"""exec: one more process in a living container."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
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


def test_flags_change_a_process_file(
    all_ids: None, runtime: Runtime, running: str, tmp_path: Path
) -> None:
    """Nothing on the command line is passed over because a file is given."""
    script = "id -u; id -g; id -G; pwd; echo $A $B; test -t 0 && echo tty; cat /proc/self/status"
    file = write(
        tmp_path / "p.json",
        args=["sh", "-c", script],
        env=["PATH=/bin", "A=old", "B=kept"],
        user={"uid": 5, "gid": 6, "additionalGids": [7]},
    )
    result = runtime(
        *("exec", "-p", file, "-u", "1000", "-g", "2000", "--cwd", "/tmp", "-e", "A=new"),
        *("--no-new-privs", "-t", "-c", "CAP_SYS_TIME", running),
    )
    lines = result.ok().out.replace("\r", "").splitlines()
    assert lines[:6] == ["1000", "6", "6 7 2000", "/tmp", "new kept", "tty"]
    seen = status("\n".join(lines))
    assert seen["NoNewPrivs"] == "1" and int(seen["CapBnd"], 16) >> 25 & 1


def test_what_a_process_file_leaves_out(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """User, capabilities and limits are then the container's: a process has not more than it."""
    bundle = make_bundle()
    bundle.process["user"]["umask"] = 0o077
    bundle.process["capabilities"] = {
        kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")
    }
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    file = tmp_path / "p.json"
    script = "umask; ulimit -H -c; cat /proc/self/status"
    file.write_text(json.dumps({"args": ["/bin/sh", "-c", script], "cwd": "/"}))
    out = runtime("exec", "-p", str(file), identifier).ok().out
    assert out.split()[:2] == ["0077", "0"]
    assert int(status(out)["CapEff"], 16) == int(status(out)["CapBnd"], 16) == 1 << 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "no such file or directory (ENOENT)"),
        ("", "is not JSON"),
        ("[1]", "must be an object"),
        ('{"args": ["true"]}', "cwd"),
        ('{"args": [], "cwd": "/"}', "/args"),
        ('{"args": ["true"], "cwd": "tmp"}', "/cwd"),
        ('{"args": ["true"], "cwd": "/", "env": 5}', "/env"),
        ('{"args": ["true"], "cwd": "/", "user": {"uid": -1, "gid": 0}}', "/user/uid"),
    ],
)
def test_bad_process_files(
    runtime: Runtime, running: str, tmp_path: Path, text: str | None, words: str
) -> None:
    """One line with the file or the pointer, also where flags come on top; 255."""
    file = tmp_path / "p.json"
    if text is not None:
        file.write_text(text)
    result = runtime("exec", "-p", str(file), "-e", "A=b", running)
    assert result.code == 255 and words in result.err and result.err.count("\n") == 1, str(result)


def test_a_command_and_a_process_file(runtime: Runtime, running: str, tmp_path: Path) -> None:
    """One of them would be passed over, so both together are refused; and none of them, too."""
    file = write(tmp_path / "p.json")
    both = runtime("exec", "-p", file, running, "true")
    assert both.code == 255 and "not both" in both.err
    none = runtime("exec", running)
    assert none.code == 255 and "needs a command" in none.err


def test_environment(runtime: Runtime, running: str) -> None:
    """-e adds to the container's environment; the last word on a name counts, and there is one."""
    result = runtime(
        *("exec", "-e", "TERM=a", "-e", "NEW=1", "-e", "TERM=b", running),
        "env",
    )
    names = [line.partition("=")[0] for line in result.ok().out.splitlines()]
    assert {"TERM=b", "NEW=1", "PATH=/bin"} < set(result.out.splitlines())
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--cwd", "tmp"], "/process/cwd"),
        (["-e", "novalue"], "NAME=value"),
        (["-c", "CAP_NONE"], "CAP_NONE"),
        (["-g", "-1"], "-g"),
        (["-u", "70000"], "not mapped"),
        (["-t", "-d"], "console socket"),
        (["--console-socket", "/no/where"], "console socket"),
        (["--pid-file", "/no/where/pid"], "/no/where/pid"),
        (["--pidfd-socket", "/no/where/s"], "/no/where/s"),
        (["-p", "/no/such/file"], "/no/such/file"),
    ],
)
def test_bad_flags(
    leak_check: None, runtime: Runtime, running: str, flags: list[str], words: str
) -> None:
    """Each is named, nothing runs, 255 (a number that is none: the usage error's 1)."""
    command = [] if flags[0] == "-p" else ["touch", "/tmp/ran"]
    result = runtime("exec", *flags, running, *command)
    assert result.code in (1, 255) and words in result.err, str(result)
    assert runtime.exec(running, "test", "-e", "/tmp/ran").code == 1
    runtime.delete(running, force=True).ok()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("/no/such", "no such file or directory"),
        ("nosuch", "executable file not found in"),
        ("/etc/passwd", "permission denied"),
    ],
)
def test_programs_that_cannot_run(runtime: Runtime, running: str, program: str, words: str) -> None:
    """255, with the words from which podman makes 127 and 126."""
    result = runtime.exec(running, program)
    assert result.code == 255 and words in result.err, str(result)


def test_a_working_directory_that_is_missing(
    runtime: Runtime, bundle: Bundle, running: str
) -> None:
    """It is made, as create makes it; a file in its place is an error."""
    assert runtime("exec", "--cwd", "/tmp/a/b", running, "pwd").ok().out == "/tmp/a/b\n"
    result = runtime("exec", "--cwd", "/etc/passwd", running, "pwd")
    assert result.code == 255 and "ENOTDIR" in result.err


def test_labels(runtime: Runtime, running: str) -> None:
    """What protects is never left out: a label that this machine cannot set is an error."""
    for flag, value in (("--process-label", "a:b:c:s0"), ("--apparmor", "no-such-profile")):
        result = runtime("exec", flag, value, running, "true")
        assert result.code == 255 and flag[2:5] in result.err.lower(), str(result)


def test_a_cgroup_below(v2: Path, runtime: Runtime, running: str) -> None:
    """--cgroup PATH and ctrl:PATH below the container's; without it the container's own."""
    own = cgroup_of(runtime, running)
    (own / "inner").mkdir()
    read = ("cat", "/proc/self/cgroup")
    assert runtime.exec(running, *read).ok().out.strip().endswith("::/")
    for wanted in ("inner", "/inner/", "./inner", "cpu,memory:inner"):
        out = runtime("exec", "--cgroup", wanted, running, *read).ok().out
        assert out.strip().endswith("::/inner"), wanted
    for wanted, words in (
        ("..", "leads out"),
        ("inner/../..", "leads out"),
        ("missing", "no such file or directory"),
        (":inner", "no controller"),
    ):
        result = runtime("exec", "--cgroup", wanted, running, "true")
        assert result.code == 255 and words in result.err, str(result)
    twice = runtime("exec", "--cgroup", "inner", "--cgroup", "cpu:inner", running, "true")
    assert twice.code == 255 and "once" in twice.err


def cgroup_of(runtime: Runtime, id: str) -> Path:
    state = json.loads((runtime.root / id / "state.json").read_text())
    return Path(state["cgroupPath"])


def test_without_a_cgroup(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """There is nothing that --cgroup could be below."""
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    plain.run(identifier, make_bundle().path, "--detach").ok()
    result = plain("exec", "--cgroup", "inner", identifier, "true")
    assert result.code == 255 and "has no cgroup" in result.err


def test_the_pidfd_socket(runtime: Runtime, running: str, tmp_path: Path) -> None:
    """--pidfd-socket gets a pidfd of the process itself."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen(1)
    pid_file = tmp_path / "pid"
    runtime(
        *("exec", "-d", "--pidfd-socket", str(tmp_path / "s"), "--pid-file", str(pid_file)),
        *(running, "sh", "-c", "exit 4"),
    ).ok()
    connection, _ = server.accept()
    with server, connection:
        _, (pidfd,), _, _ = socket.recv_fds(connection, 16, 1)
    ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
    os.close(pidfd)
    assert ended is not None and (ended.si_pid, ended.si_status) == (int(pid_file.read_text()), 4)


def test_into_none(runtime: Runtime) -> None:
    """A container that is not there: 255, and podman's words."""
    result = runtime.exec("nobody", "true")
    assert result.code == 255 and "container nobody does not exist" in result.err


def test_into_one_that_is_being_created(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """A hook of its creation finds it not running."""
    bundle = make_bundle("true")
    command = shlex.join(runtime.argv("exec", identifier, "true"))
    script = f"{command} 2> {tmp_path}/err; echo $? > {tmp_path}/code"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", script]}
    bundle.config["hooks"] = {"createRuntime": [hook]}
    runtime.run(identifier, bundle.write().path).ok()
    assert (tmp_path / "code").read_text() == "255\n"
    assert "container not running: it is creating" in (tmp_path / "err").read_text()


def test_with_a_joined_pid_namespace(
    leak_check: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """A container in another one's user and pid namespace: exec's process is there as well."""
    runtime.run(f"{identifier}a", make_bundle().path, "--detach").ok()
    first = runtime.state(f"{identifier}a")["pid"]
    bundle = make_bundle("sleep", "1001")
    for kind in ("pid", "user"):
        bundle.namespace(kind)["path"] = f"/proc/{first}/ns/{kind}"
    bundle.linux.pop("uidMappings"), bundle.linux.pop("gidMappings")
    runtime.run(f"{identifier}b", bundle.write().path, "--detach").ok()
    seen = runtime.exec(f"{identifier}b", "ps", "-o", "pid,args").ok().out
    assert "sleep 1000" in seen and "sleep 1001" in seen and "ps -o" in seen
    assert runtime.exec(f"{identifier}b", "sh", "-c", "exit 5").code == 5
    for letter in "ba":
        runtime.delete(f"{identifier}{letter}", force=True).ok()


def test_it_runs_no_hooks(
    runtime: Runtime, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """Hooks belong to the container's own life."""
    bundle = make_bundle()
    kinds = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"echo x >> {tmp_path}/log"]}
    bundle.config["hooks"] = {kind: [hook] for kind in kinds}
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    before = (tmp_path / "log").read_text()
    assert runtime.exec(identifier, "true").code == 0
    assert (tmp_path / "log").read_text() == before == "x\n" * 4


def test_ended_while_the_container_is_paused(v2: Path, runtime: Runtime, running: str) -> None:
    """exec --ignore-paused waits for the container; SIGTERM ends the waiting, and its process."""
    runtime("pause", running).ok()
    process = runtime.popen("exec", "--ignore-paused", running, "touch", "/tmp/ran")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.6)
    process.terminate()
    assert process.wait(10) == 128 + signal.SIGTERM
    runtime("resume", running).ok()
    assert runtime.exec(running, "test", "-e", "/tmp/ran").code == 1


@pytest.mark.parametrize("limit", [5, 7, 9, 12])
def test_few_descriptors(runtime: Runtime, running: str, bundle: Bundle, limit: int) -> None:
    """RLIMIT_NOFILE of the caller: it works, or one line says that there are too few."""
    prefix = [needs.require_program("prlimit"), f"--nofile={limit}:"]
    id = f"{running}x"
    for verb in (
        ["exec", running, "true"],
        ["create", "--bundle", str(bundle.path), id],
        ["run", "--bundle", str(bundle.args("true").path), id],
        ["state", running],
        ["list"],
        ["delete", "--force", id],
    ):
        result = runtime(*verb, prefix=prefix)
        assert "Traceback" not in result.err and result.err.count("\n") <= 1, str(result)
        told = "EMFILE" in result.err or "fcntl" in result.err  # a minimum above the limit: EINVAL
        assert result.code == 0 or told, str(result)
    runtime.delete(id, force=True).ok()


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
