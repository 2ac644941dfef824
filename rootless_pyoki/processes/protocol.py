"""Every message between main and the processes that it makes, and their order.

    intermediate                 main                        init, later the gate
         │ ENTERED ───────────────▶│                                │   in my user namespace: map and move me
         │◀─────────────── SETTLED │                                │   maps written, cgroup joined
         │ INIT {pid} ────────────▶│                                │   init is cloned; I leave
         x                         │◀──────────────── RUNTIME_HOOKS │   mounts stand, the pivot is next
                                   │ HOOKS_DONE ───────────────────▶│
                                   │◀────────────────────── PID u32 │   (a gate that had to clone once more)
                                   │◀──────────────────────── READY │   (gate)
                                   │ COMMIT ───────────────────────▶│   recorded: you may outlive me
                                   │ GO ───────────────────────────▶│   run and exec: become the program

    exec's process, which joins, says ENTERED only where it has to be moved before it takes other ids.

    anybody → main, at any time before READY: NOTE {pointer, text}, CONSOLE + fd, and FAILED {…}, which
    is the last. The gate, which knows no JSON, says GATE_FAILED {step: u8, errno: i32}.

A message is one SEQPACKET datagram: a kind byte, then a JSON body where the arrow shows one.
"""

from __future__ import annotations

from rootless_pyoki.errors import PyokiError

ENTERED = b"E"
SETTLED = b"S"
INIT = b"I"
RUNTIME_HOOKS = b"H"
HOOKS_DONE = b"D"
PID = b"P"
READY = b"R"
COMMIT = b"C"
GO = b"G"
NOTE = b"N"
CONSOLE = b"T"
FAILED = b"X"
GATE_FAILED = b"F"

# What main may hear next, by what it heard last. "" is the beginning.
_FOLLOWS = {
    b"": (ENTERED, RUNTIME_HOOKS, PID, READY),
    ENTERED: (INIT, RUNTIME_HOOKS, PID, READY),
    INIT: (RUNTIME_HOOKS, PID, READY),
    RUNTIME_HOOKS: (PID, READY),
    PID: (READY,),
    READY: (),
}


class ProtocolError(PyokiError):
    """A message came early, late or twice: a defect of pyoki's own."""


class Sequence:
    """What main has heard so far."""

    def __init__(self) -> None:
        self.last = b""

    def accept(self, kind: bytes) -> bytes:
        """The kind, if it may come now; ProtocolError if it is early, late, double or unknown.

        FAILED and GATE_FAILED may come at any time; NOTE and CONSOLE until READY.
        """
        if kind in (FAILED, GATE_FAILED):
            return kind
        if kind in (NOTE, CONSOLE) and self.last != READY:
            return kind
        if kind not in _FOLLOWS[self.last]:
            raise ProtocolError(f"message {kind!r} may not follow {self.last!r}")
        self.last = kind
        return kind
