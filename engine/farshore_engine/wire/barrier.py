"""The messages with which the machines of a consistency group are cut at one instant.

    agent                                 process server
          <------------------------------ TakePoint(grouped)
    PointReady ------------------------->     little is left to copy; the agent goes on keeping it so
          <------------------------------ FreezeNow, to all members once all are ready
    Frozen ----------------------------->     nothing is written any more; the rest is read meanwhile
          <------------------------------ Cut, to all members once all are frozen: they may thaw
    PointEnd --------------------------->     only if the machine was frozen from Frozen until it had received Cut

So there is an instant, the sending of Cut, at which every member that says PointEnd was frozen. Whatever is late is
called off by PointFailed, and each agent's own bound on its freeze holds whatever it is told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from farshore_engine.wire.frames import FrameKind
from farshore_engine.wire.message import Message


@dataclass(frozen=True, slots=True)
class PointReady(Message):
    """The machine can freeze at once: its pre-copy is done, and its applications are prepared."""

    kind: ClassVar[FrameKind] = FrameKind.POINT_READY
    id: str


@dataclass(frozen=True, slots=True)
class FreezeNow(Message):
    """Every member is ready: freeze."""

    kind: ClassVar[FrameKind] = FrameKind.FREEZE_NOW
    id: str


@dataclass(frozen=True, slots=True)
class Frozen(Message):
    """The machine is frozen, and stays so until Cut, PointFailed or the end of its bound."""

    kind: ClassVar[FrameKind] = FrameKind.FROZEN
    id: str


@dataclass(frozen=True, slots=True)
class Cut(Message):
    """Every member is frozen at this instant: thaw, and send."""

    kind: ClassVar[FrameKind] = FrameKind.CUT
    id: str
