"""The gate: the small program (native/gate.c) that init turns into, its record, its messages.

A created container, a foreground `run` and an `exec` wait in it, and it becomes the user's program.
The record's layout is written here and read by native/gate_record.h; both say what VERSION is.
"""

from __future__ import annotations

import sys

from rootless_pyoki.errors import SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import fds, syscalls
from rootless_pyoki.record import Record, replace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    from rootless_pyoki.plan.plan import Capabilities, Hook

CREATE = 1  # READY, wait for COMMIT on the channel, then for `start` on the socket
RUN = 2  # READY, wait for COMMIT, then for GO on the channel
EXEC = 3  # READY, wait for GO on the channel

MAGIC = 0x65746147
VERSION = 2
_FORK, _SESSION, _TERMINAL, _NO_NEW_PRIVILEGES, _GROUPS, _NOFILE = 1, 2, 4, 8, 16, 32
_SEALS = c.F_SEAL_WRITE | c.F_SEAL_SHRINK | c.F_SEAL_GROW | c.F_SEAL_SEAL
_SECBIT_NOROOT = 1
_DAC = 1 << c.CAP_DAC_OVERRIDE | 1 << c.CAP_DAC_READ_SEARCH

STEP_HOOK, STEP_LABEL, STEP_LISTENER = 4, 6, 17  # failures.py names them all
HOOK_STEPS = (STEP_HOOK, 5)  # a startContainer hook failed, or took too long


class GateRecord(Record):
    """All that the gate is told. Descriptors are the caller's numbers; become() moves them."""

    mode: int  # CREATE, RUN or EXEC
    fork: bool  # enter a joined pid namespace: the clone goes on, the first sends PID and leaves
    new_session: bool
    controlling_tty: bool  # TIOCSCTTY on fd 0
    path: bytes  # the executable, absolute in the container's root
    cwd: bytes  # b"": already there; else entered after the ids
    uid: int
    gid: int
    groups: tuple[int, ...] | None  # None: left alone
    no_new_privileges: bool
    capabilities: Capabilities
    filter: bytes  # struct sock_filter[]; b"": none
    filter_flags: int  # SECCOMP_FILTER_FLAG_*
    nofile: tuple[int, int] | None  # RLIMIT_NOFILE soft, hard
    channel: int  # SEQPACKET to main
    socket: int  # listening SEQPACKET, or -1
    lock: int  # held by flock until execve, or -1
    proc_dir: int  # a procfs root, for the label, or -1
    label: tuple[str, bytes] | None  # ("exec" or "apparmor/exec", what to write there)
    peer_uids: tuple[int, ...]  # who may say `start`, as SO_PEERCRED tells it inside
    preserve: int  # N: fds 3...3+N-1 are the program's
    start_hooks: tuple[Hook, ...]
    state: bytes  # OCI state JSON, the hooks' stdin
    deadline_ms: int  # for each client of the socket
    listener: int = -1  # connected stream socket that gets the seccomp listener
    listener_state: int = -1  # memfd: the JSON that goes with it, written before COMMIT or GO


class Message(Record):
    """What the gate said: kind "ready", "pid" (with pid) or "failed" (with step and errno)."""

    kind: str
    pid: int = 0
    step: int = 0
    errno: int = 0  # of a hook that ran and failed: minus its exit code, or minus (128 + signal)


def parse_message(data: bytes) -> Message:
    """A datagram from the gate; ValueError for anything that it does not say."""
    kind, body = data[:1], data[1:]
    if kind == b"R" and not body:
        return Message(kind="ready")
    if kind == b"P" and len(body) == 4:
        return Message(kind="pid", pid=int.from_bytes(body, sys.byteorder))
    if kind == b"F" and len(body) == 5:
        errno = int.from_bytes(body[1:], sys.byteorder, signed=True)
        return Message(kind="failed", step=body[0], errno=errno)
    raise ValueError(f"the gate said {data[:16]!r}")


def encode(record: GateRecord) -> bytes:
    """The record as native/gate_record.h reads it. ValueError for a NUL inside a string."""
    flags = (
        _FORK * record.fork
        | _SESSION * record.new_session
        | _TERMINAL * record.controlling_tty
        | _NO_NEW_PRIVILEGES * record.no_new_privileges
        | _GROUPS * (record.groups is not None)
        | _NOFILE * (record.nofile is not None)
    )
    caps = record.capabilities
    label_name, label = record.label or ("", b"")
    blobs = [
        _blob(_text(record.path)),
        _blob(_text(record.cwd) if record.cwd else b""),
        _blob(_u32(*(record.groups or ()))),
        _blob(record.filter),
        _blob(_u32(*record.peer_uids)),
        _blob(_text(label_name) if label_name else b""),
        _blob(label),
        _blob(record.state),
    ]
    for hook in record.start_hooks:
        blobs += (
            _u32(hook.timeout),
            _blob(_text(hook.path)),
            _texts(hook.args),
            _texts(hook.env or ()),
        )
    tail = b"".join(blobs)
    return b"".join(
        (
            _u32(MAGIC, VERSION, 128 + len(tail), record.mode, flags, record.uid, record.gid),
            _u32(record.preserve, record.deadline_ms, record.filter_flags, len(record.start_hooks)),
            _u32(0),
            _i32(record.channel, record.socket, record.lock, record.proc_dir),
            _i32(record.listener, record.listener_state),
            _u64(caps.bounding, caps.effective, caps.inheritable, caps.permitted, caps.ambient),
            _u64(*(record.nofile or (0, 0))),
            tail,
        )
    )


def _u32(*values: int) -> bytes:
    return b"".join([value.to_bytes(4, sys.byteorder) for value in values])


def _i32(*values: int) -> bytes:
    return b"".join([value.to_bytes(4, sys.byteorder, signed=True) for value in values])


def _u64(*values: int) -> bytes:
    return b"".join([value.to_bytes(8, sys.byteorder) for value in values])


def _blob(data: bytes) -> bytes:
    return _u32(len(data)) + data


def _text(text: str | bytes) -> bytes:
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
    if b"\0" in data:
        raise ValueError(f"NUL in {data[:64]!r}")
    return data + b"\0"


def _texts(texts: Sequence[str]) -> bytes:
    return _blob(b"".join([_text(text) for text in texts]))


def image_path() -> str:
    """The installed gate: it lies beside the extension, in a checkout as in an installation."""
    extension = sys.modules["rootless_pyoki.native._syscalls"].__file__ or ""
    return extension.rpartition("/")[0] + "/gate"


def image() -> bytes:
    """The gate's ELF file."""
    fd = syscalls.openat(c.AT_FDCWD, image_path(), c.O_RDONLY)
    try:
        return fds.read_all(fd)
    finally:
        syscalls.close(fd)


def make_memfd() -> int:
    """A descriptor to execveat() the gate from: nobody can read it, write it or map it writable."""
    return make_image()[0]


def make_image() -> tuple[int, str]:
    """(descriptor, which of IMAGES it is): the first that this kernel and its settings allow."""
    for name, make in IMAGES[:-1]:
        try:
            return make(), name
        except SyscallError as error:
            if error.errno not in (c.EINVAL, c.ENOSYS, c.EACCES, c.EPERM, c.EOPNOTSUPP, c.EISDIR):
                raise
    return IMAGES[-1][1](), IMAGES[-1][0]


def _memfd(flags: int) -> int:
    fd = syscalls.memfd_create("pyoki-gate", flags | c.MFD_CLOEXEC | c.MFD_ALLOW_SEALING)
    try:
        fds.write_all(fd, image())
        syscalls.fchmod(fd, 0o111)
        try:
            syscalls.add_seals(fd, _SEALS | c.F_SEAL_EXEC)
        except SyscallError as error:
            if error.errno != c.EINVAL:  # 6.3 knows F_SEAL_EXEC
                raise
            syscalls.add_seals(fd, _SEALS)
    except BaseException:
        syscalls.close(fd)
        raise
    return fd


def _unlinked_copy() -> int:
    """For vm.memfd_noexec=2: a file without a name, its only writable descriptor closed again."""
    for place in (syscalls.environ().get("XDG_RUNTIME_DIR", "/dev/shm"), "/tmp", "/var/tmp"):
        try:
            writable = syscalls.openat(c.AT_FDCWD, place, c.O_TMPFILE | c.O_RDWR, 0o600)
        except SyscallError:
            continue
        try:
            fds.write_all(writable, image())
            syscalls.fchmod(writable, 0o111)
            if syscalls.faccessat(c.AT_FDCWD, fds.fd_path(writable), 1):  # X_OK: not on noexec
                return syscalls.openat(c.AT_FDCWD, fds.fd_path(writable), c.O_PATH)
        finally:
            syscalls.close(writable)
    raise SyscallError(c.EACCES, syscalls.strerror(c.EACCES), "open", "O_TMPFILE")


def _installed() -> int:
    return syscalls.openat(c.AT_FDCWD, image_path(), c.O_PATH)


# Newest first. Where the last one serves, the gate is readable: the user owns what runs there.
IMAGES: tuple[tuple[str, Callable[[], int]], ...] = (
    ("memfd made executable", lambda: _memfd(c.MFD_EXEC)),  # 6.3
    ("memfd", lambda: _memfd(0)),  # 3.17
    ("unlinked copy", _unlinked_copy),  # O_TMPFILE: 3.11
    ("installed file", _installed),
)


def become(
    image_fd: int, record: GateRecord, argv: Sequence[str | bytes], envp: Sequence[str | bytes]
) -> NoReturn:
    """Replace this process by the gate. Imports nothing: after the pivot nothing is there.

    A failure raises SyscallError and leaves the record's own descriptors open, the channel to say
    so included. What the gate shall have gets new numbers; all else above 3+N goes with the exec.
    """
    written = syscalls.memfd_create("pyoki-record", c.MFD_CLOEXEC)
    first = (image_fd, written, record.channel)
    gate_fd, record_fd, channel = _neighbours(first, 3 + record.preserve)
    moved = {
        name: syscalls.dup(getattr(record, name), channel)
        for name in ("socket", "lock", "proc_dir", "listener", "listener_state")
        if getattr(record, name) >= 0
    }
    moved["channel"] = channel
    fds.write_all(record_fd, encode(replace(record, **moved)))
    fds.cloexec_from(3 + record.preserve)
    for fd in (record_fd, *moved.values()):
        syscalls.set_cloexec(fd, False)
    _keep_capabilities()
    syscalls.execveat(gate_fd, "", argv, envp, c.AT_EMPTY_PATH)
    raise AssertionError("execveat came back")


def _neighbours(originals: tuple[int, ...], minimum: int) -> list[int]:
    """Duplicates at the lowest free numbers E, E+1, E+2 ...: low ones keep the table small."""
    while True:
        found: list[int] = []
        for fd in originals:
            found.append(syscalls.dup(fd, found[-1] + 1 if found else minimum))
        if found[-1] == found[0] + len(found) - 1:
            return found
        for fd in found:
            syscalls.close(fd)
        minimum = found[-1] - len(found) + 2


def _keep_capabilities() -> None:
    """Let every capability survive the exec, and let the exec make the gate undumpable.

    Where uid 0 is not mapped only ambient capabilities pass an execve (capabilities(7)). A file
    that the caller cannot read makes the new process undumpable from its first instruction, and
    CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH would let us read it.
    """
    effective, permitted, _ = syscalls.capget()
    syscalls.capset(effective, permitted, permitted)
    if not _root_passes_exec():  # a quarter of a millisecond that most need not spend
        for capability in range(64):
            if permitted >> capability & 1:
                syscalls.prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_RAISE, capability)
    syscalls.capset(effective & ~_DAC, permitted, permitted)


def _root_passes_exec() -> bool:
    """Whether execve gives uid 0 all that is inheritable, which SECBIT_NOROOT would end."""
    return (
        syscalls.getuid() == syscalls.geteuid() == 0
        and not syscalls.prctl(c.PR_GET_SECUREBITS) & _SECBIT_NOROOT
    )
