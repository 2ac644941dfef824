"""What is read of a cgroup: the files' forms, and a real cgroup against its own files."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootless_pyoki.cgroups import cgroupfs, stats
from rootless_pyoki.errors import HostError, SyscallError
from rootless_pyoki.kernel import syscalls
from tests.support import needs

FILES = {
    "cpu.stat": "usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 5\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.25 avg300=0.00 total=77\n",
    "cpuset.cpus.effective": "0-2,5\n",
    "cpuset.mems.effective": "\n",
    "memory.current": "4096\n",
    "memory.max": "max\n",
    "memory.peak": "8192\n",
    "memory.swap.current": "0\n",
    "memory.swap.max": "1048576\n",
    "memory.stat": "anon 1\nfile 2\nkernel 3\nsock 0\n",
    "memory.events": "low 0\nhigh 0\nmax 7\noom 2\noom_kill 1\noom_group_kill 0\n",
    "memory.pressure": (
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
        "full avg10=99.99 avg60=0.00 avg300=0.00 total=5\n"
    ),
    "pids.current": "3\n",
    "pids.max": "100\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:1 \n",
    "hugetlb.2MB.current": "2097152\n",
    "hugetlb.2MB.max": "max\n",
    "hugetlb.2MB.rsvd.current": "4194304\n",
    "hugetlb.2MB.rsvd.max": "8388608\n",
    "hugetlb.2MB.events": "max 9\n",
    "hugetlb.1GB.current": "0\n",
    "hugetlb.1GB.max": "0\n",
}


def read(directory: Path) -> stats.Stats:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return stats.read_at(fd)
    finally:
        os.close(fd)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with the files of a cgroup that has every controller."""
    for name, content in FILES.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.fixture
def cgroup() -> Iterator[str]:
    mount, parent = needs.cgroup_mount(), needs.delegated_cgroup()
    needs.require(parent, "no cgroup v2 subtree is delegated to this user")
    path = f"{parent}/test-stats-{os.getpid()}"
    cgroupfs.create(path, str(mount))
    yield path
    cgroupfs.kill(path)
    cgroupfs.remove(path)


def test_every_form(files: Path) -> None:
    """Numbers, max, flat keyed, nested keyed, lists and pressure, each as the kernel means it."""
    found = read(files)
    assert found.cpu_stat == {"usage_usec": 30, "user_usec": 10, "system_usec": 20, "nr_periods": 5}
    assert found.cpu_pressure == stats.Pressure(
        some=stats.Stall(avg10=1.5, avg60=0.25, avg300=0.0, total=77)
    )
    assert found.memory_pressure and found.memory_pressure.full
    assert (found.memory_pressure.full.avg10, found.memory_pressure.full.total) == (99.99, 5)
    assert (found.cpuset_cpus_effective, found.cpuset_mems_effective) == ((0, 1, 2, 5), ())
    assert (found.memory_current, found.memory_peak) == (4096, 8192)
    assert (found.memory_max, found.memory_swap_max) == (stats.UNLIMITED, 1048576)
    assert found.memory_events and found.memory_events["oom_kill"] == 1
    assert (found.pids_current, found.pids_max) == (3, 100)
    assert found.io_stat == {
        "8:0": {"rbytes": 1, "wbytes": 2, "rios": 3, "wios": 4, "dbytes": 5, "dios": 6},
        "253:1": {},
    }


def test_huge_pages(files: Path) -> None:
    """The reservations where they are counted, else the pages in use."""
    assert read(files).hugetlb == {
        "1GB": stats.HugePages(current=0, max=0),
        "2MB": stats.HugePages(current=4194304, max=8388608, failures=9),
    }


def test_what_is_not_there_is_none(tmp_path: Path) -> None:
    """A cgroup without controllers has no figures, and no zeros in their place."""
    found = read(tmp_path)
    assert {name: getattr(found, name) for name in found._fields} == dict.fromkeys(found._fields)


def test_a_file_that_is_empty_is_there(tmp_path: Path) -> None:
    """io.stat has no line before the first I/O: the controller is there and has counted nothing."""
    (tmp_path / "io.stat").write_text("")
    assert read(tmp_path).io_stat == {}


def test_only_a_cgroup_is_read(files: Path) -> None:
    """`read` refuses a directory of another filesystem, and one that is not there."""
    with pytest.raises(HostError, match="not in a cgroup v2"):
        stats.read(str(files))
    with pytest.raises(SyscallError):
        stats.read(str(files / "nowhere"))


def test_a_real_one(cgroup: str) -> None:
    """Every file of the table that this cgroup has is read, and CPU time is counted."""
    busy = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    try:
        cgroupfs.attach(cgroup, busy.pid)
        time.sleep(0.1)
    finally:
        busy.kill()
        busy.wait()
    found = stats.read(cgroup)
    assert found.cpu_stat and found.cpu_stat["usage_usec"] > 20_000
    for name, _ in stats.PARSERS:
        there = Path(cgroup, name).exists()
        assert (getattr(found, name.replace(".", "_")) is not None) == there, name


def test_reread_tells_the_end(cgroup: str) -> None:
    """An open file is read from its start each time, and is None when the cgroup has gone."""
    below = f"{cgroup}/below"
    os.mkdir(below)
    fd = os.open(f"{below}/cgroup.events", os.O_RDONLY)
    assert stats.reread(fd) == stats.reread(fd) == b"populated 0\nfrozen 0\n"
    os.rmdir(below)
    assert stats.reread(fd) is None
    os.close(fd)


def test_few_calls(cgroup: str, tmp_path: Path) -> None:
    """One listing, then open, read and close of what is there: no call fails."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    program = (
        "import posix; from rootless_pyoki.cgroups import stats; "
        f"stats.read({cgroup!r}); posix.access('/begin', 0); "
        f"stats.read({cgroup!r}); posix.access('/end', 0)"
    )
    trace = tmp_path / "trace"
    done = subprocess.run(
        [strace, "-qq", "-o", trace, "python3", "-c", program],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "ptrace" in done.stderr:
        pytest.skip(f"strace cannot trace here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    calls = trace.read_text().partition('"/begin"')[2].partition('"/end"')[0].splitlines()[1:-1]
    opened = [call.split('"')[1] for call in calls if call.startswith("openat(3, ")]
    assert "ENOENT" not in "".join(calls)
    assert "cpu.stat" in opened and len(opened) == len(set(opened))
    assert len(calls) <= 3 * len(opened) + 10, "\n".join(calls)


def test_numbers_of_the_kernel_here() -> None:
    """The machine's own pressure files have the form that is parsed."""
    path = Path("/proc/pressure/memory")
    if not path.exists():
        pytest.skip("this kernel has no pressure stall information")
    fd = syscalls.openat(-100, str(path), os.O_RDONLY)
    text = stats.reread(fd)
    syscalls.close(fd)
    assert text is not None
    found = stats.pressure(text)
    assert found.some and found.full and found.some.total >= found.full.total
