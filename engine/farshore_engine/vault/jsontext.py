"""Reading JSON that somebody else may have written: whatever it is, it is an object or a ValueError."""

from __future__ import annotations

import json
from typing import Any


def parse_object(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`.

    Raises:
        ValueError: it is none: no JSON, not UTF-8, nested too deep, or of another type.
    """
    try:
        found = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    if not isinstance(found, dict):
        raise ValueError("it is not an object")
    return found
