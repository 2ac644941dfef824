"""Every option that `features` names, used in a container and seen at work there."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan import mount_options
from tests.apply import kernels
from tests.apply.mountinfo import Mounted, parse
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime, default_command

Make = Callable[..., Bundle]

# option -> (its opposite, what mountinfo shows of it, what it does not show)
FLAGS: dict[str, tuple[str, set[str], set[str]]] = {
    "ro": ("rw", {"ro"}, {"rw"}),
    "rw": ("ro", {"rw"}, {"ro"}),
    "nosuid": ("suid", {"nosuid"}, set()),
    "suid": ("nosuid", set(), {"nosuid"}),
    "nodev": ("dev", {"nodev"}, set()),
    "dev": ("nodev", set(), {"nodev"}),
    "noexec": ("exec", {"noexec"}, set()),
    "exec": ("noexec", set(), {"noexec"}),
    "noatime": ("atime", {"noatime"}, {"relatime"}),
    "atime": ("noatime", {"relatime"}, {"noatime"}),
    "nodiratime": ("diratime", {"nodiratime"}, set()),
    "diratime": ("nodiratime", set(), {"nodiratime"}),
    "relatime": ("strictatime", {"relatime"}, set()),
    "norelatime": ("noatime", {"noatime"}, set()),  # undoes relatime, and that alone: mount(8)
    "strictatime": ("relatime", set(), {"relatime", "noatime"}),
    "nostrictatime": ("strictatime", {"relatime"}, set()),
    "nosymfollow": ("symfollow", {"nosymfollow"}, set()),
    "symfollow": ("nosymfollow", set(), {"nosymfollow"}),
}
# flags of the filesystem: option -> (its opposite, what mountinfo shows of it)
SUPERBLOCK = {
    "sync": ("async", {"sync"}),
    "async": ("sync", set()),
    "dirsync": ("", {"dirsync"}),
    "lazytime": ("nolazytime", {"lazytime"}),
    "nolazytime": ("lazytime", set()),
}
PROPAGATION = {
    "private": set(),
    "shared": {"shared"},
    "unbindable": {"unbindable"},
}
# flags that no file shows: (option, its opposite, MS_*)
UNSEEN = [
    ("iversion", "noiversion", c.MS_I_VERSION),
    ("silent", "loud", c.MS_SILENT),
    ("acl", "noacl", c.MS_POSIXACL),
]
ELSEWHERE = {
    "defaults": "test_mounts.test_every_flag",
    "bind": "test_mounts.test_binds",
    "rbind": "test_mounts.test_recursive_options",
    "slave": "test_mounts.test_peers_of_the_host",
    "rslave": "test_mounts.test_peers_of_the_host",
    "mand": "test_mand, below",
    "nomand": "test_mand, below",
    "idmap": "test_idmapped",
    "ridmap": "test_idmapped",
    "copy-symlink": "test_mount_links",
    "src-nofollow": "test_mount_links",
    "dest-nofollow": "test_mount_links",
}
BEHAVIOUR = {
    "ro": "Read-only file system",
    "rw": "wrote",
    "noexec": "Permission denied",
    "exec": "ran",
    "nosymfollow": "Too many levels of symbolic links",
    "symfollow": "text",
    "noatime": "not read",
    "atime": "read",
    "nodev": "Permission denied",
    "dev": "opened",
    "tmpcopyup": "text",
    "remount": "wrote",
}
SCRIPT = """
cat /proc/self/mountinfo; cd /does; t=2001-01-01
try() { echo "DOES $1: $(sh -c "$2" 2>&1)"; }
for o in ro rw; do try $o "touch $o/new && echo wrote"; done
for o in exec noexec; do try $o $o/run; done
for o in symfollow nosymfollow; do try $o "cat $o/link"; done
for o in atime noatime; do
  touch -d $t $o/file; cat $o/file >/dev/null
  try $o "[ $(stat -c %X $o/file) -gt 1000000000 ] && echo read || echo not read"
done
for o in dev nodev; do try $o "echo x > $o && echo opened"; done
try tmpcopyup "cat tmpcopyup/file"
try remount "touch remount/new && echo wrote"
"""


def entry(at: str, *options: str, **members: str) -> dict[str, Any]:
    return {"destination": at, "type": "tmpfs", "source": "t", "options": list(options), **members}


def remount(at: str, *options: str) -> dict[str, Any]:
    return {"destination": at, "type": "none", "options": ["remount", "bind", *options]}


def all_mounts() -> list[dict[str, Any]]:
    mounts = []
    for option, (opposite, _, _) in FLAGS.items():
        mounts += [entry(f"/new/{option}", option, "norelatime")]
        mounts += [entry(f"/last/{option}", opposite, option)]
        mounts += [entry(f"/changed/{option}", opposite), remount(f"/changed/{option}", option)]
        tree = f"/tree/r{option}"
        mounts += [entry(tree), entry(f"{tree}/below", opposite)]
        mounts += [remount(tree, f"r{opposite}"), remount(tree, f"r{option}")]
    for option, (opposite, _) in SUPERBLOCK.items():
        mounts += [entry(f"/super/{option}", *([opposite] if opposite else []), option)]
        if option != "dirsync":  # mount(2): a remount cannot change it
            at = f"/resuper/{option}"
            mounts += [entry(at, opposite), entry(at, "remount", option)]
    for option in PROPAGATION:
        at, tree = f"/propagation/{option}", f"/propagation/r{option}"
        other = "private" if option == "shared" else "shared"
        mounts += [entry(at, other), remount(at, option)]
        mounts += [entry(tree, other), entry(f"{tree}/below", other), remount(tree, f"r{option}")]
    mounts += [
        entry(f"/does/{option}", "tmpcopyup", option)
        for option in BEHAVIOUR
        if option not in ("nodev", "dev", "tmpcopyup", "remount")
    ]
    mounts += [entry("/does/tmpcopyup", "tmpcopyup"), entry("/does/remount", "ro")]
    mounts += [remount("/does/remount", "rw")]
    mounts += [entry("/data", "size=1m"), entry("/data", "remount", "size=2m", "sync", "noexec")]
    for option in ("dev", "nodev"):
        mounts.append(entry(f"/does/{option}", "bind", option, type="none", source="/dev/null"))
    return mounts


class Seen:
    def __init__(self, out: str) -> None:
        self.mounts = parse(out)
        lines = [line[5:].partition(": ") for line in out.splitlines() if line[:5] == "DOES "]
        self.does = {option: did for option, _, did in lines}

    def __getitem__(self, point: str) -> Mounted:
        return self.mounts[point]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """One container with all the mounts, what it sees of them and what they do."""
    folder = tmp_path_factory.mktemp("options")
    (folder / "bundle").mkdir()
    bundle = Bundle(folder / "bundle").single_map()
    for option in BEHAVIOUR:
        if option not in ("nodev", "dev"):
            fill(bundle.rootfs / "does" / option)
    bundle.config["mounts"] += all_mounts()
    runtime = Runtime(default_command(), folder / "state")
    return Seen(runtime.run("options", bundle.shell(SCRIPT).path).ok().out)


def fill(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "file").write_text("text")
    (place / "link").symlink_to("file")
    (place / "run").write_text("#!/bin/sh\necho ran\n")
    (place / "run").chmod(0o755)


def proven() -> set[str]:
    """The options with a proof: here, or in the test that ELSEWHERE names."""
    names = {*FLAGS, *(f"r{option}" for option in FLAGS), *SUPERBLOCK, *BEHAVIOUR, *ELSEWHERE}
    names |= {*PROPAGATION, *(f"r{option}" for option in PROPAGATION)}
    return names | {name for on, off, _ in UNSEEN for name in (on, off)}


def test_no_option_is_only_promised() -> None:
    """Each of OPTIONS has its proof in this file, or in one that is named here."""
    assert proven() == set(mount_options.OPTIONS)
    for place in ELSEWHERE.values():
        name = place.partition(".")[0]
        assert name == "test_mand, below" or (Path(__file__).parent / f"{name}.py").is_file()


@pytest.mark.parametrize("option", FLAGS)
def test_flag(seen: Seen, option: str) -> None:
    """On a new filesystem, after its opposite, and taking back what was mounted before."""
    _, there, away = FLAGS[option]
    places = ["last", "changed"] if option == "norelatime" else ["new", "last", "changed"]
    for place in places:
        options = seen[f"/{place}/{option}"].options
        assert there <= options and not away & options, (place, options)


@pytest.mark.parametrize("option", FLAGS)
def test_recursive_flag(seen: Seen, option: str) -> None:
    """With an r it changes the whole tree."""
    _, there, away = FLAGS[option]
    for point in (f"/tree/r{option}", f"/tree/r{option}/below"):
        options = seen[point].options
        assert there <= options and not away & options, (point, options)


@pytest.mark.parametrize("option", SUPERBLOCK)
def test_flag_of_the_filesystem(seen: Seen, option: str) -> None:
    """Set when it is made, and changed by a remount."""
    expected = SUPERBLOCK[option][1]
    names = {"sync", "dirsync", "lazytime"}
    assert seen[f"/super/{option}"].superblock & names == expected
    if option != "dirsync":
        assert seen[f"/resuper/{option}"].superblock & names == expected


@pytest.mark.parametrize("option", PROPAGATION)
def test_propagation(seen: Seen, option: str) -> None:
    """Of one mount, and of a tree."""
    expected = PROPAGATION[option]
    assert seen[f"/propagation/{option}"].propagation == expected
    assert seen[f"/propagation/r{option}"].propagation == expected
    assert seen[f"/propagation/r{option}/below"].propagation == expected


@pytest.mark.parametrize("option", BEHAVIOUR)
def test_behaviour(seen: Seen, option: str) -> None:
    """What the kernel lets a program do there, or does not."""
    assert BEHAVIOUR[option] == seen.does[option] or BEHAVIOUR[option] in seen.does[option]


def test_remount_with_data(seen: Seen) -> None:
    """A remount without bind changes the filesystem too."""
    assert {"size=2048k", "sync"} <= seen["/data"].superblock
    assert "noexec" in seen["/data"].options


@pytest.fixture
def bundle(make_bundle: Make) -> Bundle:
    return make_bundle("true").single_map()


@pytest.mark.parametrize(("option", "opposite", "flag"), UNSEEN)
def test_flag_that_no_file_shows(
    runtime: Runtime, bundle: Bundle, identifier: str, option: str, opposite: str, flag: int
) -> None:
    """mount(2) gets it: a filter that refuses the flag refuses this mount, and not its opposite."""
    refused = kernels.refuse_mount_flag(flag, errno.EXFULL)
    bundle.config["mounts"].append(entry("/x", option, opposite, "size=1m"))
    runtime.run(identifier, bundle.write().path, preexec=refused).ok()
    bundle.config["mounts"][-1] = entry("/x", opposite, option, "size=1m")
    result = runtime.run(f"{identifier}-2", bundle.write().path, preexec=refused)
    assert result.code == 1 and "EXFULL" in result.err and "tmpfs on /x" in result.err
    runtime.run(f"{identifier}-3", bundle.path).ok()


def test_mand(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """Mandatory locks are no more: passed over, an error for who is strict; nomand is always done."""
    bundle.config["mounts"].append(entry("/x", "mand"))
    bundle.args("cat", "/proc/self/mountinfo")
    found = parse(runtime.run(identifier, bundle.path).ok().out)["/x"]
    assert not {"mand"} & (found.superblock | found.options)
    strict = Runtime(runtime.command, runtime.root, options=["--unsupported", "error"])
    result = strict.run(f"{identifier}-2", bundle.path)
    index = len(bundle.config["mounts"]) - 1
    assert result.code == 1 and f"/mounts/{index}/options/0" in result.err
    bundle.config["mounts"][-1] = entry("/x", "mand", "nomand")
    strict.run(f"{identifier}-3", bundle.write().path).ok()


def in_a_container(bundle: Bundle, setup: str) -> dict[str, Any]:
    """How to run it from a user namespace around it, in which `setup` has mounted something."""
    bundle.linux["uidMappings"][0]["hostID"] = bundle.linux["gidMappings"][0]["hostID"] = 0
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    bundle.write()
    unshare = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
    return {"prefix": [*unshare, f'{setup} && exec "$@"', "sh"]}


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["bind", "nosuid", "exec"], 2),
        (["rbind", "rexec", "rro"], 1),
        (["bind", "dev", "suid", "noexec"], 2),
        (["bind", "ro", "rw"], 2),
    ],
)
def test_what_is_locked(
    runtime: Runtime, bundle: Bundle, identifier: str, options: list[str], culprit: int
) -> None:
    """What the mount has outside, a user namespace cannot take off: the option is named."""
    peer = bundle.path / "peer"
    peer.mkdir()
    bundle.config["mounts"].append(entry("/x", *options, source=str(peer)))
    how = in_a_container(bundle, f"mount -t tmpfs -o ro,nosuid,noexec none {peer}")
    index = len(bundle.config["mounts"]) - 1
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    result = plain.run(identifier, bundle.path, **how)
    assert result.code == 1 and "EPERM" in result.err, str(result)
    assert f"/mounts/{index}/options/{culprit}" in result.err, str(result)
    assert f"{options[culprit]} on /x" in result.err


def test_a_remount_of_the_hosts_filesystem(
    runtime: Runtime, bundle: Bundle, identifier: str
) -> None:
    """Its own options are not ours to change: EPERM, with the mount's pointer."""
    mounts = bundle.config["mounts"]
    mounts += [entry("/x", "rbind", source="/sys"), entry("/x", "remount", "sync", type="none")]
    result = runtime.run(identifier, bundle.write().path)
    assert result.code == 1 and f"/mounts/{len(mounts) - 1}" in result.err, str(result)
    assert "EPERM" in result.err
