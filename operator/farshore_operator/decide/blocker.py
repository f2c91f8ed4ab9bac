"""What can be in the way of a failover, as a value that decisions and providers share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Blocker:
    """Something in the way of a failover: reason, sentence, and whether it makes the failover impossible.

    `drills`: whether it is in the way of a drill too, whose machine has a name and a network of its own.
    """

    reason: str
    message: str
    hard: bool = True
    drills: bool = True
