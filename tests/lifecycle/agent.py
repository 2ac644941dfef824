"""A seccomp agent, seccomp_unotify(2): takes the listener that a runtime sends, and answers."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import select
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

NOTIF_RECV, NOTIF_SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_*
CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE

Policy = Callable[[int], int]  # number of the answer -> errno for the caller, 0: let it go on


class Agent:
    """Listens on `path`; each connection's calls get what `policy` says, asked with a running number."""

    def __init__(self, path: Path, policy: Policy = lambda number: errno.EOWNERDEAD) -> None:
        self.policy = policy
        self.states: list[dict[str, Any]] = []  # as they came, one a connection
        self.pids: list[int] = []  # of the callers
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        place = os.open(path.parent, os.O_PATH)
        self.socket.bind(f"/proc/self/fd/{place}/bound")  # whose address is short
        os.rename("bound", path.name, src_dir_fd=place, dst_dir_fd=place)
        os.close(place)
        self.socket.listen(8)
        self.ends, self.end = os.pipe()
        self.thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Agent:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.end)
        self.thread.join(10)
        assert not self.thread.is_alive()
        os.close(self.ends)
        self.socket.close()

    def _serve(self) -> None:
        listeners: list[int] = []
        while True:
            waiting = [self.socket.fileno(), self.ends, *listeners]
            poll = select.poll()
            for fd in waiting:
                poll.register(fd, select.POLLIN)
            for fd, events in poll.poll():
                if fd == self.ends:
                    for listener in listeners:
                        os.close(listener)
                    return
                if fd == self.socket.fileno():
                    listeners += self._accept()
                elif events & select.POLLIN:
                    self._answer(fd)
                else:  # nobody is filtered by it any more
                    os.close(fd)
                    listeners.remove(fd)

    def _accept(self) -> list[int]:
        """The state, to the end of the connection, and the one fd."""
        connection, _ = self.socket.accept()
        connection.settimeout(10)
        fds = array.array("i")
        data = b""
        with connection:
            while True:
                part, controls, _, _ = connection.recvmsg(1 << 16, 64)
                for level, kind, content in controls:
                    assert (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS)
                    assert not data, "the fd came late"
                    fds.frombytes(content)
                if not part:
                    break
                data += part
        if data:
            self.states.append(json.loads(data))
        return list(fds)

    def _answer(self, listener: int) -> None:
        notice = bytearray(80)
        try:
            fcntl.ioctl(listener, NOTIF_RECV, notice)
        except FileNotFoundError:
            return  # it was killed meanwhile
        id_, pid = struct.unpack_from("=QI", notice)
        self.pids.append(pid)
        number = self.policy(len(self.pids))
        answer = struct.pack("=QqiI", id_, 0, -number, 0 if number else CONTINUE)
        fcntl.ioctl(listener, NOTIF_SEND, bytearray(answer))
