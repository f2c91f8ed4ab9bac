"""A site in a cloud, and what a machine becomes there: all that it takes to speak to its Resource Manager."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, SecretStr

from farshore_engine.contract.model import Model

Text = Annotated[str, Field(max_length=512)]
Tags = Annotated[dict[Text, Annotated[str, Field(max_length=256)]], Field(max_length=50)]


class CloudProvider(StrEnum):
    """The providers of sites that have a Resource Manager."""

    AZURE = "azure"
    AZURE_STACK_HUB = "azureStackHub"


class IdentitySystem(StrEnum):
    """Where the principals of a cloud come from."""

    AZURE_AD = "AzureAD"
    ADFS = "ADFS"


class CloudCredential(Model):
    """A principal with its secret or its certificate (PEM, with the private key); exactly one of the two is set."""

    tenant_id: str
    client_id: str
    client_secret: SecretStr | None = None
    certificate: SecretStr | None = None


class CloudSite(Model):
    """The subscription of a site and how to reach it.

    `endpoint` is the URL of Resource Manager, empty for the public cloud; `authority` the host of the token service,
    empty for the cloud's own; `ca_bundle` the PEM text of a private CA of both, empty for the system's. Without
    a `credential` the workload or managed identity of the host is used.
    """

    name: str
    provider: CloudProvider
    subscription: str
    resource_group: str
    region: str
    endpoint: str = ""
    authority: str = ""
    ca_bundle: str = ""
    identity_system: IdentitySystem = IdentitySystem.AZURE_AD
    credential: CloudCredential | None = None

    def describe(self) -> dict[str, Any]:
        """Return what may be logged: no secret."""
        return {"site": self.name, "subscription": self.subscription, "resourceGroup": self.resource_group}


class CloudInterface(Model):
    """One network interface of a recovered machine; all are in one virtual network."""

    subnet: Text = ""
    """Subnet of the network; empty for its first one."""
    private_ip: Text = ""
    """Private IP address; empty for a free one of the subnet."""
    primary: bool = False
    """Whether the machine answers there, and its default route leads there."""


class CloudTarget(Model):
    """What a recovered machine becomes in a cloud; a field that is empty leaves the choice to the provider."""

    resource_group: Text = ""
    """Resource group of everything that is made; empty for the site's."""
    size: Text = ""
    """Size, such as Standard_D2s_v5; empty for the smallest that fits."""
    network: Text = ""
    """Virtual network, by name or resource ID; empty for the only one of the resource group."""
    subnet: Text = ""
    """Subnet of the network; empty for its first one."""
    private_ip: Text = ""
    """Private IP address; empty for a free one of the subnet."""
    interfaces: Annotated[tuple[CloudInterface, ...], Field(max_length=8)] = ()
    """Network interfaces in their order; empty for one that is what `subnet` and `private_ip` say."""
    availability_set: Text = ""
    """Availability set that the machine joins, by name or resource ID; empty for none."""
    zone: Text = ""
    """Availability zone, such as 1; empty for none."""
    disk_type: Text = ""
    """Kind of managed disk, such as Premium_LRS; empty for StandardSSD_LRS."""
    tags: Tags = Field(default_factory=dict)
    """Tags of everything that is made."""
    isolated: bool = False
    """The network is one of the drill's own, from which nothing is reached; it is made and removed with the machine."""

    def nics(self) -> tuple[CloudInterface, ...]:
        """Return the interfaces in their order: at least one, and exactly one is primary, the first unless said."""
        found = tuple(
            one.model_copy(update={"subnet": one.subnet or self.subnet})
            for one in self.interfaces or (CloudInterface(private_ip=self.private_ip),)
        )
        chosen = next((number for number, one in enumerate(found) if one.primary), 0)
        return tuple(one.model_copy(update={"primary": number == chosen}) for number, one in enumerate(found))
