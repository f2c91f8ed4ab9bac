"""What the vault's journal keeps of a run's inputs: all of them, in each machine's journal, so that any one is enough.

A large run is compressed, because every task of the run carries its inputs: those of a thousand machines are half a
megabyte as they are, and a hundredth of that packed.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
from typing import Any

from pydantic import ValidationError

from farshore_operator.api.failoverrun import FailoverRunSpec, RunKind

PLAIN = 4096
"""Characters up to which the inputs are left as they are."""


def journalled(spec: FailoverRunSpec) -> str:
    """Return the inputs of a run for the journal: JSON, `{"spec": ...}` or `{"gzip": base64 of that}`."""
    plain = json.dumps({"spec": spec.dump()}, sort_keys=True)
    if len(plain) <= PLAIN:
        return plain
    return json.dumps({"gzip": base64.b64encode(gzip.compress(plain.encode(), mtime=0)).decode()})


def kind_of(text: str) -> RunKind | None:
    """Return what a journalled run does, None if this version does not know."""
    try:
        return RunKind(_read(text)["spec"]["kind"])
    except (ValueError, KeyError, TypeError):
        return None


def spec_of(text: str) -> FailoverRunSpec | None:
    """Return the inputs of a journalled run, None if they are of no run that this version knows."""
    try:
        return FailoverRunSpec.model_validate(_read(text)["spec"])
    except (ValueError, KeyError, TypeError, ValidationError):
        return None


def _read(text: str) -> Any:
    """Read a journalled text.

    Raises:
        ValueError: it is none.
        KeyError: it is none.
    """
    found = json.loads(text)
    if "gzip" not in found:
        return found
    try:
        return json.loads(gzip.decompress(base64.b64decode(found["gzip"])))
    except (OSError, EOFError, binascii.Error) as error:
        raise ValueError(str(error)) from error
