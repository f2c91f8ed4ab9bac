"""What every message is: a frozen dataclass that becomes a JSON header, and is built from a header that is well-formed.

A header comes from a peer that may lie, so names, types and ranges are checked before a message exists.
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeVar

from farshore_engine.wire.frames import FrameKind, WireError

M = TypeVar("M", bound="Message")


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all messages; `kind` is the frame kind that carries it."""

    kind: ClassVar[FrameKind]

    def to_header(self) -> dict[str, Any]:
        """Return the JSON header."""
        return dataclasses.asdict(self)

    @classmethod
    def from_header(cls: type[M], header: dict[str, Any]) -> M:
        """Build the message from a received header, checking names and plain types.

        Raises:
            WireError: a field is missing, unknown or of another type.
        """
        hints = _hints(cls)
        unknown = set(header) - set(hints)
        if unknown:
            raise WireError(f"{cls.__name__}: unknown fields {sorted(unknown)}")
        try:
            return cls(
                **{name: _convert(hints[name], value, f"{cls.__name__}.{name}") for name, value in header.items()}
            )
        except TypeError as error:
            raise WireError(f"{cls.__name__}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        inner = [a for a in typing.get_args(hint) if a is not type(None)]
        return _convert(inner[0], value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise WireError(f"{where}: expected a list")
        item = typing.get_args(hint)[0]
        return tuple(_convert(item, v, where) for v in value)
    if origin is dict and not isinstance(value, dict):
        raise WireError(f"{where}: expected an object")
    if origin is dict or hint is Any:
        return value
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise WireError(f"{where}: expected an object")
        hints = _hints(hint)
        try:
            return hint(**{k: _convert(hints[k], v, f"{where}.{k}") for k, v in value.items()})
        except (KeyError, TypeError) as error:
            raise WireError(f"{where}: {error}") from error
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        try:
            return hint(value)
        except ValueError as error:
            raise WireError(f"{where}: {error}") from error
    if hint is float and isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63:
        return float(value)
    if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
        raise WireError(f"{where}: expected {hint.__name__}")
    if hint is int and not 0 <= value < 1 << 63:
        raise WireError(f"{where}: out of range")
    if hint is float and not math.isfinite(value):
        raise WireError(f"{where}: not a finite number")
    return value


_HINTS: dict[Any, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    """Return the types of a dataclass's fields; finding them out is slow, so it is done once."""
    known = _HINTS.get(cls)
    if known is None:
        hints = typing.get_type_hints(cls)
        known = _HINTS[cls] = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
    return known
