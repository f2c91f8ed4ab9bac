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
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import SansIOHTTPPolicy
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
from farshore_operator.engines.siterecovery.faults import UNAUTHORIZED, translated
from farshore_operator.engines.siterecovery.settings import VaultSettings

TIMEOUTS = {"connection_timeout": 10, "read_timeout": 60}


class VaultClient:
    """The two clients of a vault, for one thread at a time. Nothing is retried here: the driver looks again.

    Once Resource Manager has refused their token, who asks next asks with a new one: the SDKs would offer the old one
    until its time is over.
    """

    def __init__(self, settings: VaultSettings) -> None:
        self.settings = settings
        self._refused = False
        self._made = self._make()

    # Any: their models say of every member that it may be absent, which `translate` deals with.

    @property
    def vaults(self) -> Any:
        """Of Recovery Services vaults."""
        return self._clients()[0]

    @property
    def site(self) -> Any:
        """Of Site Recovery."""
        return self._clients()[1]

    def _clients(self) -> tuple[Any, Any]:
        if self._refused:
            for client in self._made:
                client.close()
            self._refused, self._made = False, self._make()
        return self._made

    def _make(self) -> tuple[Any, Any]:
        settings, verify = self.settings, _verify(self.settings.ca_bundle)
        credential = _credential(settings, verify)
        options: dict[str, Any] = {"connection_verify": verify, "retry_total": 0, **TIMEOUTS}
        if settings.endpoint:
            options["base_url"] = settings.endpoint
            options["credential_scopes"] = [f"{settings.endpoint.rstrip('/')}/.default"]
        # Not one policy for both: each belongs to one pipeline.
        return (
            RecoveryServicesClient(
                credential, settings.subscription, per_retry_policies=[_Refusals(self._note)], **options
            ),
            SiteRecoveryManagementClient(
                credential, settings.subscription, per_retry_policies=[_Refusals(self._note)], **options
            ),
        )

    def _note(self) -> None:
        self._refused = True

    @property
    def at(self) -> tuple[str, str]:
        """Resource group and vault."""
        return self.settings.at


class _Refusals(SansIOHTTPPolicy[Any, Any]):
    """Tells when Resource Manager does not take a token."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def on_response(self, request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> None:
        if response.http_response.status_code == UNAUTHORIZED:
            self._tell()


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
