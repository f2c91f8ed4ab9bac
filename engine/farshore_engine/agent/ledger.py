"""The ledger: for every block of every disk, whether the vault, the process server or neither has its latest content.

It is the one place that decides what must be sent again after a loss, and it is pure: no disk, no clock, no socket.

Needs of a block, each a bitmap: `dirty` (send it), `unsent` (the process server holds nothing: send it unless it is
zeros), `unverified` (compare digests, send it if they differ). A block that is taken loses its needs **before** it
is read, so a write that comes later sets the mark again and no content is missed. What was taken stays in the hand
until it is sent or found equal. Sent blocks stay in the frame until it is acknowledged as durable, and in
`uncommitted`, and then in their point, until that point or a later one is committed in the vault.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from farshore_engine.blocks import bitmap
from farshore_engine.blocks.bitmap import Bits
from farshore_engine.blocks.grid import Indexes


class Need(StrEnum):
    """Why a block must be looked at."""

    DIRTY = "dirty"
    UNSENT = "unsent"
    UNVERIFIED = "unverified"


NEEDS = tuple(Need)


@dataclass(slots=True)
class _Disk:
    blocks: int
    needs: dict[Need, Bits]
    hand: dict[Need, Bits]
    uncommitted: Bits
    excluded: Bits
    based: bool = False  # every block in which the process server may differ from the disk is known
    grounded: bool = False  # the same of the last point committed in the vault


def _new_disk(blocks: int) -> _Disk:
    needs, hand = ({need: bitmap.empty(blocks) for need in NEEDS} for _ in range(2))
    return _Disk(blocks, needs, hand, bitmap.empty(blocks), bitmap.empty(blocks))


@dataclass(frozen=True, slots=True)
class _Frame:
    seq: int
    disk: str
    blocks: Indexes


@dataclass(slots=True)
class _Cut:
    """What a point that was sent but is not committed carries."""

    seq: int
    blocks: dict[str, Bits] = field(default_factory=dict)


class Ledger:
    """Bookkeeping of blocks; safe to call from the tracker's thread and the replicator's.

    Args:
        blocks: number of 64 KiB blocks of each disk, by disk id.
        clear_before_read: False builds the faulty order on purpose (the mark is cleared when the block is sent);
            tests use it to show that the order matters.
    """

    def __init__(self, blocks: dict[str, int], clear_before_read: bool = True) -> None:
        self._lock = threading.Lock()
        self._clear_before_read = clear_before_read
        self._disks = {disk: _new_disk(count) for disk, count in blocks.items()}
        self._frames: deque[_Frame] = deque()
        self._cuts: OrderedDict[str, _Cut] = OrderedDict()
        self._lost: dict[str, str] = {}
        self.next_seq = 1
        self.acked = 0
        self.point = ""  # the last point that was committed while this ledger existed

    # -- what the tracker says -------------------------------------------------------------------------------------

    def mark(self, disk: str, first: Indexes, last: Indexes) -> None:
        """Mark the extents from block `first[i]` to `last[i]` inclusive as written."""
        with self._lock:
            if (entry := self._disks.get(disk)) is not None:  # else it has just been let go
                bitmap.mark_extents(entry.needs[Need.DIRTY], first, last, entry.blocks)

    def lost(self, disk: str, reason: str) -> None:
        """Writes may have gone unseen: every block of the disk must be compared."""
        with self._lock:
            if (entry := self._disks.get(disk)) is not None:
                self._lost.setdefault(disk, reason)
                entry.needs[Need.UNVERIFIED] = bitmap.full(entry.blocks)

    def take_losses(self) -> dict[str, str]:
        """Return the losses since the last call, disk id → reason."""
        with self._lock:
            losses, self._lost = self._lost, {}
            return losses

    # -- what the machine says -------------------------------------------------------------------------------------

    def fit(self, blocks: dict[str, int], resized: frozenset[str] = frozenset()) -> None:
        """Other disks are there, or disks of other sizes (numbers of blocks); between two sessions only.

        What is known of the rest stays. The new part of a disk that grew is to be compared, with the block that was
        its last; so is the last block of one that is in `resized`, because its end moved within that block. A disk that
        lost blocks begins anew, like one that came.
        """
        with self._lock:
            self._empty_hand()
            for name in list(self._disks):
                if blocks.get(name, 0) < self._disks[name].blocks:
                    self._drop(name)
            for name, count in blocks.items():
                if name not in self._disks:
                    self._disks[name] = _new_disk(count)
                elif count > self._disks[name].blocks or name in resized:
                    self._grow(name, count)

    # -- what the process server says ------------------------------------------------------------------------------

    def begin_full(self, disk: str) -> None:
        """The process server holds nothing of the disk: all of it is to be sent, zeros left out."""
        with self._lock:
            entry = self._disks[disk]
            held = self._pending(disk)  # blocks that it may hold all the same must be sent even if they are zeros
            entry.needs[Need.UNSENT] = bitmap.difference(bitmap.full(entry.blocks), held)
            entry.needs[Need.DIRTY] = held
            entry.needs[Need.UNVERIFIED] = bitmap.empty(entry.blocks)
            entry.based = True

    def begin_resync(self, disk: str) -> None:
        """Tracking has a gap: all blocks of the disk are to be compared."""
        with self._lock:
            entry = self._disks[disk]
            entry.needs[Need.UNVERIFIED] = bitmap.full(entry.blocks)
            entry.needs[Need.UNSENT] = bitmap.empty(entry.blocks)
            entry.based = True

    def can_delta(self, disk: str) -> bool:
        """Return whether the ledger knows every block in which the process server may differ from the disk.

        To be asked after `resume` or `forget_pending`.
        """
        with self._lock:
            return self._disks[disk].based

    def resume(self, durable: int) -> None:
        """A new connection, the same spool: frames up to `durable` are safe, later ones are to be sent again."""
        with self._lock:
            self._empty_hand()
            self._acknowledge(durable)
            for frame in self._frames:
                bitmap.mark_indexes(self._disks[frame.disk].needs[Need.DIRTY], frame.blocks)
            self._frames.clear()
            for name in [n for n, cut in self._cuts.items() if cut.seq > durable]:
                self._merge_back(name)

    def forget_pending(self) -> None:
        """Another spool, or one that lost its content: everything since the last committed point is dirty again."""
        with self._lock:
            self._empty_hand()
            for name in list(self._cuts):
                self._merge_back(name)
            for frame in self._frames:
                bitmap.mark_indexes(self._disks[frame.disk].uncommitted, frame.blocks)
            self._frames.clear()
            for entry in self._disks.values():
                # What was unsent may differ from what the next process server holds, be it zeros or not.
                entry.needs[Need.DIRTY] |= entry.uncommitted | entry.needs[Need.UNSENT]
                entry.needs[Need.UNSENT][:] = 0
                entry.uncommitted[:] = 0
                entry.based = entry.grounded

    def acknowledge(self, seq: int) -> None:
        """Frames up to `seq` are durable at the process server."""
        with self._lock:
            self._acknowledge(seq)

    # -- what the replicator does ----------------------------------------------------------------------------------

    def exclude(self, disk: str, blocks: Bits) -> None:
        """Set the blocks that are not replicated (swap). Their marks are kept, and count again once let in."""
        with self._lock:
            self._disks[disk].excluded = blocks

    def waiting(self, need: Need, disk: str | None = None) -> int:
        """Return how many blocks wait for the given reason, excluded ones left out."""
        with self._lock:
            names: Iterable[str] = self._disks if disk is None else (disk,)
            return sum(bitmap.count(self._wanted(self._disks[name], need)) for name in names)

    def waiting_in(self, need: Need, disk: str, first: int, count: int) -> bool:
        """Return whether one of `count` blocks from `first` on, a multiple of 8, waits for the given reason."""
        with self._lock:
            entry = self._disks[disk]
            part = slice(first // 8, -(-(first + count) // 8))
            return bool((entry.needs[need][part] & ~entry.excluded[part]).any())

    def clean(self, disk: str, blocks: Indexes) -> npt.NDArray[np.bool_]:
        """Return for each block whether the process server is believed to hold its content; excluded ones are not."""
        with self._lock:
            entry = self._disks[disk]
            busy = entry.excluded.copy()
            for need in NEEDS:
                busy |= entry.needs[need] | entry.hand[need]
            return np.asarray((busy[blocks >> 3] >> (blocks & 7).astype(np.uint8)) & 1 == 0)

    def take(self, need: Need, disk: str, limit: int | None = None, start: int = 0) -> Indexes:
        """Take blocks from `start` on into the hand, ascending, at most `limit`; their needs are cleared now.

        `start` is rounded down to a multiple of 8.
        """
        with self._lock:
            entry = self._disks[disk]
            wanted = self._wanted(entry, need)
            wanted[: start // 8] = 0
            return self._take(entry, need, _first(wanted, limit))

    def take_from(self, need: Need, disk: str, first: int, count: int) -> Indexes:
        """Take those of `count` blocks from `first` on that wait; both are multiples of 8, but for the disk's end."""
        with self._lock:
            entry = self._disks[disk]
            part = slice(first // 8, -(-(first + count) // 8))
            wanted = entry.needs[need][part] & ~entry.excluded[part]
            return self._take(entry, need, bitmap.indexes(wanted) + first)

    def settle(self, need: Need, disk: str, blocks: Indexes) -> None:
        """Blocks in the hand need no frame: equal to what the process server holds, or zeros that it never had."""
        with self._lock:
            self._let_go(self._disks[disk], need, blocks)

    def sent(self, need: Need, disk: str, blocks: Indexes) -> int:
        """Blocks in the hand leave in one frame; returns the frame's sequence number."""
        with self._lock:
            entry = self._disks[disk]
            self._let_go(entry, need, blocks)
            bitmap.mark_indexes(entry.uncommitted, blocks)
            seq = self.next_seq
            self.next_seq += 1
            self._frames.append(_Frame(seq, disk, blocks))
            return seq

    def put_back(self) -> None:
        """Give up what is in the hand: its needs return."""
        with self._lock:
            self._empty_hand()

    @property
    def last_seq(self) -> int:
        """Return the number of the last frame that was made."""
        return self.next_seq - 1

    # -- points ----------------------------------------------------------------------------------------------------

    def cut(self, point: str) -> int:
        """End a point: it carries everything sent since the last committed one. Returns its last sequence number."""
        with self._lock:
            cut = _Cut(self.next_seq - 1)
            for name, entry in self._disks.items():
                cut.blocks[name] = entry.uncommitted
                entry.uncommitted = bitmap.empty(entry.blocks)
            self._cuts[point] = cut
            return cut.seq

    def commit(self, point: str, name: str) -> bool:
        """The point is visible in the vault under `name`: forget what it and earlier ones carry.

        Returns False for a point that this ledger does not know; nothing changes then.
        """
        with self._lock:
            if point not in self._cuts:
                return False
            while self._cuts:
                earlier, _ = self._cuts.popitem(last=False)
                if earlier == point:
                    break
            self.point = name
            for entry in self._disks.values():
                entry.grounded = entry.based
            return True

    def fail(self, point: str) -> None:
        """The point will not be committed: what it carries stays pending for the next one."""
        with self._lock:
            self._merge_back(point)

    # -- inside; the lock is held ----------------------------------------------------------------------------------

    def _drop(self, name: str) -> None:
        del self._disks[name]
        self._lost.pop(name, None)
        self._frames = deque(frame for frame in self._frames if frame.disk != name)
        for cut in self._cuts.values():
            cut.blocks.pop(name, None)

    def _grow(self, name: str, count: int) -> None:
        entry = self._disks[name]
        before, entry.blocks = entry.blocks, count
        for need in NEEDS:
            entry.needs[need] = bitmap.resized(entry.needs[need], count)
            entry.hand[need] = bitmap.resized(entry.hand[need], count)
        entry.uncommitted = bitmap.resized(entry.uncommitted, count)
        entry.excluded = bitmap.resized(entry.excluded, count)
        for cut in self._cuts.values():
            if name in cut.blocks:
                cut.blocks[name] = bitmap.resized(cut.blocks[name], count)
        bitmap.mark_run(entry.needs[Need.UNVERIFIED], before - 1, count - before + 1)

    def _wanted(self, entry: _Disk, need: Need) -> Bits:
        return bitmap.difference(entry.needs[need], entry.excluded)

    def _take(self, entry: _Disk, need: Need, blocks: Indexes) -> Indexes:
        bitmap.mark_indexes(entry.hand[need], blocks)
        if need is Need.DIRTY:
            # A dirty block is sent whatever the process server holds: nothing else needs to be known of it.
            for other in (Need.UNSENT, Need.UNVERIFIED):
                _clear(entry.needs[other], blocks)
        if self._clear_before_read:
            _clear(entry.needs[need], blocks)
        return blocks

    def _let_go(self, entry: _Disk, need: Need, blocks: Indexes) -> None:
        _clear(entry.hand[need], blocks)
        if not self._clear_before_read:
            _clear(entry.needs[need], blocks)

    def _empty_hand(self) -> None:
        for entry in self._disks.values():
            for need in NEEDS:
                entry.needs[need] |= entry.hand[need]
                entry.hand[need][:] = 0

    def _acknowledge(self, seq: int) -> None:
        while self._frames and self._frames[0].seq <= seq:
            self._frames.popleft()
        self.acked = max(self.acked, min(seq, self.next_seq - 1))

    def _merge_back(self, point: str) -> None:
        cut = self._cuts.pop(point, None)
        if cut is None:
            return
        for name, blocks in cut.blocks.items():
            self._disks[name].uncommitted |= blocks

    def _pending(self, disk: str) -> Bits:
        held = self._disks[disk].uncommitted.copy()
        for cut in self._cuts.values():
            if disk in cut.blocks:  # else it came later
                held |= cut.blocks[disk]
        return held


def _clear(bits: Bits, blocks: Indexes) -> None:
    np.bitwise_and.at(bits, blocks >> 3, np.bitwise_not(np.left_shift(np.uint8(1), (blocks & 7).astype(np.uint8))))


def _first(bits: Bits, limit: int | None) -> Indexes:
    """Return the first `limit` set bits without unpacking the whole bitmap."""
    if limit is None:
        return bitmap.indexes(bits)
    filled = np.flatnonzero(bits)[: limit + 1]
    if not filled.size:
        return np.zeros(0, np.int64)
    base, end = int(filled[0]), int(filled[-1]) + 1
    return (bitmap.indexes(bits[base:end]) + base * 8)[:limit]
