"""A point of which everything is in the spool: what the agent said of it, and what the process server adds."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import GroupCut
from farshore_engine.wire.messages import PointEnd

SKEW_ALLOWED = 2.0  # seconds by which a machine's clock may be off before its points' times are corrected


@dataclass(frozen=True)
class ClosedPoint:
    """A complete point.

    Attributes:
        time: of the freeze by the process server's clock, seconds since the epoch.
        notes: what limits the point; the agent's, and the process server's.
        group: the cut that it belongs to.
    """

    end: PointEnd
    time: float
    notes: tuple[str, ...] = ()
    group: GroupCut | None = None

    @property
    def instant(self) -> datetime:
        """The time as it stands in the vault."""
        return datetime.fromtimestamp(self.time, UTC)

    def to_json(self) -> dict[str, Any]:
        """Return what `from_json` reads."""
        group = self.group.model_dump(mode="json") if self.group is not None else None
        return {"end": self.end.to_header(), "time": self.time, "notes": list(self.notes), "group": group}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ClosedPoint:
        """Read it back from the journal."""
        group = GroupCut.model_validate(value["group"]) if value["group"] is not None else None
        return cls(PointEnd.from_header(value["end"]), value["time"], tuple(value["notes"]), group)


def server_time(frozen_at: float, ahead: float, asked: float, received: float) -> tuple[float, str]:
    """Return the instant of a freeze by the process server's clock, and a note if the machine's was off.

    Retention and selectors compare times of many machines, so one clock must hold for all of them.

    Args:
        frozen_at: the instant by the machine's clock.
        ahead: seconds by which that clock was ahead when its agent connected.
        asked: when the point was asked for, by the process server's clock.
        received: when its end came in.
    """
    if asked - SKEW_ALLOWED <= frozen_at <= received + SKEW_ALLOWED and abs(ahead) <= SKEW_ALLOWED:
        return frozen_at, ""
    off = ahead if abs(ahead) > SKEW_ALLOWED else frozen_at - min(max(frozen_at, asked), received)
    word = "ahead" if off > 0 else "behind"
    note = f"the machine's clock was {abs(off):.0f} s {word}: the point's time is the process server's"
    return min(max(frozen_at - ahead, asked), received), note


def malformed(message: PointEnd) -> str:
    """Say what of a point's end no commit could ever use; empty when all of it is good."""
    try:
        MachineDescription.model_validate(message.machine)
        datetime.fromtimestamp(message.frozen_at, UTC)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        return f"the machine description is malformed at {where}: {error.errors()[0]['msg']}"
    except (ValueError, OverflowError, OSError):
        return f"the machine's clock shows no date: {message.frozen_at} seconds since the epoch"
    return ""
