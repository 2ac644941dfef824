"""podman and buildah, without root, driving pyoki: the ways in which they really call a runtime."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import leaks, needs
from tests.support.podman import IMAGE, Podman
from tests.support.runtime import Terminal, default_command


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """podman and an image of busybox."""
    for program in ("podman", "conmon", "newuidmap"):
        needs.require_program(program)
    needs.require(needs.pure_v2(), "no delegated, pure cgroup v2 tree (tests/support/v2view)")
    if os.geteuid() != 0:
        needs.require(needs.subordinate_ids(), "this user has no subordinate ids")
    folder = tmp_path_factory.mktemp("p")
    podman = Podman(folder, default_command())
    podman.make_image()
    yield podman
    podman.close()
    shutil.rmtree(folder, ignore_errors=True)


def until(holds: Callable[[], bool], timeout: float = 10) -> None:
    """Call until it is true."""
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def test_it_is_our_runtime(podman: Podman) -> None:
    """podman says which runtime it uses, and asks it for its version."""
    assert podman("info", "-f", "{{.Host.OCIRuntime.Path}}") == str(podman.runtime)


def test_output_and_exit_codes(podman: Podman) -> None:
    """What was printed, how it ended, and the codes for what cannot be run."""
    assert podman.run(IMAGE, "echo", "hello") == "hello"
    podman.run(IMAGE, "sh", "-c", "exit 7", code=7)
    podman.run(IMAGE, "sh", "-c", "sleep 100 & kill -9 $!; wait $!", code=137)
    podman.run(IMAGE, "/no/such", code=127)
    podman.run(IMAGE, "/etc/passwd", code=126)


def test_standard_input(podman: Podman) -> None:
    """A pipe into the container."""
    assert podman.run("-i", IMAGE, "wc", "-c", input="x" * 200_000).strip() == "200000"


def test_terminal(podman: Podman) -> None:
    """-it: a terminal that takes input and Ctrl-C."""
    script = "trap 'echo GOT; exit 9' INT; echo ready; while :; do sleep 0.1; done"
    argv = podman.argv("run", "--rm", "--network", "none", "-it", IMAGE, "sh", "-c", script)
    saved = dict(os.environ)
    os.environ.clear()
    os.environ.update(podman.env)
    try:
        terminal = Terminal(argv)
    finally:
        os.environ.clear()
        os.environ.update(saved)
    terminal.expect("ready", 30)
    terminal.send("\x03")
    terminal.expect("GOT", 20)
    assert terminal.wait(20) == 9


def test_users_and_groups(podman: Podman) -> None:
    """Users by number and group, additional groups, the caller's own groups."""
    assert "uid=1000(user) gid=2000(extra)" in podman.run("-u", "1000:2000", IMAGE, "id")
    assert "2000" in podman.run("--group-add", "2000", IMAGE, "id")
    podman.run("--group-add", "keep-groups", IMAGE, "true")
    if os.geteuid() != 0:
        assert f"uid={os.getuid()}" in podman.run("--userns", "keep-id", IMAGE, "id")


def test_environment_folder_and_names(podman: Podman) -> None:
    """-e, -w, -h, --umask, --ulimit, --oom-score-adj, --sysctl."""
    options = ["-e", "A=b c", "-w", "/var", "-h", "box", "--umask", "0077"]
    options += ["--ulimit", "nofile=100:200", "--oom-score-adj", "500"]
    options += ["--sysctl", "kernel.msgmax=65536"]
    script = "echo $A; pwd; hostname; umask; ulimit -n; ulimit -Hn; cat /proc/self/oom_score_adj"
    found = podman.run(*options, IMAGE, "sh", "-c", f"{script}; cat /proc/sys/kernel/msgmax")
    assert found.split("\n") == ["b c", "/var", "box", "0077", "100", "200", "500", "65536"]


def test_volumes_and_tmpfs(podman: Podman) -> None:
    """Bind mounts with and without writing, files, volumes, tmpfs, shm."""
    folder = podman.folder / "volume"
    folder.mkdir()
    podman.run("-v", f"{folder}:/v", IMAGE, "sh", "-c", "echo z > /v/f")
    assert (folder / "f").read_text() == "z\n"
    podman.run("-v", f"{folder}:/v:ro", IMAGE, "touch", "/v/g", code=1)
    assert podman.run("-v", f"{folder}/f:/etc/one:ro", IMAGE, "cat", "/etc/one") == "z"
    podman.run("-v", "named:/d", IMAGE, "touch", "/d/x")
    assert podman.run("-v", "named:/d", IMAGE, "ls", "/d") == "x"
    assert "/t type tmpfs" in podman.run("--tmpfs", "/t:size=64k", IMAGE, "mount")
    assert "128" in podman.run("--shm-size", "128k", IMAGE, "df", "-k", "/dev/shm")
    podman.run("--read-only", IMAGE, "touch", "/x", code=1)


def test_capabilities_and_seccomp(podman: Podman) -> None:
    """Dropped and added capabilities, no_new_privs, podman's default profile, another one, none."""

    def status(field: str, *options: str) -> str:
        line = podman.run(*options, IMAGE, "grep", f"^{field}:", "/proc/self/status")
        return line.split()[1]

    assert int(status("CapEff", "--cap-drop", "all"), 16) == 0
    assert int(status("CapEff", "--cap-drop", "all", "--cap-add", "chown"), 16) == 1
    assert int(status("CapEff", "-u", "1000"), 16) == 0
    assert status("NoNewPrivs", "--security-opt", "no-new-privileges") == "1"
    assert status("Seccomp") == "2"
    assert status("Seccomp", "--security-opt", "seccomp=unconfined") == "0"
    assert status("Seccomp", "--privileged") == "0"
    profile = podman.folder / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    podman.run("--security-opt", f"seccomp={profile}", IMAGE, "mkdir", "/tmp/x", code=1)


def test_namespaces(podman: Podman) -> None:
    """Shared with the host, with another container, none; the cgroup namespace."""
    podman.start("first", IMAGE, "sleep", "1000")
    link = ["readlink", "/proc/self/ns/net"]
    own = podman("exec", "first", *link)
    joined = podman("run", "--rm", "--network", "container:first", IMAGE, *link)
    assert joined == own
    assert "1000" in podman(
        "run", "--rm", "--network", "none", "--pid", "container:first", IMAGE, "ps"
    )
    podman("rm", "-f", "-t", "0", "first")
    assert podman.run("--uts", "host", IMAGE, "hostname") == os.uname().nodename
    shared = podman("run", "--rm", "--network", "host", IMAGE, *link)
    assert shared == os.readlink("/proc/self/ns/net")
    assert podman.run(IMAGE, "grep", "^0:", "/proc/self/cgroup") == "0::/"
    podman.run("--cgroups=disabled", IMAGE, "true")
    podman.run("--pid", "host", IMAGE, "ps")


def test_network_by_slirp(podman: Podman) -> None:
    """The runtime joins a namespace that another program has set up."""
    needs.require_program("slirp4netns")
    found = podman("run", "--rm", "--network", "slirp4netns", IMAGE, "ip", "addr")
    assert "10.0.2.100" in found


def test_preserved_descriptors(podman: Podman) -> None:
    """--preserve-fds 1 hands over descriptor 3."""
    argv = podman.argv("run", "--rm", "--network", "none", "--preserve-fds", "1", IMAGE)
    command = " ".join(argv) + " sh -c 'cat <&3' 3<<<three"
    answer = subprocess.run(
        ["bash", "-c", command], env=podman.env, capture_output=True, text=True, timeout=60
    )
    assert answer.stdout == "three\n", answer


def test_hooks(podman: Podman) -> None:
    """A prestart hook from --hooks-dir reads the state from its standard input."""
    folder = podman.folder / "hooks"
    folder.mkdir()
    out = folder / "out"
    hook = folder / "hook.sh"
    hook.write_text(f"#!/bin/sh\ncat > {out}\n")
    hook.chmod(0o755)
    entry = {"version": "1.0.0", "hook": {"path": str(hook)}, "when": {"always": True}}
    (folder / "hook.json").write_text(json.dumps({**entry, "stages": ["prestart"]}))
    podman("--hooks-dir", str(folder), "run", "--rm", "--network", "none", IMAGE, "true")
    state = json.loads(out.read_text())
    assert state["pid"] > 0 and state["id"] and state["bundle"]


def test_init_and_privileged(podman: Podman) -> None:
    """--init puts catatonit first; --privileged gives what there is."""
    if shutil.which("catatonit", path="/usr/libexec/podman:/usr/bin:/usr/local/bin"):
        assert "init" in podman.run("--init", IMAGE, "ps")
    podman.run("--privileged", IMAGE, "true")


def test_a_detached_life(podman: Podman) -> None:
    """run -d, logs, exec in all its forms, pause, unpause, kill, stop, start, restart, rm."""
    script = "trap 'echo bye; exit 0' TERM; trap 'echo usr1' USR1; echo up; "
    podman.start("life", IMAGE, "sh", "-c", script + "while :; do sleep 0.1; done")
    until(lambda: "up" in podman("logs", "life"))
    assert podman.status("life") == "running"
    assert podman("exec", "life", "echo", "hi") == "hi"
    podman("exec", "life", "sh", "-c", "exit 5", code=5)
    podman("exec", "life", "/no/such", code=127)
    assert podman("exec", "-i", "life", "cat", input="zz") == "zz"
    found = podman(
        "exec",
        "-u",
        "1000",
        "-w",
        "/var",
        "-e",
        "Q=w",
        "life",
        "sh",
        "-c",
        "echo $(id -u) $(pwd) $Q",
    )
    assert found == "1000 /var w"
    podman("exec", "-d", "life", "touch", "/tmp/done")
    until(lambda: "done" in podman("exec", "life", "ls", "/tmp"))
    assert "sh" in podman("top", "life", "pid", "comm")
    assert "life" in podman("stats", "--no-stream", "life")
    podman("pause", "life")
    assert podman.status("life") == "paused"
    podman("unpause", "life")
    assert podman.status("life") == "running"
    podman("kill", "-s", "USR1", "life")
    until(lambda: "usr1" in podman("logs", "life"))
    podman("stop", "-t", "5", "life")
    assert podman.status("life") == "exited" and "bye" in podman("logs", "life")
    podman("start", "life")
    podman("restart", "-t", "1", "life")
    assert podman.status("life") == "running"
    podman("rm", "-f", "-t", "0", "life")
    podman("container", "exists", "life", code=1)


def test_create_then_start(podman: Podman) -> None:
    """create, init, start, and rm of what was only created."""
    podman("create", "--name", "c1", "--network", "none", IMAGE, "echo", "started")
    assert podman("start", "-a", "c1") == "started"
    podman("rm", "c1")
    podman("create", "--name", "c2", "--network", "none", IMAGE, "sleep", "100")
    podman("init", "c2")
    assert podman.status("c2") == "initialized"
    podman("start", "c2")
    assert podman.status("c2") == "running"
    podman("rm", "-f", "-t", "0", "c2")
    podman("create", "--name", "c3", "--network", "none", IMAGE, "sleep", "100")
    podman("init", "c3")
    podman("rm", "-f", "c3")


def test_many_at_once(podman: Podman) -> None:
    """Six side by side."""
    started = [
        subprocess.Popen(
            podman.argv(
                "run", "-d", "--name", f"m{n}", "--network", "none", IMAGE, "sleep", "1000"
            ),
            env=podman.env,
            stdout=subprocess.DEVNULL,
        )
        for n in range(6)
    ]
    assert [process.wait(120) for process in started] == [0] * 6
    assert len(podman("ps", "-q").split()) == 6
    podman("rm", "-f", "-t", "0", "-a")


def test_pods(podman: Podman) -> None:
    """Containers that share namespaces; pause, stop and start of them all."""
    podman("pod", "create", "--name", "pod", "--infra=false")
    podman("run", "--rm", "--pod", "pod", "--network", "none", IMAGE, "true")
    podman("run", "-d", "--pod", "pod", "--name", "pa", "--network", "none", IMAGE, "sleep", "1000")
    podman("pod", "pause", "pod")
    assert podman.status("pa") == "paused"
    podman("pod", "unpause", "pod")
    podman("pod", "stop", "-t", "0", "pod")
    podman("pod", "rm", "-f", "-t", "0", "pod")


def test_build(podman: Podman) -> None:
    """podman build and buildah run, with OCI isolation."""
    folder = podman.folder / "build"
    folder.mkdir()
    (folder / "Containerfile").write_text(
        f"FROM {IMAGE}\nRUN echo built > /built\nRUN --mount=type=tmpfs,target=/tt touch /tt/x\n"
        'USER 1000\nRUN id -u > /tmp/who\nCMD ["cat", "/built"]\n'
    )
    common = ["--isolation", "oci", "--network", "none"]
    podman("build", *common, "-t", "localhost/built:1", str(folder), timeout=180)
    assert podman.run("localhost/built:1") == "built"
    buildah = shutil.which("buildah")
    if buildah is None:
        pytest.skip("buildah is not installed; podman build has passed")

    def run(*args: str) -> str:
        answer = subprocess.run(
            [buildah, *args], env=podman.env, capture_output=True, text=True, timeout=120
        )
        assert answer.returncode == 0, answer
        return answer.stdout.strip()

    working = run("from", IMAGE)
    options = ["--runtime", str(podman.runtime), *common]
    assert run("run", *options, working, "echo", "br") == "br"
    run("rm", working)


def test_nothing_is_left(podman: Podman) -> None:
    """When every container has gone, so have state, processes and cgroups of the runtime."""
    podman("rm", "-f", "-t", "0", "-a")
    states = list(Path(podman.env["XDG_RUNTIME_DIR"]).glob("pyoki/*"))
    assert states == []
    leaks.reap()
    assert [line for line in leaks.processes() if "sleep" in line or "(pyoki" in line] == []
