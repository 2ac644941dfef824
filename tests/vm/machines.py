"""Guests with systemd as PID 1 and a shell in them: in namespaces of this machine, or in QEMU.

`python3 -m tests.vm.machines FOLDER` boots the virtual machine that tests/vm/image has laid down in
FOLDER and saves it running: its memory in the file `ram`, its devices in `state`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BOOT = 300.0  # seconds that an emulated machine may take to boot
RESTORE = 60.0
MEMORY = "1536M"
TREE = "1G"  # the size of the second disk, which is the same in every run of a saved machine
# without cmpxchg16b, which QEMU 7.2 gets wrong: it breaks Linux 6.12 while that boots
EMULATION = ["-accel", "tcg,thread=multi", "-cpu", "max,-cx16"]

Output = Callable[[bytes], object]


class MachineError(Exception):
    """The guest did not come up, or went away: no test is to blame."""


class Overdue(Exception):
    """The command did not end within its time."""


class Machine:
    """A guest that runs: the process of ours that holds it, and the line to its agent."""

    slower = 1  # how many times slower than this machine, for time limits

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._to = self._from = -1

    def __enter__(self) -> Machine:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the guest; MachineError."""
        raise NotImplementedError

    def close(self) -> None:
        """End the guest with everything in it."""
        if self.process is not None:
            self.end(self.process)
            self.process.wait()
            self.process = None
        for fd in {self._to, self._from} - {-1}:
            os.close(fd)
        self._to = self._from = -1

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.terminate()

    def command(
        self, command: str, limit: float, output: Output = bytes, setting: str = "root"
    ) -> int:
        """The exit code of a shell command; what it writes goes to output() as it comes.

        setting: root, or as the user `dev` session-scope or app-slice (see the agent).
        MachineError when the guest goes away, Overdue after `limit` seconds.
        """
        token = os.urandom(8).hex()
        end, kept = f"\n{token} ".encode(), b""
        deadline = time.monotonic() + limit
        os.write(self._to, f"{token} {setting} {command}\n".encode())
        while True:
            kept += self._read(deadline)
            before, found, code = kept.partition(end)
            if found and code.endswith(b"\n"):
                output(before)
                return int(code)
            if not found and len(kept) > len(end):
                output(kept[: -len(end)])
                kept = kept[-len(end) :]

    def must(self, command: str, limit: float = 60.0, setting: str = "root") -> None:
        """The command has to succeed, for the guest to be what the tests expect."""
        said = bytearray()
        try:
            code = self.command(command, limit * self.slower, said.extend, setting)
        except Overdue:
            raise MachineError(f"{command}: still runs after {limit * self.slower:.0f} s") from None
        if code:
            raise MachineError(f"{command}: exit {code}: {said.decode(errors='replace')}")

    def _read(self, deadline: float) -> bytes:
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        while (left := deadline - time.monotonic()) > 0:
            if poll.poll(min(left, 0.5) * 1000):
                try:
                    data = os.read(self._from, 65536)
                except ConnectionResetError:
                    data = b""
                if not data:
                    raise MachineError("the guest went away")
                return data
            if self.process is None or self.process.poll() is not None:
                raise MachineError("the guest ended")
        raise Overdue


class Namespaces(Machine):
    """systemd in fresh namespaces over the tree `root`: half a second, native speed; as root."""

    def __init__(self, root: Path, tree: Path) -> None:
        """tree: a folder that the guest sees too, under the same name, read-only."""
        super().__init__()
        self.root = root
        self.tree = tree

    def start(self) -> None:
        with tempfile.TemporaryDirectory() as line:
            for name in ("to", "from"):
                os.mkfifo(f"{line}/{name}", 0o600)
            self._to = os.open(f"{line}/to", os.O_RDWR)
            self._from = os.open(f"{line}/from", os.O_RDONLY | os.O_NONBLOCK)
            words = [
                "setpriv",
                "--pdeathsig",
                "TERM",
                "unshare",
                "--mount",
                "--propagation",
                "private",
            ]
            words += ["bash", str(HERE / "ns-boot"), str(self.root), line, str(self.tree)]
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=sys.stderr)
            self.must("true")  # until then the guest needs the FIFOs' names


class Emulated(Machine):
    """A virtual machine in QEMU: restored as it was saved, booted when it is `cold`."""

    slower = 10

    def __init__(self, folder: Path, tree: Path | None = None, *, cold: bool = False) -> None:
        """tree: an ext4 image of TREE bytes, the guest's /dev/vdb."""
        super().__init__()
        self.folder = folder
        self.tree = tree
        self.cold = cold
        self.save = False  # whether `ram` and the disk keep what the guest writes
        if accelerator(folder) == "kvm":
            self.slower = 1

    def words(self, line: int, monitor: int) -> list[str]:
        kvm = accelerator(self.folder) == "kvm"
        writes = "off" if self.save else "on"  # snapshot=on: they go to an unlinked file
        ram = f"memory-backend-file,id=ram,size={MEMORY},mem-path=ram,share={'on' if self.save else 'off'}"
        if self.cold and not self.save:
            ram = f"memory-backend-ram,id=ram,size={MEMORY}"
        disk = "disk.raw" if self.cold and not self.save else "disk.booted"
        return [
            "qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
            "-machine", "pc,memory-backend=ram", "-smp", "2", "-m", MEMORY, "-object", ram,
            *(["-accel", "kvm", "-cpu", "host"] if kvm else EMULATION),
            "-kernel", "vmlinuz", "-initrd", "initrd",
            "-append", "console=ttyS0 quiet rw panic=-1 mitigations=off",
            "-serial", "file:console" if self.save else "null",
            "-drive", f"file={disk},format=raw,if=virtio,cache=unsafe,snapshot={writes}",
            "-drive", f"file={self.tree or 'none.raw'},format=raw,if=virtio,snapshot=on",
            "-chardev", f"socket,id=line,fd={line}", "-chardev", f"socket,id=monitor,fd={monitor}",
            "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=line",
            "-mon", "chardev=monitor,mode=control", *([] if self.cold else ["-incoming", "defer"]),
        ]  # fmt: skip

    def start(self) -> None:
        (ours, line), (self.qmp, monitor) = socket.socketpair(), socket.socketpair()
        with line, monitor:
            words = ["setpriv", "--pdeathsig", "KILL", *self.words(line.fileno(), monitor.fileno())]
            self.process = subprocess.Popen(
                words, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=sys.stderr,
                pass_fds=(line.fileno(), monitor.fileno()),
            )  # fmt: skip
        self._to = self._from = ours.detach()
        if not self.cold:
            self.migrate("migrate-incoming", "exec:cat state")
        self.must("true", (BOOT if self.cold else RESTORE) / self.slower)
        if not self.save:
            self.must(f"date --set @{time.time()}")  # a saved machine wakes in the past

    def end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()

    def close(self) -> None:
        super().close()
        if hasattr(self, "qmp"):
            self.qmp.close()

    def migrate(self, verb: str, uri: str) -> None:
        """Save or restore the devices; what the memory holds is in the file `ram`."""
        self.qmp.settimeout(RESTORE)
        with self.qmp.makefile("rw") as monitor:

            def ask(verb: str, **arguments: Any) -> Any:
                monitor.write(json.dumps({"execute": verb, "arguments": arguments}) + "\n")
                monitor.flush()
                while "return" not in (answer := json.loads(monitor.readline())):
                    if "error" in answer:
                        raise MachineError(f"{verb}: {answer['error']['desc']}")
                return answer["return"]

            try:
                ask("qmp_capabilities")
                ignore = {"capability": "x-ignore-shared", "state": True}
                ask("migrate-set-capabilities", capabilities=[ignore])
                ask(verb, uri=uri)
                while (status := ask("query-migrate").get("status")) != "completed":
                    if status == "failed":
                        raise MachineError(f"{verb} failed")
                    time.sleep(0.01)
                if verb == "migrate":
                    ask("quit")
            except (OSError, ValueError) as error:
                raise MachineError(f"{verb}: {error}") from error


def accelerator(folder: Path) -> str:
    """kvm or tcg, as it was when the machine was made."""
    path = folder / "accelerator"
    return path.read_text().strip() if path.exists() else "tcg"


def kvm_runs(folder: Path) -> bool:
    """Whether a kernel gets as far as our /probe: a /dev/kvm that opens need not run anything."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    words = [
        "timeout",
        "--signal=KILL",
        "10",
        "qemu-system-x86_64",
        "-nodefaults",
        "-no-user-config",
    ]
    words += ["-display", "none", "-no-reboot", "-accel", "kvm", "-cpu", "host", "-m", "512M"]
    words += ["-kernel", "vmlinuz", "-initrd", "initrd", "-serial", "stdio"]
    words += ["-append", "console=ttyS0 panic=-1 rdinit=/probe"]
    answer = subprocess.run(
        words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return b"probe: it runs" in answer.stdout


def save(folder: Path) -> None:
    """Boot the machine, let it do what fills its caches, and save it."""
    (folder / "accelerator").write_text("kvm\n" if kvm_runs(folder) else "tcg\n")
    with open(folder / "none.raw", "wb") as disk:
        disk.truncate(int(TREE[:-1]) << 30)
    machine = Emulated(folder, cold=True)
    machine.save = True
    with machine:
        machine.must("echo bfq > /sys/block/vda/queue/scheduler")  # for io.weight
        for setting in ("session-scope", "app-slice"):
            machine.must(
                "python3 -c 'import asyncio, json, subprocess' && podman info", 60, setting
            )
        machine.migrate("migrate", "exec:cat > state")
        assert machine.process is not None
        machine.process.wait(RESTORE)


if __name__ == "__main__":
    try:
        save(Path(sys.argv[1]).resolve())
    except MachineError as error:
        print(
            *Path(sys.argv[1], "console").read_text(errors="replace").splitlines()[-20:],
            sep="\n",
            file=sys.stderr,
        )
        sys.exit(f"error: the virtual machine: {error}")
