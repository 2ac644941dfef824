"""Where protected paths are: found in the mounts that were made, not by the names that led to them.

Who shares the root filesystem, or a volume, can rename there at any moment, mount points included. A
path looked up from the root would then not be found and be passed over, while what was mounted stays
open under its new name. So the mounts that readonlyPaths and maskedPaths lie in are held from when
they are made, and it is an error when the names lead elsewhere by then.
"""

from __future__ import annotations

from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.kernel import paths, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rootless_pyoki.plan.plan import Mount


class Places:
    """Protected paths, and the mounts that they lie in, each by its index in /mounts."""

    def __init__(self, mounts: Sequence[Mount], protected: Iterable[str]) -> None:
        self.mounts = mounts
        self.inside: dict[str, tuple[int, str]] = {}  # path -> (mount, the rest of the path)
        self.trees: dict[int, int] = {}  # mount -> its root as it was made, -1 before that
        self._found: dict[int, int] = {}  # mount -> its root as it was found at its place
        self._hidden: list[str] = []  # what is masked by now
        roots = [
            (n, _whole(mount.destination)) for n, mount in enumerate(mounts) if not mount.remount
        ]
        roots.reverse()  # the last one counts: it covers, or lies within, those before it
        for path in protected:
            whole = _whole(path)
            for index, root in roots:
                if whole.startswith(root) and "/../" not in whole:
                    self.inside[path] = index, whole[len(root) : -1]
                    self.trees[index] = -1
                    break

    def hold(self, index: int, tree: int) -> bool:
        """Is this mount's root wanted? It is kept until the gate is executed, and closed by that."""
        if index not in self.trees:
            return False
        self.trees[index] = tree
        return True

    def find(self, root: int, path: str, pointer: str) -> int:
        """An O_PATH fd. Raises SyscallError, as a lookup; HostError when a mount has gone."""
        index, rest = self.inside.get(path, (-1, ""))
        place = self._place(root, index, pointer) if index >= 0 else -1
        if place < 0:
            return paths.resolve(root, path)
        if not rest:
            del self._found[index]  # the caller has it, and is about to cover it
            return place
        try:
            return paths.resolve_beneath(place, rest)
        except SyscallError as error:
            if error.errno != c.EXDEV:
                raise
        return paths.resolve(root, path)  # a link in the mount, whose maker has the say there

    def covered(self, path: str, *, hidden: bool) -> None:
        """Something was mounted on `path`. hidden: what lay below is not there any more."""
        whole = _whole(path)
        if hidden:
            self._hidden.append(whole)
        within = self.inside.get(path, (-1, ""))[1]
        for index in list(self._found):
            # outside of a mount, links may make any other name of what was covered
            if not within or _whole(self.mounts[index].destination).startswith(whole):
                syscalls.close(self._found.pop(index))

    def _place(self, root: int, index: int, pointer: str) -> int:
        """The mount's root, or what covers it with the same; -1 where names are all that there is.

        A second look at the name is not for safety (somebody may rename right after it) but for the
        container: it would run without its /proc.
        """
        if index in self._found or self.trees[index] < 0:
            return self._found.get(index, -1)
        try:
            made = syscalls.fstat(self.trees[index])
        except SyscallError:
            return -1  # of FUSE, whose server answers its own user only
        if made.st_mode & c.S_IFMT == c.S_IFLNK:
            return -1
        destination = self.mounts[index].destination
        cause = ""
        try:
            place = paths.resolve(root, destination)
            seen = syscalls.fstat(place)
            if (seen.st_dev, seen.st_ino) == (made.st_dev, made.st_ino):
                self._found[index] = place
                return place
            syscalls.close(place)
        except SyscallError as error:
            cause = f": {error}"
        if any(_whole(destination).startswith(path) for path in self._hidden):
            raise SyscallError(c.ENOENT, "masked already", "openat", destination)
        raise HostError(
            f"what was mounted on {destination} is not there any more{cause}",
            pointer=pointer,
            hint="somebody changes the root filesystem meanwhile",
        )


def _whole(path: str) -> str:
    """With one slash between names and at both ends: to compare."""
    return "/".join(["", *[name for name in path.split("/") if name not in ("", ".")], ""])
