"""A generation: everything received between two recovery points, as the journal tells it.

State is a fold over the journal's records, the same when they are written and when they are read back after a crash.
"""

from __future__ import annotations

import dataclasses
import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from farshore_engine.processserver.journal import Kind, Record
from farshore_engine.processserver.pending import PendingBlocks
from farshore_engine.vault.encoding import BlockRefs, refs_from_bytes
from farshore_engine.vault.names import PackId
from farshore_engine.wire.messages import PointEnd, SyncMode

FRAME = struct.Struct("<QH")
PACK = struct.Struct("<QQI")
NO_POINT = 0  # base of a chain without a point: slots count from 1


@dataclass(frozen=True)
class AgentSession:
    """One agent's unbroken stretch of tracking, as far as it feeds this spool.

    `modes`: how each disk is being brought up to date; `durable`: every frame up to this sequence number is in the
    spool; `synced`: each disk was passed over once since the session began or its last gap.
    """

    id: str
    modes: dict[str, SyncMode] = field(default_factory=dict)
    durable: int = 0
    synced: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return the session for a journal record."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> AgentSession:
        """Read what `to_json` wrote."""
        modes = {disk: SyncMode(mode) for disk, mode in value["modes"].items()}
        return cls(value["id"], modes, value["durable"], value["synced"])


@dataclass
class SpooledPack:
    """A pack in the spool; `size` in bytes, as far as the journal vouches for it."""

    id: PackId
    size: int = 0
    sealed: bool = False
    uploaded: bool = False


@dataclass(frozen=True)
class Frame:
    """One received frame once encoded: what the blocks of a disk now refer to (nothing, if all were unchanged)."""

    seq: int
    disk: str
    refs: BlockRefs


class Generation:
    """The fold. `base`: slot of the point below, None while that point is still being committed."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.spool = ""
        self.base: int | None = None
        self.session: AgentSession | None = None
        self.pending = PendingBlocks()
        self.packs: dict[PackId, SpooledPack] = {}
        self.point: PointEnd | None = None
        self.received = 0  # blocks that this generation's frames carried and that differed

    def apply(self, record: Record) -> None:
        """Take in one record."""
        match record.kind:
            case Kind.FRAME:
                self.apply_frame(frame_of(record.payload))
            case Kind.SEALED:
                pack, size = _read_pack(record.payload)
                self.pack(pack).size = size
                self.pack(pack).sealed = True
            case Kind.UPLOADED:
                pack, _ = _read_pack(record.payload)
                self.pack(pack).sealed = self.pack(pack).uploaded = True
            case _:
                self._apply_state(record.kind, json.loads(record.payload))

    def apply_frame(self, frame: Frame) -> None:
        """Take in a frame's references."""
        if frame.refs.size:
            self.pending.put(frame.disk, frame.refs)
            self.received += int(frame.refs.size)
            stored = frame.refs["ref"][frame.refs["ref"]["length"] > 0]
            for claim, random in np.unique(stored[["claim", "random"]]).tolist():
                mine = stored[(stored["claim"] == claim) & (stored["random"] == random)]
                end = int((mine["offset"].astype(np.int64) + mine["length"]).max())
                pack = self.pack(PackId(claim, random))
                pack.size = max(pack.size, end)
        if self.session is not None and frame.seq > self.session.durable:
            self.session = dataclasses.replace(self.session, durable=frame.seq)

    def pack(self, pack: PackId) -> SpooledPack:
        """Return the state of a pack of this generation."""
        return self.packs.setdefault(pack, SpooledPack(pack))

    def _apply_state(self, kind: Kind, value: dict[str, Any]) -> None:
        match kind:
            case Kind.OPENED:
                self.spool, self.base = value["spool"], value["base"]
                self.session = AgentSession.from_json(value["session"]) if value["session"] else None
            case Kind.BASE:
                self.base = value["base"]
            case Kind.SESSION:
                self.session = AgentSession.from_json(value)
            case Kind.SYNCED if self.session:
                self.session = dataclasses.replace(self.session, synced=True)
            case Kind.GAP if self.session:
                modes = {**self.session.modes, value["disk"]: SyncMode.RESYNC}
                self.session = dataclasses.replace(self.session, modes=modes, synced=False)
            case Kind.POINT:
                self.point = PointEnd.from_header(value)


def opened_record(spool: str, base: int | None, session: AgentSession | None) -> Record:
    """Return the first record of a generation's journal."""
    value = {"format": 1, "spool": spool, "base": base, "session": session.to_json() if session else None}
    return json_record(Kind.OPENED, value)


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


def _read_pack(payload: bytes) -> tuple[PackId, int]:
    claim, random, size = PACK.unpack(payload)
    return PackId(claim, random), size
