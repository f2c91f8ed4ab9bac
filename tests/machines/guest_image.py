"""The guest's disk: a Debian that boots by itself from a raw file, built once and cached.

The image has a DOS partition table, GRUB in the gap before the first partition, and one ext4. It is made without a
loop device or a mount on this host: mke2fs fills the file system from a directory, and GRUB's two parts go where its
own boot sector expects them by default.

    path = cached_image()                       # builds it the first time: a minute or two
    put_files(copy, {"/etc/hostname": "db1\\n"})  # writes into a copy that is not in use
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT_RECIPE = Path(__file__).with_name("guest_root.sh")
GRUB_MODULES = Path("/usr/lib/grub/i386-pc")
SIZE_MIB = 1536
FIRST_SECTOR = 2048
SECTOR = 512
# GRUB 2.06 does not read file systems with these newer features.
EXT4_FEATURES = "^metadata_csum_seed,^orphan_file"
BUILD_SECONDS = 900
UNUSED_SECONDS = 14 * 86400


def cache_directory() -> Path:
    """Where images are kept, outside the tree: `$FARSHORE_CACHE/images`."""
    base = os.environ.get("FARSHORE_CACHE") or Path.home() / ".cache" / "farshore"
    return Path(base) / "images"


def cached_image() -> Path:
    """The guest's image for this recipe, built if need be; to be copied, never to be booted itself."""
    directory = cache_directory()
    recipe = hashlib.blake2b(ROOT_RECIPE.read_bytes() + Path(__file__).read_bytes(), digest_size=8).hexdigest()
    image = directory / f"{recipe}.raw"
    if image.exists():
        image.touch()
        return image
    directory.mkdir(parents=True, exist_ok=True)
    with _lock(directory / ".lock"):
        if not image.exists():
            _remove_stale(directory)
            build = Path(tempfile.mkdtemp(prefix="build-", dir=directory))
            try:
                _build(build).rename(image)
            finally:
                _remove(build)
    return image


def copy_image(destination: Path) -> Path:
    """Copy the image, as a clone where the file system can, sparse everywhere."""
    copy = ["cp", "--reflink=auto", "--sparse=always", str(cached_image()), str(destination)]
    subprocess.run(copy, check=True)
    return destination


def put_files(image: Path, files: Mapping[str, str], *, mode: int = 0o600) -> None:
    """Write files, owned by root, into the guest's file system; their directories must be there.

    Goes through debugfs, so that nothing is attached or mounted that a killed test would leave behind.
    """
    with tempfile.TemporaryDirectory() as scratch:
        commands = []
        for index, (path, content) in enumerate(files.items()):
            (Path(scratch) / str(index)).write_text(content)
            commands += [f"rm {path}", f"write {scratch}/{index} {path}", f"sif {path} mode 0{0o100000 | mode:o}"]
            commands += [f"sif {path} uid 0", f"sif {path} gid 0"]
        script = Path(scratch) / "commands"
        script.write_text("\n".join(commands) + "\n")
        target = f"{image}?offset={FIRST_SECTOR * SECTOR}"
        subprocess.run(["debugfs", "-w", "-f", str(script), target], check=True, capture_output=True)
    for path, content in files.items():
        if read_file(image, path) != content:
            raise RuntimeError(f"{path} was not written into {image}")


def read_file(image: Path, path: str) -> str:
    """Read a file of the guest's file system, which must not be in use."""
    target = f"{image}?offset={FIRST_SECTOR * SECTOR}"
    return subprocess.check_output(["debugfs", "-R", f"cat {path}", target], text=True, stderr=subprocess.DEVNULL)


def _build(directory: Path) -> Path:
    root, log = directory / "root", directory / "build.log"
    # In namespaces of their own, the mounts and processes of the build end with it, however it ends.
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command = [*apart, str(ROOT_RECIPE), str(root)]
    for again in (True, True, False):  # the mirror may fail for a moment
        with log.open("wb") as output:
            built = subprocess.run(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, timeout=BUILD_SECONDS
            )
        if built.returncode == 0:
            break
        if not again:
            raise RuntimeError(f"the guest's image could not be built:\n{log.read_text(errors='replace')[-3000:]}")
        _remove(root)
    image = directory / "image.raw"
    with image.open("wb") as file:
        file.truncate(SIZE_MIB << 20)
    offset = FIRST_SECTOR * SECTOR
    size_kib = (SIZE_MIB << 10) - offset // 1024
    make = ["mke2fs", "-q", "-F", "-t", "ext4", "-O", EXT4_FEATURES, "-L", "farshore-root", "-d", str(root)]
    subprocess.run([*make, "-E", f"offset={offset}", str(image), f"{size_kib}k"], check=True)
    _install_grub(image, directory / "core.img")
    return image


def _install_grub(image: Path, core: Path) -> None:
    """Write boot sector, partition table and GRUB's core.

    GRUB's boot sector loads sector 1 unless told otherwise, and grub-mkimage tells the core's own length to its first
    sector, which goes on with sector 2: so both need only be written in a row.
    """
    modules = ["biosdisk", "part_msdos", "ext2", "linux", "normal", "configfile"]
    where = ["--directory", str(GRUB_MODULES), "--prefix", "(,msdos1)/boot/grub"]
    subprocess.run(["grub-mkimage", "-O", "i386-pc", *where, "-o", str(core), *modules], check=True)
    code = core.read_bytes()
    assert len(code) <= (FIRST_SECTOR - 1) * SECTOR, "GRUB's core does not fit in front of the partition"
    boot = bytearray((GRUB_MODULES / "boot.img").read_bytes())
    sectors = (SIZE_MIB << 20) // SECTOR - FIRST_SECTOR
    active, linux, no_chs = 0x80, 0x83, b"\xfe\xff\xff"
    entry = struct.pack("<B3sB3sII", active, no_chs, linux, no_chs, FIRST_SECTOR, sectors)
    boot[440:512] = struct.pack("<I2x", 0x46535201) + entry + bytes(48) + b"\x55\xaa"
    with image.open("r+b") as file:
        file.write(boot)
        file.write(code)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _remove_stale(directory: Path) -> None:
    """Remove what killed builds left, and images that nobody has used for a while."""
    old = [image for image in directory.glob("*.raw") if time.time() - image.stat().st_mtime > UNUSED_SECONDS]
    for stale in [*directory.glob("build-*"), *old]:
        _remove(stale)


def _remove(directory: Path) -> None:
    subprocess.run(["rm", "-rf", "--one-file-system", str(directory)], check=True)
