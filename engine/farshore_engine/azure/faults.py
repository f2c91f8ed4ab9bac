"""Translates what Azure and its SDKs refuse with into faults: with Azure's code and sentence, and what to do about it.

No credential and no signature of a URL gets into a message: connection errors, whose text holds the whole URL, are told
without it, and what looks like a signature is taken out of everything else.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from farshore_engine.contract.faults import Fault, StopFault, WaitFault

NO_CAPACITY, QUOTA, NOT_FOUND, BUSY = "NoCapacity", "QuotaExceeded", "NotFound", "AzureBusy"
SIGNATURE = re.compile(
    r"((?:sig|client_secret|client_assertion|access_token|accessSAS)[\"']?\s*[=:]\s*[\"']?)[^&\s\"']+"
)
LONGEST = 500  # characters of Azure's own sentence
TRANSIENT = frozenset({408, 500, 502, 503, 504})
CAPACITY_CODES = frozenset(
    {
        "SkuNotAvailable",
        "AllocationFailed",
        "ZonalAllocationFailed",
        "OverconstrainedAllocationRequest",
        "OverconstrainedZonalAllocationRequest",
    }
)
GROW = "Have the quota raised (portal: Quotas), set another size in target.size, or remove machines that are not needed"
ROLE = (
    "Give the principal a role with this action on that scope, such as Contributor on the resource group and Network "
    "Contributor on the virtual network"
)


@dataclass(frozen=True)
class Rule:
    """What a code of Azure means: whether it is waited for, our reason, and the remedy."""

    waits: bool
    reason: str
    remedy: str


RULES = {
    "AuthorizationFailed": Rule(False, "AccessRefused", ROLE),
    "LinkedAuthorizationFailed": Rule(False, "AccessRefused", ROLE),
    "RequestDisallowedByPolicy": Rule(
        False, "PolicyDenied", "Change what the machine becomes so that the policy allows it, or have it exempted"
    ),
    "ReadOnlyDisabledSubscription": Rule(False, "SubscriptionDisabled", "Have the subscription enabled again"),
    "SubscriptionNotFound": Rule(False, "SubscriptionNotFound", "Correct the site's subscription and the tenant"),
    "InvalidSubscriptionId": Rule(False, "SubscriptionNotFound", "Correct the site's subscription"),
    "ResourceGroupNotFound": Rule(
        False, "ResourceGroupNotFound", "Create the resource group, or correct it in the site or the target"
    ),
    "MissingSubscriptionRegistration": Rule(
        False, "ProviderNotRegistered", "Register the resource provider (az provider register), and start again"
    ),
    "InvalidApiVersionParameter": Rule(False, "ApiVersion", "This endpoint is older than the release supports"),
    "QuotaExceeded": Rule(False, QUOTA, GROW),
    "ScopeLocked": Rule(False, "ScopeLocked", "Take the lock from the resource group, or use another one"),
    "SubnetIsFull": Rule(False, "SubnetFull", "Use another subnet: target.subnet"),
    "PrivateIPAddressIsAllocated": Rule(
        False, "AddressTaken", "Free the address, set another one in target.privateIP, or leave it out"
    ),
    "PrivateIPAddressInReservedRange": Rule(False, "AddressReserved", "Set another target.privateIP"),
    "PrivateIPAddressNotInSubnet": Rule(False, "AddressElsewhere", "Set a target.privateIP of the subnet"),
    "InvalidResourceReference": Rule(True, NOT_FOUND, "It is tried again; check that what is named exists"),
    "ReferencedResourceNotProvisioned": Rule(True, BUSY, ""),
    "RetryableError": Rule(True, BUSY, ""),
    "OperationPreempted": Rule(True, BUSY, ""),
    "InternalExecutionError": Rule(True, "AzureFailed", ""),
    "InternalServerError": Rule(True, "AzureFailed", ""),
    "NicReservedForAnotherVm": Rule(True, BUSY, "Azure frees the network interface some minutes later"),
}


class _Redacting(logging.Filter):
    """Takes signatures out of what a library below the SDKs logs: it logs whole URLs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redacted(record.getMessage()), ()
        return True


def redact_logs() -> None:
    """Let no signature of a URL get into a log, also at level DEBUG. May be called again."""
    logger = logging.getLogger("urllib3.connectionpool")
    if not any(isinstance(one, _Redacting) for one in logger.filters):
        logger.addFilter(_Redacting())


def redacted(text: str) -> str:
    """Return the text without signatures and secrets."""
    return SIGNATURE.sub(r"\1REDACTED", text)


def fault_of(what: str, error: AzureError) -> Fault:
    """Return the fault that an SDK's error means.

    Args:
        what: was done, as in "cannot <what>".
        error: of any of the SDKs.
    """
    if isinstance(error, ClientAuthenticationError) and not _is_resource_manager(error):
        return _login(what, error)
    if isinstance(error, ServiceRequestError | ServiceResponseError):
        return WaitFault(
            f"cannot {what}: Azure does not answer ({type(error).__name__})",
            "Check the route, the proxy and name resolution to Resource Manager, and the CA bundle of the site",
            reason="AzureUnreachable",
        )
    if not isinstance(error, HttpResponseError):
        return WaitFault(f"cannot {what}: {type(error).__name__}", reason="AzureFailed")
    return _refusal(what, error)


def code_of(error: AzureError) -> str:
    """Return Azure's code, empty if it gave none."""
    given = getattr(error, "error", None)
    code = getattr(given, "code", None) or getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")


def _refusal(what: str, error: HttpResponseError) -> Fault:
    status, code = int(error.status_code or 0), code_of(error)
    sentence = _sentence(error)
    text = (
        f"cannot {what}: {code or f'status {status}'}: {sentence}" if sentence else f"cannot {what}: {code or status}"
    )
    if status == 401:
        return WaitFault(text, "A new token is asked for", reason="TokenExpired", retry_after=1)
    if status == 429 or code == "TooManyRequests":
        return WaitFault(text, "", reason="AzureThrottled", retry_after=retry_after(error))
    if code in CAPACITY_CODES:
        return StopFault(text, "Set another size in target.size, another zone, or wait", reason=NO_CAPACITY)
    if "quota" in sentence.lower() and status in (0, 200, 400, 403, 409):
        return StopFault(text, GROW, reason=QUOTA)
    if code in RULES:
        rule = RULES[code]
        if rule.waits:
            return WaitFault(text, rule.remedy, reason=rule.reason, retry_after=retry_after(error))
        return StopFault(text, rule.remedy, reason=rule.reason)
    if status in TRANSIENT or status == 409 or code in ("Canceled", "OperationCanceled"):
        return WaitFault(text, "", reason=BUSY if status == 409 else "AzureFailed", retry_after=retry_after(error))
    if status == 404:
        return WaitFault(text, "It is tried again; check that what is named exists", reason=NOT_FOUND)
    if status == 403:
        return StopFault(text, ROLE, reason="AccessRefused")
    return StopFault(text, "Correct what Azure names, and start again", reason="AzureRefused")


def _login(what: str, error: ClientAuthenticationError) -> Fault:
    status = int(getattr(error, "status_code", 0) or 0)
    first = redacted(str(error.message or error)).splitlines()[0][:LONGEST]
    if status == 429 or status >= 500:
        return WaitFault(f"cannot {what}: no token was given: {first}", "", reason="TokenServiceBusy")
    return StopFault(
        f"cannot {what}: the login to Azure was refused: {first}",
        "Check tenantId, clientId and the secret or certificate (has it expired?) in the site's Secret, or, where "
        "there is none, the workload or managed identity of the process server",
        reason="LoginRefused",
    )


def _is_resource_manager(error: ClientAuthenticationError) -> bool:
    """Resource Manager's 401 is an expired token; other authentication errors come from the token service."""
    return code_of(error) in ("ExpiredAuthenticationToken", "InvalidAuthenticationToken", "AuthenticationFailed")


def _sentence(error: HttpResponseError) -> str:
    given: Any = getattr(error, "error", None)
    text = str(getattr(given, "message", None) or error.reason or "")
    details = [str(one.message) for one in getattr(given, "details", None) or () if getattr(one, "message", None)]
    return " ".join(redacted(" ".join([text, *details])).split())[:LONGEST]


def retry_after(error: HttpResponseError) -> float | None:
    """Return the seconds that Azure asks to wait, None if it does not say."""
    headers = getattr(error.response, "headers", None) or {}
    try:
        return float(headers.get("Retry-After", ""))
    except ValueError:
        return None
