"""Translates Azure's errors, once: what time heals is waited for, everything else needs a person."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

from farshore_engine.contract.faults import Fault, StopFault, WaitFault

THROTTLED, CONFLICT, GONE, UNAUTHORIZED = 429, 409, 404, 401
REJECTED = ("ExpiredAuthenticationToken", "InvalidAuthenticationToken", "AuthenticationFailed")
"""Codes with which Resource Manager refuses a token; a 401 without them is of the token service."""
MISSING = ("ResourceNotFound", "NotFound")
FOR_GOOD = ("RequestDisallowedByPolicy", "QuotaExceeded", "SwitchProviderBlocked", "ClassicExperienceRetired")
"""Codes of refusals that no waiting heals, whatever their status is."""


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Turn an error of the SDK into a fault that says what was being done."""
    try:
        yield
    except AzureError as error:
        raise fault_of(error, doing) from None  # the SDK's exception holds the request, with its headers


def fault_of(error: AzureError, doing: str) -> Fault:
    """Return the fault for an error of the SDK."""
    if isinstance(error, ClientAuthenticationError):
        return _login(error, doing)
    if not isinstance(error, HttpResponseError) or error.status_code is None:
        return WaitFault(f"{doing}: Azure does not answer ({type(error).__name__})", reason="AzureUnreachable")
    return _of_answer(error, error.status_code, doing)


def _login(error: ClientAuthenticationError, doing: str) -> Fault:
    """Tell a token that is dead, for which a new one is asked for, from a login that is refused or not answered."""
    status = error.status_code or 0
    if _code(error) in REJECTED:
        return WaitFault(f"{doing}: Azure does not take the token any more: {_told(error)}", reason="TokenExpired")
    if status == THROTTLED or status >= 500:
        told = f"{doing}: no token was given: {_told(error)}"
        return WaitFault(told, reason="TokenServiceBusy", retry_after=_retry_after(error))
    return StopFault(
        f"{doing}: Azure does not accept the credential ({_told(error)})",
        "Check tenantId, clientId and clientSecret or clientCertificate of the vault's credentialsSecretRef, or "
        "the operator's workload identity",
        reason="Unauthorized",
    )


def _of_answer(error: HttpResponseError, status: int, doing: str) -> Fault:
    code, told = _code(error), _told(error)
    said = f"{doing}: Azure says {code or status}: {told}"
    if status == GONE:
        return NotThere(said, "Check subscription, resource group and names", reason="NotFound")
    if status == 403:
        return StopFault(
            said,
            "Give the principal the role Site Recovery Contributor on the vault, and the right to make machines in the "
            "target resource group, to join the subnet and to use the storage account",
            reason="Forbidden",
        )
    if code in FOR_GOOD:
        return StopFault(said, "Remove what it names, then change the resource or wait for the next look", reason=code)
    if status in (THROTTLED, CONFLICT) or status >= 500:
        after = _retry_after(error)
        reason = {THROTTLED: "Throttled", CONFLICT: "Conflict"}.get(status, "AzureUnavailable")
        return WaitFault(said, reason=reason, retry_after=after)
    return StopFault(said, "Correct what it names", reason="Refused")


class NotThere(StopFault):
    """What was asked for does not exist."""


def _code(error: HttpResponseError) -> str:
    return str(getattr(error.error, "code", "") or "")


def _told(error: AzureError) -> str:
    """Return Azure's own sentence, on one line, without the text of the request."""
    parsed = getattr(error, "error", None)
    text = str(getattr(parsed, "message", "") or error.message or type(error).__name__)
    return " ".join(text.split())[:1000].rstrip(".")


def _retry_after(error: HttpResponseError) -> float | None:
    headers = getattr(error.response, "headers", {})
    text = str(headers.get("Retry-After", ""))
    return float(text) if text.isdigit() else None
