"""The system calls, each by its man page's name and argument order.

A wrapper makes its call and raises errors.SyscallError (errno, the call, what it was called on):
no policy, no logging; a retry only where the docstring says so. Paths are str, encoded as UTF-8
with surrogateescape. Callers import this module; the files behind it go by subject.
"""

from __future__ import annotations

from rootless_pyoki.kernel._files import *  # noqa: F403
from rootless_pyoki.kernel._mounts import *  # noqa: F403
from rootless_pyoki.kernel._processes import *  # noqa: F403
from rootless_pyoki.kernel._sockets import *  # noqa: F403
from rootless_pyoki.kernel._terminals import *  # noqa: F403
