"""Blocks of one disk that were encoded and are in no map yet: the last word on each block, in bounded lookups."""

from __future__ import annotations

import numpy as np

from farshore_engine.vault.encoding import BLOCK_REF, BlockRefs, Refs

MERGE_AT = 8192  # references after which the recent ones are merged into the sorted ones


class PendingBlocks:
    """Collects references; a later one of the same block replaces an earlier one. Not thread-safe."""

    def __init__(self) -> None:
        self._sorted: BlockRefs = np.zeros(0, BLOCK_REF)
        self._recent: list[BlockRefs] = []
        self._recent_size = 0

    def __len__(self) -> int:
        """Return an upper bound of how many blocks are pending."""
        return self._sorted.size + self._recent_size

    def add(self, refs: BlockRefs) -> None:
        """Add references, without repetitions among themselves."""
        if refs.size:
            self._recent.append(refs)
            self._recent_size += refs.size
        if self._recent_size >= MERGE_AT:
            self.merged()

    def merged(self) -> BlockRefs:
        """Return one reference for each block, sorted by block."""
        if self._recent:
            every = np.concatenate([self._sorted, *self._recent])
            order = np.argsort(every["index"], kind="stable")
            numbers = every["index"][order]
            last = np.ones(order.size, bool)
            last[:-1] = numbers[1:] != numbers[:-1]
            self._sorted = every[order[last]]
            self._recent, self._recent_size = [], 0
        return self._sorted

    def take(self) -> BlockRefs:
        """Return the merged references and forget them."""
        merged = self.merged()
        self._sorted = np.zeros(0, BLOCK_REF)
        return merged

    def overlay(self, first: int, refs: Refs) -> None:
        """Replace in `refs`, the references of blocks [first, first + len), those of blocks that are pending."""
        merged = self.merged()
        low, high = np.searchsorted(merged["index"], [first, first + refs.size])
        refs[merged["index"][low:high].astype(np.int64) - first] = merged["ref"][low:high]
