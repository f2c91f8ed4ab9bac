"""A generation on disk: its state together with the journal that keeps it, and how it is read back."""

from __future__ import annotations

import json
from pathlib import Path

from farshore_engine.processserver.generation import FORMAT, Generation
from farshore_engine.processserver.journal import Journal, JournalDamaged, Kind, Record, records

PREFIX = "journal-"


class SpoolDamaged(Exception):
    """The spool cannot be trusted; the text says why."""


class Written:
    """A generation with the journal that keeps it."""

    def __init__(self, generation: Generation, journal: Journal) -> None:
        self.generation = generation
        self.journal = journal

    def record(self, fresh: list[Record]) -> None:
        """Make records durable and take them in."""
        self.journal.append(fresh)
        self.journal.sync()
        for record in fresh:
            self.generation.apply(record)


def read_generation(path: Path) -> tuple[Generation | None, int]:
    """Return what a journal tells, None if it does not even say what it is, and where its last record ends.

    Raises:
        SpoolDamaged: another version wrote it.
    """
    generation, end = None, 0
    try:
        for record, end in records(path):  # noqa: B007 - the last one's end is returned
            if generation is None:
                if record.kind is not Kind.OPENED:
                    return None, 0
                generation = Generation(int(path.name.removeprefix(PREFIX)))
                if json.loads(record.payload).get("format") != FORMAT:
                    raise SpoolDamaged("another version wrote it")
            generation.apply(record)
    except JournalDamaged:
        return None, 0
    return generation, end
