"""The shape of every decision. Actions are plain values; `farshore_operator.act` carries them out, each repeatable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, TypeVar

from farshore_operator.api.resource import ResourceStatus
from farshore_operator.report.happening import Happening

StatusT = TypeVar("StatusT", bound=ResourceStatus)


class Action:
    """Something to do to the cluster. Subclasses are frozen dataclasses; doing one twice equals doing it once."""


class Outcome:
    """What an action brought that belongs into the status. Subclasses are frozen dataclasses."""


@dataclass(frozen=True)
class Decision(Generic[StatusT]):
    """What to do and what to say.

    Attributes:
        status: the whole status that the operator owns; None leaves it alone (the object goes away).
        actions: in this order; the first that fails ends the list, and its fault enters the status.
        again_in: when to look again even if nothing happens.
        happenings: events beside those that the change of status tells by itself.
    """

    status: StatusT | None
    actions: tuple[Action, ...] = ()
    again_in: timedelta | None = None
    happenings: tuple[Happening, ...] = ()
