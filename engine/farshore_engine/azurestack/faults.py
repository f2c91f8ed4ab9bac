"""From what a Hub's Resource Manager, its token service or the way to them answers, to the two families of faults.

It goes by HTTP status and by the codes that are documented; the words of a refusal are passed on, never its headers.
"""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from farshore_engine.contract.faults import Fault, StopFault, WaitFault

TRANSIENT = {408, 429, 500, 502, 503, 504}
REJECTED_TOKEN = ("ExpiredAuthenticationToken", "InvalidAuthenticationToken", "InvalidAuthenticationTokenTenant")
NO_ROOM = ("AllocationFailed", "ZonalAllocationFailed", "OverconstrainedAllocationRequest", "InsufficientCapacity")
OLD_HUB = ("InvalidApiVersionParameter", "NoRegisteredProviderFound", "InvalidResourceType")
MISSING = ("NotFound", "ResourceNotFound", "ParentResourceNotFound")
LONGEST_WORDS = 400  # characters of a refusal that are passed on


def translate(error: AzureError, what: str, endpoint: str) -> Fault:
    """Return the fault for an error of the SDK. `what` completes "cannot ..."; `endpoint` is Resource Manager's URL."""
    if isinstance(error, ClientAuthenticationError) and isinstance(error.__cause__, AzureError):
        error = error.__cause__  # azure-identity calls it a refused login, too, when the token service is away
    host = urlsplit(endpoint).netloc
    where = f"cannot {what} at {host}"
    status, (code, words) = status_of(error), refusal_of(error)
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StopFault(
            f"{where}: its certificate is not trusted",
            "Set spec.azureStackHub.caBundle of the Site to the Hub's root certificate",
            reason="HubCertificate",
        )
    if isinstance(error, ServiceRequestError | ServiceResponseError) or status in TRANSIENT:
        away = "it is throttled" if status == 429 else f"no answer (status {status})" if status else "no answer"
        return WaitFault(
            f"{where}: {away}",
            f"It is tried again; if it repeats, check the route from the process server to {host}",
            reason="HubThrottled" if status == 429 else "HubUnreachable",
            retry_after=_retry_after(error),
        )
    if isinstance(error, ClientAuthenticationError) or status == 401:
        return StopFault(
            f"{where}: the login was refused ({code or _oauth(error) or status or 'no token'})",
            "Check tenantId, clientId and clientSecret or clientCertificate in the Secret that the Site names, and "
            "spec.azureStackHub.identitySystem",
            reason="HubLogin",
        )
    return _refused(where, status, code, words)


def _refused(where: str, status: int, code: str, words: str) -> Fault:
    said = f"{where}: {words or code or f'status {status}'}" + (f" ({code})" if code and code not in words else "")
    said = said.rstrip(". ")
    if code in OLD_HUB:
        remedy = "Update the Hub to version 2008 or later: Farshore uses API profile 2020-09-01-hybrid"
        return StopFault(said, remedy, reason="HubTooOld")
    if status == 403:
        remedy = "Give the principal the role Contributor on the resource group of the site and of its machines"
        return StopFault(said, remedy, reason="HubForbidden")
    if "quota" in words.lower():
        return StopFault(said, "Ask the operator of the Hub for a larger quota", reason="HubQuota")
    if code in NO_ROOM:
        return WaitFault(said, "It is tried again; make room at the Hub, or choose a smaller size", reason="HubFull")
    if status == 409 and (code != "OperationNotAllowed" or "in progress" in words):
        return WaitFault(said, "It is tried again; look at the resource in the portal if it repeats", reason="HubBusy")
    if status == 404:
        return StopFault(said, "Check the names in spec.azureStackHub of the Site", reason="HubNotFound")
    return StopFault(said, "Look at the resource in the Hub's portal, then start the run anew", reason="HubRefused")


def status_of(error: AzureError) -> int:
    """Return the HTTP status that the error came with, 0 for none."""
    return int(getattr(error, "status_code", None) or getattr(_response(error), "status_code", None) or 0)


def refusal_of(error: AzureError) -> tuple[str, str]:
    """Return code and message of a refusal in Resource Manager's envelope, or of an operation that failed at its end.

    Either is empty where there is none.
    """
    found = _body(error)
    inner = found.get("error") if isinstance(found.get("error"), dict) else found
    assert isinstance(inner, dict)
    details = inner.get("details")
    if isinstance(details, list) and details and isinstance(details[0], dict) and not inner.get("message"):
        inner = details[0]
    return str(inner.get("code") or ""), str(inner.get("message") or "")[:LONGEST_WORDS]


def is_missing(error: AzureError) -> bool:
    """Whether the resource itself does not exist; a missing group or subscription is another matter."""
    return status_of(error) == 404 and refusal_of(error)[0] in ("", *MISSING)


def is_rejected_token(error: AzureError) -> bool:
    """Whether Resource Manager no longer takes the token, which a new one heals."""
    return status_of(error) == 401 and refusal_of(error)[0] in REJECTED_TOKEN


def _response(error: AzureError) -> Any:
    return getattr(error, "response", None)


def _body(error: AzureError) -> dict[str, Any]:
    response = _response(error)
    if response is None or not isinstance(error, HttpResponseError):
        return {}
    try:
        found = json.loads(response.text())
    except (ValueError, TypeError, AttributeError, AzureError):
        return {}
    return found if isinstance(found, dict) else {}


def _oauth(error: AzureError) -> str:
    """Return the code of the token service, such as AADSTS7000215; its other words may tell too much."""
    for word in str(error.message or "").replace(":", " ").split():
        if word.startswith(("AADSTS", "MSIS")):
            return word
    return ""


def _retry_after(error: AzureError) -> float | None:
    response = _response(error)
    text = response.headers.get("Retry-After", "") if response is not None else ""
    return float(text) if text.isdigit() else None
