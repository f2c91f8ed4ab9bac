"""From a Site or a RecoveryVault and its Secret to the cloud: as the Secret's principal, or as what this host is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farshore_cli.doctoring.cluster import Namespace

if TYPE_CHECKING:
    from farshore_engine.contract.site import CloudCredential, CloudSite
    from farshore_operator.api import Site
    from farshore_operator.api.recoveryvault import AzureVault


def cloud_of_site(site: Site, where: Namespace) -> CloudSite | None:
    """Return how a site's cloud is reached, None for a site that is none.

    Raises:
        Fault: its Secret is not there, or is none.
    """
    from farshore_operator.decide.cloudtarget import cloud_site, credentials_ref
    from farshore_operator.decide.vaultaccess import cloud_login

    ref, field = credentials_ref(site)
    login = cloud_login(where.secret(ref.name, field), ref.name, field) if ref is not None else None
    return cloud_site(site, login)


def cloud_of_vault(azure: AzureVault, name: str, where: Namespace) -> CloudSite:
    """Return how the subscription of a vault is reached; raises Fault."""
    from farshore_engine.contract.site import CloudProvider, CloudSite

    return CloudSite(
        name=f"vault {name}",
        provider=CloudProvider.AZURE,
        subscription=azure.subscription,
        resource_group=azure.resource_group,
        region=azure.region or "",
        endpoint=(azure.resource_manager_endpoint or "").rstrip("/"),
        authority=azure.authority_host or "",
        ca_bundle=azure.ca_bundle or "",
        credential=credential_of(azure, where),
    )


def credential_of(azure: AzureVault, where: Namespace) -> CloudCredential | None:
    """Return the principal of a vault, None for the identity of this host; raises Fault."""
    from farshore_operator.decide.vaultaccess import cloud_login

    ref, field = azure.credentials_secret_ref, "spec.azure.credentialsSecretRef"
    return cloud_login(where.secret(ref.name, field), ref.name, field) if ref is not None else None
