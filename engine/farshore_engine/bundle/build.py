"""Builds the agent bundle's archive, the same bytes for the same inputs, and keeps it for the next time."""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import os
import platform
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version as distribution_version
from pathlib import Path

from farshore_engine.bundle.contents import Contents, collect
from farshore_engine.bundle.layout import INSTALL_ROOT, MANIFEST
from farshore_engine.bundle.service import init_script, manual_install, systemd_unit

FORMAT = "1"  # part of the cache key: raise it when the same inputs give another archive
COMPRESSION = 6
KEPT, KEPT_SECONDS = 4, 24 * 3600  # archives in the cache: the newest ones, and all of the last day


@dataclass(frozen=True)
class Bundle:
    """A built bundle.

    Args:
        id: name of its directory in the machine, `<version>-<hash8>`.
        path: the archive on this host (tar, gzip).
        sha256: of the archive, hexadecimal.
        unpacked_bytes: what it takes in the machine.
        kernel: oldest kernel that its C library accepts.
        cpu_flags: what /proc/cpuinfo of the machine must list.
    """

    id: str
    version: str
    path: Path
    sha256: str
    archive_bytes: int
    unpacked_bytes: int
    kernel: tuple[int, int, int]
    cpu_flags: tuple[str, ...]


def cache_directory() -> Path:
    """Where built bundles are kept: `$FARSHORE_CACHE/bundles`, else `~/.cache/farshore/bundles`."""
    root = os.environ.get("FARSHORE_CACHE")
    return (Path(root) if root else Path.home() / ".cache/farshore") / "bundles"


def build_bundle(cache: Path | None = None) -> Bundle:
    """Return the bundle of the code and the interpreter that run now, building it unless it is in the cache.

    The archive appears in the cache by a rename, so that neither a crash nor a second builder leaves a torn one.

    Raises:
        StopFault: this host cannot build it.
    """
    directory = cache or cache_directory()
    directory.mkdir(parents=True, exist_ok=True)
    contents = collect()
    version = distribution_version("farshore")
    services = f"{systemd_unit('')}\0{init_script('')}\0{manual_install('')}"
    digest = hashlib.sha256(f"{FORMAT}\0{version}\0{services}\0{contents.digest()}".encode()).hexdigest()
    name = f"{version}-{digest[:8]}"
    description = directory / f"{digest}.json"
    with (directory / f"{digest}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = _cached(directory, description)
        if found is None:
            found = _build(directory, contents, name, version, digest)
            _replace(description, json.dumps(asdict(found) | {"path": found.path.name}, indent=1).encode())
            _prune(directory, keep=found.path)
    return found


def _cached(directory: Path, description: Path) -> Bundle | None:
    try:
        fields = json.loads(description.read_text())
        path = directory / fields["path"]
        if path.stat().st_size != fields["archive_bytes"]:
            return None
    except (FileNotFoundError, ValueError):
        return None
    fields |= {"path": path, "kernel": tuple(fields["kernel"]), "cpu_flags": tuple(fields["cpu_flags"])}
    return Bundle(**fields)


def _build(directory: Path, contents: Contents, name: str, version: str, digest: str) -> Bundle:
    manifest = {
        "id": name,
        "version": version,
        "digest": digest,
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "kernel": ".".join(map(str, contents.kernel)),
        "cpuFlags": contents.cpu_flags,
    }
    with tempfile.TemporaryDirectory(dir=directory, prefix=".build-") as scratch:
        root = Path(scratch) / "root"
        for entry in contents.entries:
            path = root / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(entry.read())
            path.chmod(entry.mode)
        (root / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        _write_services(root, f"{INSTALL_ROOT}/{name}", name)
        _compile(root)
        archive = Path(scratch) / "archive"
        unpacked = _archive(root, archive)
        data = archive.read_bytes()
        path = directory / f"{name}-{digest[8:24]}.tar.gz"
        archive.replace(path)
    return Bundle(
        name, version, path, hashlib.sha256(data).hexdigest(), len(data), unpacked, contents.kernel, contents.cpu_flags
    )


def _write_services(root: Path, installed: str, name: str) -> None:
    """Write what a manual install needs; a push brings the same texts itself."""
    (root / "share").mkdir()
    (root / "share/farshore-agent.service").write_text(systemd_unit(installed) + "\n")
    (root / "share/agent-service").write_text(init_script(installed) + "\n")
    (root / "install.sh").write_text(manual_install(name))
    for script in ("share/agent-service", "install.sh"):
        (root / script).chmod(0o755)


def _compile(root: Path) -> None:
    """Compile every module in a fresh interpreter, so that nothing of this process shows in the result.

    The compiled files are trusted without a look at the source's time (the archive's times are all zero), and name
    their sources relative to the bundle.
    """
    code = (
        f"import compileall, py_compile, sys; sys.exit(not compileall.compile_dir({str(root)!r}, maxlevels=20, quiet=2,"
        f" stripdir={str(root)!r}, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH))"
    )
    environment = {"PYTHONHASHSEED": "0", "PATH": os.environ.get("PATH", "")}
    subprocess.run([sys.executable, "-S", "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL)


def _archive(root: Path, target: Path) -> int:
    """Write the tree as tar.gz with sorted names and without times, owners or names of this host; return its size."""
    total = 0
    with (
        target.open("wb") as file,
        gzip.GzipFile("", "wb", COMPRESSION, file, mtime=0) as packed,
        tarfile.open(mode="w", fileobj=packed, format=tarfile.USTAR_FORMAT) as tar,
    ):
        for path in sorted(root.rglob("*")):
            info = tarfile.TarInfo(path.relative_to(root).as_posix())
            if path.is_dir():
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            info.size, info.mode = path.stat().st_size, path.stat().st_mode & 0o777
            total += (info.size + 4095) // 4096 * 4096
            with path.open("rb") as content:
                tar.addfile(info, content)
    return total


def _prune(directory: Path, keep: Path) -> None:
    """Forget archives that nobody has built for long; one that is being sent meanwhile stays readable to its sender."""
    archives = sorted(directory.glob("*.tar.gz"), key=lambda path: path.stat().st_mtime, reverse=True)
    now = time.time()
    for path in archives[KEPT:]:
        if path != keep and now - path.stat().st_mtime > KEPT_SECONDS:
            path.unlink(missing_ok=True)


def _replace(path: Path, content: bytes) -> None:
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_bytes(content)
    new.replace(path)
