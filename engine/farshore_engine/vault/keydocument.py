"""key.json: the wraps of a machine's data key, or the record that it was erased."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.jsontext import parse_object

KEY_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Wrap:
    """The data key, encrypted by one key-encryption key. `kek` names that key, `nonce` is empty where none is used."""

    kek: str
    algorithm: str
    wrapped: bytes
    nonce: bytes = b""


@dataclass(frozen=True, slots=True)
class Erasure:
    """Who destroyed every wrap of a machine, when and why."""

    time: datetime
    by: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KeyDocument:
    """What is in key.json: wraps of the same data key, at least one unless it was erased."""

    machine: str
    wraps: tuple[Wrap, ...]
    erased: Erasure | None = None

    def encode(self) -> bytes:
        """Return the object's content."""
        document: dict[str, Any] = {"format": KEY_FORMAT, "machine": self.machine}
        document["wraps"] = [_wrap_fields(wrap) for wrap in self.wraps]
        if self.erased is not None:
            erased = {"time": self.erased.time.isoformat(), "by": self.erased.by, "reason": self.erased.reason}
            document["erased"] = erased
        return json.dumps(document, indent=1).encode()

    @classmethod
    def decode(cls, document: bytes, machine: str) -> KeyDocument:
        """Read key.json of a machine.

        Raises:
            StopFault: it is damaged, of a newer format, or belongs to another machine.
        """
        try:
            content = parse_object(document)
            form, owner = content["format"], content["machine"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise damaged_key(machine, "it is not a key document") from error
        if form != KEY_FORMAT:
            raise StopFault(
                f"key.json of {machine} has format {form}", "Upgrade Farshore to read it", reason="NewerFormat"
            )
        if owner != machine:
            raise damaged_key(machine, f"it belongs to {owner}")
        try:
            wraps = tuple(_wrap_of(wrap) for wrap in content["wraps"])
            gone = content.get("erased")
            erased = Erasure(datetime.fromisoformat(gone["time"]), gone["by"], gone["reason"]) if gone else None
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
            raise damaged_key(machine, "it is not a key document") from error
        return cls(machine, wraps, erased)


class ErasedKey(StopFault):
    """The machine's data key was destroyed on purpose."""

    def __init__(self, machine: str, erased: Erasure) -> None:
        why = f" ({erased.reason})" if erased.reason else ""
        super().__init__(
            f"the data of {machine} was erased on {erased.time:%Y-%m-%d at %H:%M:%S UTC} by {erased.by}{why}: "
            "none of its recovery points can be opened any more",
            "Protect the machine under another name or in another vault to make new points",
            reason="Erased",
        )
        self.erased = erased


def damaged_key(machine: str, why: str) -> StopFault:
    """Return the fault that key.json cannot be used."""
    return StopFault(
        f"key.json of {machine} is damaged: {why}",
        "Restore key.json from a copy of the vault; the machine's points cannot be read without it",
        reason="KeyDamaged",
    )


def _wrap_fields(wrap: Wrap) -> dict[str, str]:
    fields = {"kek": wrap.kek, "algorithm": wrap.algorithm}
    if wrap.nonce:
        fields["nonce"] = base64.b64encode(wrap.nonce).decode()
    return {**fields, "wrapped": base64.b64encode(wrap.wrapped).decode()}


def _wrap_of(fields: dict[str, Any]) -> Wrap:
    kek, algorithm = fields["kek"], fields["algorithm"]
    if not isinstance(kek, str) or not isinstance(algorithm, str):
        raise ValueError("a wrap without a name")
    wrapped, nonce = base64.b64decode(fields["wrapped"]), base64.b64decode(fields.get("nonce", ""))
    return Wrap(kek, algorithm, wrapped, nonce)
