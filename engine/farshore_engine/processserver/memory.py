"""What a supervisor remembers of a machine over a restart, in a small file: losing it costs repeated work, no more."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from farshore_engine.contract.model import Status
from farshore_engine.processserver.identity import write_private


class Memory(Status):
    """`installed`: fingerprint of what was installed last; `tokens`: digests of enrolment tokens that are used up."""

    installed: str = ""
    version: str = ""
    host_key: str = ""
    uninstalled: bool = False
    tokens: tuple[str, ...] = ()
    initial_bytes: int = 0
    initial_seconds: float = 0.0


def directory(state_dir: Path, machine_id: str) -> Path:
    """Return where a machine's key and memory are."""
    return state_dir / "machines-known" / machine_id


def path(state_dir: Path, machine_id: str) -> Path:
    """Return the file of a machine's memory."""
    return directory(state_dir, machine_id) / "memory.json"


def load(path: Path) -> Memory:
    """Return what was saved, nothing if it is not there or cannot be read."""
    try:
        return Memory.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return Memory()


def save(path: Path, memory: Memory) -> None:
    """Save it, durable."""
    write_private(path, memory.model_dump_json().encode())
