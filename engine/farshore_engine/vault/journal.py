"""The journal of a run, kept in the vault, so that a lost control plane continues a begun run and repeats nothing."""

from __future__ import annotations

import json
from typing import Any

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.chain import Access
from farshore_engine.vault.crypto import Purpose
from farshore_engine.vault.envelope import RecordDamaged, open_body, parse, seal
from farshore_engine.vault.jsontext import parse_object
from farshore_engine.vault.names import checked_run
from farshore_engine.vault.store import AlreadyExists

FORMAT = 1


class JournalTaken(StopFault):
    """Somebody else wrote that sequence number: two control planes drive one run. `entry` is what they wrote."""

    def __init__(self, run: str, sequence: int, entry: dict[str, Any]) -> None:
        super().__init__(
            f"entry {sequence} of the journal of run {run} was written by somebody else",
            "Read the journal again and continue from its end",
            reason="JournalTaken",
        )
        self.entry = entry


class RunJournal:
    """The journals of one machine's runs: numbered entries, each written once. Thread-safe."""

    def __init__(self, access: Access) -> None:
        """Read and write with the machine's keys."""
        self._access = access

    def append(self, run: str, sequence: int, entry: dict[str, Any]) -> None:
        """Write entry `sequence` (from 0). Writing the same entry again is fine.

        Raises:
            JournalTaken: another entry is there.
        """
        header = {"format": FORMAT, "machine": self._access.names.machine, "run": run, "sequence": sequence}
        data = seal(self._access.keys, Purpose.JOURNAL, header, json.dumps(entry, sort_keys=True).encode())
        try:
            self._access.store.put(self._access.names.journal(run, sequence), data, create_only=True)
        except AlreadyExists:
            found = self._read(run, sequence)
            if found != json.loads(json.dumps(entry)):
                raise JournalTaken(run, sequence, found) from None

    def entries(self, run: str) -> list[dict[str, Any]]:
        """Return the entries of a run in order, up to the first number that is missing."""
        prefix = f"{self._access.names.journals}{checked_run(run)}/"
        tails = [name[len(prefix) :] for name in self._access.store.list(prefix)]
        numbers = [int(tail) for tail in tails if len(tail) == 6 and tail.isascii() and tail.isdigit()]
        dense = [number for place, number in enumerate(numbers) if number == place]
        return [self._read(run, number) for number in dense]

    def runs(self) -> list[str]:
        """Return the names of the runs that have a journal."""
        prefix = self._access.names.journals
        return sorted({name[len(prefix) :].partition("/")[0] for name in self._access.store.list(prefix)})

    def _read(self, run: str, sequence: int) -> dict[str, Any]:
        data, _ = self._access.store.get(self._access.names.journal(run, sequence))
        try:
            record = parse(data)
            place = {"format": FORMAT, "machine": self._access.names.machine, "run": run, "sequence": sequence}
            if {name: record.header.get(name) for name in place} != place:
                raise RecordDamaged("it belongs elsewhere")
            entry = parse_object(open_body(self._access.keys, Purpose.JOURNAL, record))
        except (RecordDamaged, ValueError) as error:
            raise StopFault(
                f"entry {sequence} of the journal of run {run} is damaged: {error}",
                "Look at the machine by hand before the run is continued",
                reason="JournalDamaged",
            ) from error
        return entry
