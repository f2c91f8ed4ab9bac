"""The names of a vault's objects, built and taken apart in one place."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

from farshore_engine.contract.faults import StopFault

MACHINE_ID = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+")
RUN = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
SLOT_DIGITS = 12
PACK = re.compile(r"[0-9]{12}-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True, order=True)
class PackId:
    """A pack: `claim` is the slot of the claim under which its writer made it, `random` 64 random bits."""

    claim: int
    random: int

    def __str__(self) -> str:
        """Return the last part of the object's name."""
        return f"{self.claim:012d}-{self.random:016x}"

    @classmethod
    def parse(cls, text: str) -> PackId:
        """Read what `str` wrote; raises ValueError."""
        if not PACK.fullmatch(text):
            raise ValueError(f"not a pack: {text!r}")
        return cls(int(text[:SLOT_DIGITS]), int(text[SLOT_DIGITS + 1 :], 16))

    @classmethod
    def new(cls, claim: int) -> PackId:
        """Return a fresh id under a claim."""
        return cls(claim, secrets.randbits(64))


@dataclass(frozen=True, slots=True)
class MachineNames:
    """The names of the objects of one machine. `prefix` is the vault's, empty or ending in `/`."""

    machine: str
    prefix: str = ""

    @property
    def root(self) -> str:
        """Everything of the machine is below this."""
        return f"{self.prefix}machines/{self.machine}/"

    @property
    def key(self) -> str:
        """The wrapped data key."""
        return f"{self.root}key.json"

    @property
    def slots(self) -> str:
        """Prefix of the slots of the chain."""
        return f"{self.root}chain/"

    @property
    def base(self) -> str:
        """The number of the lowest slot that may still exist."""
        return f"{self.root}chain/base"

    @property
    def packs(self) -> str:
        """Prefix of the packs."""
        return f"{self.root}packs/"

    @property
    def pins(self) -> str:
        """Prefix of the pins."""
        return f"{self.root}pins/"

    @property
    def journals(self) -> str:
        """Prefix of the run journals."""
        return f"{self.root}journal/"

    @property
    def reports(self) -> str:
        """Prefix of the reports of runs."""
        return f"{self.root}reports/"

    def slot(self, number: int) -> str:
        """Return the name of a slot."""
        return f"{self.slots}{number:012d}"

    def pack(self, pack: PackId) -> str:
        """Return the name of a pack."""
        return f"{self.packs}{pack}"

    def pin(self, slot: int, name: str) -> str:
        """Return the name of the pin `name` of the point in `slot`."""
        return f"{self.pins}{slot:012d}/{checked_run(name)}"

    def journal(self, run: str, sequence: int) -> str:
        """Return the name of a journal record."""
        return f"{self.journals}{checked_run(run)}/{sequence:06d}"

    def report(self, run: str, number: int) -> str:
        """Return the name of a report."""
        return f"{self.reports}{checked_run(run)}/{number:06d}"


def vault_file(prefix: str) -> str:
    """Return the name of the object that says what the vault is."""
    return f"{prefix}vault.json"


def machines_folder(prefix: str) -> str:
    """Return the prefix of everything that belongs to any machine; the machines' ids follow it."""
    return f"{prefix}machines/"


def checked_prefix(prefix: str) -> str:
    """Return a vault prefix, empty or with exactly one slash at its end."""
    stripped = prefix.strip("/")
    return f"{stripped}/" if stripped else ""


def checked_machine(machine: str) -> str:
    """Return the machine id if it is `<namespace>.<name>` in DNS characters.

    Raises:
        StopFault: it is not.
    """
    if len(machine) > 320 or not MACHINE_ID.fullmatch(machine):
        raise StopFault(
            f"{machine!r} is not a machine id",
            "Use <namespace>.<name> in lower case letters, digits, - and .",
            reason="BadName",
        )
    return machine


def checked_run(name: str) -> str:
    """Return the name of a run or pin if it can be part of an object's name.

    Raises:
        StopFault: it cannot.
    """
    if len(name) > 253 or not RUN.fullmatch(name):
        raise StopFault(f"{name!r} cannot name a run or a pin", "Use letters, digits, - and .", reason="BadName")
    return name
