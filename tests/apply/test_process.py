"""What config.json says of the process, as the process itself sees it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.bundles import Bundle
from tests.support.runtime import Result, Runtime

Make = Callable[..., Bundle]


def status(text: str) -> dict[str, str]:
    """proc_pid_status(5)."""
    return {
        name: value.strip()
        for name, _, value in (line.partition(":") for line in text.splitlines())
    }


def refused(result: Result, *words: str) -> None:
    assert result.code == 1, str(result)
    for word in words:
        assert word in result.err, str(result)


def test_arguments_and_environment(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """args, argv[0] included, and env arrive byte for byte; HOME comes from the image."""
    bundle = make_bundle(
        "sh",
        "-c",
        "tr '\\0' '\\n' </proc/self/environ; tr '\\0' '|' </proc/$$/cmdline; :",
        "a b",
        "",
        "ü",
    )
    bundle.process["env"] = ["PATH=/bin", "EMPTY=", "EQUALS=a=b", "UMLAUT=ü"]
    out = runtime.run(identifier, bundle.write().path).ok().out
    *env, args = out.split("\n")
    # the shell adds some of its own
    for entry in ("PATH=/bin", "EMPTY=", "EQUALS=a=b", "UMLAUT=ü", "HOME=/root"):
        assert entry in env, env
    assert args.endswith("|a b||ü|") and args.startswith("sh|-c|")


@pytest.mark.parametrize(
    ("passwd", "env", "home"),
    [
        ("u:x:0:0:u:/the/home:/bin/sh\n", [], "/the/home"),
        ("u:x:0:0:u:/the/home:/bin/sh\n", ["HOME=/mine"], "/mine"),
        ("u:x:0:0:u:/the/home:/bin/sh\n", ["HOME="], "/the/home"),
        ("other:x:7:7::/x:\nbroken\n", [], "/"),
        (None, [], "/"),
    ],
)
def test_home(
    runtime: Runtime,
    make_bundle: Make,
    identifier: str,
    passwd: str | None,
    env: list[str],
    home: str,
) -> None:
    """From env, else from the image's /etc/passwd by uid, else /."""
    bundle = make_bundle("sh", "-c", "echo $HOME")
    (bundle.rootfs / "etc/passwd").unlink()
    if passwd is not None:
        (bundle.rootfs / "etc/passwd").write_text(passwd)
    bundle.process["env"] += env
    assert runtime.run(identifier, bundle.write().path).ok().out == f"{home}\n"


def test_home_when_passwd_is_a_trap(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A fifo in its place does not hang us; a link out of the root reads the image's own file."""
    bundle = make_bundle("sh", "-c", "echo $HOME")
    passwd = bundle.rootfs / "etc/passwd"
    passwd.unlink()
    os.mkfifo(passwd)
    assert runtime.run(identifier, bundle.path, timeout=10).ok().out == "/\n"
    passwd.unlink()
    passwd.symlink_to("/../../../../etc/shadow-of-the-image")
    (bundle.rootfs / "etc/shadow-of-the-image").write_text("u:x:0:0:u:/inside:/bin/sh\n")
    assert runtime.run(f"{identifier}b", bundle.path).ok().out == "/inside\n"


def test_cwd_is_made(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A missing working directory appears, as with runc and crun."""
    bundle = make_bundle("sh", "-c", "pwd; ls -ld . | cut -c1-10")
    bundle.process["cwd"] = "/not/there/yet"
    assert runtime.run(identifier, bundle.write().path).ok().out.split() == [
        "/not/there/yet",
        "drwxr-xr-x",
    ]
    assert (bundle.rootfs / "not/there/yet").is_dir()


def test_cwd_is_a_file(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """An error that names the field."""
    bundle = make_bundle("true")
    bundle.process["cwd"] = "/etc/passwd"
    refused(runtime.run(identifier, bundle.write().path), "ENOTDIR", "/process/cwd")


@pytest.mark.parametrize("target", ["/proc/self/fd/7", "/proc/self/fd/7/../..", "/proc/1/cwd"])
def test_cwd_does_not_lead_out(
    runtime: Runtime, make_bundle: Make, identifier: str, target: str
) -> None:
    """CVE-2024-21626: links of /proc that are no paths are refused, directly or behind a link."""
    bundle = make_bundle("sh", "-c", "pwd; ls ..")
    bundle.process["cwd"] = target
    for fd in range(3, 20):
        bundle.process["cwd"] = target.replace("7", str(fd))
        if fd in (3, 8, 12):
            refused(runtime.run(f"{identifier}-{fd}", bundle.write().path), "/process/cwd")
    (bundle.rootfs / "link").symlink_to(target)
    bundle.process["cwd"] = "/link"
    refused(runtime.run(identifier, bundle.write().path), "/process/cwd")


def test_cwd_of_the_user_only(
    all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """A directory that root of the container may not enter (no DAC_OVERRIDE over it) but its user may."""
    bundle = make_bundle("sh", "-c", "pwd; id -u")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["cwd"] = "/private/inner"
    bundle.config["mounts"].append(
        {
            "destination": "/private",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["mode=700", "uid=1000", "gid=1000"],
        }
    )
    assert runtime.run(identifier, bundle.write().path).ok().out.split() == [
        "/private/inner",
        "1000",
    ]


def test_ids(all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """uid, gid, exactly the additional groups, and the umask."""
    bundle = make_bundle("sh", "-c", "cat /proc/self/status; umask")
    bundle.process["user"] = {
        "uid": 1000,
        "gid": 1001,
        "additionalGids": [2000, 3000, 2000],
        "umask": 0o027,
    }
    out = runtime.run(identifier, bundle.write().path).ok().out
    seen = status(out)
    assert seen["Uid"].split() == ["1000"] * 4 and seen["Gid"].split() == ["1001"] * 4
    assert set(seen["Groups"].split()) == {"2000", "3000"}
    assert out.splitlines()[-1] == "0027"


def test_no_additional_groups(
    all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The caller's own never show; the umask is 022 whatever the caller's is."""
    bundle = make_bundle("sh", "-c", "grep Groups /proc/self/status; umask")
    result = runtime.run(identifier, bundle.path, preexec=lambda: os.umask(0o077))
    assert result.ok().out.split() == ["Groups:", "0022"]


def test_one_id_that_is_not_root(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Where only uid 1000 is mapped the container is built and run without any uid 0."""
    bundle = make_bundle(
        "sh", "-c", "id -u; id -g; stat -c %u /proc/self/stat; ls -ld /dev/shm | cut -c1-10"
    )
    bundle.single_map()
    for kind in ("uid", "gid"):
        bundle.linux[f"{kind}Mappings"][0]["containerID"] = 1000
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    result = runtime.run(identifier, bundle.write().path)
    assert result.ok().out.split() == ["1000", "1000", "1000", "drwxrwxrwt"]


CHOWN, KILL, BIND, SETGID, SETUID = 0, 5, 10, 6, 7


def mask(*numbers: int) -> str:
    return f"{sum(1 << number for number in numbers):016x}"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_capability_sets(
    runtime: Runtime, make_bundle: Make, identifier: str, no_new_privileges: bool
) -> None:
    """All five, each its own, as root of the container."""
    bundle = make_bundle("cat", "/proc/self/status")
    bundle.process["noNewPrivileges"] = no_new_privileges
    bundle.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID", "CAP_NET_BIND_SERVICE"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "effective": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "inheritable": ["CAP_KILL", "CAP_SETUID"],
        "ambient": ["CAP_KILL"],
    }
    seen = status(runtime.run(identifier, bundle.write().path).ok().out)
    assert seen["CapBnd"] == mask(CHOWN, KILL, BIND, SETUID)
    # execve(2) as uid 0 gives the bounding ones, but no_new_privs lets none come, capabilities(7)
    gained = () if no_new_privileges else (BIND,)
    assert seen["CapPrm"] == seen["CapEff"] == mask(CHOWN, KILL, SETUID, *gained)
    assert seen["CapInh"] == mask(KILL, SETUID)
    assert seen["CapAmb"] in (mask(KILL), mask())


def test_capabilities_of_a_user(
    all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Another user than root keeps the ambient ones only."""
    bundle = make_bundle("cat", "/proc/self/status")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    names = ["CAP_KILL", "CAP_NET_BIND_SERVICE"]
    bundle.process["capabilities"] = {
        "bounding": [*names, "CAP_CHOWN"],
        "permitted": names,
        "effective": names,
        "inheritable": names,
        "ambient": ["CAP_NET_BIND_SERVICE"],
    }
    seen = status(runtime.run(identifier, bundle.write().path).ok().out)
    assert seen["CapEff"] == seen["CapPrm"] == seen["CapAmb"] == mask(BIND)
    assert seen["CapInh"] == mask(KILL, BIND) and seen["CapBnd"] == mask(CHOWN, KILL, BIND)


def test_no_capabilities_at_all(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Without the object there are none."""
    bundle = make_bundle("cat", "/proc/self/status")
    bundle.process.pop("capabilities")
    seen = status(runtime.run(identifier, bundle.write().path).ok().out)
    assert {seen[f"Cap{kind}"] for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {mask()}


def test_rlimits(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Soft and hard, as the program sees them."""
    bundle = make_bundle("cat", "/proc/self/limits")
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_FSIZE", "soft": 1 << 20, "hard": 1 << 21},
        {"type": "RLIMIT_STACK", "soft": 4 << 20, "hard": 8 << 20},
    ]
    lines = runtime.run(identifier, bundle.write().path).ok().out.splitlines()
    seen = {line[:25].strip(): line[25:].split()[:2] for line in lines}
    assert seen["Max open files"] == ["64", "128"]
    assert seen["Max core file size"] == ["0", "0"]
    assert seen["Max file size"] == [str(1 << 20), str(1 << 21)]
    assert seen["Max stack size"] == [str(4 << 20), str(8 << 20)]


@pytest.mark.parametrize("limit", [4, 3])
def test_few_descriptors(runtime: Runtime, make_bundle: Make, identifier: str, limit: int) -> None:
    """RLIMIT_NOFILE below what we need ourselves only meets the program."""
    bundle = make_bundle("sh", "-c", "ulimit -n")
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": limit, "hard": limit}]
    assert runtime.run(identifier, bundle.write().path).ok().out == f"{limit}\n"


@pytest.mark.parametrize("value", [True, False])
def test_no_new_privileges(
    runtime: Runtime, make_bundle: Make, identifier: str, value: bool
) -> None:
    """As asked, both ways."""
    bundle = make_bundle("cat", "/proc/self/status")
    bundle.process["noNewPrivileges"] = value
    seen = status(runtime.run(identifier, bundle.write().path).ok().out)
    assert seen["NoNewPrivs"] == str(int(value))


def test_oom_score(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """It can be raised; lowering takes CAP_SYS_RESOURCE of the machine."""
    now = int(Path("/proc/self/oom_score_adj").read_text())
    bundle = make_bundle("cat", "/proc/self/oom_score_adj")
    bundle.process["oomScoreAdj"] = min(now + 100, 1000)
    assert runtime.run(identifier, bundle.write().path).ok().out == f"{min(now + 100, 1000)}\n"
    if os.geteuid() == 0:
        pytest.skip("root may lower it")
    bundle.process["oomScoreAdj"] = -1000
    refused(runtime.run(f"{identifier}b", bundle.write().path), "/process/oomScoreAdj", "EACCES")


def test_sysctl(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Parameters of the container's own network and ipc namespaces, written dotted or slashed."""
    bundle = make_bundle(
        "sh",
        "-c",
        "cd /proc/sys; cat net/ipv4/ip_forward net/ipv4/ping_group_range kernel/msgmax fs/mqueue/msg_max",
    )
    bundle.linux["sysctl"] = {
        "net.ipv4.ip_forward": "1",
        "net/ipv4/ping_group_range": "0 0",
        "kernel.msgmax": "4096",
        "fs.mqueue.msg_max": "20",
    }
    assert runtime.run(identifier, bundle.write().path).ok().out.split() == [
        *("1", "0", "0", "4096", "20"),
    ]


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("kernel.pid_max", "4194304", "kernel.pid_max"),
        ("vm.swappiness", "1", "vm.swappiness"),
        ("net.ipv4.no_such", "1", "ENOENT"),
        ("net.ipv4.ip_forward", "words", "EINVAL"),
        ("net.ipv4.ping_group_range", "0 2000000000", "mapped"),
    ],
)
def test_refused_sysctl(
    runtime: Runtime, make_bundle: Make, identifier: str, key: str, value: str, word: str
) -> None:
    """What is the machine's, what is not there, what the kernel does not take."""
    bundle = make_bundle("true")
    bundle.linux["sysctl"] = {key: value}
    refused(runtime.run(identifier, bundle.write().path), "/linux/sysctl", word)


def test_refused_sysctl_of_an_interface(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The pointer is the member as the configuration writes it, escaped."""
    bundle = make_bundle("true")
    for key, token in (
        ("net.ipv4.conf.eth0/1.forwarding", "net.ipv4.conf.eth0~11.forwarding"),
        ("net/ipv4/conf/eth0.1/forwarding", "net~1ipv4~1conf~1eth0.1~1forwarding"),
    ):
        bundle.linux["sysctl"] = {key: "1"}
        result = runtime.run(identifier, bundle.write().path)
        refused(result, f"(at /linux/sysctl/{token})", "ENOENT")


def test_names(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """hostname and domainname."""
    bundle = make_bundle("sh", "-c", "hostname; cat /proc/sys/kernel/domainname")
    bundle.config["hostname"], bundle.config["domainname"] = "the-host", "the.domain"
    assert runtime.run(identifier, bundle.write().path).ok().out.split() == [
        "the-host",
        "the.domain",
    ]


def test_loopback(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """lo of a new network namespace is up."""
    bundle = make_bundle(
        "sh", "-c", "ip link show lo; ping -c1 -w2 127.0.0.1 >/dev/null 2>&1; ip addr"
    )
    out = runtime.run(identifier, bundle.path).out
    assert "LOOPBACK,UP" in out and "127.0.0.1/8" in out


def test_signals_are_as_new(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Whatever the caller blocks or ignores, the program starts with nothing blocked or ignored."""
    import signal

    def awkward() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})

    bundle = make_bundle("cat", "/proc/self/status")
    for verb in ("run", "create"):
        if verb == "run":
            out = runtime.run(identifier, bundle.path, preexec=awkward).ok().out
        else:
            created = runtime.create(f"{identifier}c", bundle.path, preexec=awkward).ok()
            runtime.start(f"{identifier}c").ok()
            runtime.wait_status(f"{identifier}c", "stopped")
            out = created.out
        seen = status(out)
        assert [seen[name] for name in ("SigBlk", "SigIgn", "SigCgt", "ShdPnd")] == ["0" * 16] * 4


def test_listen_fds(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """sd_listen_fds(3): as many descriptors as LISTEN_FDS says, for pid 1, on top of --preserve-fds."""
    bundle = make_bundle("sh", "-c", "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4")
    ends = []
    for text in (b"three\n", b"four\n"):
        read, write = os.pipe()
        os.write(write, text)
        os.close(write)
        ends.append(read)

    def arrange() -> None:
        for number, fd in zip((3, 4), [os.dup(end) for end in ends], strict=True):
            os.dup2(fd, number)

    try:
        result = runtime.run(
            identifier,
            bundle.path,
            "--preserve-fds",
            "1",
            env={"LISTEN_FDS": "1"},
            preexec=arrange,
            pass_fds=(3, 4),
        )
    finally:
        for fd in ends:
            os.close(fd)
    assert result.ok().out.split() == ["1", "1", "three", "four"]


def test_the_program_is_looked_up_inside(
    runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """PATH of the container; the first that can be executed; directories and plain files are passed."""
    bundle = make_bundle("program")
    for folder, mode, text in (
        ("a", 0o644, "#!/bin/sh\necho a"),
        ("c", 0o755, "#!/bin/sh\necho c"),
    ):
        (bundle.rootfs / folder).mkdir()
        (bundle.rootfs / folder / "program").write_text(text)
        (bundle.rootfs / folder / "program").chmod(mode)
    (bundle.rootfs / "b/program").mkdir(parents=True)
    bundle.process["env"] = ["PATH=/a:/b:/c:/bin"]
    assert runtime.run(identifier, bundle.write().path).ok().out == "c\n"
    bundle.process["env"] = ["PATH=/a:/b"]
    refused(
        runtime.run(f"{identifier}b", bundle.write().path), "ermission denied", "/process/args/0"
    )
    bundle.process["env"] = ["PATH=/nowhere"]
    refused(
        runtime.run(f"{identifier}c", bundle.write().path), "executable file not found in $PATH"
    )


def test_a_relative_program(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A path with a slash is taken from cwd."""
    bundle = make_bundle("./here")
    (bundle.rootfs / "opt").mkdir()
    (bundle.rootfs / "opt/here").write_text("#!/bin/sh\necho found\n")
    (bundle.rootfs / "opt/here").chmod(0o755)
    bundle.process["cwd"] = "/opt"
    assert runtime.run(identifier, bundle.write().path).ok().out == "found\n"


def test_stdio_can_be_opened_again(
    all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """/dev/stderr of a pipe belongs to the program's user."""
    bundle = make_bundle("sh", "-c", "echo words > /dev/stderr; cat /dev/stdin")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.write()
    import subprocess

    answer = subprocess.run(
        runtime.argv("run", "--bundle", str(bundle.path), identifier),
        input=b"in\n",
        capture_output=True,
        timeout=30,
    )
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, b"in\n", b"words\n")


def test_seccomp(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """A profile meets the program, and exec's program too."""
    bundle = make_bundle("sleep", "1000")
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95}],
    }
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    result = runtime.exec(identifier, "mkdir", "/tmp/x")
    assert result.code == 1 and "Operation not supported" in result.err
    pid = json.loads(runtime("state", identifier).out)["pid"]
    assert status(Path(f"/proc/{pid}/status").read_text())["Seccomp"] == "2"
