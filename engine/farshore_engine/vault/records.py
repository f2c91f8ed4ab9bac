"""What stands in the slots of a chain: points, fences and tombstones, and how each is sealed and opened."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, TypeVar

from blake3 import blake3
from pydantic import Field, ValidationError

from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.model import Status
from farshore_engine.contract.points import Consistency, GroupCut, RecoveryPoint
from farshore_engine.vault.crypto import MachineKeys, Purpose
from farshore_engine.vault.encoding import Ref
from farshore_engine.vault.envelope import RecordDamaged, SealedRecord, open_body, parse, seal
from farshore_engine.vault.names import PACK, PackId

FORMAT = 1
MOST_DISKS = 1024  # of a machine; each costs every reader something
LARGEST_DISK = 1 << 50  # bytes; more is a lie, and would be counted through


class RecordKind(StrEnum):
    """What a slot holds."""

    POINT = "point"
    FENCE = "fence"  # a writer claims the chain, or a failover closes it to its old writer
    TOMBSTONE = "tombstone"  # a point that retention gave up


class TombstonePhase(StrEnum):
    """How far the removal of a point is."""

    CONDEMNED = "condemned"  # it can come back: nothing was deleted, the record is kept inside
    BURIED = "buried"  # it cannot: its packs may be gone


class RefModel(Status):
    """A reference as it stands in a manifest."""

    pack: Annotated[str, Field(pattern=f"^{PACK.pattern}$")]
    offset: Annotated[int, Field(ge=0, lt=1 << 32)]
    length: Annotated[int, Field(gt=0, lt=1 << 32)]
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, ref: Ref | None) -> RefModel | None:
        """Write a reference."""
        if ref is None:
            return None
        return cls(pack=str(ref.pack), offset=ref.offset, length=ref.length, digest=ref.digest.hex())

    def ref(self) -> Ref:
        """Read it back."""
        return Ref(PackId.parse(self.pack), self.offset, self.length, bytes.fromhex(self.digest))


class PointDisk(Status):
    """A disk of a point. `root` None means that the whole disk is zeros."""

    id: str
    name: str
    size_bytes: Annotated[int, Field(ge=0, le=LARGEST_DISK)]
    root: RefModel | None = None


class PointManifest(Status):
    """The body of a point's record: all that is needed to restore the machine, given the packs and the key."""

    name: str
    time: datetime  # of the freeze
    consistency: Consistency
    notes: tuple[str, ...] = ()
    disks: Annotated[tuple[PointDisk, ...], Field(max_length=MOST_DISKS)]
    machine: MachineDescription
    bytes_changed: int = 0
    bytes_stored: int = 0
    packs_added: int = 0
    locked_until: datetime | None = None  # until then nobody can delete the point or what it needs
    group: GroupCut | None = None  # the instant that it shares with the points of other machines

    def disk(self, disk: str) -> PointDisk | None:
        """Return the disk with this id."""
        return next((d for d in self.disks if d.id == disk), None)


class FenceBody(Status):
    """The body of a fence. `base`: name of an older point on which the chain goes on, empty for the newest."""

    reason: str
    time: datetime
    base: str = ""


class TombstoneBody(Status):
    """The body of a tombstone. `original` is the point's record in base64 while condemned, None once buried."""

    phase: TombstonePhase
    reason: str
    time: datetime
    name: str
    original: str | None = None
    original_digest: str

    def original_record(self) -> bytes:
        """Return the bytes of the point's record; only while condemned."""
        if self.original is None:
            raise RecordDamaged("the point is buried")
        try:
            return base64.b64decode(self.original, validate=True)
        except ValueError as error:
            raise RecordDamaged("its tombstone does not hold the point's record") from error


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """The authenticated header of a slot. `claim` is the slot of the fence under which the writer wrote."""

    machine: str
    slot: int
    epoch: int
    writer: str
    claim: int
    kind: RecordKind
    previous: str  # digest of the record in the slot before, empty for the first

    def fields(self) -> dict[str, Any]:
        """Return the JSON fields."""
        return {
            "format": FORMAT,
            "machine": self.machine,
            "slot": self.slot,
            "epoch": self.epoch,
            "writer": self.writer,
            "claim": self.claim,
            "kind": self.kind.value,
            "previous": self.previous,
        }


@dataclass(frozen=True, slots=True)
class Record:
    """A slot that was opened and verified. `digest` is what the next slot says of it."""

    header: RecordHeader
    body: PointManifest | FenceBody | TombstoneBody
    digest: str


BODIES: dict[RecordKind, type[PointManifest | FenceBody | TombstoneBody]] = {
    RecordKind.POINT: PointManifest,
    RecordKind.FENCE: FenceBody,
    RecordKind.TOMBSTONE: TombstoneBody,
}
B = TypeVar("B")


def record_digest(data: bytes) -> str:
    """Return the digest of a record's bytes."""
    return str(blake3(data).hexdigest())


def seal_record(
    keys: MachineKeys, header: RecordHeader, body: PointManifest | FenceBody | TombstoneBody, salt: bytes | None = None
) -> bytes:
    """Return the bytes of a slot; `salt` is given by test vectors only."""
    text = body.model_dump_json(by_alias=True, exclude_defaults=True).encode()
    return seal(keys, Purpose.CHAIN, header.fields(), text, salt)


def open_record(keys: MachineKeys, slot: int, data: bytes) -> Record:
    """Open and verify the bytes found in a slot.

    Raises:
        RecordDamaged: they are not a record of this machine and slot, of a format that is known.
    """
    record = parse(data)
    header = _header(record)
    if header.machine != keys.machine or header.slot != slot:
        raise RecordDamaged(f"it belongs to slot {header.slot} of {header.machine}")
    text = open_body(keys, Purpose.CHAIN, record)
    try:
        body = BODIES[header.kind].model_validate_json(text)
    except ValidationError as error:
        raise RecordDamaged(f"its body is not a {header.kind.value}") from error
    digest = body.original_digest if isinstance(body, TombstoneBody) else record_digest(data)
    return Record(header, body, digest)


def _header(record: SealedRecord) -> RecordHeader:
    fields = record.header
    try:
        if fields["format"] != FORMAT:
            raise RecordDamaged(f"it has format {fields['format']}, which this version cannot read")
        return RecordHeader(
            machine=_typed(fields["machine"], str),
            slot=_typed(fields["slot"], int),
            epoch=_typed(fields["epoch"], int),
            writer=_typed(fields["writer"], str),
            claim=_typed(fields["claim"], int),
            kind=RecordKind(fields["kind"]),
            previous=_typed(fields["previous"], str),
        )
    except (KeyError, ValueError) as error:
        raise RecordDamaged(f"its header is broken: {error}") from error


def _typed(value: Any, kind: type[B]) -> B:
    if not isinstance(value, kind):
        raise ValueError(f"expected {kind.__name__}")
    return value


def point_of(record: Record, manifest: PointManifest, pins: tuple[str, ...] = ()) -> RecoveryPoint:
    """Return what users see of a point."""
    return RecoveryPoint(
        name=manifest.name,
        slot=record.header.slot,
        time=manifest.time,
        consistency=manifest.consistency,
        notes=manifest.notes,
        bytes_changed=manifest.bytes_changed,
        bytes_stored=manifest.bytes_stored,
        locked_until=manifest.locked_until,
        disk_bytes=sum(d.size_bytes for d in manifest.disks),
        pins=pins,
        epoch=record.header.epoch,
        writer=record.header.writer,
        group=manifest.group,
    )
