"""Options of mounts as the specification and mount(8) define them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootless_pyoki.errors import SpecError, UnsupportedError
from rootless_pyoki.kernel import constants as c
from rootless_pyoki.plan import describe, mount_options
from tests.plan import plans

RO, NOSUID, NODEV, NOEXEC = (
    c.MOUNT_ATTR_RDONLY,
    c.MOUNT_ATTR_NOSUID,
    c.MOUNT_ATTR_NODEV,
    c.MOUNT_ATTR_NOEXEC,
)
NODIRATIME, NOSYMFOLLOW = c.MOUNT_ATTR_NODIRATIME, c.MOUNT_ATTR_NOSYMFOLLOW
ATIME, NOATIME, STRICTATIME = (
    c.MOUNT_ATTR__ATIME,
    c.MOUNT_ATTR_NOATIME,
    c.MOUNT_ATTR_STRICTATIME,
)

# option -> (attributes set, cleared), mount_setattr(2)
ATTRIBUTES = {
    "defaults": (0, 0),
    "ro": (RO, 0),
    "rw": (0, RO),
    "nosuid": (NOSUID, 0),
    "suid": (0, NOSUID),
    "nodev": (NODEV, 0),
    "dev": (0, NODEV),
    "noexec": (NOEXEC, 0),
    "exec": (0, NOEXEC),
    "nodiratime": (NODIRATIME, 0),
    "diratime": (0, NODIRATIME),
    "nosymfollow": (NOSYMFOLLOW, 0),
    "symfollow": (0, NOSYMFOLLOW),
    "noatime": (NOATIME, ATIME),
    "relatime": (0, ATIME),
    "strictatime": (STRICTATIME, ATIME),
    "atime": (0, ATIME),
    "nostrictatime": (0, ATIME),
    "norelatime": (0, 0),
}
SUPERBLOCK = {
    "sync": c.MS_SYNCHRONOUS,
    "dirsync": c.MS_DIRSYNC,
    "lazytime": c.MS_LAZYTIME,
    "iversion": c.MS_I_VERSION,
    "silent": c.MS_SILENT,
    "mand": 0,  # see test_what_no_kernel_does
    "async": 0,
    "nolazytime": 0,
    "noiversion": 0,
    "loud": 0,
    "nomand": 0,
}
PROPAGATION = {
    "private": c.MS_PRIVATE,
    "shared": c.MS_SHARED,
    "slave": c.MS_SLAVE,
    "unbindable": c.MS_UNBINDABLE,
}


@pytest.mark.parametrize("option", ATTRIBUTES)
def test_attribute_option(option: str) -> None:
    """Each attribute option changes this one mount and nothing else."""
    mount = plans.make_mount(type="bind", source="/s", options=["bind", option])
    assert (mount.attr_set, mount.attr_clear) == ATTRIBUTES[option]
    assert (mount.recursive_set, mount.recursive_clear) == (0, 0)
    assert (mount.superblock_flags, mount.propagation, mount.data) == (0, 0, ())


@pytest.mark.parametrize("option", [name for name in ATTRIBUTES if name != "defaults"])
def test_recursive_attribute_option(option: str) -> None:
    """With an r before it, the option is about the whole tree."""
    mount = plans.make_mount(type="bind", source="/s", options=["rbind", f"r{option}"])
    assert (mount.recursive_set, mount.recursive_clear) == ATTRIBUTES[option]
    assert (mount.attr_set, mount.attr_clear, mount.data) == (0, 0, ())


@pytest.mark.parametrize("option", SUPERBLOCK)
def test_filesystem_option(option: str) -> None:
    """Options of the filesystem itself become mount(2) flags, not data."""
    mount = plans.make_mount(type="tmpfs", options=[option])
    assert mount.superblock_flags == SUPERBLOCK[option]
    assert (mount.attr_set, mount.attr_clear, mount.data) == (0, 0, ())


@pytest.mark.parametrize(
    ("on", "off"),
    [("sync", "async"), ("lazytime", "nolazytime"), ("iversion", "noiversion"), ("silent", "loud")],
)
def test_filesystem_option_undone(on: str, off: str) -> None:
    """The opposite takes a filesystem option back."""
    assert plans.make_mount(type="tmpfs", options=[on, off]).superblock_flags == 0


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("option", PROPAGATION)
def test_propagation_option(option: str, recursive: bool) -> None:
    """Propagation of the mount, or of its whole tree."""
    word, flag = (f"r{option}", c.MS_REC) if recursive else (option, 0)
    assert plans.make_mount(type="tmpfs", options=[word]).propagation == PROPAGATION[option] | flag


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["ro", "rw"], (0, RO)),
        (["rw", "ro"], (RO, 0)),
        (["noatime", "atime"], (0, ATIME)),
        (["strictatime", "atime"], (STRICTATIME, ATIME)),
        (["noatime", "nostrictatime"], (NOATIME, ATIME)),
        (["noatime", "strictatime"], (STRICTATIME, ATIME)),
        (["strictatime", "relatime"], (0, ATIME)),
        (["relatime", "norelatime"], (0, 0)),
        (["noatime", "norelatime"], (NOATIME, ATIME)),
        (["nosuid", "nodev", "noexec", "dev"], (NOSUID | NOEXEC, NODEV)),
    ],
)
def test_last_word_holds(options: list[str], expected: tuple[int, int]) -> None:
    """Of options that contradict each other the last is done."""
    mount = plans.make_mount(type="tmpfs", options=options)
    assert (mount.attr_set, mount.attr_clear) == expected


known = sorted(set(mount_options.OPTIONS) - {"bind", "rbind", "remount"})


@given(st.lists(st.sampled_from(known)))
def test_attributes_are_what_the_kernel_takes(options: list[str]) -> None:
    """mount_setattr(2): no bit is both set and cleared, but the atime field is cleared whole."""
    for added, removed in mount_options.parse(options).attributes:
        assert added & removed & ~ATIME == 0
        assert removed & ATIME in (0, ATIME)
        assert added & ATIME in (0, NOATIME, STRICTATIME)
        assert not added & ATIME or removed & ATIME


@given(st.lists(st.sampled_from(sorted({**ATTRIBUTES}))))
def test_described_options_mean_the_same(options: list[str]) -> None:
    """What describe() writes, parsed again, is the same mount."""
    first = mount_options.parse(options)
    words = describe._attributes(*first.attributes[0], "")
    assert mount_options.parse(words).attributes == first.attributes


def test_every_option_of_the_specification_is_known() -> None:
    """No option of config-linux.md, "Linux mount options", falls through to the filesystem."""
    recursive = {f"r{name}" for name in ATTRIBUTES if name != "defaults"}
    families = {*PROPAGATION, *(f"r{name}" for name in PROPAGATION)}
    others = {"bind", "rbind", "remount", "tmpcopyup", "idmap", "ridmap"}
    # beside the specification's: mount(8)'s two, and crun's
    more = {"acl", "noacl", "copy-symlink", "src-nofollow", "dest-nofollow"}
    assert {*ATTRIBUTES, *recursive, *SUPERBLOCK, *families, *others, *more} == set(
        mount_options.OPTIONS
    )


def test_unknown_options_are_data() -> None:
    """What no table knows goes to the filesystem, in order."""
    mount = plans.make_mount(type="tmpfs", options=["size=64k", "nosuid", "mode=700", "huge=never"])
    assert mount.data == ("size=64k", "mode=700", "huge=never")


def test_unknown_option_on_a_bind_mount() -> None:
    """A bind mount has no filesystem that could be told something."""
    with pytest.raises(SpecError) as caught:
        plans.make_mount(type="bind", source="/s", options=["ro", "size=1k"])
    assert caught.value.pointer == "/mounts/0/options/1"


@pytest.mark.parametrize(
    ("kind", "options", "recursive"),
    [
        ("bind", [], False),
        ("none", ["bind"], False),
        ("", ["rbind"], True),
        ("bind", ["rbind"], True),
        ("tmpfs", ["bind"], False),
        ("bind", ["bind", "rprivate", "rbind"], True),
    ],
)
def test_bind(kind: str, options: list[str], recursive: bool) -> None:
    """Option or type make a bind mount; one rbind makes it recursive."""
    mount = plans.make_mount(type=kind, source="/s", options=options)
    assert (mount.kind, mount.source, mount.recursive) == ("bind", "/s", recursive)


def test_bind_source_is_relative_to_the_bundle() -> None:
    """config.md: a relative source is one in the bundle."""
    assert plans.make_mount(type="bind", source="data/x").source == "/bundle/data/x"


def test_bind_without_source() -> None:
    """Nothing can be bound without saying what."""
    with pytest.raises(SpecError) as caught:
        plans.make_mount(type="bind")
    assert caught.value.pointer == "/mounts/0/source"


def test_neither_type_nor_bind() -> None:
    """A mount that is no bind mount needs a filesystem type."""
    with pytest.raises(SpecError) as caught:
        plans.make_mount(source="/s")
    assert caught.value.pointer == "/mounts/0/type"


def test_relative_destination() -> None:
    """It is taken from /, and that is noted."""
    plan = plans.make(plans.config(mounts=[{"destination": "proc", "type": "proc"}]))
    assert plan.mounts[0].destination == "/proc"
    assert [note.pointer for note in plan.notes] == ["/mounts/0/destination"]


def test_remount() -> None:
    """remount changes the attributes of what is there and needs no source."""
    mount = plans.make_mount(type="none", options=["remount", "ro", "nosuid"])
    assert mount.remount
    assert mount.attr_set == RO | NOSUID
    bound = plans.make_mount(type="none", options=["remount", "bind", "ro"])
    assert (bound.remount, bound.kind) == (True, "bind")


def test_proc_of_the_hosts_pid_namespace() -> None:
    """mount_namespaces(7): a new user namespace may not have it. Binding it is another matter."""
    proc = {"destination": "/proc", "type": "proc"}
    config = plans.config(mounts=[proc])
    spaces = config["linux"]["namespaces"] = [{"type": "mount"}]  # for a user: one is added
    with pytest.raises(UnsupportedError) as caught:
        plans.make(config, plans.USER)
    assert caught.value.pointer == "/mounts/0" and "pid namespace" in caught.value.hint
    bound = {"destination": "/proc", "source": "/proc", "options": ["rbind"]}
    config["mounts"] = [bound]
    assert plans.make(config, plans.USER).mounts[0].kind == "bind"
    config["mounts"] = [proc]
    spaces.append({"type": "pid"})
    assert plans.make(config, plans.USER).mounts[0].kind == "proc"


def test_remount_with_data() -> None:
    """It reconfigures the filesystem, which a bind has none of its own to offer."""
    mount = plans.make_mount(type="tmpfs", options=["remount", "size=1m", "sync"])
    assert (mount.remount, mount.data) == (True, ("size=1m",))
    assert mount.superblock_flags == c.MS_SYNCHRONOUS
    with pytest.raises(SpecError) as caught:
        plans.make_mount(options=["remount", "bind", "size=1m"])
    assert caught.value.pointer == "/mounts/0/options/2"


def notes_of(policy: str, *options: str, **members: object) -> list[str]:
    entry = {"destination": "/x", "options": list(options), **members}
    return [
        note.pointer
        for note in plans.make(plans.config(mounts=[entry]), unsupported=policy).notes
        if note.pointer.startswith("/mounts")
    ]


@pytest.mark.parametrize("option", ["sync", "dirsync", "lazytime", "iversion", "silent", "acl"])
def test_a_filesystem_option_on_a_bind(option: str) -> None:
    """It is the filesystem's, and other mounts of it share it: told, an error for who is strict."""
    words = ("bind", "ro", option)
    assert notes_of("", *words, source="/s") == ["/mounts/0/options/2"]
    assert notes_of(
        "", *words, "async", "nolazytime", "loud", "noiversion", "noacl", source="/s"
    ) == (["/mounts/0/options/2"] if option == "dirsync" else [])
    with pytest.raises(UnsupportedError) as caught:
        notes_of("error", *words, source="/s")
    assert caught.value.pointer == "/mounts/0/options/2"
    assert notes_of("error", option, type="tmpfs") == []


def test_what_no_kernel_does() -> None:
    """mand has meant nothing since Linux 5.15: told, an error for who is strict."""
    assert notes_of("", "size=1m", "mand", type="tmpfs") == ["/mounts/0/options/1"]
    assert notes_of("", "mand", "nomand", type="tmpfs") == []
    with pytest.raises(UnsupportedError) as caught:
        notes_of("error", "mand", type="tmpfs")
    assert caught.value.pointer == "/mounts/0/options/0"


@pytest.mark.parametrize("option", mount_options.SYMLINKS)
def test_options_about_links(option: str) -> None:
    """crun's options are kept by name; only dest-nofollow means something for new filesystems."""
    mount = plans.make_mount(type="bind", source="/s", options=["bind", option, "ro"])
    assert (mount.special, mount.attr_set, mount.data) == ((option,), RO, ())
    if option == "dest-nofollow":
        assert plans.make_mount(type="tmpfs", options=[option]).special == (option,)
    else:
        with pytest.raises(SpecError) as caught:
            plans.make_mount(type="tmpfs", options=["ro", option])
        assert caught.value.pointer == "/mounts/0/options/1"
    with pytest.raises(SpecError):
        plans.make_mount(type="bind", options=["remount", "bind", option])


def test_tmpcopyup() -> None:
    """A tmpfs that starts with what it covers."""
    assert plans.make_mount(type="tmpfs", options=["tmpcopyup"]).copy_up
    assert not plans.make_mount(type="tmpfs").copy_up


@pytest.mark.parametrize(
    "members",
    [
        {"type": "bind", "source": "/s", "options": ["bind", "tmpcopyup"]},
        {"type": "ramfs", "options": ["ro", "tmpcopyup"]},
        {"type": "tmpfs", "options": ["remount", "tmpcopyup"]},
    ],
)
def test_tmpcopyup_elsewhere(members: dict[str, Any]) -> None:
    """Nothing is ever copied into what is not the container's alone."""
    with pytest.raises(SpecError) as caught:
        plans.make_mount(**members)
    assert caught.value.pointer == "/mounts/0/options/1"


def mapped(*entries: dict[str, object], **rest: object) -> dict[str, object]:
    return plans.config(mounts=list(entries), own_user=True, **rest)  # type: ignore[arg-type]


def test_devpts_with_a_group_that_is_not_mapped() -> None:
    """gid=5 would be refused by the kernel: it is left out and noted."""
    entry = {"destination": "/dev/pts", "type": "devpts", "options": ["newinstance", "gid=500"]}
    plan = plans.make(mapped(entry), plans.USER)
    assert plan.mounts[0].data == ("newinstance",)
    assert "/mounts/0/options/1" in [note.pointer for note in plan.notes]
    entry["options"] = ["gid=99"]
    assert plans.make(mapped(entry), plans.USER).mounts[0].data == ("gid=99",)


@pytest.mark.parametrize("option", ["uid=100", "gid=100"])
def test_tmpfs_with_an_id_that_is_not_mapped(option: str) -> None:
    """The owner of a tmpfs is not silently another one."""
    entry = {"destination": "/t", "type": "tmpfs", "options": ["mode=700", option]}
    with pytest.raises(SpecError) as caught:
        plans.make(mapped(entry), plans.USER)
    assert caught.value.pointer == "/mounts/0/options/1"
    entry["options"] = [option.replace("100", "99")]
    assert plans.make(mapped(entry), plans.USER).mounts[0].data == tuple(entry["options"])


def test_ids_are_checked_against_the_callers_namespace() -> None:
    """Without a new user namespace the caller's own map counts, as inside podman's."""
    entry = {"destination": "/t", "type": "tmpfs", "options": ["uid=65537"]}
    with pytest.raises(SpecError):
        plans.make(plans.config(mounts=[entry]), plans.IN_PODMAN)
    assert plans.make(plans.config(mounts=[entry]), plans.ROOT).mounts[0].data == ("uid=65537",)


SYS = {
    "destination": "/sys",
    "type": "sysfs",
    "source": "sysfs",
    "options": ["nosuid", "noexec", "rw"],
}


def test_sysfs_without_its_network_namespace() -> None:
    """The host's /sys is bound, read-only with all that is mounted in it, whatever is asked."""
    plan = plans.make(mapped(SYS, without=("network",)), plans.USER)
    mount = plan.mounts[0]
    assert (mount.kind, mount.source, mount.recursive) == ("bind", "/sys", True)
    assert mount.recursive_set == RO | NOSUID | NOEXEC
    assert not mount.attr_clear & RO
    assert (mount.fallback, mount.data) == ("", ())
    assert [note.pointer for note in plan.notes] == ["/mounts/0"]


def test_sysfs_with_its_network_namespace() -> None:
    """A new one is tried, with the host's as what comes next."""
    mount = plans.make(mapped(SYS), plans.USER).mounts[0]
    assert (mount.kind, mount.fallback) == ("sysfs", "/sys")
    # inside podman's namespace a joined network may be ours: the kernel knows
    assert (
        plans.make(plans.config(mounts=[SYS], without=("network",)), plans.IN_PODMAN).mounts[0].kind
        == "sysfs"
    )


def test_sysfs_with_a_joined_network_namespace() -> None:
    """A network namespace made elsewhere does not belong to the new user namespace."""
    made = mapped(SYS)
    made["linux"]["namespaces"][1]["path"] = "/run/netns/x"  # type: ignore[index]
    assert plans.make(made, plans.USER).mounts[0].kind == "bind"


def test_mqueue_without_its_ipc_namespace() -> None:
    """The host's queues are bound, as the container shares them."""
    entry = {"destination": "/dev/mqueue", "type": "mqueue", "options": ["nosuid"]}
    mount = plans.make(mapped(entry, without=("ipc",)), plans.USER).mounts[0]
    assert (mount.kind, mount.source, mount.attr_set) == ("bind", "/dev/mqueue", NOSUID)
    mount = plans.make(mapped(entry), plans.USER).mounts[0]
    assert (mount.kind, mount.fallback) == ("mqueue", "/dev/mqueue")


@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
def test_cgroup(kind: str) -> None:
    """Both types mean version 2."""
    mount = plans.make_mount(type=kind, source="cgroup", options=["ro"])
    assert (mount.kind, mount.fallback, mount.attr_set) == ("cgroup2", "/sys/fs/cgroup", RO)


def test_order_is_kept() -> None:
    """Mounts are made in the order of the configuration."""
    entries = [{"destination": f"/{n}", "type": "tmpfs"} for n in range(5)]
    planned = plans.make(plans.config(mounts=entries)).mounts
    assert [(m.destination, m.pointer) for m in planned] == [
        (f"/{n}", f"/mounts/{n}") for n in range(5)
    ]


@pytest.mark.parametrize("destination", ["/", "//", "/.", "."])
def test_a_mount_on_the_root_is_refused(destination: str) -> None:
    """It would be made, and never be seen: the root that is entered lies beneath it."""
    with pytest.raises(UnsupportedError, match="would cover the root") as raised:
        plans.make_mount(destination=destination, type="tmpfs")

    assert raised.value.pointer == "/mounts/0/destination"
