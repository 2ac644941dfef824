"""Idmapped mounts in real containers: what is shown, and what a plain user is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.apply import kernels
from tests.apply.mountinfo import parse
from tests.support import needs
from tests.support.bundles import Bundle
from tests.support.runtime import Runtime

Make = Callable[..., Bundle]


def mappings(*triples: tuple[int, int, int]) -> list[dict[str, int]]:
    return [{"containerID": a, "hostID": b, "size": size} for a, b, size in triples]


def test_a_new_filesystem(
    all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """A tmpfs shows its id 5 as the container's 10, which hostID names as an id of the host."""
    bundle = make_bundle()
    mount: dict[str, Any] = {
        "destination": "/data",
        "type": "tmpfs",
        "options": ["idmap", "uid=5", "gid=5", "mode=755"],
    }
    for kind, own in (("uid", os.getuid()), ("gid", os.getgid())):
        found = needs.subordinate_ids(kind)
        assert found is not None
        mount[f"{kind}Mappings"] = mappings((0, own, 1), (5, found[0] + 9, 1))
    copied = {"destination": "/seed", "type": "tmpfs", "options": ["ridmap", "tmpcopyup"]}
    crun = {"destination": "/crun", "type": "tmpfs"}
    crun["options"] = ["idmap=uids=@0-3-1;gids=@0-4-1", "ro"]  # type: ignore[assignment]
    bundle.config["mounts"] += [mount, copied, crun]
    (bundle.rootfs / "seed").mkdir()
    (bundle.rootfs / "seed/file").write_text("text")
    bundle.process["capabilities"]["effective"] += ["CAP_DAC_OVERRIDE"]
    bundle.process["capabilities"]["permitted"] += ["CAP_DAC_OVERRIDE"]
    bundle.process["capabilities"]["bounding"] += ["CAP_DAC_OVERRIDE"]
    bundle.shell(
        "touch /data/new; stat -c %u:%g /data /data/new /seed/file /crun;"
        "chown 9 /data/new 2>/dev/null || echo no 9; cat /proc/self/mountinfo"
    )
    out = runtime.run(identifier, bundle.path).ok().out
    assert out.split()[:6] == ["10:10", "0:0", "0:0", "3:4", "no", "9"]
    seen = parse(out)
    for point in ("/data", "/seed", "/crun"):
        assert "idmapped" in seen[point].options
    assert "ro" in seen["/crun"].options


def test_refused_to_a_plain_user(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """The host's filesystem: EPERM with the pointer, before anything is made, however lenient."""
    if os.geteuid() == 0:
        pytest.skip("root may")
    bundle = make_bundle("true").single_map()
    bind = {"destination": "/x", "source": str(bundle.path), "options": ["rbind", "ridmap"]}
    bundle.config["mounts"].append(bind)
    lenient = Runtime(runtime.command, runtime.root, options=["--unsupported", "ignore"])
    result = lenient.create(identifier, bundle.write().path)
    index = len(bundle.config["mounts"]) - 1
    assert result.code == 1 and "EPERM" in result.err
    assert f"/mounts/{index}/options/1" in result.err
    assert not (bundle.rootfs / "x").exists() and runtime.status(identifier) == ""


@pytest.mark.parametrize(
    ("kind", "older", "words"),
    [("devpts", False, "cannot be idmapped"), ("tmpfs", True, "Linux 5.12")],
)
def test_what_the_kernel_cannot(
    runtime: Runtime, make_bundle: Make, identifier: str, kind: str, older: bool, words: str
) -> None:
    """A filesystem without idmapped mounts, a kernel without them: said so, at the option."""
    bundle = make_bundle("true").single_map()
    bundle.config["mounts"].append({"destination": "/x", "type": kind, "options": ["ro", "idmap"]})
    refused = kernels.refuse((kernels.MOUNT_SETATTR,)) if older else None
    result = runtime.run(identifier, bundle.write().path, preexec=refused)
    index = len(bundle.config["mounts"]) - 1
    assert result.code == 1 and words in result.err, str(result)
    assert f"/mounts/{index}/options/1" in result.err


def test_binds_of_a_container_around_us(
    all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """Root of an outer container may idmap what was mounted there; ridmap reaches what lies below.

    The filesystem's id 7 would be nobody in the container; its own mapping makes it 7, mappings of
    the mount's own whatever they say. What is read-only outside stays so.
    """
    bundle = make_bundle()
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    for kind in ("uid", "gid"):
        bundle.linux[f"{kind}Mappings"] = mappings((0, 0, 1), (1, 101, 50))
    peer = bundle.path / "peer"
    peer.mkdir()

    def bind(at: str, *options: str, **more: Any) -> dict[str, Any]:
        return {"destination": at, "source": str(peer), "options": list(options), **more}

    own = mappings((0, 0, 1), (7, 104, 1))
    bundle.config["mounts"] += [
        bind("/plain", "rbind"),
        bind("/idmap", "rbind", "idmap"),
        bind("/ridmap", "rbind", "ridmap", "nosuid"),
        bind("/mine", "bind", "idmap", uidMappings=own, gidMappings=own),
    ]
    bundle.shell(
        "stat -c %u:%g /plain/file /idmap/file /idmap/below/file /ridmap/file /ridmap/below/file"
        " /mine/file; cat /proc/self/mountinfo"
    )
    prefix = [
        *("unshare", "--user", "--map-root-user", "--map-auto", "--mount", "sh", "-c"),
        f"cd {peer} && mount -t tmpfs none . && cd {peer} && mkdir below && touch file &&"
        " mount -t tmpfs none below && touch below/file && chown 7:7 file below/file &&"
        f' mount -o remount,ro . && cd / && exec "$@"',
        "sh",
    ]
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    out = plain.run(identifier, bundle.write().path, prefix=prefix).ok().out
    nobody, seven = "65534:65534", "7:7"
    assert out.split()[:6] == [nobody, seven, nobody, seven, seven, "4:4"]
    seen = parse(out)
    assert "idmapped" not in seen["/plain"].options
    assert "idmapped" in seen["/ridmap/below"].options
    assert {"idmapped", "nosuid"} <= seen["/ridmap"].options
    # nothing of what the outer mount forbids is lost on the way
    bundle.config["mounts"][-3]["options"].append("rw")
    result = plain.run(f"{identifier}-2", bundle.write().path, prefix=prefix)
    assert result.code == 1 and "EPERM" in result.err, str(result)


def test_a_bind_of_a_missing_source(
    all_ids: None, runtime: Runtime, make_bundle: Make, identifier: str
) -> None:
    """The helper's failure is told as everybody's: with the source's pointer."""
    bundle = make_bundle("true").single_map()
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    for kind in ("uid", "gid"):
        bundle.linux[f"{kind}Mappings"] = mappings((0, 0, 1))
    mount = {"destination": "/x", "source": "/no/such", "options": ["bind", "idmap"]}
    bundle.config["mounts"].append(mount)
    index = len(bundle.config["mounts"]) - 1
    prefix = ["unshare", "--user", "--map-root-user", "--mount"]
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    result = plain.run(identifier, bundle.write().path, prefix=prefix)
    assert result.code == 1 and f"/mounts/{index}/source" in result.err, str(result)


@pytest.mark.root
def test_the_hosts_filesystem_as_root(runtime: Runtime, make_bundle: Make, identifier: str) -> None:
    """Real root idmaps the host's files, without a user namespace and with one."""
    needs.require(os.geteuid() == 0, "needs root")
    bundle = make_bundle()
    source = bundle.path / "source"
    source.mkdir()
    os.chown(source, 7, 7)
    own = mappings((7, 100003, 1))
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "cgroup"]
    bundle.config["mounts"] += [
        {"destination": "/own", "source": str(source), "options": ["bind", "idmap"]},
        {
            "destination": "/mine",
            "source": str(source),
            "options": ["bind", "idmap"],
            "uidMappings": own,
            "gidMappings": own,
        },
    ]
    for kind in ("uid", "gid"):
        bundle.linux[f"{kind}Mappings"] = mappings((0, 0, 1), (1, 100001, 1000))
    bundle.shell("stat -c %u:%g /own /mine")
    plain = Runtime(runtime.command, runtime.root, options=["--cgroup-manager", "disabled"])
    assert plain.run(identifier, bundle.path).ok().out.split() == ["7:7", "3:3"]
    bundle.without_namespace("user", "cgroup")
    del bundle.config["mounts"][-2]
    for kind in ("uid", "gid"):
        del bundle.linux[f"{kind}Mappings"]
    bundle.shell("stat -c %u:%g /mine")
    assert plain.run(f"{identifier}-2", bundle.path).ok().out.split() == ["100003:100003"]
