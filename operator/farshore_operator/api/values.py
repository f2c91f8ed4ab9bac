"""The strings that appear all over the resources: durations, amounts of bytes, names, selectors of points.

Each is an annotated type: parsed in Python, a string in YAML, and refused by the API server with a sentence that a
person understands.
"""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from farshore_operator.api.cel import DURATION_PATTERN, QUANTITY_PATTERN, Rule, checked, is_duration, literal

_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}  # in milliseconds
_SCALES = {unit: 1024**power for power, unit in enumerate(("", "Ki", "Mi", "Gi", "Ti", "Pi"))} | {
    unit: 1000**power for power, unit in enumerate(("", "k", "M", "G", "T", "P"))
}
NAME_LENGTH = 253
OUR_NAME_LENGTH = 63
TEXT_LENGTH = 4096


def parse_duration(value: object) -> object:
    """Return the timedelta that a string such as `1d12h` or `15m` means; anything but a string unchanged.

    Raises:
        ValueError: the string is no duration.
    """
    if not isinstance(value, str):
        return value
    if not value or not re.match(DURATION_PATTERN, value):
        raise ValueError(f"{value!r} is not a duration: write numbers with units, such as 30s, 15m, 24h or 7d")
    parts = re.findall(r"([0-9]+)(ms|[smhd])", value)
    return timedelta(milliseconds=sum(int(number) * _UNITS[unit] for number, unit in parts))


def format_duration(value: timedelta) -> str:
    """Return a string that `parse_duration` turns back into `value`, to the millisecond; days from two on: `24h`,
    `7d`."""
    left = round(value.total_seconds() * 1000)
    text = ""
    for unit, size in _UNITS.items():
        if unit == "d" and left < 2 * size:
            continue
        count, left = divmod(left, size)
        text += f"{count}{unit}" if count else ""
    return text or "0s"


def parse_quantity(value: object) -> object:
    """Return the whole number of bytes that a string such as `200Mi` or `1.5G` means; others unchanged.

    Raises:
        ValueError: the string is no amount.
    """
    if not isinstance(value, str):
        return value
    if not re.match(QUANTITY_PATTERN, value):
        raise ValueError(f"{value!r} is not an amount of bytes: write a number with a unit, such as 200Mi or 10Gi")
    number = value.rstrip("KMGTPki")
    return int(Decimal(number) * _SCALES[value[len(number) :]])


def format_quantity(value: int) -> str:
    """Return the shortest exact string of a number of bytes, in powers of 1024 where they divide it."""
    for unit in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        if value and value % _SCALES[unit] == 0:
            return f"{value // _SCALES[unit]}{unit}"
    return str(value)


_DURATION_RULE = Rule(
    is_duration("self"),
    "this is not a duration: write numbers with units, days first, such as 30s, 15m, 24h or 7d",
    "'\"' + self + '\" is not a duration: write numbers with units, days first, such as 30s, 15m, 24h or 7d'",
)
_QUANTITY_RULE = Rule(
    f"self.matches({literal(QUANTITY_PATTERN)})",
    "this is not an amount of bytes: write a number with a unit, such as 200Mi or 10Gi",
    "'\"' + self + '\" is not an amount of bytes: write a number with a unit, such as 200Mi or 10Gi'",
)

Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "maxLength": 32, **checked(_DURATION_RULE)}),
]
"""A span of time: `90s`, `15m`, `24h`, `1d12h`."""

Quantity = Annotated[
    int,
    BeforeValidator(parse_quantity),
    PlainSerializer(format_quantity, return_type=str),
    WithJsonSchema({"type": "string", "maxLength": 24, **checked(_QUANTITY_RULE)}),
]
"""An amount of bytes, or bytes per second: `200Mi`, `10Gi`, `50M`."""

_NAME_RULE = Rule(
    f"self.matches({literal('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')})",
    "this is not the name of an object: use lower-case letters, digits, '-' and '.'",
    "'\"' + self + \"\\\" is not the name of an object: use lower-case letters, digits, '-' and '.'\"",
)
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH, json_schema_extra=checked(_NAME_RULE))]
"""The name of a Kubernetes object in the same namespace."""

OurName = Annotated[str, Field(min_length=1, max_length=OUR_NAME_LENGTH, json_schema_extra=checked(_NAME_RULE))]
"""The name of an object of one of our kinds, which other names and labels contain."""

Word = Annotated[str, Field(max_length=NAME_LENGTH)]
"""A short string: a name outside Kubernetes, a key, a size."""

Text = Annotated[str, Field(max_length=TEXT_LENGTH)]
"""A string of some lines: a note, a body, a URL."""

Port = Annotated[int, Field(ge=1, le=65535)]
"""A TCP port."""

_WORDS = "Latest, LatestProcessed, LatestAppConsistent, LatestCrashConsistent"
_SELECTOR = (
    r"^(Latest|LatestProcessed|LatestAppConsistent|LatestCrashConsistent"
    r"|p-[0-9]{8}t[0-9]{6}z-[0-9]+"
    r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|[0-9]{4}-[01][0-9]-[0-3][0-9][Tt][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\.[0-9]+)?([Zz]|[+-][0-2][0-9]:[0-5][0-9]))$"
)
_SELECTOR_HELP = (
    f"use {_WORDS}, the name of a point (farshore points lists them), "
    "or a time with its zone such as 2025-01-31T08:00:00Z"
)
PointSelector = Annotated[
    str,
    Field(
        max_length=64,
        json_schema_extra=checked(
            Rule(
                f"self.matches({literal(_SELECTOR)})",
                f"this is no recovery point: {_SELECTOR_HELP}",
                f"'\"' + self + '\" is no recovery point: {_SELECTOR_HELP}'",
            )
        ),
    ),
]
"""Which recovery point: a known word, the name of a point, or an RFC 3339 time (the newest point not after it)."""

_CRON_FIELD = r"(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?(,(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?)*"
_CRON = rf"^(@(hourly|daily|weekly|monthly|yearly)|{_CRON_FIELD}( {_CRON_FIELD}){{4}})$"
_CRON_HELP = "write minute, hour, day of month, month and day of week, such as 0 3 * * 6 for Saturdays at 3, or @weekly"
CronSchedule = Annotated[
    str,
    Field(
        max_length=128,
        json_schema_extra=checked(
            Rule(
                f"self.matches({literal(_CRON)})",
                f"this is not a cron schedule: {_CRON_HELP}",
                f"'\"' + self + '\" is not a cron schedule: {_CRON_HELP}'",
            )
        ),
    ),
]
"""When something happens, in cron's five fields, in UTC."""
