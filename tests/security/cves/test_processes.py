"""CVEs of processes: the container reaches the runtime's own process, or gets too much from it."""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rootless_pyoki.native import build
from tests.security.attack import Inside, Victim, inside, versus
from tests.security.weakened import GATE
from tests.support import leaks
from tests.support.bundles import Bundle

Make = Callable[..., Bundle]


def _named(name: str) -> int:
    """A process of /proc as we see it that calls itself so; 0 if there is none."""
    for entry in os.listdir("/proc"):
        try:
            if entry.isdigit() and Path("/proc", entry, "comm").read_text().strip() == name:
                return int(entry)
        except OSError:
            continue
    return 0


def _reach_who_joins() -> list[str]:
    """What can be opened of the process that joins, tried again and again while it lives."""
    reached: set[str] = set()
    deadline = time.monotonic() + 10
    seen = 0
    while time.monotonic() < deadline and (not seen or _named("pyoki:[EXEC]")):
        pid = _named("pyoki:[EXEC]")
        seen = seen or pid
        for name in ("fd/0", "mem", "environ", "root", "exe") if pid else ():
            try:
                opened = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
                os.read(opened, 1) if name == "environ" else None
                os.close(opened)
                # the program that it becomes keeps its pid, and may be looked into
                if Path(f"/proc/{pid}/comm").read_text().strip() == "pyoki:[EXEC]":
                    reached.add(name)
            except OSError:
                continue
    assert seen, "nobody joined"
    return sorted(reached)


@versus("dumpable", always=("slow_join",))
def test_cve_2016_9962_who_joins_is_traced(
    runtime: Victim, make_bundle: Make, identifier: str
) -> None:
    """The container sees every process (no pid namespace) and holds CAP_SYS_PTRACE: exec joins it."""
    bundle = make_bundle().without_namespace("pid")
    bundle.config["mounts"][0] = {
        "destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"],
    }  # fmt: skip
    runtime.run(identifier, bundle.write().path, "--detach").ok()
    attacker = Inside(
        runtime.state(identifier)["pid"], _reach_who_joins, 0x10000000 | 0x20000
    )  # user, mount
    runtime.exec(identifier, "true").ok()
    reached = attacker.result()
    assert reached == (["environ", "exe", "fd/0", "mem", "root"] if runtime.weak else [])


def _overwrite_the_gate() -> str:
    """Hold the waiting gate's file by /proc, end the gate, write to the file."""
    deadline = time.monotonic() + 5
    while not (pid := _named("pyoki:[2:GATE]")) and time.monotonic() < deadline:
        time.sleep(0.01)
    held = os.open(f"/proc/{pid}/exe", os.O_RDONLY)
    os.kill(pid, signal.SIGKILL)
    words = ""
    deadline = time.monotonic() + 0.4
    while time.monotonic() < deadline:
        try:
            opened = os.open(f"/proc/self/fd/{held}", os.O_WRONLY)
            os.write(opened, b"#!evil\n")
            return "written"
        except OSError as error:  # ETXTBSY while it still runs
            words = os.strerror(error.errno or 0)
            time.sleep(0.02)
    return words


@versus("gate_file")
def test_cve_2019_5736_the_runtime_is_overwritten(
    runtime: Victim, make_bundle: Make, identifier: str, tmp_path: Path
) -> None:
    """A container with every capability, whose pid and user namespaces another one joins (a pod)."""
    installed = build.NATIVE / "gate"
    copy = tmp_path / "gate"
    copy.write_bytes(installed.read_bytes())
    copy.chmod(0o755)
    runtime.env[GATE] = str(copy)
    pod = make_bundle()
    runtime.run(f"{identifier}-pod", pod.path, "--detach").ok()
    pid = runtime.state(f"{identifier}-pod")["pid"]
    bundle = make_bundle()
    for kind in ("user", "pid"):
        bundle.namespace(kind)["path"] = f"/proc/{pid}/ns/{kind}"
    del bundle.linux["uidMappings"], bundle.linux["gidMappings"]
    before = copy.read_bytes()
    runtime.create(identifier, bundle.write().path).ok()
    said = inside(pid, _overwrite_the_gate)
    assert (said == "written") is runtime.weak, said
    assert (copy.read_bytes() != before) is runtime.weak
    assert installed.read_bytes() == before
    runtime.delete(identifier, force=True).ok()
    leaks.reap()  # the pod's first process cannot end before


@versus("no_gate")
def test_cve_2019_5736_the_payload_is_proc_self_exe(
    runtime: Victim, make_bundle: Make, identifier: str
) -> None:
    """It would be whoever waits there: Python, whose file the user may own. The gate does nothing."""
    bundle = make_bundle("/proc/self/exe", "-Ic", "print('the interpreter')")
    for name in ("usr", "lib", "lib64"):
        if Path("/", name).is_dir():
            mount = {"destination": f"/{name}", "type": "bind", "source": f"/{name}"}
            bundle.config["mounts"].append({**mount, "options": ["rbind", "ro"]})
    result = runtime.run(identifier, bundle.write().path)
    assert (result.out == "the interpreter\n") is runtime.weak, str(result)
    assert runtime.weak or result.code == 1

    script = bundle.rootfs / "script"
    script.write_text("#!/proc/self/exe\nprint('the interpreter')\n")
    script.chmod(0o755)
    result = runtime.run(identifier, bundle.args("/script").path)
    assert (result.out == "the interpreter\n") is runtime.weak, str(result)


def _crafted_hooks() -> list[dict[str, Any]]:
    """Two harmless hooks; with lengths cut to 16 bits the second is read from the first's args.

    The record has, for each hook: timeout, path, args, env, each a u32 length and its bytes.
    """

    def blob(text: bytes) -> bytes:
        return struct.pack("=I", len(text)) + text

    name = b"/bin/touch\0"
    false = blob(b"") + struct.pack("=I", 0) + blob(name) + blob(name + b"/injected\0")
    second = ["true", "x" * 100]
    real = struct.pack("=I", 0) + blob(b"/bin/true\0") + blob("\0".join([*second, ""]).encode())
    real += blob(b"")
    kept = b"true\0"  # what is left of the first hook's args
    filled = 0x10000 - len(false) - 4
    rest = filled + len(blob(b"")) + len(real)  # all that follows is the false hook's env
    args = kept + false + struct.pack("=I", rest) + b"x" * (filled - 1) + b"\0"
    assert len(args) & 0xFFFF == len(kept)
    texts = [text.decode() for text in args[:-1].split(b"\0")]
    return [
        {"path": "/bin/true", "args": texts, "env": []},
        {"path": "/bin/true", "args": second, "env": []},
    ]


@versus("short_lengths")
def test_cve_2021_43784_a_length_overflows(
    runtime: Victim, make_bundle: Make, identifier: str
) -> None:
    """An argument of more than 64 KiB holds what would be the next hook, if lengths had 16 bits."""
    bundle = make_bundle("true")
    bundle.config["hooks"] = {"startContainer": _crafted_hooks()}
    result = runtime.run(identifier, bundle.write().path)
    assert (bundle.rootfs / "injected").exists() is runtime.weak, str(result)
    assert runtime.weak or result.code == 0, str(result)


def test_cve_2021_43784_more_than_the_record_holds(
    runtime: Victim, make_bundle: Make, identifier: str
) -> None:
    """Beyond every bound there is one line, and nothing runs."""
    bundle = make_bundle("touch", "/ran")
    hook = {"path": "/bin/true", "args": ["true", *["x" * (1 << 20)] * 17]}
    bundle.config["hooks"] = {"startContainer": [hook]}
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and result.err.count("\n") == 1, str(result)[:4096]
    assert not (bundle.rootfs / "ran").exists()
    assert os.listdir(runtime.root) == []
