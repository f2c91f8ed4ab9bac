"""Translates what the Kubernetes API and its client raise into the two families of fault, once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import urllib3

from farshore_engine.contract.faults import StopFault, WaitFault

UNTRUSTED = "APIUntrusted"
NO_KIND = "If the cluster does not know the kind, install the chart, which brings all of them"


class Conflict(WaitFault):
    """The object changed since it was read; read it again and decide anew."""


class Unauthorized(WaitFault):
    """The credential is refused: expired, revoked, or of another cluster. Renewing it may heal that."""


class AlreadyExists(StopFault):
    """The name is taken."""


class Refused(StopFault):
    """The API server or an admission policy refuses the request by its content."""


class Forbidden(WaitFault):
    """RBAC or an admission policy does not allow it. Retried, because the right may be granted meanwhile."""


class NotFound(WaitFault):
    """The object does not exist (any more)."""


def unreachable(doing: str, error: Exception) -> WaitFault:
    """Say that the API server could not be reached while `doing` something, or is not the one that is trusted."""
    if isinstance(getattr(error, "reason", None), urllib3.exceptions.SSLError):
        return WaitFault(
            f"the certificate of the Kubernetes API was not accepted while {doing}: it is of another cluster or CA",
            "Check the address and the certificate authority",
            reason=UNTRUSTED,
        )
    return WaitFault(
        f"the Kubernetes API could not be reached while {doing}: {_cause(error)}",
        "Check the API server's address and the network; operator and process servers try again by themselves",
        reason="APIUnreachable",
    )


def refused(doing: str, status: int, body: bytes, headers: Mapping[str, str]) -> WaitFault | StopFault:
    """Translate the API server's answer `status` (400 or more), given while `doing` something."""
    reason, detail = _explain(body)
    message = f"{doing} was refused ({status}): {detail}"
    if status == 409 and reason == "AlreadyExists":
        return AlreadyExists(message, reason=reason)
    if status == 409:
        return Conflict(message, reason="Conflict", retry_after=0.2)
    if status == 401:
        return Unauthorized(message, "The token is expired, revoked, or of another cluster", reason="Unauthorized")
    if status == 403:
        return Forbidden(message, "Grant the right (the chart's RBAC does), or wait", reason="Forbidden")
    if status == 404:
        return NotFound(message, "" if _names_an_object(body) else NO_KIND, reason="NotFound")
    if status in (400, 413, 415, 422):
        return Refused(message, "Correct what the message names", reason=reason or "Invalid")
    return WaitFault(message, "It is tried again", reason="APIBusy", retry_after=_retry_after(headers))


def _names_an_object(body: bytes) -> bool:
    """Tell whether an object is missing; otherwise it is its kind that the API server does not know."""
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and bool((answer.get("details") or {}).get("name"))


def _cause(error: Exception) -> str:
    """Return the innermost cause: urllib3 wraps "connection refused" into three sentences about itself."""
    reason = getattr(error, "reason", None)
    text = " ".join(str(reason if isinstance(reason, Exception) else error).split())
    return re.sub(r"^HTTPS?Connection(Pool)?\((host='([^']*)', port=(\d+))\): ", r"\3:\4: ", text)[:300]


def _explain(body: bytes) -> tuple[str, str]:
    try:
        answer = json.loads(body)
    except ValueError:
        return "", body[:300].decode(errors="replace")
    if not isinstance(answer, dict):
        return "", str(answer)[:300]
    return str(answer.get("reason", "")), str(answer.get("message", ""))[:1000]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    text = headers.get("Retry-After", "")
    return float(text) if text.isdigit() else None
