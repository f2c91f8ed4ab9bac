"""What a store can answer from `get` and `list` alone, for the stores in memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from farshore_engine.vault.store import Version


class Listed(Protocol):
    def get(self, name: str) -> tuple[bytes, Version]: ...

    def list(self, prefix: str) -> Iterator[str]: ...


class Derived:
    """Ranges, sizes and folders."""

    def get_range(self: Listed, name: str, offset: int, length: int) -> bytes:
        return self.get(name)[0][offset : offset + length]

    def head(self: Listed, name: str) -> int:
        return len(self.get(name)[0])

    def folders(self: Listed, prefix: str) -> Iterator[str]:
        tails = (name[len(prefix) :] for name in self.list(prefix))
        yield from sorted({tail.partition("/")[0] for tail in tails if "/" in tail})
