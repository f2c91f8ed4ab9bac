"""Which vault is driven and how it is reached: built once from the RecoveryVault, and passed in."""

from __future__ import annotations

from dataclasses import dataclass

from farshore_engine.contract.site import CloudCredential


@dataclass(frozen=True)
class VaultSettings:
    """A Recovery Services vault. `endpoint`, `authority` and `ca_bundle` (PEM text) as in CloudSite; `region` empty
    means that the vault must exist. Without a `credential` the operator's workload or managed identity is used."""

    subscription: str
    resource_group: str
    vault: str
    region: str = ""
    endpoint: str = ""
    authority: str = ""
    ca_bundle: str = ""
    credential: CloudCredential | None = None

    @property
    def at(self) -> tuple[str, str]:
        """Resource group and vault, with which the arguments of every call begin."""
        return self.resource_group, self.vault

    @property
    def id(self) -> str:
        """The vault's resource id."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
        return f"{group}/providers/Microsoft.RecoveryServices/vaults/{self.vault}"
