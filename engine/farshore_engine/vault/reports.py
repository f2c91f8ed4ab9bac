"""Signed reports of runs, kept in the vault: evidence of drills and failovers that needs no cluster to be read.

A report is text (JSON) and one page of HTML. Both are signed together with a key that is derived from the machine's
data key, so that an exported report can be verified later by whoever can open the vault; in the vault it is also
encrypted, like all that is said of a machine there. A report is never changed: more that is known of a run (notes, the
clean-up) goes into another one with the next number.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from typing import Any

from blake3 import blake3

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.chain import Access
from farshore_engine.vault.crypto import SALT_SIZE, MachineKeys, Purpose, new_salt
from farshore_engine.vault.envelope import RecordDamaged, open_body, parse, seal
from farshore_engine.vault.jsontext import parse_object
from farshore_engine.vault.names import checked_run
from farshore_engine.vault.store import AlreadyExists

FORMAT = 1
ALGORITHM = "BLAKE3-keyed"
ATTEMPTS = 20  # numbers that others may take in between


@dataclass(frozen=True)
class SignedReport:
    """A report as it is stored and exported.

    Attributes:
        report: JSON, as it was given.
        page: a page of HTML that shows it.
        salt: 32 random bytes from which the key of the signature is derived.
        signature: 32 bytes.
    """

    machine: str
    run: str
    number: int
    report: str
    page: str
    salt: bytes
    signature: bytes

    @property
    def name(self) -> str:
        """Its name among the machine's reports."""
        return f"{self.run}/{self.number:06d}"

    @classmethod
    def sign(
        cls, keys: MachineKeys, run: str, number: int, report: str, page: str, salt: bytes | None = None
    ) -> SignedReport:
        """Return the report, signed. `salt` is given by test vectors only."""
        unsigned = cls(keys.machine, run, number, report, page, salt or new_salt(), b"")
        return cls(keys.machine, run, number, report, page, unsigned.salt, unsigned._expected(keys))

    def verify(self, keys: MachineKeys) -> None:
        """Raise StopFault unless these keys' machine signed exactly this."""
        if self.machine != keys.machine or not hmac.compare_digest(self.signature, self._expected(keys)):
            raise StopFault(
                f"the signature of report {self.name} of {self.machine} does not verify: it was altered, or is of "
                "another vault",
                "Take the report from the vault again: farshore vault report",
                reason="BadSignature",
            )

    def encode(self) -> bytes:
        """Return the document that is exported."""
        fields = {
            "format": FORMAT,
            "machine": self.machine,
            "run": self.run,
            "number": self.number,
            "report": self.report,
            "page": self.page,
            "signature": {"algorithm": ALGORITHM, "salt": self.salt.hex(), "value": self.signature.hex()},
        }
        return json.dumps(fields, indent=1, ensure_ascii=False).encode()

    @classmethod
    def decode(cls, data: bytes) -> SignedReport:
        """Read what `encode` wrote; raises ValueError. Nothing is verified yet."""
        fields: dict[str, Any] = parse_object(data)
        signature = fields.get("signature")
        if fields.get("format") != FORMAT or not isinstance(signature, dict) or signature.get("algorithm") != ALGORITHM:
            raise ValueError("it is no signed report of a format that is known here")
        texts = [fields.get(name) for name in ("machine", "run", "report", "page")]
        number = fields.get("number")
        if not all(isinstance(text, str) for text in texts) or not isinstance(number, int) or number < 0:
            raise ValueError("a field is missing")
        salt, value = (bytes.fromhex(str(signature.get(name))) for name in ("salt", "value"))
        if len(salt) != SALT_SIZE:
            raise ValueError("its salt has a wrong length")
        machine, run, report, page = map(str, texts)
        return cls(machine, run, number, report, page, salt, value)

    def _expected(self, keys: MachineKeys) -> bytes:
        parts = [part.encode() for part in (self.machine, self.run, str(self.number), self.report, self.page)]
        # Each part by its own hash: none can take bytes of its neighbour.
        text = b"farshore/1 report\0" + b"".join(blake3(part).digest() for part in parts)
        return blake3(text, key=keys.derive(Purpose.REPORT_SIGNATURE, self.salt)).digest()


class Reports:
    """The reports of one machine. Thread-safe."""

    def __init__(self, access: Access) -> None:
        """Read and write with the machine's keys."""
        self._access = access

    def write(self, run: str, report: str, page: str) -> SignedReport:
        """Store a report behind those of the same run, and return it; one with the same text is written once.

        Raises:
            StopFault: somebody else writes reports of this run all the time, or the newest one is damaged.
        """
        for _ in range(ATTEMPTS):
            numbers = self.numbers(run)
            if numbers:
                newest = self.read(run, numbers[-1])
                if newest.report == report:
                    return newest
            made = SignedReport.sign(self._access.keys, run, numbers[-1] + 1 if numbers else 0, report, page)
            header = self._place(run, made.number)
            data = seal(self._access.keys, Purpose.REPORT, header, made.encode())
            try:
                self._access.store.put(self._access.names.report(run, made.number), data, create_only=True)
            except AlreadyExists:
                continue
            return made
        raise StopFault(
            f"reports of run {run} are being written by others all the time",
            "Check that one control plane only drives this run",
            reason="ReportsBusy",
        )

    def runs(self) -> list[str]:
        """Return the names of the runs that have a report, sorted."""
        prefix = self._access.names.reports
        return sorted({name[len(prefix) :].partition("/")[0] for name in self._access.store.list(prefix)})

    def numbers(self, run: str) -> list[int]:
        """Return the numbers of a run's reports, oldest first."""
        prefix = f"{self._access.names.reports}{checked_run(run)}/"
        tails = [name[len(prefix) :] for name in self._access.store.list(prefix)]
        return sorted(int(tail) for tail in tails if len(tail) == 6 and tail.isascii() and tail.isdigit())

    def read(self, run: str, number: int) -> SignedReport:
        """Return a report whose signature was verified.

        Raises:
            ObjectNotFound: there is none of this number.
            StopFault: it is damaged, or was not signed by this machine's key.
        """
        name = self._access.names.report(run, number)
        data, _ = self._access.store.get(name)
        try:
            record = parse(data)
            place = self._place(run, number)
            if {field: record.header.get(field) for field in place} != place:
                raise RecordDamaged("it belongs elsewhere")
            found = SignedReport.decode(open_body(self._access.keys, Purpose.REPORT, record))
        except (RecordDamaged, ValueError) as error:
            raise StopFault(f"{name} is damaged: {error}", "It cannot be used", reason="ReportDamaged") from error
        found.verify(self._access.keys)
        return found

    def _place(self, run: str, number: int) -> dict[str, Any]:
        return {"format": FORMAT, "machine": self._access.names.machine, "run": run, "number": number}
