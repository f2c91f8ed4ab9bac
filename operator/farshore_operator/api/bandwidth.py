"""How much of the network replication may use, and when."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_operator.api.cel import Rule
from farshore_operator.api.resource import AS_SET, Model
from farshore_operator.api.values import Quantity

_CLOCK = "^([01][0-9]|2[0-3]):[0-5][0-9]$"


class Weekday(StrEnum):
    """The days of the week."""

    MONDAY = "Mon"
    TUESDAY = "Tue"
    WEDNESDAY = "Wed"
    THURSDAY = "Thu"
    FRIDAY = "Fri"
    SATURDAY = "Sat"
    SUNDAY = "Sun"


class BandwidthWindow(Model):
    """A part of the week with a limit of its own."""

    rules = (
        Rule(
            f"self.from.matches('{_CLOCK}') && self.to.matches('{_CLOCK}')",
            "a window of the bandwidth schedule begins and ends at a time of day such as 08:00 or 17:30 (24 hours)",
        ),
        Rule(
            "self.from != self.to",
            "a window of the bandwidth schedule begins and ends at the same time: for a whole day write 00:00 to "
            "23:59, "
            "or set bandwidth.limit",
        ),
    )

    days: Annotated[tuple[Weekday, ...], Field(max_length=7, json_schema_extra=AS_SET)] = ()
    """Days on which the window begins. Default: every day."""
    begin: Annotated[str, Field(alias="from", max_length=5)]
    """Time of day at which it begins, in UTC, such as 08:00."""
    to: Annotated[str, Field(max_length=5)]
    """Time of day at which it ends, in UTC, such as 18:00; earlier than `from` for a window over midnight."""
    limit: Quantity
    """Bytes per second inside the window, such as 10Mi; 0 for no limit."""


class Bandwidth(Model):
    """A limit, and windows in which another one holds."""

    limit: Quantity = 0
    """Bytes per second, such as 50Mi; 0 for no limit. Default: 0."""
    schedule: Annotated[tuple[BandwidthWindow, ...], Field(max_length=32)] = ()
    """Windows in which another limit holds; the first that fits counts. Default: none."""
