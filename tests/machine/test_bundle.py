"""The agent bundle runs where nothing else is, is the same bytes for the same inputs, and brings all its libraries."""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from farshore_engine.bundle import Bundle, agent_command, build_bundle
from farshore_engine.bundle.elf import is_elf, read_elf
from farshore_engine.bundle.layout import python_command

AGENT_MEMORY_MIB = 80  # what the agent may lock; the bare interpreter with all its libraries must stay well below
BARE_MEMORY_MIB = 50


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return build_bundle()


@pytest.fixture(scope="module")
def empty_root(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A root file system with the bundle and three empty directories."""
    root = tmp_path_factory.mktemp("empty-root")
    for name in ("proc", "sys", "dev", "tmp", "opt"):
        (root / name).mkdir()
    with tarfile.open(bundle.path) as archive:
        archive.extractall(root / "opt", filter="data")
    yield root


def run_inside(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the root, with the kernel's file systems and nothing else; the mounts end with the command."""
    script = (
        'set -e; cd "$1"; shift; mount --bind /dev dev; mount -t proc proc proc; mount --rbind /sys sys; '
        'exec chroot . "$@"'
    )
    line = ["unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", script, "-", str(root)]
    return subprocess.run([*line, *command], capture_output=True, text=True, timeout=300, env={}, check=False)


def test_agent_says_its_version_in_an_empty_root(empty_root: Path, bundle: Bundle) -> None:
    done = run_inside(empty_root, *agent_command("/opt", "version"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == bundle.version


def test_agent_tells_facts_in_an_empty_root(empty_root: Path) -> None:
    done = run_inside(empty_root, *agent_command("/opt", "checks"))
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["architecture"] == "x86_64"
    assert facts["tracker"]["name"] in ("tracefs", "compare")


def test_every_module_of_the_agent_can_be_imported(empty_root: Path) -> None:
    code = (
        "import importlib, pkgutil, farshore_engine\n"
        "names = [m.name for m in pkgutil.walk_packages(farshore_engine.__path__, 'farshore_engine.')]\n"
        "for name in names: importlib.import_module(name)\n"
        "print(' '.join(names))"
    )
    done = run_inside(empty_root, *python_command("/opt"), "-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"farshore_engine.agent.main", "farshore_engine.wire.frames", "farshore_engine.blocks.grid"} <= set(
        done.stdout.split()
    )
    assert not any("vault" in name or "processserver" in name for name in done.stdout.split())


def test_second_build_comes_from_the_cache(bundle: Bundle) -> None:
    before = bundle.path.stat().st_mtime_ns
    assert build_bundle() == bundle
    assert bundle.path.stat().st_mtime_ns == before


def test_a_torn_archive_in_the_cache_is_built_again_with_the_same_bytes(bundle: Bundle, tmp_path: Path) -> None:
    (tmp_path / bundle.path.name).write_bytes(bundle.path.read_bytes()[:1000])
    for description in bundle.path.parent.glob("*.json"):
        if bundle.sha256 in description.read_text():
            (tmp_path / description.name).write_bytes(description.read_bytes())
    again = build_bundle(tmp_path)
    assert again.path == tmp_path / bundle.path.name
    assert (again.id, again.sha256, again.path.stat().st_size) == (bundle.id, bundle.sha256, bundle.archive_bytes)


def test_archive_holds_no_trace_of_the_building_host(bundle: Bundle) -> None:
    with tarfile.open(bundle.path) as archive:
        members = archive.getmembers()
    assert {(m.uid, m.gid, m.uname, m.gname, m.mtime) for m in members} == {(0, 0, "", "", 0)}
    assert [m.name for m in members] == sorted(m.name for m in members)
    names = {part for m in members for part in m.name.split("/")}
    assert not names & {"test", "tests", "idlelib", "tkinter", "ensurepip", "pip"}


def test_every_library_travels_in_the_bundle(empty_root: Path) -> None:
    files = [p for p in (empty_root / "opt").rglob("*") if p.is_file() and not p.is_symlink()]
    carried = {p.name for p in files}
    missing = {}
    for path in files:
        data = path.read_bytes()
        if is_elf(data):
            missing[path.name] = set(read_elf(data, path).needed) - carried
    assert {name: libraries for name, libraries in missing.items() if libraries} == {}


def test_floor_of_the_kernel_is_that_of_its_libc(bundle: Bundle, empty_root: Path) -> None:
    libc = empty_root / "opt/lib/libc.so.6"
    assert read_elf(libc.read_bytes(), libc).kernel == bundle.kernel
    assert bundle.kernel >= (3, 2, 0)


def test_locked_memory_of_the_bare_bundle_leaves_room_for_the_agent(empty_root: Path) -> None:
    code = (
        "import ctypes, numpy, blake3, ssl, json, socket, logging\n"
        "assert ctypes.CDLL(None).mlockall(3) == 0\n"
        "print(next(l for l in open('/proc/self/status') if l.startswith('VmRSS')).split()[1])"
    )
    done = run_inside(empty_root, *python_command("/opt"), "-c", code)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) / 1024 < BARE_MEMORY_MIB < AGENT_MEMORY_MIB


def test_wrapper_for_people_works_through_a_link(empty_root: Path, tmp_path: Path, bundle: Bundle) -> None:
    link = tmp_path / "farshore-agent"
    link.symlink_to(empty_root / "opt/bin/farshore-agent")
    done = subprocess.run([str(link), "version"], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (bundle.version, "")
