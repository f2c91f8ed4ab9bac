"""One node of a block map: up to 256 references, and their serialised form.

    magic     4 bytes   "FSN1"
    level     u8        0: the references are of blocks; n: of nodes of level n - 1
    zero      u8
    count     u16       references that are not holes
    present   32 bytes  one bit for each of the 256 places, least significant first
    claims    u64[count]   then randoms u64[count], offsets u32[count], lengths u32[count], digests 32 bytes[count]

All little-endian, in columns, because packs and claims repeat and columns of them compress to almost nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from farshore_engine.blocks.content import DIGEST_SIZE
from farshore_engine.vault.encoding import REF, Refs

FANOUT = 256
MAGIC = b"FSN1"
PREFIX = struct.Struct("<4sBBH32s")
NODE_MAX = PREFIX.size + FANOUT * REF.itemsize
COLUMNS = ("claim", "random", "offset", "length")


class NodeDamaged(Exception):
    """The bytes are not a node of the expected level."""


@dataclass(frozen=True, slots=True)
class Node:
    """A decoded node. `entries` has shape (256,) and dtype REF; nobody changes it."""

    level: int
    entries: Refs

    def encode(self) -> bytes:
        """Return the serialised node."""
        present = self.entries["length"] != 0
        used = self.entries[present]
        bitmap = np.packbits(present, bitorder="little").tobytes()
        columns = b"".join(np.ascontiguousarray(used[name]).tobytes() for name in COLUMNS)
        digests = np.ascontiguousarray(used["digest"]).tobytes()
        return PREFIX.pack(MAGIC, self.level, 0, used.size, bitmap) + columns + digests

    @property
    def empty(self) -> bool:
        """Whether every reference is a hole."""
        return not self.entries["length"].any()

    @classmethod
    def decode(cls, data: bytes, level: int) -> Node:
        """Read a serialised node; raises NodeDamaged."""
        if len(data) < PREFIX.size:
            raise NodeDamaged("it is cut short")
        magic, found, zero, count, bitmap = PREFIX.unpack(data[: PREFIX.size])
        present = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little").astype(bool)
        if magic != MAGIC or zero != 0 or found != level:
            raise NodeDamaged(f"it is not a node of level {level}")
        if count != int(present.sum()) or len(data) != PREFIX.size + count * REF.itemsize:
            raise NodeDamaged("its length is wrong")
        used = np.zeros(count, REF)
        at = PREFIX.size
        for name in COLUMNS:
            column = np.frombuffer(data, REF[name], count, at)
            used[name] = column
            at += column.nbytes
        used["digest"] = np.frombuffer(data, np.uint8, count * DIGEST_SIZE, at).reshape(count, DIGEST_SIZE)
        if not used["length"].all():
            raise NodeDamaged("it stores a hole as a reference")
        entries = np.zeros(FANOUT, REF)
        entries[present] = used
        entries.flags.writeable = False
        return cls(level, entries)


def empty_node(level: int) -> Node:
    """Return a node without references."""
    entries = np.zeros(FANOUT, REF)
    entries.flags.writeable = False
    return Node(level, entries)


def node_of(level: int, entries: Refs) -> Node:
    """Return a node with these 256 references, which it takes over."""
    entries.flags.writeable = False
    return Node(level, entries)
