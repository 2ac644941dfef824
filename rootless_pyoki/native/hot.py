"""The importer inside the hot bundle. bundle.py compiles this text and appends the call of `start`.

It runs under `python -I -S PREFIX/lib/pyoki/CACHE_TAG/pyoki.pyc argv...`, and reads the modules
from pyoki.code beside it. No site-packages, so the two extensions are looked for in a fixed list of
places. Whatever is missing sends us the slow way.
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
else:
    ModuleType = type(sys)

PACKAGE = "rootless_pyoki"
EXTENSION = "rootless_pyoki.native._syscalls"


class Bundle:
    """Finder and loader (importlib.abc.MetaPathFinder, Loader) of the bundled modules.

    stamp: the bytes that end each part of the file that was built with us; size: its index's.
    """

    def __init__(self, stamp: bytes, size: int, places: list[str]) -> None:
        self.places = places
        self.suffix = extension_suffixes()[0]
        self.site = self.place_of("rootless_pyoki/native/_syscalls" + self.suffix)
        self.stamp = stamp
        self.behind = size
        self.index: Index
        self.sections: list[tuple[int, int]]  # offset behind the index, size
        self.codes: dict[str, CodeType]  # of the sections that were read
        self.index, self.sections, self.codes = loads(self.read([(0, size)])[0])

    def read(self, parts: list[tuple[int, int]]) -> list[bytes]:
        """Parts of the file, (offset, size) each. It is not kept open: fd 3 may be one that the
        caller promised and forgot to pass.
        """
        try:
            file = open(sys.argv[0].removesuffix("pyc") + "code", O_RDONLY | O_CLOEXEC)
        except OSError:
            self.go_slow()
        found = [pread(file, size, offset) for offset, size in parts]
        close(file)
        if not all(part.endswith(self.stamp) for part in found):
            self.go_slow()  # another build's
        return found

    def place_of(self, file: str) -> str:
        """The first of the places that holds the file, else ""."""
        for place in self.places:
            try:
                stat(f"{place}/{file}")
            except OSError:
                continue
            return place
        return ""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        found = self.index.get(name)
        if found is not None:
            return ModuleSpec(name, self, is_package=found[1])  # type: ignore[arg-type]
        if name == "_json":
            return self.standard_extension(name)
        if name == "_cffi_backend":
            return self.extension(name, self.place_of(name + self.suffix), name)
        if name == EXTENSION:
            return self.extension(name, self.site, name.replace(".", "/"))
        if name.startswith(PACKAGE):
            self.go_slow()  # a module for humans: it needs site-packages
        return None

    def extension(self, name: str, place: str, file: str) -> ModuleSpec:
        if not place:
            self.go_slow()
        origin = f"{place}/{file}{self.suffix}"
        return ModuleSpec(name, Extension(name, origin, self), origin=origin)

    def standard_extension(self, name: str) -> ModuleSpec | None:
        """An extension of the standard library, without listing its folders; None: not there."""
        origin = f"{sys.path[-1]}/{name}{self.suffix}"
        try:
            stat(origin)
        except OSError:
            return None
        return ModuleSpec(name, ExtensionFileLoader(name, origin), origin=origin)

    def create_module(self, spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        """All that it imports of ours goes first, by hand: importlib's own way takes far longer."""
        needed: list[str] = []
        self.collect(module.__name__, needed)
        missing = sorted({self.index[name][0] for name in needed if name not in self.codes})
        if missing:
            places = [self.sections[number] for number in missing]
            for part in self.read([(self.behind + offset, size) for offset, size in places]):
                self.codes.update(loads(part))
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
        folder = f"{self.site}/{name.replace('.', '/')}"
        if self.index[name][1]:
            module.__path__ = [folder]
            folder += "/__init__"
        module.__file__ = f"{folder}.py"
        exec(self.codes[name], module.__dict__)

    def go_slow(self) -> NoReturn:
        """Start again with everything that a full interpreter finds, same arguments."""
        way = [f"{self.site}/{PACKAGE}/__main__.py"] if self.site else ["-m", PACKAGE]
        line = [sys.executable, "-X", "utf8", "-E", "-P", *way, *sys.argv[1:]]
        execv(sys.executable, line)


class Extension(ExtensionFileLoader):
    """One of our two extensions: if this interpreter cannot load it, the full one shall say why."""

    def __init__(self, name: str, path: str, bundle: Bundle) -> None:
        super().__init__(name, path)
        self.bundle = bundle

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        try:
            return super().create_module(spec)
        except ImportError:
            self.bundle.go_slow()


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


def start(stamp: bytes, size: int) -> NoReturn:
    bundle = Bundle(stamp, size, places_for(sys.argv[0].rsplit("/", 4)[0]))
    if not bundle.site:
        bundle.go_slow()
    sys.meta_path.insert(0, bundle)
    from rootless_pyoki.cli.entry import main

    main(sys.argv[1:])
