"""proc_pid_mountinfo(5), read by a container of itself."""

from __future__ import annotations


class Mounted:
    """One line: where, with what options, of what filesystem."""

    def __init__(self, line: str) -> None:
        own, _, filesystem = line.partition(" - ")
        words = own.split()
        self.root, self.point = words[3], words[4]
        self.options = set(words[5].split(","))
        self.propagation = {word.partition(":")[0] for word in words[6:]}
        self.kind, self.source, options = filesystem.split(" ", 2)
        self.superblock = set(options.split(","))

    def __repr__(self) -> str:
        return f"{self.point} {sorted(self.options)} {self.kind} {sorted(self.superblock)}"


def parse(text: str) -> dict[str, Mounted]:
    """By mount point; where several lie on each other, the uppermost."""
    found = [Mounted(line) for line in text.splitlines() if " - " in line]
    return {mounted.point: mounted for mounted in found}
