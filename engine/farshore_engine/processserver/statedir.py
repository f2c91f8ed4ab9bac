"""The state directory: one process server at a time, because two would write one spool."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from farshore_engine.contract.faults import StopFault


@contextmanager
def exclusive(state_dir: Path) -> Iterator[None]:
    """Hold the directory for this process; the kernel lets go of it when the process dies.

    Raises:
        StopFault: another process holds it.
    """
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StopFault(
                f"another process server uses the state directory {state_dir}",
                "Stop it, or give this one a directory of its own with --state",
                reason="StateInUse",
            ) from None
        yield
    finally:
        os.close(descriptor)
