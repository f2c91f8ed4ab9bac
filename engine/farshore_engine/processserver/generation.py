"""A generation: everything received between two recovery points, as the journal tells it.

State is a fold over the journal's records, the same when they are written and when they are read back after a crash.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass
from typing import Any

from farshore_engine.processserver.closedpoint import ClosedPoint
from farshore_engine.processserver.journal import Kind, Record
from farshore_engine.vault.encoding import BlockRefs, refs_from_bytes
from farshore_engine.vault.names import PackId

FORMAT = 2
FRAME = struct.Struct("<QH")
PACK = struct.Struct("<QQI")


@dataclass(frozen=True)
class AgentSession:
    """One agent's unbroken stretch of tracking: every frame of it up to `durable` is in the spool."""

    id: str
    durable: int = 0


@dataclass(frozen=True)
class SpooledPack:
    """A sealed pack; `size` in bytes."""

    id: PackId
    size: int
    uploaded: bool = False


@dataclass(frozen=True)
class Frame:
    """One received frame once encoded: what the blocks of a disk now refer to (nothing, if all were unchanged)."""

    seq: int
    disk: str
    refs: BlockRefs


class Generation:
    """The fold.

    `base`: slot of the point below, None while that point is still being committed; `vault`: for which vault it is;
    `restarted`: disks that lie on nothing, because their map in the point below is damaged.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.format = FORMAT
        self.spool = ""
        self.vault = ""
        self.base: int | None = None
        self.session: AgentSession | None = None
        self.packs: dict[PackId, SpooledPack] = {}
        self.waiting: dict[PackId, SpooledPack] = {}  # those of them that the vault does not have yet
        self.point: ClosedPoint | None = None
        self.disks: set[str] = set()  # of which frames are here
        self.restarted: set[str] = set()

    def apply(self, record: Record) -> None:
        """Take in one record."""
        match record.kind:
            case Kind.FRAME:
                frame = frame_of(record.payload)
                self.disks.add(frame.disk)
                if self.session is not None and frame.seq > self.session.durable:
                    self.session = dataclasses.replace(self.session, durable=frame.seq)
            case Kind.SEALED:
                pack = _read_pack(record.payload)
                self.packs[pack.id] = self.waiting[pack.id] = pack
            case Kind.UPLOADED:
                pack = _read_pack(record.payload)
                self.packs[pack.id] = dataclasses.replace(pack, uploaded=True)
                self.waiting.pop(pack.id, None)
            case _:
                self._apply_state(record.kind, json.loads(record.payload))

    def _apply_state(self, kind: Kind, value: dict[str, Any]) -> None:
        match kind:
            case Kind.OPENED:
                self.format = value["format"]
                self.spool, self.base, self.vault = value["spool"], value["base"], value["vault"]
                self.session = AgentSession(**value["session"]) if value["session"] else None
            case Kind.BASE:
                self.base = value["base"]
            case Kind.RESTARTED:
                self.restarted |= set(value["disks"])
            case Kind.SESSION:
                self.session = AgentSession(**value)
            case Kind.POINT:
                self.point = ClosedPoint.from_json(value)


def opened_record(spool: str, vault: str, session: AgentSession | None) -> Record:
    """Return the first record of a generation's journal; its base comes later."""
    known = dataclasses.asdict(session) if session else None
    return json_record(Kind.OPENED, {"format": FORMAT, "spool": spool, "vault": vault, "base": None, "session": known})


def json_record(kind: Kind, value: dict[str, Any]) -> Record:
    """Return a record whose payload is JSON."""
    return Record(kind, json.dumps(value, separators=(",", ":")).encode())


def frame_record(frame: Frame) -> Record:
    """Return the record of a durable frame."""
    disk = frame.disk.encode()
    return Record(Kind.FRAME, FRAME.pack(frame.seq, len(disk)) + disk + frame.refs.tobytes())


def frame_of(payload: bytes) -> Frame:
    """Read what `frame_record` wrote."""
    seq, length = FRAME.unpack_from(payload)
    end = FRAME.size + length
    return Frame(seq, payload[FRAME.size : end].decode(), refs_from_bytes(payload[end:]))


def pack_record(kind: Kind, pack: SpooledPack) -> Record:
    """Return the record that a pack is sealed or uploaded."""
    return Record(kind, PACK.pack(pack.id.claim, pack.id.random, pack.size))


def _read_pack(payload: bytes) -> SpooledPack:
    claim, random, size = PACK.unpack(payload)
    return SpooledPack(PackId(claim, random), size)
