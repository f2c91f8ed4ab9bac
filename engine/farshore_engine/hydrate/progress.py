"""The sidecar beside an image that says what is in it: which point, and how much of it, so that work resumes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

SUFFIX = ".farshore.json"


@dataclass(frozen=True)
class ImageState:
    """What an image file holds.

    Attributes:
        machine, disk: whose disk it is.
        size: bytes.
        point: name of the point that is being written, or was.
        root: digest of that point's map, empty for a disk of zeros.
        base: name of the point that the image held before an update, empty for a fresh image.
        base_root: digest of that point's map.
        windows: the windows that are durable in the image.
        complete: whether all of it is there.
    """

    machine: str
    disk: str
    size: int
    point: str
    root: str
    base: str = ""
    base_root: str = ""
    windows: tuple[int, ...] = ()
    complete: bool = False

    def same_work(self, other: ImageState) -> bool:
        """Return whether both describe the same work, however far it got."""
        mine = (self.machine, self.disk, self.size, self.root, self.base_root)
        return mine == (other.machine, other.disk, other.size, other.root, other.base_root)


def sidecar(image: Path) -> Path:
    """Return the path of an image's sidecar."""
    return image.with_name(image.name + SUFFIX)


def read_state(image: Path) -> ImageState | None:
    """Return what the sidecar says, None if there is none or it cannot be read."""
    try:
        fields = json.loads(sidecar(image).read_text())
        return ImageState(**{**fields, "windows": tuple(fields["windows"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None


def write_state(image: Path, state: ImageState) -> None:
    """Replace the sidecar durably; what it names must be durable in the image already."""
    path = sidecar(image)
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w") as file:
        json.dump(asdict(state), file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def forget_state(image: Path) -> None:
    """Remove the sidecar: from now on nobody may assume what the image holds."""
    sidecar(image).unlink(missing_ok=True)
