"""The two messages with which a machine that was installed by hand gets its identity."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from farshore_engine.wire.frames import FrameKind
from farshore_engine.wire.message import Message


@dataclass(frozen=True, slots=True)
class Enrol(Message):
    """First and only message of a machine that was installed by hand and has no certificate yet.

    It is sent over TLS without a client certificate, after the agent has compared the CA in the server's chain with the
    fingerprint inside its token. The answer is Enrolled or Refuse; then the connection is closed.
    """

    kind: ClassVar[FrameKind] = FrameKind.ENROL
    machine_id: str
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Enrolled(Message):
    """The identity of the machine, as PEM texts; the token is used up."""

    kind: ClassVar[FrameKind] = FrameKind.ENROLLED
    certificate: str
    key: str = field(repr=False)
    ca: str = ""
