"""What can go wrong, as a tree.

PyokiError                what the user reads: one message, perhaps a field, an errno and a hint
├── UsageError            the command line is wrong
├── SpecError             config.json says something that cannot be (JSON pointer in `pointer`)
├── UnsupportedError      config.json asks for what this host or a rootless runtime cannot do
├── StateError            the container is not in a state for this
│   └── NotFoundError     there is no such container
├── HostError             this machine or user lacks something
└── ChildError            a forked process failed and said where
    └── KilledError       it was killed, and could not say why
SyscallError (OSError)    a system call failed: errno, the call, and what it was called on

Messages are lower case and have no full stop.
"""

from __future__ import annotations

from errno import errorcode

EXIT_FAILURE = 1
EXIT_EXEC_FAILURE = 255


class SyscallError(OSError):
    """`call` failed with `errno`, on `filename` where there is one."""

    call: str

    def __init__(self, errno: int, strerror: str, call: str, filename: str | None = None) -> None:
        super().__init__(errno, strerror, filename)
        self.call = call

    def __str__(self) -> str:
        where = f" {self.filename}" if self.filename else ""
        return f"{self.call}{where}: {describe_errno(self.errno or 0, self.strerror or '')}"


def describe_errno(errno: int, strerror: str) -> str:
    """`operation not permitted (EPERM)`."""
    return f"{strerror[:1].lower()}{strerror[1:]} ({errorcode.get(errno, errno)})"


class PyokiError(Exception):
    """Base of all that a user is told."""

    exit_code = EXIT_FAILURE
    call = ""  # the system call that failed, where one did
    filename = ""  # and what it was called on

    def __init__(
        self,
        message: str,
        *,
        pointer: str = "",
        errno: int = 0,
        hint: str = "",
        id: str = "",
    ) -> None:
        """message: what was tried and what came of it; pointer: JSON pointer into config.json
        ("/mounts/3/destination"); errno: 0 when no call failed; hint: what to do; id: the hint's name.
        """
        super().__init__(message)
        self.message = message
        self.pointer = pointer
        self.errno = errno
        self.hint = hint
        self.id = id


class UsageError(PyokiError):
    pass


class SpecError(PyokiError):
    pass


class UnsupportedError(PyokiError):
    pass


class StateError(PyokiError):
    pass


class NotFoundError(StateError):
    pass


class HostError(PyokiError):
    pass


class ChildError(PyokiError):
    pass


class KilledError(ChildError):
    pass


def from_oserror(error: OSError, doing: str, *, pointer: str = "", hint: str = "") -> PyokiError:
    """The user's form of a failed call: `doing: call path: reason (ERRNO)`."""
    told = PyokiError(f"{doing}: {error}", pointer=pointer, errno=error.errno or 0, hint=hint)
    told.call = getattr(error, "call", "")
    told.filename = str(error.filename or "")
    return told
