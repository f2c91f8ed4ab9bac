"""The vault as seen for one machine: keys opened, points listed, and the way in for writers, readers and pins."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import KeyReport
from farshore_engine.vault.chain import (
    Access,
    ChainWriter,
    Slot,
    is_below_base,
    live_numbers,
    missing_slots,
    read_slots,
)
from farshore_engine.vault.decoder import Decoder
from farshore_engine.vault.envelope import RecordDamaged
from farshore_engine.vault.journal import RunJournal
from farshore_engine.vault.jsontext import parse_object
from farshore_engine.vault.keyring import KeyRing, key_report, open_keys, read_document, rotate
from farshore_engine.vault.names import SLOT_DIGITS, MachineNames, checked_machine, checked_prefix, vault_file
from farshore_engine.vault.nodestore import CACHED, NodeStore
from farshore_engine.vault.pins import list_pins, pin_point, unpin_point
from farshore_engine.vault.records import (
    PointManifest,
    Record,
    TombstoneBody,
    TombstonePhase,
    open_record,
    point_of,
)
from farshore_engine.vault.reports import Reports
from farshore_engine.vault.store import AlreadyExists, ObjectNotFound, ObjectStore

VAULT_FORMAT = 1
READ_THREADS = 8


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class StoredPoint:
    """A point with its manifest, as found in its slot."""

    record: Record
    manifest: PointManifest
    pins: tuple[str, ...]

    @property
    def slot(self) -> int:
        """The slot of the point."""
        return self.record.header.slot

    @property
    def summary(self) -> RecoveryPoint:
        """What users see of it."""
        return point_of(self.record, self.manifest, self.pins)


@dataclass(frozen=True, slots=True)
class DamagedSlot:
    """A slot that should hold something and does not, or not what was written."""

    slot: int
    why: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The points of a machine, oldest first, the slots that are damaged, and the epoch at the head (0: no head)."""

    points: tuple[StoredPoint, ...]
    damaged: tuple[DamagedSlot, ...]
    epoch: int

    def summaries(self) -> list[RecoveryPoint]:
        """Return what users see, for `contract.points.resolve`."""
        return [point.summary for point in self.points]


class MachineVault:
    """One machine's part of a vault. Thread-safe.

    Attributes:
        access: store, names and keys, for the modules of the vault.
        nodes: the shared cache of map nodes.
        decoder: reads records of packs.
        journal: the run journals of the machine.
        reports: the signed reports of its runs.
        key_report: how the keys stood at the last `rotate`, None before.
    """

    def __init__(self, access: Access, *, cached_nodes: int = CACHED, read_threads: int = READ_THREADS) -> None:
        """Use `open`."""
        self.access = access
        self.decoder = Decoder(access.store, access.names, access.keys, threads=read_threads)
        self.nodes = NodeStore(access.keys.machine, self.decoder, cached=cached_nodes)
        self.journal = RunJournal(access)
        self.reports = Reports(access)
        self.key_report: KeyReport | None = None

    @classmethod
    def open(
        cls,
        store: ObjectStore,
        kek: bytes | KeyRing,
        machine: str,
        *,
        prefix: str = "",
        create: bool = False,
        clock: Callable[[], datetime] = _utc_now,
    ) -> MachineVault:
        """Open the machine `<namespace>.<name>`; with `create`, make vault and data key if they are not there.

        Args:
            store: where the vault is.
            kek: the key-encryption keys, or one as `crypto.parse_kek` takes it.
            machine: the machine's id.
            prefix: where in the store the vault begins.
            create: whether a vault or machine that is not there is made.
            clock: gives the time that is noted when something is made.

        Raises:
            StopFault: not there, a wrong key (`keyring.WrongKey`), erased (`keydocument.ErasedKey`), or a newer format.
            WaitFault: the store or the key vault is away.
        """
        names = MachineNames(checked_machine(machine), checked_prefix(prefix))
        ring = KeyRing.of(kek)
        _check_vault(store, names.prefix, create, clock)
        return cls(Access(store, names, open_keys(store, names, ring, create=create)))

    def rotate(self, ring: KeyRing) -> KeyReport:
        """See `keyring.rotate`; while the current key is away the report says so, and everything opens as before.

        Raises:
            Fault: the store is away, or the machine was erased.
        """
        access = self.access
        try:
            report = rotate(access.store, access.names, ring, access.keys)
        except Fault as fault:
            document, _ = read_document(access.store, access.names)
            if document.erased is not None:
                raise
            report = key_report(document, ring, fault)
        self.key_report = report
        return report

    def close(self) -> None:
        """Stop the threads that read."""
        self.decoder.close()

    @property
    def digest_key(self) -> bytes:
        """The key of the block digests, 32 bytes; the machine's agent may have it."""
        return self.access.keys.digest_key

    def claim(
        self, *, writer: str, epoch: int, reason: str, clock: Callable[[], datetime] = _utc_now, base: str = ""
    ) -> ChainWriter:
        """Take over the chain, which fences every earlier writer; see `ChainWriter.open`."""
        return ChainWriter.open(self.access, writer=writer, epoch=epoch, reason=reason, clock=clock, base=base)

    def catalogue(self, newest: int | None = None) -> Catalogue:
        """Read the chain: all of it, or only as many slots from its end as hold the `newest` points."""
        numbers = live_numbers(self.access)
        pins = list_pins(self.access)
        points: list[StoredPoint] = []
        damaged = [DamagedSlot(n, "it is missing") for n in missing_slots(numbers)] if newest is None else []
        head: Slot | None = None
        follower: Slot | None = None
        remaining = list(reversed(numbers))
        while remaining and (newest is None or len(points) < newest):
            step = len(remaining) if newest is None else max(newest - len(points), 8)
            for slot in read_slots(self.access, remaining[:step]):
                head = head or slot
                found = self.judge(slot, follower, pins.get(slot.number, ()))
                if isinstance(found, StoredPoint):
                    points.append(found)
                elif found is not None:
                    damaged.append(found)
                follower = slot
            remaining = remaining[step:]
        points = points if newest is None else points[:newest]
        epoch = head.record.header.epoch if head is not None and head.record is not None else 0
        return Catalogue(tuple(reversed(points)), tuple(sorted(damaged, key=lambda d: d.slot)), epoch)

    def newest(self) -> StoredPoint | None:
        """Return the newest point, None if there is none yet."""
        points = self.catalogue(newest=1).points
        return points[-1] if points else None

    def find(self, name: str) -> StoredPoint:
        """Return the point with this name.

        Raises:
            StopFault: there is none, or its record is damaged.
        """
        tail = name.rpartition("-")[2]
        why = None
        if tail.isascii() and tail.isdigit() and len(tail) <= SLOT_DIGITS and self._counts(int(tail)):
            slot, follower = read_slots(self.access, [int(tail), int(tail) + 1])
            found = self.judge(slot, follower, list_pins(self.access).get(slot.number, ()))
            if isinstance(found, StoredPoint) and found.manifest.name == name:
                return found
            why = found.why if isinstance(found, DamagedSlot) and slot.version else None
        if why is not None:
            raise StopFault(
                f"the record of the point {name} of {self.access.names.machine} is damaged: {why}",
                "Choose another point; the others are not affected",
                reason="PointDamaged",
            )
        raise StopFault(
            f"{self.access.names.machine} has no recovery point {name}",
            "List them with `farshore points`; it may have been pruned",
            reason="NoSuchRecoveryPoint",
        )

    def _counts(self, slot: int) -> bool:
        """Whether the slot belongs to the chain, which a stale writer's behind a pruned fence does not."""
        return not is_below_base(self.access, slot) or slot in live_numbers(self.access)

    def pin(self, point: StoredPoint, pin: str, note: str = "") -> None:
        """Hold a point for a run, drill or export; see `pins.pin_point`."""
        pin_point(self.access, point.slot, pin, note)

    def unpin(self, slot: int, pin: str) -> None:
        """Release a pin; one that is not there is fine."""
        unpin_point(self.access, slot, pin)

    def judge(self, slot: Slot, follower: Slot | None, pins: tuple[str, ...]) -> StoredPoint | DamagedSlot | None:
        """Say what a slot is: a point (a pinned condemned one too), damage, or None; `follower` is behind it."""
        record = slot.record
        if record is None:
            return DamagedSlot(slot.number, slot.damage)
        behind = follower.record if follower is not None and follower.number == slot.number + 1 else None
        if behind is not None and behind.header.previous != record.digest:
            return DamagedSlot(slot.number, f"it is not the record that slot {slot.number + 1} follows")
        if isinstance(record.body, TombstoneBody) and record.body.phase is TombstonePhase.CONDEMNED and pins:
            try:
                record = open_record(self.access.keys, slot.number, record.body.original_record())
            except RecordDamaged as error:
                return DamagedSlot(slot.number, f"the point in its tombstone cannot be read: {error}")
        if isinstance(record.body, PointManifest):
            return StoredPoint(record, record.body, pins)
        return None


def check_vault(store: ObjectStore, prefix: str) -> None:
    """Look whether there is a vault of a format that is known here; `prefix` as in `names.checked_prefix`.

    Raises:
        StopFault: there is none (NoVault), it is damaged, or newer.
    """
    _check_vault(store, prefix, False, _utc_now)


def _check_vault(store: ObjectStore, prefix: str, create: bool, clock: Callable[[], datetime]) -> None:
    name = vault_file(prefix)
    try:
        data, _ = store.get(name)
    except ObjectNotFound:
        if not create:
            raise StopFault(
                f"there is no vault here: {name} is missing", "Check account, container and prefix", reason="NoVault"
            ) from None
        document = {"format": VAULT_FORMAT, "created": clock().isoformat()}
        try:
            store.put(name, json.dumps(document).encode(), create_only=True)
        except AlreadyExists:
            _check_vault(store, prefix, False, clock)
        return
    try:
        form = parse_object(data)["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StopFault(f"{name} is damaged", "Restore it from a copy of the vault", reason="VaultDamaged") from error
    if form != VAULT_FORMAT:
        raise StopFault(f"the vault has format {form}", "Upgrade Farshore to use it", reason="NewerFormat")
