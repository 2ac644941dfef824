"""config.md, "Root" and "Mounts", in containers that look at their own mountinfo."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.conftest import World, only
from tests.support import needs
from tests.support.bundles import Bundle

# option -> (the other options given before it, what mountinfo must show, what it must not)
OPTIONS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "async": (["sync"], [], ["sync"]),
    "atime": (["noatime"], [], ["noatime"]),
    "defaults": ([], ["rw"], ["nosuid", "nodev", "noexec", "ro"]),
    "dev": (["nodev"], [], ["nodev"]),
    "diratime": (["nodiratime"], [], ["nodiratime"]),
    "dirsync": ([], ["dirsync"], []),
    "exec": (["noexec"], [], ["noexec"]),
    "iversion": ([], [], []),
    "lazytime": ([], ["lazytime"], []),
    "loud": (["silent"], [], []),
    "noatime": ([], ["noatime"], ["relatime"]),
    "nodev": ([], ["nodev"], []),
    "nodiratime": ([], ["nodiratime"], []),
    "noexec": ([], ["noexec"], []),
    "noiversion": (["iversion"], [], []),
    "nolazytime": (["lazytime"], [], ["lazytime"]),
    "norelatime": ([], [], ["noatime"]),
    "nostrictatime": (["strictatime"], ["relatime"], []),
    "nosuid": ([], ["nosuid"], []),
    "relatime": (["strictatime"], ["relatime"], []),
    "ro": ([], ["ro"], ["rw"]),
    "rw": (["ro"], ["rw"], ["ro"]),
    "silent": ([], [], []),
    "strictatime": ([], [], ["relatime", "noatime"]),
    "suid": (["nosuid"], [], ["nosuid"]),
    "sync": ([], ["sync"], []),
}
# options of propagation -> what mountinfo must show of the mount, and of one mounted below its source
PROPAGATION = {
    "private": ("", None),
    "shared": ("shared", None),
    "slave": ("", None),  # a slave of nobody is private: the namespace has cut it off before
    "unbindable": ("unbindable", None),
    "rprivate": ("", ""),
    "rshared": ("shared", "shared"),
    "rslave": ("", ""),
    "runbindable": ("unbindable", "unbindable"),
}


def tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "x", "options": list(options)}


class Mountinfo:
    """proc_pid_mountinfo(5), the topmost mount at each place."""

    def __init__(self, text: str) -> None:
        self.lines = {}
        for line in text.splitlines():
            words = line.split()
            self.lines[words[4]] = words

    def options(self, place: str) -> set[str]:
        """Of the mount, and of its filesystem (without its ro and rw, unless both agree)."""
        words = self.lines[place]
        filesystem = set(words[-1].split(",")) - {"ro", "rw"}
        return set(words[5].split(",")) | filesystem

    def propagation(self, place: str) -> str:
        words = self.lines[place]
        return " ".join(word.partition(":")[0] for word in words[6 : words.index("-")])


@pytest.fixture(scope="module")
def mounts(world: World) -> Mountinfo:
    """All the options in one container, a mount each."""
    bundle = world.bundle()
    more = bundle.config["mounts"]
    for option, (before, _, _) in OPTIONS.items():
        more.append(tmpfs(f"/m/{option}", *before, option))
    source = bundle.path / "source"
    (source / "below").mkdir(parents=True)
    for option in ("bind", "rbind"):
        more.append({"destination": f"/m/{option}", "source": str(source), "options": [option]})
    more.append({"destination": "/m/relative", "source": "source", "options": ["bind"]})
    for option in PROPAGATION:
        more.append(tmpfs(f"/p/{option}", "size=64k"))
        more.append(tmpfs(f"/p/{option}/below", "size=64k"))
        # a second entry for the same tree, so that there is something below for the recursive ones
        more.append(tmpfs(f"/q/{option}", "size=64k", option))
    more.append(tmpfs("/m/remount", "nosuid", "size=64k"))
    more.append({"destination": "/m/remount", "type": "tmpfs", "options": ["remount", "ro"]})
    seen = world.observe(bundle, {"mounts": "cat /proc/self/mountinfo"})
    return Mountinfo(seen["mounts"])


@pytest.mark.parametrize("option", OPTIONS)
def test_options(mounts: Mountinfo, option: str) -> None:
    """config.md, "Linux mount options": runtimes MUST implement these; the kernel shows most."""
    _, there, gone = OPTIONS[option]
    seen = mounts.options(f"/m/{option}")
    assert set(there) <= seen and not set(gone) & seen


@pytest.mark.parametrize("option", PROPAGATION)
def test_options_of_propagation(mounts: Mountinfo, option: str) -> None:
    """config.md, "Linux mount options": shared subtrees, as far as one mount shows them."""
    shown, _ = PROPAGATION[option]
    assert mounts.propagation(f"/q/{option}") == shown


def test_options_of_propagation_go_down(world: World) -> None:
    """config.md, "Linux mount options": rshared and its like are for the whole tree, shared is not."""
    bundle = world.bundle()
    more = bundle.config["mounts"]
    for option in PROPAGATION:
        (bundle.rootfs / "t" / option).mkdir(parents=True)
    # /proc and what is bound over it: a tree of the host with a mount below
    more.append({"destination": "/t/plain", "source": "/dev", "options": ["rbind"]})
    for option in PROPAGATION:
        entry = {"destination": f"/t/{option}", "source": "/dev", "options": ["rbind", option]}
        more.append(entry)
    seen = Mountinfo(world.observe(bundle, {"mounts": "cat /proc/self/mountinfo"})["mounts"])
    below = [place for place in seen.lines if place.startswith("/t/plain/")]
    needs.require(below, "nothing is mounted below /dev here")
    tail = below[0].removeprefix("/t/plain")
    for option, (top, deep) in PROPAGATION.items():
        assert seen.propagation(f"/t/{option}") == top, option
        if deep is not None:
            assert seen.propagation(f"/t/{option}{tail}") == deep, option
        else:
            assert seen.propagation(f"/t/{option}{tail}") == seen.propagation(f"/t/plain{tail}")


@pytest.mark.parametrize("option", ["bind", "rbind", "relative"])
def test_bind_mounts(mounts: Mountinfo, option: str) -> None:
    """config.md, "Linux mount options" and "Mounts": a path of the host, or relative to the bundle."""
    assert mounts.lines[f"/m/{option}"][3].endswith("/source")


def test_recursive_bind_mounts(world: World) -> None:
    """config.md, "Linux mount options": rbind brings what is mounted below, bind does not."""
    bundle = world.bundle()
    for option in ("bind", "rbind"):
        # a bind of a tree with locked mounts below is refused in a user namespace: see mount_namespaces(7)
        if option == "rbind" or needs.real_root():
            entry = {"destination": f"/t/{option}", "source": "/proc/self/../../dev/..",
                     "options": [option, "ro"]}  # fmt: skip
            entry["source"] = "/dev"
            bundle.config["mounts"].append(entry)
    seen = Mountinfo(world.observe(bundle, {"mounts": "cat /proc/self/mountinfo"})["mounts"])
    assert any(place.startswith("/t/rbind/") for place in seen.lines)
    assert not any(place.startswith("/t/bind/") for place in seen.lines)


def test_remount(mounts: Mountinfo) -> None:
    """config.md, "Linux mount options": remount changes what is mounted there already."""
    assert {"ro", "nosuid"} <= mounts.options("/m/remount")


def test_listed_order(world: World, bundle: Bundle) -> None:
    """config.md, "Mounts": entries MUST be mounted in the listed order."""
    bundle.config["mounts"] += [
        tmpfs("/a/b", "size=64k"),  # covered by the next
        tmpfs("/a", "size=65k"),
        tmpfs("/a/c", "size=66k"),
        tmpfs("/a/c", "size=67k"),
    ]
    text = world.observe(bundle, {"mounts": "cat /proc/self/mountinfo; ls /a"})["mounts"]
    lines = [line.split() for line in text.splitlines() if len(line.split()) > 5]
    mine = [words[4] for words in lines if words[4].startswith("/a")]
    assert mine == ["/a/b", "/a", "/a/c", "/a/c"]
    assert text.splitlines()[-1] == "c"
    ids = {words[0]: words for words in lines}
    last = next(words for words in reversed(lines) if words[4] == "/a/c")
    assert ids[last[1]][4] == "/a/c", "the last one lies on the one before"


def test_a_relative_destination(world: World, bundle: Bundle) -> None:
    """config.md, "Mounts": a relative destination MUST be interpreted as relative to /."""
    bundle.config["mounts"].append(tmpfs("relative/to", "size=64k"))
    bundle.process["cwd"] = "/tmp"
    seen = Mountinfo(world.observe(bundle, {"mounts": "cat /proc/self/mountinfo"})["mounts"])
    assert "/relative/to" in seen.lines


@pytest.mark.parametrize("readonly", [True, False])
def test_a_read_only_root(world: World, bundle: Bundle, readonly: bool) -> None:
    """config.md, "Root": with readonly the root filesystem MUST be read-only; false by default."""
    bundle.config["root"]["readonly"] = readonly
    if not readonly:
        del bundle.config["root"]["readonly"]
    seen = world.observe(bundle, {"touch": "touch /new && echo made; touch /dev/shm/x && echo shm"})
    assert ("made" in seen["touch"]) != readonly
    assert "shm" in seen["touch"] and (bundle.rootfs / "new").exists() != readonly


def idmapped(bundle: Bundle, option: str, **more: Any) -> Bundle:
    """/data with a file of the container's root, idmapped."""
    data = bundle.path / "data"
    data.mkdir()
    (data / "file").write_text("x")
    data.chmod(0o777)
    entry = {"destination": "/data", "source": str(data), "options": ["rbind", option], **more}
    bundle.config["mounts"].append(entry)
    return bundle


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_an_idmapped_mount_is_idmapped(world: World, bundle: Bundle, option: str) -> None:
    """config.md, "Linux mount options": the mount MUST have the mapping applied, else an error.

    The values of uidMappings and gidMappings MUST be used.
    """
    mapping = [{"containerID": 0, "hostID": 7, "size": 1}]
    if not needs.real_root():
        mapping = [
            {"containerID": 0, "hostID": bundle.linux["uidMappings"][0]["hostID"], "size": 1}
        ]
    idmapped(bundle, option, uidMappings=mapping, gidMappings=mapping)
    result = world.run(bundle.shell("stat -c %u:%g /data/file"))
    if result.code == 0:
        assert needs.real_root() and result.out.split() == ["7:7"], str(result)
    else:  # a filesystem that cannot, or a caller that may not
        assert "/mounts/" in result.err, str(result)


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_an_idmapped_mount_without_a_user_namespace(world: World, option: str) -> None:
    """config.md, "Linux mount options": an error MUST be returned where there is nothing to map with."""
    only(needs.real_root(), "only the machine's root has containers without a user namespace")
    bundle = idmapped(world.bundle(), option)
    world.refused(bundle, f"/mounts/{len(bundle.config['mounts']) - 1}")
