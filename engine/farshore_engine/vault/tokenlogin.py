"""Logs in to Microsoft Entra ID (or an AD FS): as a principal with secret or certificate, or as what this host is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from farshore_engine.contract.site import CloudCredential


def token_login(
    known: CloudCredential | None, authority: str, verify: bool | str, times: Mapping[str, float | int]
) -> Any:
    """Return a TokenCredential; nothing is asked yet.

    Args:
        known: the principal; None for the workload identity of this host, or else its managed identity.
        authority: host of the token service, empty for that of the Azure public cloud.
        verify: what certificates are checked with, as `connection_verify` of the SDK.
        times: patience with the token service: options of the SDK.

    Raises:
        ValueError: tenant or certificate is malformed; the text may hold the certificate.
    """
    from azure.identity import (  # takes time to import
        CertificateCredential,
        ChainedTokenCredential,
        ClientSecretCredential,
        ManagedIdentityCredential,
        WorkloadIdentityCredential,
    )

    own: dict[str, Any] = {"authority": authority, "disable_instance_discovery": True} if authority else {}
    options: dict[str, Any] = {**own, **times, "connection_verify": verify}
    if known is not None and known.client_secret is not None:
        secret = known.client_secret.get_secret_value()
        return ClientSecretCredential(known.tenant_id, known.client_id, secret, **options)
    if known is not None and known.certificate is not None:
        pem = known.certificate.get_secret_value().encode()
        return CertificateCredential(known.tenant_id, known.client_id, certificate_data=pem, **options)
    managed = ManagedIdentityCredential(connection_verify=verify)
    if os.environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        return ChainedTokenCredential(WorkloadIdentityCredential(**options), managed)
    return managed
