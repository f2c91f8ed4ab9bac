"""Nodes of block maps, read from packs through a bounded cache and written to packs through the encoder."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from farshore_engine.vault.crypto import Place
from farshore_engine.vault.decoder import Decoder, RecordSpoiled
from farshore_engine.vault.encoding import REF, Ref
from farshore_engine.vault.names import PackId
from farshore_engine.vault.node import NODE_MAX, Node, NodeDamaged

CACHED = 4096  # nodes; 14 KiB each, so 57 MiB, which is the leaves of 64 GiB of disk


class MapSpoiled(Exception):
    """A node of a map cannot be read: the blocks [first, first + count) of the disk are lost to that point."""

    def __init__(self, disk: str, first: int, count: int, why: str) -> None:
        super().__init__(why)
        self.disk = disk
        self.first = first
        self.count = count


class NodeWriter(Protocol):
    """Where new nodes go (`encoder.Encoder`)."""

    def node(self, disk: str, level: int, index: int, content: bytes) -> Ref:
        """Store a node and return where it is."""
        ...


Key = tuple[str, int, int, Ref]


class NodeStore:
    """The nodes of one machine's maps. Thread-safe; the cache is shared by all maps and points of the machine."""

    def __init__(self, machine: str, decoder: Decoder, *, cached: int = CACHED) -> None:
        """Read through `decoder`, keeping up to `cached` decoded nodes."""
        self._machine = machine
        self._decoder = decoder
        self._limit = cached
        self._cache: OrderedDict[Key, Node] = OrderedDict()
        self._lock = threading.Lock()
        self.settle: Callable[[PackId], None] | None = None  # makes a pack that is in flight durable, so it can be read

    def fetch(self, disk: str, level: int, wanted: Sequence[tuple[int, Ref]]) -> list[Node]:
        """Return the nodes (index, reference) of one level, in the given order.

        Raises:
            MapSpoiled: for the first one that does not verify.
        """
        found: dict[int, Node] = {}
        with self._lock:
            for position, (index, ref) in enumerate(wanted):
                node = self._cache.get((disk, level, index, ref))
                if node is not None:
                    self._cache.move_to_end((disk, level, index, ref))
                    found[position] = node
        missing = [position for position in range(len(wanted)) if position not in found]
        if missing:
            found.update(zip(missing, self._load(disk, level, [wanted[p] for p in missing]), strict=True))
        return [found[position] for position in range(len(wanted))]

    def put(self, writer: NodeWriter, disk: str, index: int, node: Node) -> Ref:
        """Write a node and keep it in the cache."""
        ref = writer.node(disk, node.level, index, node.encode())
        self._keep([((disk, node.level, index, ref), node)])
        return ref

    def _load(self, disk: str, level: int, wanted: Sequence[tuple[int, Ref]]) -> list[Node]:
        if self.settle is not None:
            for pack in {ref.pack for _, ref in wanted}:
                self.settle(pack)
        place = Place(self._machine, disk)
        refs = np.zeros(len(wanted), REF)
        for position, (_, ref) in enumerate(wanted):
            refs[position] = ref.record()
        nodes: dict[int, Node] = {}
        try:
            for position, plain in self._decoder.fetch(refs, lambda p: place.node(level, wanted[p][0]), NODE_MAX):
                nodes[position] = Node.decode(plain, level)
        except (RecordSpoiled, NodeDamaged) as error:
            raise self._spoiled(disk, level, wanted, nodes, error) from error
        self._keep([((disk, level, *wanted[position]), node) for position, node in nodes.items()])
        return [nodes[position] for position in range(len(wanted))]

    def _spoiled(
        self, disk: str, level: int, wanted: Sequence[tuple[int, Ref]], read: dict[int, Node], error: Exception
    ) -> MapSpoiled:
        pack = error.pack if isinstance(error, RecordSpoiled) else None
        lost = [i for p, (i, ref) in enumerate(wanted) if p not in read and pack in (None, ref.pack)] or [0]
        span = 256 ** (level + 1)
        return MapSpoiled(disk, min(lost) * span, (max(lost) - min(lost) + 1) * span, f"a node of its map: {error}")

    def _keep(self, nodes: list[tuple[Key, Node]]) -> None:
        with self._lock:
            for key, node in nodes:
                self._cache[key] = node
                self._cache.move_to_end(key)
            while len(self._cache) > self._limit:
                self._cache.popitem(last=False)
