"""The way of a frame from the socket to the vault: encoded by shared threads, spooled in order, acknowledged, uploaded.

    receiver thread   data(), zeros(): reserve room in the spool, hand over to an encoder, go on reading
    encoder threads   PointWriter.add_encoded: encrypt into packs
    spooler thread    sealed packs to disk, the frames that are whole in them to the journal, then the acknowledgement
    uploader threads  packs from disk to the vault

A frame is journalled when everything that it refers to is in sealed packs, so packs are sealed early when little comes
in, when the room is short and when a point ends.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from farshore_engine.blocks.content import Digests
from farshore_engine.blocks.encoded import EncodedBlocks
from farshore_engine.blocks.grid import Indexes, runs_of
from farshore_engine.contract.faults import Fault
from farshore_engine.processserver.budget import Room
from farshore_engine.processserver.generation import Frame
from farshore_engine.processserver.spool import Spool
from farshore_engine.vault.encoding import BlockRefs, holes
from farshore_engine.vault.names import PackId
from farshore_engine.vault.pack import SealedPack
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import PointWriter

ENCODING = 8  # frames of one machine that wait for an encoder or are in one
SEAL_AGE = 1.0, 10.0  # seconds that a frame waits for its pack to fill: at least, and at most on a slow link
GAPS = 3.0  # a pause of so many usual ones between two frames means that nothing more comes for now
SEAL_BYTES = 32 << 20  # unacknowledged bytes from which on the open pack is sealed: half of what an agent sends ahead
ZERO_STEP = 1 << 16  # blocks of a run of zeros that are looked up at a time
FRESH = 3  # packs that stay in memory until they are uploaded; the others are read from the spool then
TICK = 0.2  # seconds


@dataclass
class _Item:
    seq: int
    disk: str
    blocks: Indexes  # ascending
    refs: Future[BlockRefs]
    size: int  # bytes reserved
    since: float
    packs: frozenset[PackId] | None = None  # those of this claim that it refers to, once encoded

    def overlaps(self, disk: str, blocks: Indexes) -> bool:
        """Whether one of the blocks is in this frame."""
        if disk != self.disk or blocks[-1] < self.blocks[0] or blocks[0] > self.blocks[-1]:
            return False
        return bool(np.isin(blocks, self.blocks).any())

    def needs(self, claim: int) -> frozenset[PackId]:
        """Return the packs of a claim that the encoded frame refers to; raises what the encoder raised."""
        if self.packs is None:
            refs = self.refs.result()["ref"]
            mine = refs[(refs["length"] > 0) & (refs["claim"] == claim)]
            self.packs = frozenset(PackId(claim, int(random)) for random in np.unique(mine["random"]))
        return self.packs


class IntakeBroken(Exception):
    """The intake failed; the cause is chained. Nothing that was acknowledged is lost; the replica is opened anew."""


class Intake:
    """Everything between a session and the vault. It is also the `PackSink` of its writer.

    One session feeds it at a time (`data`, `zeros`, `flush` from one thread); the rest is thread-safe.
    """

    def __init__(
        self, spool: Spool, uploader: PackUploader, encoders: Executor, budget: Room, clock: Callable[[], float]
    ) -> None:
        """Attach a writer with `start` before anything is received; `clock` is monotonic, in seconds."""
        self._spool = spool
        self._uploader = uploader
        self._encoders = encoders
        self._budget = budget
        self._clock = clock
        self._changed = threading.Condition()
        self._items: deque[_Item] = deque()
        self._sealed: list[SealedPack] = []
        self._stored: set[PackId] = set()
        self._fresh: dict[PackId, memoryview] = {}
        self._accepted = self._spooled = 0  # packs
        self._flushing = 0
        self._came_at, self._gap = clock(), 0.0  # when the last frame came, and the usual time between two
        self._storing = False  # what was taken from the queues is not durable yet
        self._fault: BaseException | None = None
        self._stopped = False
        self._writer: PointWriter | None = None
        self.on_durable: Callable[[int], None] = lambda seq: None  # called by the spooler with a sequence number
        self._thread = threading.Thread(target=self._run, name="spooler", daemon=True)

    def start(self, writer: PointWriter) -> None:
        """Replay what the spool holds into the writer, and begin."""
        self._writer = writer
        for pack in self._spool.waiting():
            self._submit(pack.id)
        self._thread.start()  # first: the replay of much makes packs of map nodes, and may wait until they are stored
        for frame in self._spool.frames():
            writer.resume(frame.disk, frame.refs)

    def stop(self) -> None:
        """Stop without waiting for what is not durable; its agent sends it again."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()
        self._budget.add(-sum(item.size for item in self._items))
        self._items.clear()

    # -- the session's thread --------------------------------------------------------------------------------------

    def data(
        self,
        seq: int,
        disk: str,
        blocks: Indexes,
        encoded: EncodedBlocks,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        """Take in blocks (ascending); waits while the spool is full.

        Raises:
            Cancelled: the intake stopped or failed, or `cancelled` returned True, while it waited for room.
            IntakeBroken: it failed.
        """
        size = encoded.size
        self._budget.take(size, lambda: self._broken or cancelled())
        try:
            self._wait_for_turn(disk, blocks)
        except IntakeBroken:
            self._budget.add(-size)
            raise
        writer = self._attached()
        refs = self._encoders.submit(writer.add_encoded, disk, blocks, encoded)
        refs.add_done_callback(lambda _: self._notify())
        self._queue(_Item(seq, disk, blocks, refs, size, self._clock()))

    def zeros(self, seq: int, disk: str, blocks: Indexes) -> None:
        """Take in blocks (ascending) that hold zeros; what is a hole already costs nothing."""
        self._wait_for_turn(disk, blocks)
        writer = self._attached()
        fresh = []
        for first, count in runs_of(blocks):
            for start in range(first, first + count, ZERO_STEP):
                _, hole = self._looked_up(disk, start, min(ZERO_STEP, first + count - start))
                fresh.append(np.flatnonzero(~hole) + start)
        refs = holes(np.concatenate(fresh) if fresh else np.zeros(0, np.int64))
        writer.resume(disk, refs)
        done: Future[BlockRefs] = Future()
        done.set_result(refs)
        self._queue(_Item(seq, disk, blocks, done, 0, self._clock()))

    def digests(self, disk: str, first: int, count: int) -> bytes:
        """Return the digests of blocks as the next point would have them, 32 bytes each."""
        self._wait_for_turn(disk, np.arange(first, first + count, dtype=np.int64))
        digests, _ = self._looked_up(disk, first, count)
        return digests.tobytes()

    def flush(self) -> None:
        """Wait until everything received is durable in the spool."""
        with self._changed:
            self._flushing += 1
            self._changed.notify_all()
            try:
                self._changed.wait_for(lambda: self._broken or not (self._items or self._sealed or self._storing))
            finally:
                self._flushing -= 1
            self._raise_if_broken()

    # -- PackSink --------------------------------------------------------------------------------------------------

    def accept(self, pack: SealedPack) -> None:
        """See PackSink."""
        with self._changed:
            self._sealed.append(pack)
            self._accepted += 1
            self._changed.notify_all()

    def drain(self) -> None:
        """See PackSink."""
        with self._changed:
            wanted = self._accepted
            self._changed.wait_for(lambda: self._broken or self._spooled >= wanted)
            self._raise_if_broken()
        self._uploader.drain()

    # -- inside ----------------------------------------------------------------------------------------------------

    @property
    def fault(self) -> BaseException | None:
        """What broke the intake, None while it works."""
        return self._fault

    @property
    def _broken(self) -> bool:
        return self._stopped or self._fault is not None

    def _raise_if_broken(self) -> None:
        if self._broken:
            raise IntakeBroken("the intake is closed") from self._fault

    def _attached(self) -> PointWriter:
        if self._writer is None:
            raise RuntimeError("the intake has no writer yet")
        return self._writer

    def _looked_up(self, disk: str, first: int, count: int) -> tuple[Digests, npt.NDArray[np.bool_]]:
        """Return digests and hole flags; an unreadable map breaks the intake, so that the disk is copied anew."""
        try:
            return self._attached().digests_of(disk, first, count)
        except Fault as fault:
            with self._changed:
                self._fault = fault
                self._changed.notify_all()
            raise IntakeBroken("the map cannot be read") from fault

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _queue(self, item: _Item) -> None:
        with self._changed:
            gap, self._came_at = item.since - self._came_at, item.since
            self._gap += (min(gap, SEAL_AGE[1]) - self._gap) / 4
            self._items.append(item)
            self._changed.notify_all()

    def _wait_for_turn(self, disk: str, blocks: Indexes) -> None:
        """Wait until there is a place, and until no earlier frame with one of these blocks is being encoded."""
        with self._changed:
            self._changed.wait_for(lambda: self._broken or self._has_turn(disk, blocks))
            self._raise_if_broken()

    def _has_turn(self, disk: str, blocks: Indexes) -> bool:
        encoding = [item for item in self._items if not item.refs.done()]
        return len(encoding) < ENCODING and not any(item.overlaps(disk, blocks) for item in encoding)

    def _run(self) -> None:
        try:
            while not self._stopped:
                self._turn()
        except BaseException as error:  # noqa: BLE001 - receivers must learn that nothing is stored any more
            with self._changed:
                self._fault = error
                self._changed.notify_all()

    def _turn(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._sealed or self._takeable() or self._seal_now(), TICK)
            packs, self._sealed = self._sealed, []
            self._stored.update(pack.id for pack in packs)  # they are, before a frame that needs them is journalled
            items = []
            while self._takeable():
                items.append(self._items.popleft())
            self._storing = bool(packs or items)
            on_durable = self.on_durable  # of the session that sent them: another may have numbers of its own
            seal = not self._storing and self._seal_now()
        if self._storing:
            self._store(packs, items, on_durable)
        elif seal:
            self._attached().flush()

    def _takeable(self) -> bool:
        if not self._items or not self._items[0].refs.done():
            return False
        return self._items[0].needs(self._attached().chain.claim) <= self._stored

    def _seal_now(self) -> bool:
        """Whether the open pack should be closed although it is not full. The lock is held."""
        if not self._items or not self._items[0].refs.done():
            return False
        if self._flushing:
            return all(item.refs.done() for item in self._items)
        waiting = sum(item.size for item in self._items)
        return self._budget.pressed or waiting >= SEAL_BYTES or self._aged()

    def _aged(self) -> bool:
        """Whether what waits has waited long enough: on a slow link longer, lest packs be a frame each."""
        least, most = SEAL_AGE
        now = self._clock()
        age, quiet = now - self._items[0].since, now - self._items[-1].since
        return age >= most or (age >= least and quiet >= min(max(least, GAPS * self._gap), most))

    def _store(self, packs: list[SealedPack], items: list[_Item], on_durable: Callable[[int], None]) -> None:
        self._spool.store(packs, [Frame(item.seq, item.disk, item.refs.result()) for item in items])
        self._budget.add(-sum(item.size for item in items))
        for pack in packs:
            # Before `drain` hears of it: a pack that nobody uploads yet would not be waited for.
            self._submit(pack.id, pack.data)
        with self._changed:
            self._spooled += len(packs)
            self._storing = False
            self._changed.notify_all()
        if items:
            on_durable(items[-1].seq)

    def _submit(self, pack: PackId, content: memoryview | None = None) -> None:
        if content is not None and len(self._fresh) < FRESH and not self._uploader.takes_files:
            self._fresh[pack] = content
        self._uploader.submit(pack, lambda: self._fresh.pop(pack, None) or self._spool.path_of(pack))
