"""Makes the Recovery Services vault. A vault that exists is left as it is."""

from __future__ import annotations

from azure.mgmt.recoveryservices import models

from farshore_operator.engines.siterecovery.calls import CreateVault
from farshore_operator.engines.siterecovery.client import VaultClient, begin


def create_vault(client: VaultClient, _: CreateVault) -> str:
    """Begin; it takes seconds, and has no job: that the vault is there tells its end."""
    given = models.Vault(
        location=client.settings.region,
        sku=models.Sku(name="RS0", tier="Standard"),
        properties=models.VaultProperties(public_network_access="Enabled"),
    )
    begin(f"creating vault {client.settings.vault}", client.vaults.vaults.begin_create_or_update, *client.at, given)
    return ""
