"""A manager of units that does what a test says: what a real one seldom does. By jeepney, in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import jeepney
from jeepney.io.blocking import open_dbus_connection

NAME = "org.freedesktop.systemd1"
OBJECT = "/org/freedesktop/systemd1"
MANAGER = jeepney.DBusAddress(OBJECT, interface=f"{NAME}.Manager")
JOB = f"{OBJECT}/job/1"
UNIT = f"{OBJECT}/unit/u"

Answer = Callable[..., Any]


class Refusal(Exception):
    """An answer that is an error: the name's last word (of systemd's own errors), and the text."""

    def __init__(self, name: str, text: str = "no") -> None:
        super().__init__(text)
        self.name = name if "." in name else f"{NAME}.{name}"


class Systemd:
    """`answers`: method -> what it returns: (signature, body), or a Refusal that it raises."""

    def __init__(self, address: str, **answers: Answer) -> None:
        self.connection = open_dbus_connection(address)
        self.connection.send_and_get_reply(
            jeepney.message_bus.RequestName(NAME)  # type: ignore[no-untyped-call]
        )
        self.answers: dict[str, Answer] = {
            "StartTransientUnit": self.start,
            "ResetFailedUnit": lambda unit: ("", ()),
            "GetUnit": lambda unit: self.refuse("NoSuchUnit"),
            "StopUnit": lambda unit, mode: self.refuse("NoSuchUnit"),
            "Subscribe": lambda: ("", ()),
            **answers,
        }
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        self.result = "done"
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def refuse(self, name: str, text: str = "no") -> Any:
        raise Refusal(name, text)

    def start(self, unit: str, mode: str, properties: Any, others: Any) -> Any:
        """The job is done before its name is told."""
        self.job_removed(unit)
        return "o", (JOB,)

    def job_removed(self, unit: str) -> None:
        body = (1, JOB, unit, self.result)
        self.connection.send(jeepney.new_signal(MANAGER, "JobRemoved", "uoss", body))

    def called(self, method: str) -> list[tuple[Any, ...]]:
        """The arguments of each call."""
        return [arguments for name, arguments in self.calls if name == method]

    def properties(self) -> dict[str, tuple[str, Any]]:
        """Those of the last unit that was asked for."""
        return dict(self.called("StartTransientUnit")[-1][2])

    def serve(self) -> None:
        while True:
            try:
                message = self.connection.receive()
            except (OSError, EOFError, ConnectionError):
                return
            if message.header.message_type != jeepney.MessageType.method_call:
                continue
            method = message.header.fields[jeepney.HeaderFields.member]
            self.calls.append((method, message.body))
            try:
                answer = self.answers[method](*message.body)
            except Refusal as refusal:
                reply = jeepney.new_error(message, refusal.name, "s", (str(refusal),))
            else:
                if answer is None:
                    continue  # never
                reply = jeepney.new_method_return(message, *answer)
            self.connection.send(reply)

    def close(self) -> None:
        self.connection.sock.shutdown(2)
        self.thread.join(5)
        self.connection.close()
