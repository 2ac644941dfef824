"""What cannot work is refused in one line that says why, and nothing is left behind.

Each case is a mistake: what it changes, the exit code, and a word or JSON pointer of the answer.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import leaks
from tests.support.bundles import Bundle
from tests.support.runtime import Result, Runtime

Change = Callable[[Bundle], object]


def one_line(result: Result, code: int, pattern: str) -> None:
    """The exit code, exactly one line on standard error, and in it the pattern (any case)."""
    assert result.code == code, str(result)
    assert result.err.endswith("\n") and result.err.count("\n") == 1, str(result)
    assert "Traceback" not in result.err and "internal error" not in result.err, str(result)
    assert "broken pipe" not in result.err.lower() and "EOF" not in result.err, str(result)
    assert re.search(pattern, result.err, re.IGNORECASE), f"no {pattern!r} in: {result}"


def put(pointer: str, value: Any) -> Change:
    """Set the field at this JSON pointer."""

    def change(bundle: Bundle) -> None:
        target: Any = bundle.config
        *way, last = pointer.strip("/").split("/")
        for word in way:
            target = target[int(word) if isinstance(target, list) else word]
        if isinstance(target, list):
            if int(last) == len(target):
                target.append(None)
            target[int(last)] = value
        else:
            target[last] = value

    return change


def drop(pointer: str) -> Change:
    """Remove the field at this JSON pointer."""

    def change(bundle: Bundle) -> None:
        target: Any = bundle.config
        *way, last = pointer.strip("/").split("/")
        for word in way:
            target = target[word]
        del target[last]

    return change


def mount(**entry: Any) -> Change:
    """One more mount; it is number 7, or 6 without a cgroup mount."""
    return lambda bundle: bundle.config["mounts"].append(entry)


def text(content: str | bytes) -> Change:
    """Another config.json altogether."""

    def change(bundle: Bundle) -> None:
        data = content if isinstance(content, bytes) else content.encode()
        (bundle.path / "config.json").write_bytes(data)
        bundle.config = {}  # nothing more to write

    return change


def no_config(bundle: Bundle) -> None:
    (bundle.path / "config.json").unlink()
    bundle.config = {}


def rootfs(change: Callable[[Path], object]) -> Change:
    """Something about the files of the container."""
    return lambda bundle: change(bundle.rootfs)


def program(name: str, content: bytes | None, mode: int = 0o755) -> Change:
    """Run /bin/NAME, a file with this content; a directory for None."""

    def change(bundle: Bundle) -> None:
        path = bundle.rootfs / "bin" / name
        if content is None:
            path.mkdir()
        else:
            path.write_bytes(content)
        path.chmod(mode)
        bundle.process["args"] = [f"/bin/{name}"]

    return change


def rootfs_is_a_file(bundle: Bundle) -> None:
    (bundle.path / "file").write_text("")
    bundle.config["root"]["path"] = "file"


def loop_destination(bundle: Bundle) -> None:
    (bundle.rootfs / "loop").symlink_to("loop2")
    (bundle.rootfs / "loop2").symlink_to("loop")
    mount(destination="/loop/x", type="tmpfs", source="tmpfs")(bundle)


def foreign_elf() -> bytes:
    """An ELF header for a machine that this is not (EM_S390)."""
    ident = b"\x7fELF" + bytes([2, 2, 1]) + bytes(9)
    fields = [(2, 2), (22, 2), (1, 4), (0, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2)]
    return ident + b"".join(value.to_bytes(size, "big") for value, size in fields) + bytes(64)


def share_uts(bundle: Bundle) -> None:
    bundle.without_namespace("uts")


def overlapping(bundle: Bundle) -> None:
    own = bundle.linux["uidMappings"][0]["hostID"]
    bundle.linux["uidMappings"] = [
        {"containerID": 0, "hostID": own, "size": 1},
        {"containerID": 0, "hostID": own + 1, "size": 1},
    ]


def single_with_groups(bundle: Bundle) -> None:
    bundle.single_map()
    bundle.process["user"]["additionalGids"] = [1000]


def single_with_user(bundle: Bundle) -> None:
    bundle.single_map()
    bundle.process["user"]["uid"] = 1000


def ungranted(bundle: Bundle) -> None:
    for kind in ("uid", "gid"):
        bundle.linux[f"{kind}Mappings"] = [{"containerID": 0, "hostID": 3_000_000_000, "size": 10}]


def shared_network_sysctl(bundle: Bundle) -> None:
    bundle.without_namespace("network")
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}


def seccomp(**profile: Any) -> Change:
    return put("linux/seccomp", profile)


# (name, change, pattern of the answer), all refused by `create` with exit code 1
CASES: list[tuple[str, Change, str]] = [
    ("no config", no_config, r"config\.json.*no such file"),
    ("empty config", text(""), r"config\.json"),
    ("not JSON", text("{nonsense"), r"config\.json.*(line 1|column|char)"),
    ("not UTF-8", text(b'{"ociVersion": "\xff"}'), r"config\.json.*utf-8"),
    ("trailing garbage", text('{"ociVersion": "1.0.0"} x'), r"config\.json"),
    ("not an object", text("[]"), r"config\.json|object"),
    ("nested too deep", text("[" * 200_000), r"config\.json|nest|deep|recurs"),
    ("NaN", text('{"ociVersion": NaN}'), r"config\.json"),
    ("no version", drop("ociVersion"), r"/ociVersion"),
    ("version of tomorrow", put("ociVersion", "9.0.0"), r"/ociVersion"),
    ("version no string", put("ociVersion", 1), r"/ociVersion"),
    ("no root", drop("root"), r"/root"),
    ("root no object", put("root", "rootfs"), r"/root"),
    ("rootfs missing", put("root/path", "nowhere"), r"/root/path|nowhere.*no such file"),
    ("rootfs a file", rootfs_is_a_file, r"/root/path|not a directory"),
    ("no args", drop("process/args"), r"/process/args"),
    ("empty args", put("process/args", []), r"/process/args"),
    ("args of numbers", put("process/args", [1, 2]), r"/process/args/0"),
    ("args a string", put("process/args", "sleep 1"), r"/process/args"),
    ("NUL in args", put("process/args", ["sleep", "a\0b"]), r"/process/args/1"),
    ("no cwd", drop("process/cwd"), r"/process/cwd"),
    ("cwd relative", put("process/cwd", "tmp"), r"/process/cwd"),
    ("NUL in cwd", put("process/cwd", "/tmp\0"), r"/process/cwd"),
    ("cwd a file", put("process/cwd", "/etc/passwd"), r"cwd|/etc/passwd.*not a directory"),
    ("env of numbers", put("process/env", [1]), r"/process/env/0"),
    ("terminal no bool", put("process/terminal", "yes"), r"/process/terminal"),
    ("terminal without socket", put("process/terminal", True), r"console.socket|tty|terminal"),
    ("uid no number", put("process/user", {"uid": "0", "gid": 0}), r"/process/user/uid"),
    ("uid negative", put("process/user", {"uid": -1, "gid": 0}), r"/process/user/uid"),
    ("uid too large", put("process/user", {"uid": 2**32, "gid": 0}), r"/process/user/uid"),
    ("uid unmapped", put("process/user", {"uid": 70000, "gid": 0}), r"/process/user/uid"),
    ("gid unmapped", put("process/user", {"uid": 0, "gid": 70000}), r"/process/user/gid"),
    (
        "additional gid unmapped",
        put("process/user", {"uid": 0, "gid": 0, "additionalGids": [70000]}),
        r"/process/user/additionalGids",
    ),
    ("uid in a single map", single_with_user, r"/process/user/uid"),
    ("groups in a single map", single_with_groups, r"/process/user/additionalGids"),
    ("mapping not granted", ungranted, r"/linux/[ug]idMappings"),
    ("mappings overlap", overlapping, r"/linux/uidMappings"),
    ("mapping of size 0", put("linux/uidMappings/0/size", 0), r"/linux/uidMappings/0"),
    (
        "mapping without size",
        put("linux/uidMappings/0", {"containerID": 0, "hostID": 0}),
        r"/linux/uidMappings/0/size",
    ),
    ("capabilities a list", put("process/capabilities", ["CAP_KILL"]), r"/process/capabilities"),
    (
        "unknown rlimit",
        put("process/rlimits", [{"type": "RLIMIT_NONSENSE", "soft": 1, "hard": 1}]),
        r"/process/rlimits/0",
    ),
    (
        "rlimit twice",
        put("process/rlimits", [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}] * 2),
        r"/process/rlimits/1",
    ),
    (
        "soft limit above hard",
        put("process/rlimits", [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]),
        r"/process/rlimits/0",
    ),
    ("oom score", put("process/oomScoreAdj", 5000), r"/process/oomScoreAdj"),
    ("executable missing", put("process/args", ["nonsense"]), r"nonsense.*(not found|no such)"),
    ("executable path missing", put("process/args", ["/bin/none"]), r"/bin/none.*no such file"),
    ("executable not executable", program("data", b"x", 0o644), r"/bin/data.*permission denied"),
    ("executable a directory", program("folder", None), r"/bin/folder"),
    ("unknown namespace", put("linux/namespaces/0/type", "nonsense"), r"/linux/namespaces/0"),
    ("namespace twice", put("linux/namespaces/7", {"type": "pid"}), r"/linux/namespaces/7"),
    (
        "namespace path missing",
        put("linux/namespaces/1/path", "/no/such/ns"),
        r"/linux/namespaces/1|/no/such/ns",
    ),
    (
        "namespace path of another kind",
        put("linux/namespaces/1/path", "/proc/self/ns/uts"),
        r"/linux/namespaces/1",
    ),
    ("hostname without uts", share_uts, r"/hostname|uts"),
    ("hostname too long", put("hostname", "x" * 65), r"/hostname"),
    ("mount without destination", mount(type="tmpfs"), r"/mounts/\d+/destination"),
    (
        "mount source missing",
        mount(destination="/mnt", type="bind", source="/no/such/source", options=["bind"]),
        r"/no/such/source",
    ),
    (
        "unknown filesystem",
        mount(destination="/mnt", type="nonsensefs", source="x"),
        r"/mounts/\d+|nonsensefs",
    ),
    (
        "mount options no list",
        mount(destination="/mnt", type="tmpfs", source="x", options="ro"),
        r"/mounts/\d+/options",
    ),
    ("mount through a symlink loop", loop_destination, r"/loop/x|/mounts/\d+|symbolic links"),
    ("sysctl not namespaced", put("linux/sysctl", {"kernel.panic": "1"}), r"kernel\.panic"),
    ("sysctl without namespace", shared_network_sysctl, r"net\.ipv4\.ip_forward"),
    ("sysctl with dots", put("linux/sysctl", {"net/../../x": "1"}), r"/linux/sysctl"),
    (
        "unknown device type",
        put("linux/devices", [{"path": "/dev/x", "type": "z", "major": 1, "minor": 3}]),
        r"/linux/devices/0",
    ),
    ("rootfs propagation", put("linux/rootfsPropagation", "sideways"), r"/linux/rootfsPropagation"),
    ("masked path relative", put("linux/maskedPaths", ["proc/kcore"]), r"/linux/maskedPaths/0"),
    ("cgroups path with dots", put("linux/cgroupsPath", "/../../x"), r"/linux/cgroupsPath"),
    (
        "limit without controller",
        put("linux/resources", {"unified": {"nonsense.max": "1"}}),
        r"/linux/resources/unified|nonsense",
    ),
    ("limit no number", put("linux/resources", {"memory": {"limit": "1g"}}), r"/linux/resources"),
    ("seccomp without default", seccomp(syscalls=[]), r"/linux/seccomp/defaultAction"),
    ("seccomp action", seccomp(defaultAction="SCMP_ACT_NONSENSE"), r"/linux/seccomp/defaultAction"),
    (
        "seccomp architecture",
        seccomp(defaultAction="SCMP_ACT_ALLOW", architectures=["SCMP_ARCH_VAX"]),
        r"/linux/seccomp/architectures/0",
    ),
    (
        "seccomp operator",
        seccomp(
            defaultAction="SCMP_ACT_ALLOW",
            syscalls=[
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        ),
        r"/linux/seccomp/syscalls/0/args/0",
    ),
    (
        "hook relative",
        put("hooks", {"createRuntime": [{"path": "true"}]}),
        r"/hooks/createRuntime/0",
    ),
    (
        "hook missing",
        put("hooks", {"createRuntime": [{"path": "/no/such/hook"}]}),
        r"/no/such/hook",
    ),
    (
        "hook timeout",
        put("hooks", {"createRuntime": [{"path": "/bin/true", "timeout": 0}]}),
        r"/hooks/createRuntime/0/timeout",
    ),
]


@pytest.mark.parametrize(("change", "pattern"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_create_refuses(
    all_ids: None,
    runtime: Runtime,
    busybox_bundle: Bundle,
    identifier: str,
    change: Change,
    pattern: str,
) -> None:
    """One line that says which field, exit code 1, and not a trace of the container."""
    change(busybox_bundle)
    if busybox_bundle.config:
        busybox_bundle.write()
    with leaks.nothing_left([runtime.root]):
        one_line(runtime.create(identifier, busybox_bundle.path), 1, pattern)
    assert runtime.status(identifier) == ""


def test_an_executable_for_another_machine(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """Only execve can tell: `start` says what it said, and the container has stopped."""
    program("foreign", foreign_elf())(busybox_bundle)
    busybox_bundle.write()
    result = runtime.create(identifier, busybox_bundle.path)
    if result.code == 0:
        result = runtime.start(identifier)
    one_line(result, 1, r"exec format error")
    runtime.delete(identifier, force=True).ok()


@pytest.mark.parametrize("id", ["..", ".", "a/b", "../x", "a b", "", "a\nb", "é", "-x/"])
def test_bad_ids(runtime: Runtime, busybox_bundle: Bundle, id: str) -> None:
    """Ids are file names of letters, digits and _+.-"""
    with leaks.nothing_left([runtime.root]):
        result = runtime("create", "--bundle", str(busybox_bundle.path), "--", id)
        if result.code == 1 and "--" in result.err and " id" not in result.err:
            result = runtime("create", "--bundle", str(busybox_bundle.path), id)
        one_line(result, 1, r"id|container|usage|option")
    for verb in ("state", "start", "kill", "delete"):
        assert runtime(verb, id).code != 0


def test_the_same_id_twice(runtime: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """The second is refused and the first lives on."""
    runtime.create(identifier, busybox_bundle.path).ok()
    one_line(runtime.create(identifier, busybox_bundle.path), 1, r"exists")
    assert runtime.status(identifier) == "created"


@pytest.mark.parametrize("verb", ["state", "start", "kill", "delete", "pause", "resume", "ps"])
def test_unknown_containers(runtime: Runtime, verb: str) -> None:
    """`does not exist`: podman and containerd look for these words."""
    one_line(runtime(verb, "nobody"), 1, r"nobody.*does not exist")


def test_exec_into_unknown_and_stopped_containers(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """255 and the state in words."""
    one_line(runtime.exec("nobody", "true"), 255, r"does not exist")
    busybox_bundle.args("true")
    runtime.create(identifier, busybox_bundle.path).ok()
    runtime.start(identifier).ok()
    runtime.wait_status(identifier, "stopped")
    one_line(runtime.exec(identifier, "true"), 255, r"not running|stopped")
    one_line(runtime.start(identifier), 1, r"stopped|created")
    one_line(runtime.kill(identifier), 1, r"not running|stopped")
    runtime.delete(identifier).ok()


def test_start_twice(runtime: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """The second is refused and the program runs on."""
    runtime.create(identifier, busybox_bundle.path).ok()
    runtime.start(identifier).ok()
    one_line(runtime.start(identifier), 1, r"running|created")
    assert runtime.status(identifier) == "running"


def test_delete_while_running(runtime: Runtime, busybox_bundle: Bundle, identifier: str) -> None:
    """In the words that callers know."""
    runtime.create(identifier, busybox_bundle.path).ok()
    runtime.start(identifier).ok()
    pattern = rf"cannot delete container {identifier} that is not stopped: running"
    one_line(runtime.delete(identifier), 1, pattern)


@pytest.mark.parametrize("name", ["NONSENSE", "99", "-1", "SIGSIG", "1.5", "0x9"])
def test_bad_signals(runtime: Runtime, busybox_bundle: Bundle, identifier: str, name: str) -> None:
    """A signal that does not exist is refused before anything is looked at."""
    runtime.create(identifier, busybox_bundle.path).ok()
    one_line(runtime.kill(identifier, name), 1, r"signal|option")
    assert runtime.status(identifier) == "created"


def test_a_hole_in_preserved_descriptors(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """--preserve-fds 3 with descriptor 4 closed names it."""

    def arrange() -> None:
        for fd in (3, 5):
            os.dup2(0, fd)
        os.close(4)

    os_fd = os.open("/dev/null", os.O_RDONLY)
    try:
        os.dup2(os_fd, 4)
        with leaks.nothing_left([runtime.root]):
            result = runtime.create(
                identifier,
                busybox_bundle.path,
                "--preserve-fds",
                "3",
                pass_fds=(3, 4, 5),
                preexec=arrange,
            )
            one_line(result, 1, r"\b4\b")
    finally:
        os.close(os_fd)


def test_a_console_socket_without_a_listener(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str, tmp_path: Path
) -> None:
    """Nobody listens, and no such file: both name the socket."""
    busybox_bundle.process["terminal"] = True
    busybox_bundle.write()
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    for socket_path, pattern in ((path, r"connection refused"), (tmp_path / "none", r"no such")):
        with leaks.nothing_left([runtime.root]):
            result = runtime.create(
                identifier, busybox_bundle.path, "--console-socket", str(socket_path)
            )
            one_line(result, 1, pattern)


def test_a_console_socket_without_a_terminal(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str, tmp_path: Path
) -> None:
    """A socket that would get nothing is a mistake."""
    with leaks.nothing_left([runtime.root]):
        result = runtime.create(
            identifier, busybox_bundle.path, "--console-socket", str(tmp_path / "x")
        )
        one_line(result, 1, r"console socket|terminal|tty")


def test_a_pid_file_in_a_missing_directory(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str, tmp_path: Path
) -> None:
    """The container is undone again."""
    with leaks.nothing_left([runtime.root]):
        result = runtime.create(
            identifier, busybox_bundle.path, "--pid-file", str(tmp_path / "none/pid")
        )
        one_line(result, 1, r"none.*no such file")


def test_a_state_root_that_cannot_be_written(
    busybox_bundle: Bundle, identifier: str, tmp_path: Path
) -> None:
    """As an ordinary user: permission denied, with the directory."""
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    from tests.support.runtime import default_command

    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    runtime = Runtime(default_command(), tmp_path / "x")
    runtime.root = closed / "state"
    with leaks.nothing_left([closed]):
        result = runtime.create(identifier, busybox_bundle.path)
        one_line(result, 1, r"closed.*permission denied")


def test_a_bundle_that_is_not_there(runtime: Runtime, identifier: str, tmp_path: Path) -> None:
    """The directory is named."""
    with leaks.nothing_left([runtime.root]):
        one_line(runtime.create(identifier, tmp_path / "none"), 1, r"none.*no such file")


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["create"],
        ["create", "--nonsense", "x"],
        ["create", "--preserve-fds", "x", "y"],
        ["create", "--bundle"],
        ["state"],
        ["state", "a", "b"],
        ["kill", "a", "TERM", "more"],
        ["--nonsense"],
        ["--log-format", "xml", "list"],
        ["list", "--format", "xml"],
        ["exec", "a"],
    ],
    ids=" ".join,
)
def test_bad_command_lines(runtime: Runtime, args: list[str]) -> None:
    """A usage error: not a traceback, and not success."""
    result = runtime(*args)
    assert result.code != 0, str(result)
    assert "Traceback" not in result.err and result.err.strip(), str(result)


def test_a_bad_process_file(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str, tmp_path: Path
) -> None:
    """exec's process file is checked like the one in config.json."""
    runtime.create(identifier, busybox_bundle.path).ok()
    runtime.start(identifier).ok()
    good = {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/"}
    file = tmp_path / "process.json"
    for changes, pattern in (
        ({"args": []}, r"/args"),
        ({"cwd": "relative"}, r"/cwd"),
        ({"cwd": "/etc/passwd"}, r"/etc/passwd.*not a directory"),
        ({"user": {"uid": 70000, "gid": 0}}, r"/user/uid|70000"),
        ({"args": ["/no/such"]}, r"/no/such.*no such file"),
        ({"args": ["/etc/passwd"]}, r"/etc/passwd.*permission denied"),
        ({"capabilities": {"bounding": "CAP_KILL"}}, r"/capabilities/bounding"),
    ):
        file.write_text(json.dumps({**good, **changes}))
        one_line(runtime("exec", "--process", str(file), identifier), 255, pattern)
    file.write_text("{")
    one_line(runtime("exec", "--process", str(file), identifier), 255, r"process\.json")
    one_line(runtime("exec", "--process", "/no/such", identifier), 255, r"/no/such")
    assert runtime.status(identifier) == "running"
    assert len(json.loads(runtime("ps", "--format", "json", identifier).ok().out)) == 1


def test_errors_in_the_log(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str, tmp_path: Path
) -> None:
    """--log with JSON: one object with level, msg and time, and the same sentence on stderr."""
    log = tmp_path / "log.json"
    (busybox_bundle.path / "config.json").unlink()
    plain = Runtime(
        runtime.command, runtime.root, options=["--log", str(log), "--log-format", "json"]
    )
    result = plain.create(identifier, busybox_bundle.path)
    one_line(result, 1, r"config\.json")
    entry = json.loads(log.read_text())
    assert entry["level"] == "error" and "config.json" in entry["msg"] and entry["time"]
    assert log.read_text().count("\n") == 1


def test_limits_with_cgroups_disabled(
    runtime: Runtime, busybox_bundle: Bundle, identifier: str
) -> None:
    """Whoever disables cgroups cannot have limits."""
    busybox_bundle.linux["resources"] = {"pids": {"limit": 10}}
    busybox_bundle.write()
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    with leaks.nothing_left([runtime.root]):
        result = plain.create(identifier, busybox_bundle.path)
        one_line(result, 1, r"cannot set limits without cgroups")
