"""pyoki from its sources with named defences patched away: what the attacks of `cves` succeed against.

The product has no switch for this. `command(NAME...)` starts an interpreter that imports this file,
applies the patches, and goes on as pyoki. A test that shows an attack to fail with pyoki as it is shows
it to succeed with one of these: so it is known that the attack would be noticed.

Some patches weaken nothing: they hold a process still for a moment (slow_...) or look at what it did
(probe), so that who attacks does not have to be lucky; or they make pyoki do without newer system
calls (without_...).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rootless_pyoki.apply import console, copy_up, mounting, mounts, rootfs
from rootless_pyoki.apply.places import Places
from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import paths, syscalls
from rootless_pyoki.processes import init, join

CHECKOUT = Path(__file__).parents[2]
WEAKNESSES: dict[str, Callable[[], None]] = {}
GATE = "WEAKENED_GATE"  # environment: the file that `gate` and `patched_gate` execute
OUTSIDE = "WEAKENED_OUTSIDE"  # environment: the directory that `probe` watches for mounts
PAUSE = 0.5  # seconds

root = ""  # the host's name of the container's root, while that is not our own


def command(*names: str) -> list[str]:
    """The command line of a pyoki without these defences."""
    launch = (
        f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); sys.argv[0] = 'pyoki'; "
        f"from tests.security import weakened; weakened.weaken(*{names!r}); "
        "from rootless_pyoki.cli.entry import main; main()"
    )
    return [sys.executable, "-c", launch]


def weaken(*names: str) -> None:
    from tests.security import weakened_processes  # noqa: F401  (it adds its own)

    _follow_the_root()
    for name in names:
        WEAKNESSES[name]()


def weakness(patch: Callable[[], None]) -> Callable[[], None]:
    WEAKNESSES[patch.__name__] = patch
    return patch


class Calls:
    """The system calls for one module, some of them replaced."""

    def __init__(self, **replaced: Callable[..., Any]) -> None:
        self.__dict__.update(replaced)

    def __getattr__(self, name: str) -> Any:
        return getattr(syscalls, name)


def _follow_the_root() -> None:
    """Keep `root` up to date: known when it is attached, "" once it is entered."""
    attach, enter = rootfs.attach, rootfs.enter

    def attach_and_tell(plan: Any) -> int:
        global root
        root = plan.path
        return attach(plan)

    def enter_and_tell(plan: Any, fd: int) -> None:
        global root
        enter(plan, fd)
        root = ""

    rootfs.attach, rootfs.enter = attach_and_tell, enter_and_tell


# ---- paths ----


def _make_directories(name: str) -> None:
    done = ""
    for part in name.strip("/").split("/"):
        done += f"/{part}"
        try:
            syscalls.mkdirat(c.AT_FDCWD, done, 0o755)
        except SyscallError as error:
            if error.errno not in (c.EEXIST, c.EROFS, c.EACCES, c.EPERM):
                raise


def _go_by_name(name_of: Callable[[int, str], str]) -> None:
    """Every lookup beneath the root becomes one by a name of the host."""

    def resolve(fd: int, path: str, flags: int = c.O_PATH) -> int:
        return syscalls.openat(c.AT_FDCWD, name_of(fd, path), flags)

    def make_directory(fd: int, path: str, mode: int = 0o755) -> int:
        name = name_of(fd, path)
        _make_directories(name)
        return syscalls.openat(c.AT_FDCWD, name, c.O_PATH | c.O_DIRECTORY)

    def make_file(fd: int, path: str, mode: int = 0o644) -> int:
        name = name_of(fd, path)
        _make_directories(name.rpartition("/")[0])
        try:
            syscalls.close(syscalls.openat(c.AT_FDCWD, name, c.O_WRONLY | c.O_CREAT, mode))
        except SyscallError as error:
            if error.errno not in (c.EROFS, c.EACCES, c.EPERM):
                raise
        return syscalls.openat(c.AT_FDCWD, name, c.O_PATH)

    def parent(fd: int, path: str, create: bool = True) -> tuple[int, str]:
        directory, _, name = path.rstrip("/").rpartition("/")
        return make_directory(fd, directory or "/"), name

    paths.resolve, paths.make_directory = resolve, make_directory
    paths.make_file, paths.parent, paths.resolve_beneath = make_file, parent, resolve


@weakness
def paths_of_the_host() -> None:
    """The name of the root with the path behind it, and the kernel follows links out of it."""

    def name_of(fd: int, path: str) -> str:
        return f"{os.readlink(f'/proc/self/fd/{fd}') if root else ''}/{path.lstrip('/')}"

    _go_by_name(name_of)


@weakness
def paths_checked_before() -> None:
    """A path is made safe beneath the root first (links are followed inside), and then used by name.

    As runtimes did before CVE-2021-30465: no link leads out, unless somebody puts it there meanwhile.
    """
    safely = paths.resolve

    def name_of(fd: int, path: str) -> str:
        rest: list[str] = []
        at = path
        while True:
            try:
                found = safely(fd, at or "/")
            except SyscallError as error:
                if error.errno != c.ENOENT or not at.strip("/"):
                    raise
                at, _, last = at.rstrip("/").rpartition("/")
                rest.insert(0, last)
                continue
            name = os.readlink(f"/proc/self/fd/{found}")
            os.close(found)
            return "/".join([name, *rest])

    _go_by_name(name_of)


@weakness
def proc_may_be_a_link() -> None:
    mounts._real_directory = lambda mount, fd: paths.make_directory(fd, mount.destination)


@weakness
def cwd_before_the_pivot() -> None:
    """process.cwd is made by name while / is still the host's."""
    make_readonly, run = rootfs.make_readonly, init.run
    wanted: list[str] = []

    def run_and_tell(plan: Any, *rest: Any) -> None:
        wanted.append(plan.process.cwd)
        run(plan, *rest)

    def make_first(plan: Any, fd: int, places: Any) -> None:
        _make_directories(root + wanted[0])
        make_readonly(plan, fd, places)

    init.run, rootfs.make_readonly = run_and_tell, make_first


@weakness
def copy_follows_links() -> None:
    """tmpcopyup looks at and opens what has the name, links and all."""

    def openat(fd: int, path: str, flags: int, mode: int = 0) -> int:
        return syscalls.openat(fd, path, flags & ~c.O_NOFOLLOW, mode)

    def fstatat(fd: int, path: str, flags: int = 0) -> Any:
        return syscalls.fstatat(fd, path, flags & ~c.AT_SYMLINK_NOFOLLOW)

    copy_up.syscalls = Calls(openat=openat, fstatat=fstatat)


@weakness
def masks_by_name() -> None:
    """What is to be masked is whatever is called so by then."""
    rootfs.places = lambda plan: Places((), ())


@weakness
def any_null() -> None:
    """What is called /dev/null is the null device."""
    rootfs._null_device = lambda fd: paths.resolve(fd, "/dev/null")


@weakness
def console_by_name() -> None:
    """/dev/console is what is called /dev/pts/N."""

    def bind(fd: int, slave: int) -> None:
        number = os.readlink(f"/proc/self/fd/{slave}").rpartition("/")[2]
        source = paths.resolve(fd, f"/dev/pts/{number}")
        target = paths.make_file(fd, "/dev/console")
        mounting.attach(mounting.clone_fd(source, recursive=False), target)

    console.bind_console = bind


# ---- what weakens nothing ----


@weakness
def without_openat2() -> None:
    """Paths are walked component by component, as before Linux 5.6."""
    paths.force_walk = True


@weakness
def without_move_mount() -> None:
    """Mounts are made by mount(2) and moved, as before Linux 5.2."""
    mounting.staging.needed = True


@weakness
def probe() -> None:
    """Before the root is entered: which of the mounts around us lie in the directory outside?"""
    outside = os.environ[OUTSIDE]
    enter = rootfs.enter

    def look_and_enter(plan: Any, fd: int) -> None:
        with open("/proc/self/mountinfo") as table:
            found = [line for line in table if line.split()[4].startswith(outside)]
        if found:
            with open(f"{outside}.mounts", "a") as log:
                log.writelines(found)
        enter(plan, fd)

    rootfs.enter = look_and_enter


@weakness
def slow_join() -> None:
    """exec's process waits a moment where it has joined and is not the gate yet."""
    take_ids = join._take_ids

    def wait(target: Any) -> None:
        take_ids(target)
        time.sleep(PAUSE)

    join._take_ids = wait


@weakness
def slow_copy() -> None:
    """tmpcopyup waits a moment between a look at a file and its opening."""

    def fstatat(*arguments: Any) -> Any:
        seen = syscalls.fstatat(*arguments)
        time.sleep(PAUSE)
        return seen

    copy_up.syscalls = Calls(fstatat=fstatat)
