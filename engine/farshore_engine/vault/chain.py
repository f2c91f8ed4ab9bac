"""The chain of a machine: a dense sequence of slots, extended by create-only puts by one writer at a time.

Whoever wants to write first puts a fence, its claim, into the next free slot. Another claim behind it ends it: the
earlier writer finds its next slot taken, reads it, and stops. No clock and no lease is involved, so a writer that
was stalled for hours between its last check and its put loses just the same.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.vault.crypto import MachineKeys
from farshore_engine.vault.durability import StoreLost
from farshore_engine.vault.envelope import RecordDamaged
from farshore_engine.vault.names import SLOT_DIGITS, MachineNames
from farshore_engine.vault.records import (
    FenceBody,
    PointManifest,
    Record,
    RecordHeader,
    RecordKind,
    open_record,
    record_digest,
    seal_record,
)
from farshore_engine.vault.store import AlreadyExists, ObjectNotFound, ObjectStore, ObjectTooLarge, Version

READERS = 8  # slots read at once
MISSING_MOST = 1000  # slots that are named as missing
ATTEMPTS = 10  # claims that may get in between before an opening gives up


class Fenced(StopFault):
    """Another writer has the chain. `epoch` and `writer` are those at its head."""

    def __init__(self, machine: str, epoch: int, writer: str, mine: str) -> None:
        super().__init__(
            f"{mine} may not extend the chain of {machine}: {writer or 'somebody'} holds it with epoch {epoch}",
            f"Nothing if the machine was re-assigned or failed over; otherwise assign it with epoch {epoch + 1}",
            reason="Fenced",
        )
        self.epoch = epoch
        self.writer = writer


@dataclass(frozen=True, slots=True)
class Slot:
    """A slot as found: its record, or why it cannot be used."""

    number: int
    version: Version
    record: Record | None
    data: bytes
    damage: str = ""


@dataclass(frozen=True)
class Access:
    """What it takes to read and write a machine's objects."""

    store: ObjectStore
    names: MachineNames
    keys: MachineKeys


def list_slots(access: Access) -> list[int]:
    """Return the numbers of the slots that exist, ascending."""
    prefix = access.names.slots
    tails = (name[len(prefix) :] for name in access.store.list(prefix))
    return [int(tail) for tail in tails if len(tail) == SLOT_DIGITS and tail.isascii() and tail.isdigit()]


def read_base(access: Access) -> int:
    """Return the lowest slot that may still exist."""
    try:
        data, _ = access.store.get(access.names.base)
        return int(data)
    except ObjectNotFound:
        return 0
    except (ValueError, ObjectTooLarge):
        return 0  # only a hint: the slots themselves are authenticated


def live_slots(numbers: list[int], base: int) -> list[int]:
    """Return the slots that count: those from the base on. A base that names no slot is broken and ignored."""
    return [n for n in numbers if n >= base] if base in numbers else numbers


def live_numbers(access: Access) -> list[int]:
    """Return the slots that count, ascending: those from the base on, and those that the base hides and must not.

    Pruning raises the base over fences and buried points only. A point below it is either that of a stale writer, whose
    fence was pruned (the slot behind it is gone, or follows another record), or the base was raised by somebody who
    wants points out of sight: then the slots from there up to the base are all there and follow one another.
    """
    numbers = list_slots(access)
    live = live_slots(numbers, read_base(access))
    below: list[int] = []
    if len(live) < len(numbers):
        there = set(numbers)
        while (number := live[0] - len(below) - 1) in there:
            below.append(number)
    hidden: list[int] = []
    follower = read_slot(access, live[0]) if below else None
    for slot in read_slots(access, below):
        if slot.record is None or follower is None or follower.record is None:
            break
        if follower.record.header.previous != slot.record.digest:
            break
        hidden.append(slot.number)
        follower = slot
        if slot.record.header.kind is RecordKind.POINT:
            live = [*reversed(hidden), *live]
            hidden = []
    return live


def read_slot(access: Access, number: int) -> Slot:
    """Read and verify one slot; a slot that is missing or damaged says so in `damage`."""
    try:
        data, version = access.store.get(access.names.slot(number))
    except ObjectNotFound:
        return Slot(number, "", None, b"", "it is missing")
    except ObjectTooLarge:
        return Slot(number, "too large", None, b"", "it is too large")
    try:
        return Slot(number, version, open_record(access.keys, number, data), data)
    except RecordDamaged as error:
        return Slot(number, version, None, data, str(error))


def read_slots(access: Access, numbers: list[int]) -> list[Slot]:
    """Read many slots at once, in the given order."""
    if len(numbers) <= 1:
        return [read_slot(access, number) for number in numbers]
    with ThreadPoolExecutor(min(READERS, len(numbers)), "vault-slots") as pool:
        return list(pool.map(lambda number: read_slot(access, number), numbers))


def missing_slots(live: list[int]) -> list[int]:
    """Return the numbers that a dense chain over these slots should have and has not, the first thousand of them.

    Whoever may write to the store can put something far beyond the head; that must not take the reader's memory.
    """
    gaps = (range(one + 1, behind) for one, behind in itertools.pairwise(live) if behind > one + 1)
    return list(itertools.islice(itertools.chain.from_iterable(gaps), MISSING_MOST))


class ChainWriter:
    """The right to extend a chain. Not for several threads at once but for `head` and `claim`, which never go back.

    Attributes:
        claim: the slot of this writer's fence; its packs carry it in their names.
        head: the last slot that it knows to be taken.
    """

    def __init__(self, access: Access, *, writer: str, epoch: int, claim: int, digest: str) -> None:
        """Use `open`."""
        self._access = access
        self.writer = writer
        self.epoch = epoch
        self.claim = claim
        self.head = claim
        self._digest = digest
        self._unsettled: bytes | None = None
        self._lost: StoreLost | None = None
        self._lock = threading.Lock()

    @classmethod
    def open(
        cls, access: Access, *, writer: str, epoch: int, reason: str, clock: Callable[[], datetime], base: str = ""
    ) -> ChainWriter:
        """Claim the chain by a fence behind its head. `base`: see `FenceBody`.

        Raises:
            Fenced: the head has a higher epoch, or this epoch under another writer's name.
            StopFault: the head is damaged.
        """
        for _ in range(ATTEMPTS):
            numbers = live_slots(list_slots(access), read_base(access))
            head = numbers[-1] if numbers else 0
            while numbers and read_slot(access, head + 1).version:  # taken since, or the list is behind
                head += 1
            previous = ""
            if numbers:
                found = read_slot(access, head)
                if not found.version:
                    continue  # listed and not there: the store crashed and forgot it, or its list is old
                previous = _check_head(access, found, writer, epoch)
            slot = head + 1
            body = FenceBody(reason=reason, time=clock(), base=base)
            header = RecordHeader(access.names.machine, slot, epoch, writer, slot, RecordKind.FENCE, previous)
            data = seal_record(access.keys, header, body)
            try:
                access.store.put(access.names.slot(slot), data, create_only=True)
            except AlreadyExists:
                continue
            if is_below_base(access, slot):  # the slots that were listed are pruned by now
                access.store.delete(access.names.slot(slot))
                continue
            return cls(access, writer=writer, epoch=epoch, claim=slot, digest=record_digest(data))
        raise WaitFault(
            f"the chain of {access.names.machine} is being claimed by several writers",
            "Check that the machine is assigned to one process server only",
            reason="ChainBusy",
        )

    def append(self, manifest: Callable[[int], PointManifest]) -> Record:
        """Put a point into the next slot; `manifest(slot)` makes it. It is visible once this returns.

        Raises:
            Fenced: another writer has taken the slot.
            WaitFault: the store is away. Whether the point became visible is unknown; the next `append` or `settle`
                finds out first. StoreLost: the end of the chain is gone; open the chain anew.
        """
        with self._lock:
            self._settle()
            if self._lost is not None:
                raise self._lost
            self._check_end(self.head, self._digest)
            slot = self.head + 1
            header = RecordHeader(
                self._access.names.machine, slot, self.epoch, self.writer, self.claim, RecordKind.POINT, self._digest
            )
            self._unsettled = seal_record(self._access.keys, header, manifest(slot))
            return self._settle_now(self._unsettled)

    def settle(self) -> Record | None:
        """Finish an append whose outcome is unknown, if there is one; return its record."""
        with self._lock:
            return self._settle()

    def _settle(self) -> Record | None:
        return None if self._unsettled is None else self._settle_now(self._unsettled)

    def _settle_now(self, data: bytes) -> Record:
        slot = self.head + 1
        name = self._access.names.slot(slot)
        try:
            self._access.store.put(name, data, create_only=True)
        except AlreadyExists:
            found = read_slot(self._access, slot)
            if found.data != data:  # not the answer that got lost
                self._unsettled = None
                header = found.record.header if found.record is not None else None
                raise Fenced(
                    self._access.names.machine,
                    header.epoch if header else self.epoch,
                    header.writer if header else "",
                    f"{self.writer} (epoch {self.epoch})",
                ) from None
        # Until both looks have succeeded the append is unsettled: a store that goes away here is asked again.
        if is_below_base(self._access, slot):  # the fence that held this slot was pruned; what we put is not seen
            self._access.store.delete(name)
            self._unsettled = None
            raise Fenced(self._access.names.machine, self.epoch + 1, "", f"{self.writer} (epoch {self.epoch})")
        self._check_end(self.head, self._digest)
        record = open_record(self._access.keys, slot, data)
        self._unsettled = None
        self.head, self._digest = slot, record.digest
        return record

    def _check_end(self, slot: int, digest: str) -> None:
        """See that a slot of ours is still there, before and after the next one is put: a store that loses what it
        acknowledged must not make a hole in the chain unnoticed."""
        found = read_slot(self._access, slot)
        if found.record is not None and found.record.digest != digest:
            header = found.record.header
            raise Fenced(self._access.names.machine, header.epoch, header.writer, f"{self.writer} (epoch {self.epoch})")
        if not found.version and not is_below_base(self._access, slot):
            self._lost = StoreLost(self._access.names.machine, f"slot {slot} of its chain")
            raise self._lost


def is_below_base(access: Access, slot: int) -> bool:
    """Return whether the chain begins above this slot."""
    base = read_base(access)
    return base > slot and read_slot(access, base).record is not None


def _check_head(access: Access, slot: Slot, writer: str, epoch: int) -> str:
    if slot.record is None:
        raise StopFault(
            f"slot {slot.number}, the head of the chain of {access.names.machine}, cannot be read: {slot.damage}",
            "Restore the object from a copy of the vault, or start a new vault for this machine",
            reason="ChainDamaged",
        )
    header = slot.record.header
    if header.epoch > epoch or (header.epoch == epoch and header.writer != writer):
        raise Fenced(access.names.machine, header.epoch, header.writer, f"{writer} (epoch {epoch})")
    return slot.record.digest
