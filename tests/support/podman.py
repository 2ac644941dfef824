"""podman with storage, configuration and run directory of its own, driving a runtime."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.bundles import make_rootfs
from tests.support.runtime import TIMEOUT

IMAGE = "localhost/busybox:1"


class Podman:
    """Its run directory is also XDG_RUNTIME_DIR, unless `session`: then it uses the user's own, with
    the bus of systemd's user manager."""

    def __init__(self, folder: Path, command: Sequence[str], *, session: bool = False) -> None:
        self.folder = folder
        self.runtime = self._launcher(command)
        self.manager = "systemd" if session else "cgroupfs"
        kept = ["PATH", "LANG", "LC_ALL", "USER"]
        kept += ["XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"] if session else []
        self.env = {
            **{name: value for name, value in os.environ.items() if name in kept},
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        }
        if not session:
            self.env["XDG_RUNTIME_DIR"] = str(folder / "run")
        self.env["PATH"] = f"{self.env.get('PATH', '')}:/usr/sbin:/sbin"
        for name in ("home", "run", "tmp"):
            (folder / name).mkdir(mode=0o700)
        self._configure("vfs" if session else "overlay")

    def _configure(self, driver: str) -> None:
        name = self.runtime.name
        (self.folder / "containers.conf").write_text(
            '[containers]\nlog_driver = "k8s-file"\ndefault_sysctls = []\npids_limit = 0\n'
            f'[engine]\ncgroup_manager = "{self.manager}"\nevents_logger = "file"\n'
            f'runtime = "{self.runtime}"\nruntime_supports_json = ["{name}"]\n'
            f'runtime_supports_nocgroup = ["{name}"]\ninfra_image = ""\n'
            f'tmp_dir = "{self.folder}/run/libpod/tmp"\n'
        )
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "{driver}"\nrunroot = "{self.folder}/storage-run"\n'
            f'graphroot = "{self.folder}/storage"\nrootless_storage_path = "{self.folder}/storage"\n'
        )

    def _launcher(self, command: Sequence[str]) -> Path:
        """podman wants one absolute path, and tells runtimes by their names."""
        if len(command) == 1:
            return Path(command[0])
        path = self.folder / "pyoki"
        program = command[command.index("-c") + 1]
        path.write_text(f"#!{sys.executable}\n{program}\n")
        path.chmod(0o755)
        return path

    def argv(self, *args: str) -> list[str]:
        words = ["podman", "--runtime", str(self.runtime), "--cgroup-manager", self.manager]
        return [*words, *args]

    def attempt(
        self, *args: str, input: str | None = None, timeout: float = 2 * TIMEOUT
    ) -> subprocess.CompletedProcess[str]:
        """However it ends."""
        return subprocess.run(
            self.argv(*args),
            env=self.env,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=self.folder,
        )

    def __call__(
        self, *args: str, code: int = 0, input: str | None = None, timeout: float = 2 * TIMEOUT
    ) -> str:
        """Standard output without its last newline; any other exit code than `code` fails."""
        result = self.attempt(*args, input=input, timeout=timeout)
        shown = f"podman {' '.join(args)}: {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert result.returncode == code, shown
        return result.stdout.rstrip("\n")

    def run(self, *args: str, code: int = 0, input: str | None = None) -> str:
        return self("run", "--rm", "--network", "none", *args, code=code, input=input)

    def start(self, name: str, *args: str) -> str:
        """A container that goes on; its id."""
        return self("run", "-d", "--name", name, "--network", "none", *args)

    def status(self, name: str) -> str:
        return self("inspect", "-f", "{{.State.Status}}", name)

    def make_image(self) -> None:
        """IMAGE, of busybox."""
        rootfs = make_rootfs(self.folder / "rootfs")
        tar = str(self.folder / "image.tar")
        subprocess.run(["tar", "-C", str(rootfs), "-cf", tar, "."], check=True)
        self("import", "-c", "ENV PATH=/bin", "-c", 'CMD ["/bin/sh"]', tar, IMAGE)

    def close(self) -> None:
        for words in (
            ("rm", "-f", "-t", "0", "-a"),
            ("pod", "rm", "-f", "-a"),
            ("unshare", "rm", "-rf", f"{self.folder}/storage", f"{self.folder}/storage-run"),
        ):
            subprocess.run(self.argv(*words), env=self.env, capture_output=True)
        pause = self.folder / "run/libpod/tmp/pause.pid"
        if pause.exists():
            os.kill(int(pause.read_text()), 9)
