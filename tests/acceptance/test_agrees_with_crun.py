"""The same bundle under pyoki and crun: what programs inside see, line by line.

Where the two differ the table below says so, with the reason by the specification; a difference
that is not there any more fails as well.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import needs, peers
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime, default_command

Make = Callable[..., Bundle]

# What differs between any two processes of one container, too: numbers, sizes, times.
OWN_AFFAIRS = (
    "Vm|Rss|Hugetlb|voluntary|nonvoluntary|Pid|PPid|Tgid|NS|Mems|Cpus|Threads|Core|Specul|untag|x86"
)
SHORT_LISTING = """awk '{
    if ($1 ~ /^[cb]/) print $1, $3, $4, $5, $6, $10; else print $1, $3, $4, $9, $10, $11 }'"""

# Each looks at the container from inside.
PROGRAMS: dict[str, str] = {
    "id": "id",
    "groups": "grep -E '^(Uid|Gid|Groups)' /proc/self/status",
    "ps": "ps -o pid,ppid,user,comm | head -2",
    "mount": "mount",
    "mountinfo": "cut -d' ' -f4- /proc/self/mountinfo",
    "status": f"grep -vE '^({OWN_AFFAIRS})' /proc/self/status",
    "cgroup": "grep ^0: /proc/self/cgroup",
    "cgroup files": "ls /sys/fs/cgroup",
    "limits": "cat /proc/self/limits",
    "ulimit": "ulimit -a",
    "umask": "umask",
    "env": "env | sort",
    "hostname": "hostname; cat /proc/sys/kernel/domainname",
    "cwd": "pwd",
    "dev": f"ls -ln /dev | {SHORT_LISTING}",
    "null": "echo x > /dev/null && echo written",
    "zero and random": "for f in zero random urandom; do head -c 3 /dev/$f | wc -c; done",
    "full": "echo x > /dev/full || echo full",
    "fds": "ls -l /proc/self/fd | awk '{ print $9 }'",
    "root": f"ls -ln / | {SHORT_LISTING}",
    "masked files": "for f in /proc/kcore /proc/keys /proc/timer_list; do wc -c < $f; done",
    "masked folders": "ls /proc/acpi /sys/firmware",
    "read-only": "for f in sys/kernel/hostname irq/x; do echo x > /proc/$f || echo no; done",
    "network": "ls /sys/class/net; ip link show lo | grep -o '<.*>'",
    "maps": "cat /proc/self/uid_map /proc/self/gid_map; cat /proc/self/setgroups",
    "oom": "cat /proc/self/oom_score_adj",
    "session": "awk '{ print $1 == $6, $1 == $5 }' /proc/1/stat",
    "namespaces": "ls /proc/self/ns",
    "personality": "cat /proc/self/personality",
    "first process": "readlink /proc/1/exe; tr '\\0' '\\n' < /proc/1/environ | sort",
    "scheduler": "cut -d' ' -f18,19,40,41 /proc/self/stat",
    "writable": "for d in / /sys /dev /tmp; do touch $d/x && rm $d/x && echo $d; done",
}

# (program, pattern of lines that only crun has, of lines that only pyoki has, reason); "" = none.
EXPECTED: list[tuple[str, str, str, str]] = [
    (
        "mount",
        r"devtmpfs on /dev/\w+ type devtmpfs \(rw,nosuid,noexec,.*",
        r"devtmpfs on /dev/\w+ type devtmpfs \(rw,relatime,.*",
        "config-linux.md, Default Devices: no flags are asked for what stands in for them",
    ),
    (
        "mountinfo",
        r"/\w+ /dev/\w+ rw,nosuid,noexec,relatime - devtmpfs .*",
        r"/\w+ /dev/\w+ rw,relatime - devtmpfs .*",
        "the same",
    ),
    (
        "mount",
        r"cgroup2 on /sys/fs/cgroup type cgroup2 .*",
        r"cgroup on /sys/fs/cgroup type cgroup2 .*",
        "config.md, Mounts: the source is the configuration's",
    ),
    (
        "mountinfo",
        r"/ /sys/fs/cgroup \S+ - cgroup2 cgroup2 .*",
        r"/ /sys/fs/cgroup \S+ - cgroup2 cgroup .*",
        "the same",
    ),
    (
        "mount",
        r"tmpfs on (/proc/acpi|/sys/firmware) type tmpfs \(ro,relatime,size=0k.*",
        r"none on (/proc/acpi|/sys/firmware) type tmpfs \(ro,nosuid,nodev,noexec,.*",
        "config-linux.md, Masked Paths: a folder is covered; with what is the runtime's choice",
    ),
    (
        "mountinfo",
        r"/ (/proc/acpi|/sys/firmware) ro,relatime - tmpfs .*",
        r"/ (/proc/acpi|/sys/firmware) ro,nosuid,nodev,noexec,relatime - tmpfs .*",
        "the same",
    ),
    (
        "mount",
        r"devtmpfs on /proc/(keys|timer_list) type devtmpfs \(ro,relatime,.*",
        r"devtmpfs on /proc/(keys|timer_list) type devtmpfs \(rw,relatime,.*",
        "config-linux.md, Masked Paths: not readable; /dev/null is there to be written to",
    ),
    (
        "mountinfo",
        r"/null /proc/(keys|timer_list) ro,relatime - devtmpfs .*",
        r"/null /proc/(keys|timer_list) rw,relatime - devtmpfs .*",
        "the same",
    ),
    (
        "dev",
        r"lrwxrwxrwx 0 0 core -> /proc/kcore",
        "",
        "runtime-linux.md, Dev symbolic links: fd, stdin, stdout and stderr, and no other",
    ),
]


def _seen(runtime: Runtime, bundle: Bundle, id: str) -> dict[str, list[str]]:
    """What each program prints, standard error included."""
    parts = [f"echo '=== {name}'; {{ {script}; }} 2>&1" for name, script in PROGRAMS.items()]
    bundle.shell("; ".join([*parts, "true"]))
    result = runtime.run(id, bundle.path)
    assert result.code == 0, str(result)
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in result.out.splitlines():
        if line.startswith("=== "):
            lines = found[line[4:]] = []
        else:
            lines.append(_neutral(line, bundle, id))
    return found


def _neutral(line: str, bundle: Bundle, id: str) -> str:
    """Without the names and numbers that the kernel and the test deal out anew."""
    line = line.replace(str(bundle.path), "BUNDLE").replace(id, "ID")
    line = re.sub(r"\bdevice\b|\b0:\d+\b", "DEV", line)
    line = re.sub(r"\b(shared|master|propagate_from):\d+", r"\1:N", line)
    return line


def _variant(bundle: Bundle, variant: str) -> None:
    """Other configurations to compare."""
    process = bundle.process
    if variant == "user":
        process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [2000], "umask": 0o27}
        process["cwd"] = "/home/user"
        process["env"].append("NAME=value with spaces")
    elif variant == "limits":
        process["rlimits"] = [
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            {"type": "RLIMIT_STACK", "soft": 4 << 20, "hard": 8 << 20},
        ]
        process["oomScoreAdj"] = 500
        process["noNewPrivileges"] = False
    elif variant == "ambient":
        for kind in ("inheritable", "ambient"):
            process["capabilities"][kind] = ["CAP_NET_BIND_SERVICE"]
        process["user"] = {"uid": 1000, "gid": 1000}
    elif variant == "no capabilities":
        process["capabilities"] = {}
    elif variant == "readonly":
        bundle.config["root"]["readonly"] = True
    elif variant == "mounts":
        source = bundle.path / "source"
        source.mkdir()
        source.chmod(0o777)
        (source / "file").write_text("content")
        for name, options in (("ro", ["rbind", "ro"]), ("rw", ["rbind", "nosuid"])):
            bundle.config["mounts"].append(
                {
                    "destination": f"/mnt/{name}",
                    "type": "bind",
                    "source": str(source),
                    "options": options,
                }
            )
        bundle.config["mounts"].append(
            {
                "destination": "/tmp",
                "type": "tmpfs",
                "source": "tmpfs",
                "options": ["size=64k", "mode=0700", "noexec"],
            }
        )
    elif variant == "sysctl":
        bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "65536"}
    elif variant == "seccomp":
        bundle.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86_64"] if sys.maxsize > 2**32 else [],
            "syscalls": [{"names": ["sync"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
        }
    elif variant == "single map":
        bundle.single_map()
    bundle.write()


VARIANTS = [
    "plain",
    "user",
    "limits",
    "ambient",
    "no capabilities",
    "readonly",
    "mounts",
    "sysctl",
    "seccomp",
    "single map",
]


@pytest.fixture
def both(tmp_path: Path) -> Iterator[tuple[Runtime, Runtime]]:
    """(crun, pyoki)."""
    crun = peers.peer("crun", tmp_path / "crun")
    pyoki = Runtime(default_command(), tmp_path / "pyoki")
    yield crun, pyoki
    crun.clear()
    pyoki.clear()


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_same_view(
    v2: Path,
    all_ids: None,
    both: tuple[Runtime, Runtime],
    make_bundle: Make,
    identifier: str,
    variant: str,
) -> None:
    """Every line that differs is in the table."""
    bundle = make_bundle()
    _variant(bundle, variant)
    crun, pyoki = (_seen(runtime, bundle, identifier) for runtime in both)
    assert list(crun) == list(pyoki) == list(PROGRAMS)
    met: set[int] = set()
    unexpected = []
    for name in PROGRAMS:
        for side, mine, theirs in ((0, crun[name], pyoki[name]), (1, pyoki[name], crun[name])):
            for line in _without(mine, theirs):
                number = _expected(name, side, line)
                if number is None:
                    unexpected.append(f"{name}: only {('crun', 'pyoki')[side]}: {line}")
                else:
                    met.add(number)
    assert not unexpected, "\n" + "\n".join(unexpected)
    if variant == "plain":
        unmet = [entry for number, entry in enumerate(EXPECTED) if number not in met]
        assert not unmet, f"no longer different: {unmet}"


def _without(lines: list[str], others: list[str]) -> list[str]:
    """The lines that the other side does not have, each as often as it is more."""
    rest = list(others)
    found = []
    for line in lines:
        if line in rest:
            rest.remove(line)
        else:
            found.append(line)
    return found


def _expected(name: str, side: int, line: str) -> int | None:
    """The number of the table's entry for this difference."""
    for number, entry in enumerate(EXPECTED):
        pattern = entry[1 + side]
        if entry[0] == name and pattern and re.fullmatch(pattern, line):
            return number
    return None


def test_exec_sees_what_the_container_sees(
    v2: Path,
    all_ids: None,
    both: tuple[Runtime, Runtime],
    make_bundle: Make,
    identifier: str,
) -> None:
    """exec's programs have the same ids, capabilities, limits, cgroup and namespaces."""
    bundle = make_bundle()
    script = "; ".join(
        f"echo '=== {name}'; {{ {PROGRAMS[name]}; }} 2>&1"
        for name in ("id", "status", "cgroup", "limits", "env", "cwd", "umask", "maps", "oom")
    )
    answers = []
    for runtime in both:
        runtime.create(identifier, bundle.path).ok()
        runtime.start(identifier).ok()
        answers.append(runtime.exec(identifier, "sh", "-c", script).ok().out)
        runtime.delete(identifier, force=True).ok()
    crun, pyoki = (answer.splitlines() for answer in answers)
    # config.md, Process: noNewPrivileges holds for what joins the container too
    assert _without(crun, pyoki) == ["NoNewPrivs:\t0"]
    assert _without(pyoki, crun) == ["NoNewPrivs:\t1"]


def test_crun_is_the_one_meant() -> None:
    """The table was made for a crun that knows these features."""
    needs.require_program("crun")
    assert peers.version("crun").startswith("crun version ")
