"""What is set on the process itself: in init, before it becomes the gate; rlimits on the gate."""

from __future__ import annotations

from rootless_pyoki.errors import (
    HostError,
    SyscallError,
    UnsupportedError,
    describe_errno,
    from_oserror,
)
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, paths, procfs, syscalls
from rootless_pyoki.plan.plan import Note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from rootless_pyoki.plan.plan import Plan, Process

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LONGEST_PASSWD = 1 << 20  # bytes of /etc/passwd that are looked at


def set_oom_score_adj(proc: int, process: Process, tell: Callable[[Note], None]) -> None:
    """Intermediate's first act: later /proc/self belongs to others (proc_pid_oom_score_adj(5)).

    Where the user is lenient, what cannot be lowered stays as it is.
    """
    if process.oom_score_adj is None:
        return
    try:
        procfs.write(proc, "self/oom_score_adj", str(process.oom_score_adj).encode())
    except SyscallError as error:
        if process.lenient and error.errno in (c.EACCES, c.EPERM):
            now = procfs.read("self", "oom_score_adj").decode().strip()
            text = f"oom_score_adj {process.oom_score_adj} asked, it stays {now}: {error}"
            tell(Note(pointer=f"{process.pointer}/oomScoreAdj", text=text))
            return
        raise from_oserror(
            error,
            f"set oom_score_adj to {process.oom_score_adj}",
            pointer=f"{process.pointer}/oomScoreAdj",
            hint="without CAP_SYS_RESOURCE it can only be raised",
        ) from None


def set_rlimits(pid: int, process: Process) -> None:
    """On a gate that waits: none of them holds for our Python. RLIMIT_NOFILE is its own last act."""
    for rlimit in process.rlimits:
        if rlimit.name == "RLIMIT_NOFILE":
            continue
        try:
            syscalls.prlimit(pid, rlimit.resource, (rlimit.soft, rlimit.hard))
        except SyscallError as error:
            if error.errno == c.EPERM:
                raise UnsupportedError(
                    f"set {rlimit.name}: {error}",
                    pointer=rlimit.pointer,
                    errno=c.EPERM,
                    hint="a hard limit cannot be raised without CAP_SYS_RESOURCE",
                ) from None
            raise from_oserror(error, f"set {rlimit.name}", pointer=rlimit.pointer) from None


def name_the_host(plan: Plan) -> None:
    """hostname and domainname, in the container's uts namespace."""
    try:
        if plan.hostname:
            syscalls.sethostname(plan.hostname)
        if plan.domainname:
            syscalls.setdomainname(plan.domainname)
    except SyscallError as error:
        pointer = "/hostname" if error.call == "sethostname" else "/domainname"
        raise from_oserror(error, "name the host", pointer=pointer) from None


def bring_loopback_up() -> None:
    try:
        syscalls.interface_up("lo")
    except SyscallError as error:
        raise from_oserror(error, "bring the loopback interface up") from None


def write_sysctls(proc: int, plan: Plan, tell: Callable[[Note], None]) -> None:
    """Through the held procfs: a namespaced key shows the namespace of the process that opens it.

    Where the user is lenient, those that the kernel lacks or keeps to itself are left out.
    """
    for key, value, pointer in plan.sysctl:
        try:
            procfs.write(proc, f"sys/{key}", value.encode())
        except SyscallError as error:
            if plan.process.lenient and error.errno in (c.ENOENT, c.EACCES, c.EPERM, c.EROFS):
                tell(Note(pointer=pointer, text=f"not applied: set sysctl {key}: {error}"))
                continue
            hint = ""
            if key.endswith("ping_group_range"):
                hint = "are all ids of the range mapped?"
            raise from_oserror(error, f"set sysctl {key}", pointer=pointer, hint=hint) from None


# all for the possessor; view, read, link for the user, as it comes, and search: to find it by its name
_KEYRING_PERMISSIONS = 0x3F1B0000


def join_session_keyring(container_id: str, *, made: bool = False) -> None:
    """A keyring of the container's own, keyctl(2); made: exec's process takes the one that is there.

    Else the caller's would be the program's, with all keys in it.
    """
    try:
        keyring = syscalls.join_session_keyring(f"_ses.{container_id}")
        if not made:
            syscalls.keyctl_setperm(keyring, _KEYRING_PERMISSIONS)
    except SyscallError as error:
        if error.errno in (c.ENOSYS, c.EPERM, c.EACCES):
            return  # no keyrings in this kernel, or an outer profile forbids them: as runc and crun
        hint = ""
        if error.errno == c.EDQUOT:
            hint = "the user's key quota (kernel.keys.maxkeys) is used up; --no-new-keyring does without"
        raise from_oserror(error, "create a session keyring", hint=hint) from None


def give_stdio(process: Process) -> None:
    """The user of the process owns its stdio, so that /dev/stderr can be opened again."""
    for fd in range(3):
        try:
            seen = syscalls.fstat(fd)
            null = seen.st_mode & c.S_IFMT == c.S_IFCHR and seen.st_rdev == syscalls.makedev(1, 3)
            if seen.st_uid != process.uid and not null:
                syscalls.fchown(fd, process.uid, -1)
        except SyscallError:
            pass  # a closed stdio, a read-only filesystem, an owner that is not mapped


def enter_cwd(root: int, process: Process) -> bool:
    """Go to process.cwd, made when missing; False: not as this user, the gate tries after the ids."""
    try:
        place = paths.resolve(root, process.cwd, c.O_PATH | c.O_DIRECTORY)
    except SyscallError as error:
        if error.errno == c.EACCES:
            return False
        if error.errno != c.ENOENT:
            raise from_oserror(
                error, "enter the working directory", pointer=f"{process.pointer}/cwd"
            ) from None
        place = _make_cwd(root, process)
    try:
        syscalls.fchdir(place)
    except SyscallError as error:
        if error.errno == c.EACCES:
            return False
        raise from_oserror(
            error, "enter the working directory", pointer=f"{process.pointer}/cwd"
        ) from None
    finally:
        syscalls.close(place)
    if not syscalls.getcwd().startswith("/"):
        raise HostError(
            f"working directory {process.cwd} is outside the root filesystem",
            pointer=f"{process.pointer}/cwd",
        )
    return True


def _make_cwd(root: int, process: Process) -> int:
    try:
        return paths.make_directory(root, process.cwd)
    except SyscallError as error:
        raise from_oserror(
            error, "make the working directory", pointer=f"{process.pointer}/cwd"
        ) from None


def environment(root: int, process: Process) -> list[str]:
    """process.env, with HOME from the container's /etc/passwd where it is missing."""
    env = list(process.env)
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in env):
        env = [entry for entry in env if entry != "HOME="]
        env.append(f"HOME={_home(root, process.uid)}")
    return env


def _home(root: int, uid: int) -> str:
    for line in _passwd(root).decode("utf-8", "surrogateescape").split("\n"):
        entry = line.split(":")
        if len(entry) >= 6 and entry[2] == str(uid) and "\0" not in entry[5]:
            return entry[5] or "/"
    return "/"


def _passwd(root: int) -> bytes:
    """The beginning of /etc/passwd, b"" where it is no file; the image may have put anything there.

    Looked at before it is opened: an open can be enough to set a device off.
    """
    try:
        place = paths.resolve(root, "/etc/passwd")
    except SyscallError:
        return b""
    file = -1
    try:
        if syscalls.fstat(place).st_mode & c.S_IFMT != c.S_IFREG:
            return b""
        file = syscalls.openat(procfs.held(), f"self/fd/{place}", c.O_RDONLY)
        return syscalls.read(file, LONGEST_PASSWD)
    except SyscallError:
        return b""
    finally:
        fds.close_quietly(file)
        syscalls.close(place)


def find_executable(process: Process, env: list[str]) -> str:
    """The path to execve, in the container's root (we are in it), execvp(3)'s way.

    Raises HostError in the words that callers map to 127 (not found) and 126 (not executable).
    """
    if not process.args:
        return "/"  # the configuration has no process: `start` will refuse
    name = process.args[0]
    if "/" in name:
        path = _from_cwd(process, name)
        trouble = _trouble(path)
        if trouble not in (0, UNKNOWN):
            raise _cannot_execute(process, name, trouble)
        return path
    path = next((entry[5:] for entry in env if entry.startswith("PATH=")), DEFAULT_PATH)
    candidates = [_from_cwd(process, f"{directory or '.'}/{name}") for directory in path.split(":")]
    troubles = [_trouble(candidate) for candidate in candidates]
    if 0 in troubles:
        return candidates[troubles.index(0)]
    if any(trouble in (c.EACCES, c.EISDIR, UNKNOWN) for trouble in troubles):
        raise _cannot_execute(process, name, c.EACCES)
    raise HostError(
        f"exec {name}: executable file not found in $PATH: no such file or directory (ENOENT)",
        pointer=f"{process.pointer}/args/0",
        errno=c.ENOENT,
    )


UNKNOWN = -1  # only the process's own user may look there: the gate will know


def _from_cwd(process: Process, path: str) -> str:
    return path if path[:1] == "/" else f"{process.cwd.rstrip('/')}/{path}"


def _trouble(path: str) -> int:
    """errno why `path` cannot be executed, 0 if it can as far as its mode tells, or UNKNOWN."""
    try:
        mode = syscalls.fstatat(c.AT_FDCWD, path).st_mode
    except SyscallError as error:
        return UNKNOWN if error.errno == c.EACCES else error.errno or c.ENOENT
    if mode & c.S_IFMT == c.S_IFDIR:
        return c.EISDIR
    return 0 if mode & 0o111 else c.EACCES


def _cannot_execute(process: Process, name: str, errno: int) -> HostError:
    words = describe_errno(errno, syscalls.strerror(errno))
    if errno == c.EISDIR:
        words = f"permission denied: {words}"
    return HostError(f"exec {name}: {words}", pointer=f"{process.pointer}/args/0", errno=errno)
