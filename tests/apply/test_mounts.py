"""Everything under /mounts, as the container's own mountinfo shows it, on this kernel and older ones."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.apply import kernels
from tests.apply.conftest import Preexec
from tests.apply.mountinfo import Mounted, parse
from tests.support.bundles import Bundle
from tests.support.runtime import Result, Runtime

Make = Callable[..., Bundle]


def tmpfs(at: str, *options: str) -> dict[str, Any]:
    return {"destination": at, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def bind(source: object, at: str, *options: str) -> dict[str, Any]:
    return {"destination": at, "type": "bind", "source": str(source), "options": list(options)}


@pytest.fixture
def bundle(make_bundle: Make) -> Bundle:
    """One id, so that older kernels can be played."""
    return make_bundle("cat", "/proc/self/mountinfo").single_map()


def add(bundle: Bundle, *entries: dict[str, Any]) -> Bundle:
    bundle.config["mounts"] += entries
    return bundle.write()


def mounted(result: Result) -> dict[str, Mounted]:
    assert result.code == 0 and result.err == "", str(result)
    return parse(result.out)


# option -> (mount options it shows, options it keeps away)
FLAGS: dict[str, tuple[set[str], set[str]]] = {
    "ro": ({"ro"}, {"rw"}),
    "rw": ({"rw"}, {"ro"}),
    "nosuid": ({"nosuid"}, set()),
    "suid": (set(), {"nosuid"}),
    "nodev": ({"nodev"}, set()),
    "dev": (set(), {"nodev"}),
    "noexec": ({"noexec"}, set()),
    "exec": (set(), {"noexec"}),
    "noatime": ({"noatime"}, {"relatime"}),
    "atime": ({"relatime"}, {"noatime"}),
    "nodiratime": ({"nodiratime"}, set()),
    "diratime": (set(), {"nodiratime"}),
    "relatime": ({"relatime"}, {"noatime"}),
    "strictatime": (set(), {"relatime", "noatime"}),
    "nosymfollow": ({"nosymfollow"}, set()),
    "symfollow": (set(), {"nosymfollow"}),
    "defaults": ({"rw"}, set()),
}
SUPERBLOCK = ("sync", "dirsync", "lazytime")
PROPAGATION = {
    "private": set(),
    "shared": {"shared"},
    "slave": set(),  # of nobody: a new mount has no peers
    "unbindable": {"unbindable"},
    "rprivate": set(),
    "rshared": {"shared"},
    "rslave": set(),
    "runbindable": {"unbindable"},
}


def test_every_flag(runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec) -> None:
    """Each option of config.md is in mountinfo: on a new filesystem, as r... and on a bind."""
    source = bundle.path / "source"
    source.mkdir()
    for option in FLAGS:
        add(
            bundle,
            tmpfs(f"/new/{option}", option),
            tmpfs(f"/tree/{option}", f"r{option}" if option != "defaults" else option),
            bind(source, f"/bound/{option}", "bind", option),
        )
    for option in SUPERBLOCK:
        add(bundle, tmpfs(f"/super/{option}", option))
    for option in PROPAGATION:
        add(bundle, tmpfs(f"/propagation/{option}", option))
    seen = mounted(runtime.run(identifier, bundle.path, preexec=kernel))
    for option, (there, away) in FLAGS.items():
        for place in ("new", "tree", "bound"):
            if place == "bound" and "atime" in option:
                continue  # locked, see the next test
            options = seen[f"/{place}/{option}"].options
            assert there <= options and not away & options, (place, option, options)
    for option in SUPERBLOCK:
        assert option in seen[f"/super/{option}"].superblock, seen[f"/super/{option}"]
    for option, expected in PROPAGATION.items():
        found = seen[f"/propagation/{option}"].propagation
        assert found == expected, (option, found)


def test_locked_access_times(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """On a mount of another user namespace's they cannot change: told, and the rest is done."""
    add(bundle, bind(bundle.path, "/x", "bind", "ro", "nosuid", "nodiratime"))
    add(bundle, bind(bundle.path, "/y", "rbind", "rro", "rnodiratime"))
    index = len(bundle.config["mounts"]) - 2
    bundle.args("sleep", "1000")
    runtime.create(identifier, bundle.path, preexec=kernel).ok()
    notes = json.loads(runtime("state", "--verbose", identifier).ok().out)["pyoki"]["notes"]
    told = {note["pointer"] for note in notes}
    assert {f"/mounts/{index}/options", f"/mounts/{index + 1}/options"} <= told, notes
    pid = runtime.state(identifier)["pid"]
    runtime.start(identifier).ok()
    seen = parse(Path(f"/proc/{pid}/mountinfo").read_text())
    assert {"ro", "nosuid"} <= seen["/x"].options and "ro" in seen["/y"].options


def test_default_mounts(runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec) -> None:
    """What every engine asks for: proc, dev, pts, shm, mqueue, sys, the masks; on every kernel."""
    seen = mounted(runtime.run(identifier, bundle.path, preexec=kernel))
    kinds = {point: seen[point].kind for point in ("/proc", "/dev", "/dev/pts", "/dev/shm", "/sys")}
    assert kinds == {
        "/proc": "proc",
        "/dev": "tmpfs",
        "/dev/pts": "devpts",
        "/dev/shm": "tmpfs",
        "/sys": "sysfs",
    }
    assert seen["/dev/mqueue"].kind == "mqueue"
    assert {"ro", "nosuid", "nodev", "noexec"} <= seen["/sys"].options
    assert "size=65536k" in seen["/dev/shm"].superblock
    assert {"mode=620", "ptmxmode=666"} <= seen["/dev/pts"].superblock
    assert "ro" in seen["/proc/sys"].options and seen["/proc/sys"].kind == "proc"
    assert seen["/proc/keys"].kind == "devtmpfs" or seen["/proc/keys"].root.endswith("null")
    assert seen["/sys/firmware"].kind == "tmpfs" and "ro" in seen["/sys/firmware"].options
    outside = [m for m in seen.values() if m.point.startswith(("/oldroot", "/work", "/home/dev"))]
    assert not outside


def test_an_outer_profile_that_says_eperm(
    runtime: Runtime, bundle: Bundle, identifier: str
) -> None:
    """Older container engines answer EPERM, not ENOSYS, to calls that their profile does not know."""
    calls = {number for numbers in kernels.KERNELS.values() for number in numbers}
    add(bundle, tmpfs("/x", "ro", "nosuid"), bind("/sys", "/all", "rbind", "rro"))
    refused = kernels.refuse(tuple(sorted(calls)), errno.EPERM)
    seen = mounted(runtime.run(identifier, bundle.path, preexec=refused))
    assert {"ro", "nosuid"} <= seen["/x"].options and "ro" in seen["/all"].options
    assert seen["/proc"].kind == "proc" and "ro" in seen["/proc/sys"].options


def test_binds(runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec) -> None:
    """Files and directories, read-only or not, a nested mount on a mount, a relative source."""
    folder = bundle.path / "folder"
    folder.mkdir()
    (folder / "inner").write_text("inner\n")
    (bundle.path / "file").write_text("file\n")
    add(
        bundle,
        bind(folder, "/made/folder", "bind", "ro"),
        bind(bundle.path / "file", "/made/deep/file", "rbind", "ro"),
        bind("file", "/relative", "bind"),
        tmpfs("/outer", "mode=711"),
        tmpfs("/outer/inner", "mode=700"),
        bind(folder, "/outer/inner/folder", "bind"),
    )
    script = (
        "cat /made/folder/inner /made/deep/file /relative /outer/inner/folder/inner;"
        "stat -c %a /outer /outer/inner;"
        "for f in /made/folder/x /made/deep/file /outer/inner/folder/new /relative; do"
        " echo w 2>/dev/null >$f && echo wrote $f; done; true"
    )
    result = runtime.run(identifier, bundle.shell(script).path, preexec=kernel)
    assert result.out.split() == [
        *("inner", "file", "file", "inner", "711", "700"),
        *("wrote", "/outer/inner/folder/new", "wrote", "/relative"),
    ], str(result)
    assert (folder / "new").read_text() == "w\n" and not (folder / "x").exists()


def test_recursive_options(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """rro and its like reach every mount of a bound tree; ro only the first."""
    add(
        bundle,
        bind("/sys", "/all", "rbind", "rro", "rnosuid", "rnodev", "rnoexec"),
        bind("/dev", "/first", "rbind", "ro"),
    )
    seen = mounted(runtime.run(identifier, bundle.path, preexec=kernel))
    tree = [m for m in seen.values() if m.point == "/all" or m.point.startswith("/all/")]
    assert len(tree) > 1, "the machine's /sys has no mounts below it"
    for mount in tree:
        assert {"ro", "nosuid", "nodev", "noexec"} <= mount.options, mount
    assert "ro" in seen["/first"].options
    below = [m for m in seen.values() if m.point.startswith("/first/")]
    assert any("rw" in m.options for m in below), below


def test_a_remount_changes_what_is_there(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """Option remount with bind: attributes of the mount at the destination; the others stay."""
    add(
        bundle,
        tmpfs("/there", "nosuid", "nodev"),
        bind("none", "/there", "remount", "bind", "ro", "noexec"),
    )
    seen = mounted(runtime.run(identifier, bundle.path, preexec=kernel))["/there"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= seen.options
    assert seen.kind == "tmpfs"


def test_a_file_with_an_odd_name(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    r"""Blanks, backslashes and bytes that are no UTF-8 in sources and destinations."""
    folder = os.fsencode(bundle.path) + b"/a b\\c\xff"
    os.mkdir(folder)
    Path(os.fsdecode(folder + b"/f")).write_text("odd\n")
    name = os.fsdecode(b"/x y\\z")
    add(bundle, bind(os.fsdecode(os.path.dirname(folder)), name, "rbind", "rro"))
    bundle.args("sh", "-c", "cat '/x y\\z'/a*/f")
    assert runtime.run(identifier, bundle.path, preexec=kernel).ok().out == "odd\n"


def test_tmpfs_takes_mode_size_and_contents(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """mode and size as asked, the covered directory's mode by default, tmpcopyup copies it."""
    covered = bundle.rootfs / "covered"
    (covered / "deep").mkdir(parents=True)
    (covered / "deep/file").write_text("copied\n")
    (covered / "deep/file").chmod(0o640)
    (covered / "link").symlink_to("deep/file")
    covered.chmod(0o751)
    add(
        bundle,
        tmpfs("/asked", "mode=1770", "size=1m"),
        tmpfs("/covered", "tmpcopyup", "ro"),
        tmpfs("/tmp"),
    )
    result = runtime.run(
        identifier,
        bundle.shell(
            "stat -c %a /asked /covered /tmp /covered/deep/file; cat /covered/link; df -k /asked | tail -1"
        ).path,
        preexec=kernel,
    ).ok()
    words = result.out.split()
    assert words[:5] == ["1770", "751", "1777", "640", "copied"]
    assert words[6] == "1024"


def test_mounts_and_devices_in_a_readonly_tmpfs(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """Option ro of a tmpfs holds once all that lies in it is made: mount points, device nodes."""
    dev = next(entry for entry in bundle.config["mounts"] if entry["destination"] == "/dev")
    dev["options"].append("ro")
    add(bundle, tmpfs("/tmp", "ro"), tmpfs("/tmp/in/side"), bind("/etc", "/tmp/etc", "ro"))
    shown = mounted(runtime.run(identifier, bundle.path, preexec=kernel))
    assert {"/dev", "/tmp", "/tmp/etc"} <= {at for at in shown if "ro" in shown[at].options}
    assert {"/dev/pts", "/dev/null", "/tmp/in/side"} <= {
        at for at in shown if "rw" in shown[at].options
    }


@pytest.mark.parametrize(
    ("link", "target", "lands"),
    [
        ("/link", "/far/away", "far/away/x"),
        ("/link", "../../../../up", "up/x"),
        ("/a/b/link", "../c", "a/c/x"),
        ("/a/link", "/a/loop/../../d", "d/x"),
    ],
)
def test_links_never_lead_out(
    runtime: Runtime, bundle: Bundle, identifier: str, link: str, target: str, lands: str
) -> None:
    """A destination behind links of the image is made inside the root, wherever they point."""
    (bundle.rootfs / "a/loop").mkdir(parents=True)
    place = bundle.rootfs / link[1:]
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(target)
    add(bundle, tmpfs(f"{link}/x"))
    seen = mounted(runtime.run(identifier, bundle.path))
    assert f"/{lands}" in seen
    assert (bundle.rootfs / lands).is_dir()
    for outside in ("/far", "/up", "/d"):
        assert not Path(outside).exists()


def test_a_missing_source_is_named(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """The pointer says which mount, and podman finds the words that it maps to 127."""
    add(bundle, bind("/no/such/thing", "/x", "bind"))
    index = len(bundle.config["mounts"]) - 1
    result = runtime.run(identifier, bundle.path)
    assert result.code == 1
    assert f"/mounts/{index}/source" in result.err or "/no/such/thing" in result.err
    assert "no such file or directory" in result.err.lower()


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_behind_a_link(
    runtime: Runtime, bundle: Bundle, identifier: str, name: str
) -> None:
    """An image whose /proc or /sys is a link is refused: what reads them later would be fooled."""
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / name).symlink_to("tmp")
    result = runtime.run(identifier, bundle.path)
    assert result.code == 1 and f"/{name}" in result.err and "not a directory" in result.err


def test_sysfs_without_a_network_namespace(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """The host's /sys is bound instead, read-only throughout."""
    bundle.without_namespace("network")
    seen = mounted(runtime.run(identifier, bundle.path, preexec=kernel))
    tree = [m for m in seen.values() if m.point == "/sys" or m.point.startswith("/sys/")]
    assert seen["/sys"].kind == "sysfs"
    assert [m for m in tree if "ro" not in m.options] == []


def test_cgroup_without_a_cgroup_namespace(
    v2: Path, runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """A cgroup mount without a namespace of its own never lets the container write the host's."""
    bundle.without_namespace("cgroup")
    seen = mounted(runtime.run(identifier, bundle.path, preexec=kernel))["/sys/fs/cgroup"]
    assert seen.kind == "cgroup2" and "ro" in seen.options


def test_a_readonly_root(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """root.readonly: / is read-only, mounts on it are not."""
    bundle.config["root"]["readonly"] = True
    add(bundle, tmpfs("/tmp"))
    bundle.shell("touch /x 2>&1; touch /tmp/x && echo fine")
    result = runtime.run(identifier, bundle.path, preexec=kernel)
    assert "Read-only file system" in result.out and "fine" in result.out


def test_masked_and_readonly_paths(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """Masked files read as nothing, masked directories are empty, missing ones do not matter."""
    for name in ("one", "two"):
        (bundle.rootfs / f"secrets/{name}").mkdir(parents=True)
        (bundle.rootfs / f"secrets/{name}/key").write_text("secret")
    (bundle.rootfs / "secrets/file").write_text("secret")
    (bundle.rootfs / "keep").mkdir()
    bundle.linux["maskedPaths"] += ["/secrets/one", "/secrets/two", "/secrets/file", "/no/such"]
    bundle.linux["readonlyPaths"] += ["/keep", "/no/such"]
    bundle.shell(
        "ls -A /secrets/one /secrets/two; cat /secrets/file; touch /keep/x /secrets/one/x 2>&1;"
        "(echo 1 > /proc/sys/kernel/domainname) 2>&1; true"
    )
    result = runtime.run(identifier, bundle.path, preexec=kernel)
    assert result.out.count("Read-only file system") == 3, str(result)
    assert "secret\n" not in result.out and "key" not in result.out
    assert not (bundle.rootfs / "keep/x").exists()


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("private", set()),
        ("rprivate", set()),
        ("slave", set()),
        ("rslave", set()),
        ("shared", {"shared"}),
        ("rshared", {"shared"}),
        ("unbindable", {"unbindable"}),
    ],
)
def test_rootfs_propagation(
    runtime: Runtime, bundle: Bundle, identifier: str, value: str, shown: set[str]
) -> None:
    """linux.rootfsPropagation is what / of the container has in the end."""
    bundle.linux["rootfsPropagation"] = value
    seen = mounted(runtime.run(identifier, bundle.write().path))
    assert shown <= seen["/"].propagation, seen["/"].propagation
    assert not {"shared", "unbindable"} - shown & seen["/"].propagation - shown


def test_without_pivot(runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec) -> None:
    """--no-pivot: the same root and mounts, and the host's proc is not to be found."""
    add(bundle, tmpfs("/data", "size=1m"))
    bundle.shell("ls /; cat /proc/1/comm; df -k /data | tail -1")
    result = runtime.run(identifier, bundle.path, "--no-pivot", preexec=kernel).ok()
    words = result.out.split()
    assert "data" in words and "bin" in words and "work" not in words
    assert "1024" in words


def test_relative_destinations(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """As runc: taken from /, for images of before OCI 1.0."""
    add(bundle, tmpfs("some/where"))
    assert "/some/where" in mounted(runtime.run(identifier, bundle.path))


def test_a_destination_outside(runtime: Runtime, bundle: Bundle, identifier: str) -> None:
    """`..` stops at the root."""
    add(bundle, tmpfs("/../../../outside"))
    assert "/outside" in mounted(runtime.run(identifier, bundle.path))
    assert not Path("/outside").exists()


def test_an_unknown_filesystem(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """The error names the mount and its type."""
    add(bundle, {"destination": "/x", "type": "nosuchfs", "source": "x"})
    result = runtime.run(identifier, bundle.path, preexec=kernel)
    assert result.code == 1 and "nosuchfs" in result.err and "ENODEV" in result.err, str(result)


def test_bad_filesystem_options(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """An option that the filesystem does not know is an error, with the mount's pointer."""
    add(bundle, tmpfs("/x", "nonsense=1"))
    index = len(bundle.config["mounts"]) - 1
    result = runtime.run(identifier, bundle.path, preexec=kernel)
    assert result.code == 1 and "EINVAL" in result.err, str(result)
    assert f"/mounts/{index}" in result.err or "tmpfs on /x" in result.err


def test_peers_of_the_host(
    runtime: Runtime, bundle: Bundle, identifier: str, kernel: Preexec
) -> None:
    """Of a shared mount of the caller's: rslave follows it, private does not, shared is not its peer."""
    bundle.linux["uidMappings"][0]["hostID"] = bundle.linux["gidMappings"][0]["hostID"] = 0
    peer = bundle.path / "peer"
    peer.mkdir()
    for option in ("private", "rprivate", "slave", "rslave", "shared", "rshared"):
        add(bundle, bind(peer, f"/{option}", "rbind", option))
    add(bundle, bind(peer, "/plain", "bind"))
    prefix = [
        *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c"),
        f'mount -t tmpfs tmpfs {peer} && mount --make-shared {peer} && exec "$@"',
        "sh",
    ]
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    seen = mounted(plain.run(identifier, bundle.write().path, prefix=prefix, preexec=kernel))
    assert {name: seen[f"/{name}"].propagation for name in ("private", "rprivate")} == {
        "private": set(),
        "rprivate": set(),
    }
    assert {name: seen[f"/{name}"].propagation for name in ("slave", "rslave", "plain")} == {
        "slave": {"master"},
        "rslave": {"master"},
        "plain": {"master"},
    }
    for name in ("shared", "rshared"):
        assert seen[f"/{name}"].propagation == {"shared", "master"}
