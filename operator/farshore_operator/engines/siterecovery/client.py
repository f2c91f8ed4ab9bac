"""Microsoft's clients for one vault, built from settings by their public options, and how a call is begun.

An operation of Site Recovery is a job with the same id; only that id is remembered. The URLs of operations are signed
and not ours to keep in a status.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from azure.core.credentials import TokenCredential
from azure.identity import (
    CertificateCredential,
    ChainedTokenCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
    WorkloadIdentityCredential,
)
from azure.mgmt.recoveryservices import RecoveryServicesClient
from azure.mgmt.recoveryservicessiterecovery import SiteRecoveryManagementClient

from farshore_engine.contract.site import CloudCredential
from farshore_operator.engines.siterecovery.faults import translated
from farshore_operator.engines.siterecovery.settings import VaultSettings

TIMEOUTS = {"connection_timeout": 10, "read_timeout": 60}


class VaultClient:
    """The two clients of a vault. Thread-safe, as they are. Nothing is retried here: the driver looks again."""

    def __init__(self, settings: VaultSettings) -> None:
        self.settings = settings
        verify = _verify(settings.ca_bundle)
        credential = _credential(settings, verify)
        options: dict[str, Any] = {"connection_verify": verify, "retry_total": 0, **TIMEOUTS}
        if settings.endpoint:
            options["base_url"] = settings.endpoint
            options["credential_scopes"] = [f"{settings.endpoint.rstrip('/')}/.default"]
        # Any: their models say of every member that it may be absent, which `translate` deals with.
        self.vaults: Any = RecoveryServicesClient(credential, settings.subscription, **options)
        self.site: Any = SiteRecoveryManagementClient(credential, settings.subscription, **options)

    @property
    def at(self) -> tuple[str, str]:
        """Resource group and vault."""
        return self.settings.at


def begin(doing: str, method: Callable[..., Any], *given: Any) -> str:
    """Begin an operation and return the id of its job, empty if it ended at once.

    Raises:
        Fault: Azure refuses, or does not answer; then it may have begun all the same.
    """
    answers: list[Any] = []
    with translated(doing):
        method(*given, polling=False, raw_response_hook=answers.append)
    headers = answers[-1].http_response.headers if answers else {}
    url = str(headers.get("Location") or headers.get("Azure-AsyncOperation") or "")
    return urlsplit(url).path.rstrip("/").rpartition("/")[2]


def _verify(ca_bundle: str) -> bool | str:
    """Return what the SDKs take: a path. The bundle of each CA is written once, readable by us only."""
    if not ca_bundle:
        return True
    name = f"farshore-ca-{hashlib.sha256(ca_bundle.encode()).hexdigest()[:16]}-{os.getpid()}.pem"
    path = Path(tempfile.gettempdir()) / name
    if not path.exists() or path.read_text() != ca_bundle:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as fresh:
            fresh.write(ca_bundle)
        Path(fresh.name).replace(path)
    return str(path)


def _credential(settings: VaultSettings, verify: bool | str) -> TokenCredential:
    given = settings.credential
    options: dict[str, Any] = {"connection_verify": verify}
    if settings.authority:
        options |= {"authority": settings.authority, "disable_instance_discovery": True}
    if given is None:
        return _identity(options)
    return _principal(given, options)


def _principal(given: CloudCredential, options: dict[str, Any]) -> TokenCredential:
    if given.certificate is not None:
        pem = given.certificate.get_secret_value().encode()
        return CertificateCredential(given.tenant_id, given.client_id, certificate_data=pem, **options)
    secret = given.client_secret.get_secret_value() if given.client_secret is not None else ""
    return ClientSecretCredential(given.tenant_id, given.client_id, secret, **options)


def _identity(options: dict[str, Any]) -> TokenCredential:
    """Use the pod's workload identity, or the managed identity of its host."""
    managed = ManagedIdentityCredential()
    if os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return ChainedTokenCredential(WorkloadIdentityCredential(**options), managed)
    return managed
