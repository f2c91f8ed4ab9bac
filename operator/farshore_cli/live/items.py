"""The points about Azure that are inferred: one for each of docs/azure-unverified.md, by the same names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

SourceT = TypeVar("SourceT")
WRITES = "only a call that changes something would tell"
RARE = "it shows only at a moment that a reader does not meet"


class Area(StrEnum):
    """Where a point belongs: a chapter of the docs."""

    SITE_RECOVERY = "site-recovery"
    RESOURCE_MANAGER = "resource-manager"
    HUB = "hub"


class Told(StrEnum):
    """What a reading says of a point."""

    CONFIRMED = "Confirmed"
    CONTRADICTED = "Contradicted"
    CANNOT_TELL = "CannotTell"


@dataclass(frozen=True)
class Answer:
    """What was seen. It holds words, counts and names; nothing that lets anybody in."""

    told: Told
    seen: str


@dataclass(frozen=True)
class Item(Generic[SourceT]):
    """A point. `name` is the docs' word; `probe` reads, and is None where reading tells nothing: `why` says so."""

    name: str
    probe: Callable[[SourceT], Answer] | None = None
    why: str = ""


def confirmed(seen: str) -> Answer:
    """It is as inferred."""
    return Answer(Told.CONFIRMED, seen)


def contradicted(seen: str) -> Answer:
    """It is not as inferred."""
    return Answer(Told.CONTRADICTED, seen)


def cannot_tell(why: str) -> Answer:
    """There is nothing that tells."""
    return Answer(Told.CANNOT_TELL, why)


def compared(what: str, good: Mapping[str, int], bad: Mapping[str, int]) -> Answer:
    """Judge by examples that were seen, each with how often: none for cannot tell, a bad one for contradicted."""
    if bad:
        return contradicted(f"{what}: {', '.join(f'{text} ({count})' for text, count in sorted(bad.items()))}")
    if not good:
        return cannot_tell(f"there is no example here of {what}")
    return confirmed(f"{what}: {', '.join(f'{text} ({count})' for text, count in sorted(good.items()))}")
