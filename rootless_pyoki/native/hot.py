"""The importer inside the hot bundle. bundle.py compiles this text and appends the call of `start`.

It runs as `python -I -S PREFIX/lib/pyoki/CACHE_TAG/pyoki.pyc argv...` would (launcher.c has a
quicker way), and reads the modules from pyoki.code beside it. No site-packages, so the two
extensions are looked for in a fixed list of places. Whatever is missing sends us the slow way.
Only built-in modules are imported: the path finder would list folders first.
"""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader
from _imp import extension_suffixes
from marshal import loads
from posix import O_CLOEXEC, O_RDONLY, close, execv, open, pread, stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import CodeType, ModuleType
    from typing import NoReturn

    # name -> (its section, -1 for the index's own; is it a package; what it imports of ours)
    Index = dict[str, tuple[int, bool, tuple[str, ...]]]
    Part = tuple[int, int]  # of the file: offset, size; its last bytes are the stamp
else:
    ModuleType = type(sys)

PACKAGE = "rootless_pyoki"
EXTENSION = "rootless_pyoki.native._syscalls"


class Bundle:
    """Finder and loader (importlib.abc.MetaPathFinder, Loader) of the bundled modules.

    stamp: the bytes that end each part of the file that was built with us; parts: the index with
    what all verbs need, the sections; likely: those of them that this verb needs.
    """

    def __init__(
        self, stamp: bytes, parts: list[Part], likely: tuple[int, ...], places: list[str]
    ) -> None:
        self.places = places
        self.suffix = extension_suffixes()[0]
        self.stamp = stamp
        self.parts = parts
        self.ahead: dict[int, memoryview] = {}  # sections that were read and not yet asked for
        self.read((-1, *likely))
        self.index: Index
        self.codes: dict[str, CodeType]  # of the sections that were asked for
        self.index, self.codes = loads(self.ahead.pop(-1))

    def read(self, sections: Sequence[int]) -> None:
        """Sections of the file into `ahead`, ascending, neighbours in one stroke. It is not kept
        open: fd 3 may be one that the caller promised and forgot to pass.
        """
        try:
            file = open(sys.argv[0].removesuffix("pyc") + "code", O_RDONLY | O_CLOEXEC)
        except OSError:
            self.go_slow()
        rest = list(sections)
        while rest:
            count = 1
            while count < len(rest) and rest[count] == rest[0] + count:
                count += 1
            taken, rest = rest[:count], rest[count:]
            start, end = self.parts[taken[0] + 1][0], sum(self.parts[taken[-1] + 1])
            found = memoryview(pread(file, end - start, start))
            for number in taken:
                offset, size = self.parts[number + 1]
                part = found[offset - start : offset - start + size]
                if part[-len(self.stamp) :] != self.stamp:
                    self.go_slow()  # another build's
                self.ahead[number] = part
        close(file)

    def place_of(self, file: str) -> str:
        """The first of the places that holds the file, else ""."""
        return next((place for place in self.places if exists(f"{place}/{file}")), "")

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = self.index.get(name)
        if found is not None:
            return ModuleSpec(name, self, is_package=found[1])  # type: ignore[arg-type]
        if name in ("_cffi_backend", EXTENSION):
            return self.extension(name, self.places)
        if name == "_json" and name not in sys.builtin_module_names:
            return self.extension(name, sys.path[-1:])  # without listing the library's folders
        if name.startswith(PACKAGE):
            self.go_slow()  # a module for humans: it needs site-packages
        return None

    def extension(self, name: str, places: list[str]) -> ModuleSpec:
        tail = f"/{name.replace('.', '/')}{self.suffix}"
        return ModuleSpec(name, Extension(name, [place + tail for place in places], self))

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        """All that it imports of ours goes first, by hand: importlib's own way takes far longer."""
        needed: list[str] = []
        self.collect(module.__name__, needed)
        missing = sorted({self.index[name][0] for name in needed if name not in self.codes})
        unread = [number for number in missing if number not in self.ahead]
        if unread:
            self.read(unread)
        for number in missing:
            self.codes.update(loads(self.ahead.pop(number)))
        for name in needed[:-1]:
            self.load(name)
        self.run(module)

    def collect(self, name: str, needed: list[str]) -> None:
        """Put the module and all that it imports and that is not loaded yet in order: what is
        imported before who imports it.
        """
        for need in (name.rpartition(".")[0], *self.index[name][2]):
            if need and need not in needed and need not in sys.modules:
                self.collect(need, needed)
        needed.append(name)

    def load(self, name: str) -> None:
        """What `import name` does when the parent is loaded and the module is not."""
        parent, _, tail = name.rpartition(".")
        module = sys.modules[name] = ModuleType(name)
        module.__spec__ = ModuleSpec(name, self, is_package=self.index[name][1])  # type: ignore[arg-type]
        module.__loader__ = self  # type: ignore[assignment]
        module.__package__ = module.__spec__.parent
        try:
            self.run(module)
        except BaseException:
            sys.modules.pop(name, None)
            raise
        if parent:
            setattr(sys.modules[parent], tail, module)

    def run(self, module: ModuleType) -> None:
        name = module.__name__
        if self.index[name][1]:
            module.__path__ = []  # a package; what it holds we know
        exec(self.codes[name], module.__dict__)

    def go_slow(self) -> NoReturn:
        """Start again with everything that a full interpreter finds, same arguments."""
        site = self.place_of(f"{PACKAGE}/__main__.py")
        way = [f"{site}/{PACKAGE}/__main__.py"] if site else ["-m", PACKAGE]
        line = [sys.executable, "-X", "utf8", "-E", "-P", *way, *sys.argv[1:]]
        execv(sys.executable, line)


class Extension(ExtensionFileLoader):
    """An extension in the first of the paths where there is one. If there is none, or this
    interpreter cannot load it, the full one shall say why.
    """

    def __init__(self, name: str, paths: list[str], bundle: Bundle) -> None:
        super().__init__(name, paths[0])
        self.paths = paths
        self.bundle = bundle

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        for path in self.paths:
            self.path = spec.origin = path
            try:
                return super().create_module(spec)
            except ImportError:
                if exists(path):
                    break
        self.bundle.go_slow()


def exists(path: str) -> bool:
    try:
        stat(path)
    except OSError:
        return False
    return True


def places_for(prefix: str) -> list[str]:
    """Where installers put extensions for a launcher in PREFIX/bin; then the system's own places,
    for a cffi that an environment shares with the system.
    """
    python = "python{}.{}".format(*sys.version_info)
    places = []
    for root in (prefix, prefix + "/local", "/usr/local", sys.prefix, "/usr"):
        for tail in (
            f"/lib/{python}/site-packages",
            f"/lib/{python}/dist-packages",
            f"/lib64/{python}/site-packages",
            "/lib/python3/dist-packages",
        ):
            if root + tail not in places:
                places.append(root + tail)
    return places


def start(stamp: bytes, parts: list[Part], needs: dict[str, tuple[int, ...]]) -> NoReturn:
    """needs: verb -> the sections that it needs. The first word that is a verb's name will be the
    verb; if not (it may be an option's value), what was read in vain costs little.
    """
    verb = next((word for word in sys.argv if word in needs), "")
    places = places_for(sys.argv[0].rsplit("/", 4)[0])
    bundle = Bundle(stamp, parts, needs.get(verb, ()), places)
    sys.meta_path.insert(0, bundle)
    from rootless_pyoki.cli.entry import main

    main(sys.argv[1:])
