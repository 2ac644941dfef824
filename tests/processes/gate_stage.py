"""A stage for the gate: a forked process with real capabilities in a user namespace becomes one."""

from __future__ import annotations

import os
import platform
import select
import signal
import socket
import struct
import subprocess
import time
import traceback
from pathlib import Path

import pytest

from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import syscalls
from rootless_pyoki.plan.plan import Capabilities
from rootless_pyoki.processes import gate
from rootless_pyoki.record import replace

NONE = Capabilities(bounding=0, effective=0, inheritable=0, permitted=0, ambient=0)
ENV = ["PATH=/usr/bin:/bin"]
FIELDS = {
    "mode": gate.CREATE,
    "fork": False,
    "new_session": True,
    "controlling_tty": False,
    "path": b"/bin/cat",
    "cwd": b"",
    "uid": 0,
    "gid": 0,
    "groups": None,
    "no_new_privileges": False,
    "capabilities": NONE,
    "filter": b"",
    "filter_flags": 0,
    "nofile": None,
    "channel": 3,
    "socket": -1,
    "lock": -1,
    "proc_dir": -1,
    "label": None,
    "peer_uids": (),
    "preserve": 0,
    "start_hooks": (),
    "state": b"",
    "deadline_ms": 2000,
}


def record(**fields):
    """A GateRecord; what is not given is a plain created container's."""
    return gate.GateRecord(**{**FIELDS, **fields})


def every_capability():
    """The mask of all that this kernel knows."""
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    return (1 << last + 1) - 1


def all_caps(**changes):
    """Every capability bounding, effective and permitted."""
    every = every_capability()
    full = Capabilities(bounding=every, effective=every, inheritable=0, permitted=every, ambient=0)
    return replace(full, **changes)


def map_ids(pid, alone=None):
    """Map 0...65535 (root: identity; else ourselves as 0 and our subordinate ids behind it).

    alone: map nothing but ourselves, to this id.
    """
    if alone is not None:
        Path(f"/proc/{pid}/setgroups").write_text("deny")
        Path(f"/proc/{pid}/uid_map").write_text(f"{alone} {os.geteuid()} 1")
        Path(f"/proc/{pid}/gid_map").write_text(f"{alone} {os.getegid()} 1")
        return
    if os.geteuid() == 0:
        Path(f"/proc/{pid}/uid_map").write_text("0 0 65536")
        Path(f"/proc/{pid}/gid_map").write_text("0 0 65536")
        return
    for tool, own, file in (
        ("newuidmap", os.getuid(), "/etc/subuid"),
        ("newgidmap", os.getgid(), "/etc/subgid"),
    ):
        range_ = subordinate(file)
        if range_ is None:
            pytest.skip(f"{file} gives this user no range of 2000 ids")
        args = [tool, str(pid), "0", str(own), "1", "1", str(range_[0]), str(range_[1])]
        done = subprocess.run(args, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"{tool}: {done.stderr}")


def subordinate(file):
    import pwd

    names = (pwd.getpwuid(os.getuid()).pw_name, str(os.getuid()))
    for line in Path(file).read_text().splitlines():
        name, first, count = line.split(":")
        if name in names and int(count) >= 2000:
            return int(first), int(count)
    return None


class Gate:
    """A running gate as main sees it."""

    def __init__(self, pid, channel, output, address):
        self.pid = pid
        self.channel = channel
        self.output = output
        self.address = address
        self.status = None

    def hear(self):
        """The next message, within ten seconds; None at the end of the stream."""
        data = self.channel.recv(64)
        return gate.parse_message(data) if data else None

    def ready(self):
        message = self.hear()
        assert message == gate.Message(kind="ready"), message
        return self

    def connect(self):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.settimeout(10)
        client.connect(self.address)
        return client

    def commit(self):
        self.channel.send(b"C")
        return self

    def start(self):
        """What `start` hears: None when the program runs, else the failure."""
        with self.connect() as client:
            try:
                client.send(b"S")
            except BrokenPipeError:
                pass  # refused before we spoke: why is still there to be read
            data = client.recv(64)
            return gate.parse_message(data) if data else None

    def go(self):
        """The same over the channel."""
        self.channel.send(b"G")
        return self.hear()

    def text(self):
        """All that the program writes, to its end."""
        parts = []
        while True:
            if not select.select([self.output], [], [], 10)[0]:
                raise TimeoutError("the program neither writes nor ends")
            part = os.read(self.output, 65536)
            if not part:
                return b"".join(parts).decode()
            parts.append(part)

    def wait(self):
        """The exit code, or minus the signal; ten seconds at most."""
        if self.status is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                assert select.select([pidfd], [], [], 10)[0], "the gate lives on"
            finally:
                os.close(pidfd)
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status

    def close(self):
        self.channel.close()
        os.close(self.output)
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


class Stage:
    """Makes gates and clears them away."""

    def __init__(self, folder):
        self.folder = folder
        self.gates = []

    def launch(self, made, argv, envp=ENV, *, userns=True, alone=None, setup=None, image=None):
        """Fork, enter a user namespace, call setup(record) -> record there, become the gate."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(10)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        address = f"{self.folder}/{len(self.gates)}"
        listener.bind(address)
        listener.listen(8)
        image = gate.make_memfd() if image is None else image
        output, program_output = os.pipe()
        entered, enter = os.pipe()
        mapped, map_now = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                os.dup2(program_output, 1)
                os.dup2(os.open("/dev/null", os.O_RDWR), 0)
                if userns:
                    syscalls.unshare(c.CLONE_NEWUSER)
                    os.write(enter, b"!")
                    os.read(mapped, 1)
                    if alone is None:
                        os.setresgid(0, 0, 0)
                        os.setresuid(0, 0, 0)
                made = replace(
                    made,
                    channel=theirs.fileno(),
                    socket=listener.fileno() if made.mode == gate.CREATE else -1,
                )
                if setup is not None:
                    made = setup(made)
                gate.become(image, made, argv, envp)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(99)
        for fd in (program_output, enter, mapped, image):
            os.close(fd)
        theirs.close()
        listener.close()
        started = Gate(pid, ours, output, address)
        self.gates.append(started)
        try:
            if userns:
                assert os.read(entered, 1)
                map_ids(pid, alone)
            os.write(map_now, b"!")
        finally:
            os.close(entered)
            os.close(map_now)
        return started

    def close(self):
        for started in self.gates:
            started.close()


def status(text):
    """The lines of /proc/PID/status as a dictionary."""
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def in_child(function):
    """Call it in a forked process; the traceback of what it raised, or ""."""
    answer, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            function()
        except BaseException:
            os.write(told, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(told)
    with open(answer, "rb") as file:
        text = file.read().decode()
    os.waitpid(child, 0)
    return text


# ---- filters ----

NAMES = (
    "read write execve exit capset prctl exit_group sendto setresuid setresgid setgroups chdir "
    "getcwd rt_sigaction rt_sigprocmask close_range sendmsg"
)
ALL_NUMBERS = {
    "x86_64": (0, 1, 59, 60, 126, 157, 231, 44, 117, 119, 116, 80, 79, 13, 14, 436, 46),
    "aarch64": (63, 64, 221, 93, 91, 167, 94, 206, 147, 149, 159, 49, 17, 134, 135, 436, 211),
}
NUMBERS = dict(zip(NAMES.split(), ALL_NUMBERS[platform.machine()], strict=True))
ALLOW, KILL, NOTIFY = 0x7FFF0000, 0x80000000, 0x7FC00000


def errno_action(number):
    return 0x00050000 | number


def bpf(rules, default):
    """struct sock_filter[]: each call named in rules (name -> action) so, all others by default."""
    code = [(0x20, 0, 0, 0)]  # the call's number
    for name, action in rules.items():
        code += [(0x15, 0, 1, NUMBERS[name]), (0x06, 0, 0, action)]
    code.append((0x06, 0, 0, default))
    return b"".join(struct.pack("=HBBI", *line) for line in code)


EXIT_42 = """
__asm__(".globl _start\\n_start:\\n"
#ifdef __x86_64__
"mov $42, %edi\\n mov $231, %eax\\n syscall\\n");
#else
"mov x0, #42\\n mov x8, #94\\n svc 0\\n");
#endif
"""


def build_exit_42(folder):
    """A program that makes one system call: exit_group(42)."""
    source = Path(folder, "exit42.c")
    source.write_text(EXIT_42)
    output = Path(folder, "exit42")
    subprocess.run(["cc", "-static", "-nostdlib", "-o", output, source], check=True)
    output.chmod(0o755)
    return output


def until(condition, seconds=5.0):
    """Whether the condition becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()
