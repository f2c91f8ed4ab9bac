"""The sidecar beside an image that says what is in it: which point, and how much of it, so that work resumes."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farshore_engine.blocks.grid import block_count
from farshore_engine.hydrate.image import translated

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
        blocks: how many blocks, from the front, are durable in the image.
        complete: whether all of it is there.
    """

    machine: str
    disk: str
    size: int
    point: str
    root: str
    base: str = ""
    base_root: str = ""
    blocks: int = 0
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
        return parse_state(sidecar(image).read_text())
    except (FileNotFoundError, ValueError):
        return None


def parse_state(text: str) -> ImageState | None:
    """Return the state that `json.dumps(asdict(state))` gave, None when it is none."""
    try:
        state = ImageState(**json.loads(text))
    except (ValueError, TypeError):
        return None
    whole = isinstance(state.blocks, int) and isinstance(state.size, int) and isinstance(state.complete, bool)
    return state if whole and 0 <= state.blocks <= block_count(state.size) else None


def write_state(image: Path, state: ImageState) -> None:
    """Replace the sidecar durably; what it names must be durable in the image already."""
    write_note(sidecar(image), asdict(state))


def write_note(path: Path, content: dict[str, Any]) -> None:
    """Replace a small JSON file durably."""
    temporary = path.with_name(path.name + ".new")
    with temporary.open("w") as file:
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync_folder(path)


def forget_state(image: Path) -> None:
    """Remove the sidecar, durably: from now on nobody may assume what the image holds."""
    path = sidecar(image)
    if path.exists():
        path.unlink()
        _sync_folder(path)


def rename_image(image: Path, name: Path) -> None:
    """Give an image another name in its folder, durably, and its sidecar with it; replaces what has that name.

    The image goes first: when this is cut short, nobody knows what `name` holds, which is never wrong.
    """
    forget_state(name)
    with translated(name):
        image.replace(name)
        _sync_folder(name)
        sidecar(image).replace(sidecar(name))
        _sync_folder(name)


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
