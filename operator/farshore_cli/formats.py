"""The words that options take; another word is refused with these."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """A table for people, or JSON for programs."""

    TABLE = "table"
    JSON = "json"


class LogLevel(StrEnum):
    """What the services log: this level and what is graver."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """How the services log: a JSON object or a line of text for each event."""

    JSON = "json"
    TEXT = "text"


class Place(StrEnum):
    """Where machines should be running, as a plan's activeSite."""

    SOURCE = "source"
    RECOVERY = "recovery"


class MoveMode(StrEnum):
    """Whether the source takes part, as a plan's mode."""

    PLANNED = "planned"
    UNPLANNED = "unplanned"


class Shutdown(StrEnum):
    """Whether the source is switched off first, as a plan's shutdownSource."""

    REQUIRED = "Required"
    BEST_EFFORT = "BestEffort"
    NEVER = "Never"
