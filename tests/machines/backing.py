"""Where the disks of a source machine live: a directory, or a file system of its own that can clone a file at once.

A clone of a backing file inside a freeze is the truth that a restored disk is compared with. Cloning needs xfs or
btrfs; the host may have neither, so the store is an image that is mounted from a loop device.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from farshore_engine.contract.faults import WaitFault
from farshore_engine.machines import loop

FICLONE = 0x40049409
PATIENCE = 60.0
"""Seconds for the kernel to let go of what nobody uses any more."""
StoreKind = Literal["plain", "xfs", "btrfs"]
Done = TypeVar("Done")
MAKE_STORE = {"xfs": ["mkfs.xfs", "-q", "-f", "-m", "reflink=1"], "btrfs": ["mkfs.btrfs", "-q", "-f"]}


def insist(step: Callable[[], Done], patience: float, pause: float) -> Done:
    """Do something until it raises no WaitFault any more; patience and pause are seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return step()
        except WaitFault:
            if time.monotonic() > deadline:
                raise
            time.sleep(pause)


def stopped(stop: Callable[[], Done]) -> Done:
    """Stop a machine, again while the kernel still holds something of it, as whoever uses machines does."""
    return insist(stop, PATIENCE, 0.5)


@dataclass(frozen=True)
class BackingStore:
    """A place for disks at `directory/store`; `kind` plain is a bare directory.

    `remove` needs nothing but the directory, so it also works after the creator was killed.
    """

    directory: Path
    kind: StoreKind = "plain"

    @property
    def path(self) -> Path:
        """Where the files are."""
        return self.directory / "store"

    @property
    def image(self) -> Path:
        """The store's own image, when it is a file system."""
        return self.directory / "store.img"

    def create(self, size_mib: int) -> None:
        """Make the store; the image is sparse, so a generous size costs nothing."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self.kind == "plain" or os.path.ismount(self.path):
            return
        with self.image.open("wb") as image:
            image.truncate(max(size_mib, 512) << 20)
        subprocess.run([*MAKE_STORE[self.kind], str(self.image)], check=True, stdout=subprocess.DEVNULL)
        device = loop.attach(self.image)
        subprocess.run(["mount", device, str(self.path)], check=True)

    def clone(self, source: Path, destination: Path) -> Path:
        """Clone a file of the store in an instant; the destination is in the store too."""
        with source.open("rb") as old, destination.open("wb") as new:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        return destination

    def remove(self) -> None:
        """Unmount and delete the store, from whatever state it is in."""
        deadline = time.monotonic() + PATIENCE
        while os.path.ismount(self.path):  # who was killed a moment ago may still hold a file
            subprocess.run(["umount", str(self.path)], check=time.monotonic() > deadline)
            time.sleep(0.05)
        if self.image.exists():
            left = loop.detach(self.image, patience=PATIENCE)
            if left:
                raise RuntimeError(f"{self.image} is still attached as {left}")
            self.image.unlink()
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.path)], check=True)
