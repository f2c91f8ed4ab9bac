"""Site: a place where machines run, and what machines become when they are recovered there."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.site import IdentitySystem
from farshore_operator.api.cel import Rule
from farshore_operator.api.recoveryvault import BlobCredential
from farshore_operator.api.resource import (
    Column,
    Definition,
    Model,
    Reference,
    Resource,
    ResourceStatus,
    message_column,
    ready_column,
)
from farshore_operator.api.target import TargetDefaults
from farshore_operator.api.values import Duration, Word


class Provider(StrEnum):
    """What runs the machines of a site."""

    AZURE_STACK_HUB = "azureStackHub"
    AZURE = "azure"
    LOCAL = "local"


class LocalSite(Model):
    """Machines on the host of the site's process server: QEMU, or a namespace where a machine has no bootable disk."""

    rules = (
        Rule(
            "!has(self.addressPool) || isCIDR(self.addressPool)",
            "local.addressPool must be a range of addresses in CIDR notation, such as 10.77.0.0/24",
            "'local.addressPool \"' + self.addressPool + '\" is not a range of addresses; write one such as "
            "10.77.0.0/24'",
            ".addressPool",
        ),
    )

    address_pool: Annotated[str, Field(max_length=49)] | None = None
    """Range of private addresses, in CIDR notation, from which recovered machines get one. Default: the process server
    chooses a free range."""


class ReplicaStorage(Model):
    """A container where warm replicas of machines' disks are kept as page blobs, of which a failover moves little."""

    rules = (
        Rule(
            "self.accountURL.matches('^https?://[^/]+(/[^/]+)?/?$')",
            "azure.replicas.accountURL must be the blob endpoint of a storage account, such as "
            "https://contoso.blob.core.windows.net",
            path=".accountURL",
        ),
        Rule(
            "self.container.matches('^[a-z0-9](-?[a-z0-9])+$') && size(self.container) >= 3 && "
            "size(self.container) <= 63",
            "azure.replicas.container must have 3 to 63 lower-case letters, digits and single hyphens, as Azure "
            "demands",
            path=".container",
        ),
        Rule(
            "(has(self.credential) && self.credential.kind != 'servicePrincipal') || "
            "self.accountURL.startsWith('https://')",
            "azure.replicas.accountURL must begin with https://: the site's login is a token, which goes over TLS only",
            path=".accountURL",
        ),
    )

    account_url: Annotated[str, Field(max_length=1024)]
    """Blob endpoint of a storage account of the site's subscription and region, general-purpose v2, such as
    https://contoso.blob.core.windows.net."""
    container: Annotated[str, Field(max_length=63)]
    """Container of the replicas; it must exist."""
    credential: BlobCredential | None = None
    """How to log in to the account. Default: as to Resource Manager; the principal needs the role Storage Blob Data
    Contributor on the container."""
    interval: Duration = timedelta(minutes=15)
    """Time between two updates of a machine's replica at least; 0s: as soon as there is a newer recovery point.
    Default: 15m."""


class AzureSite(Model):
    """An Azure subscription."""

    rules = (
        Rule(
            "!has(self.resourceManagerEndpoint) || self.resourceManagerEndpoint.matches('^https://[^/]+/?$')",
            "azure.resourceManagerEndpoint must be the address of Resource Manager, such as "
            "https://management.usgovcloudapi.net; leave it out for the public cloud",
            path=".resourceManagerEndpoint",
        ),
    )

    subscription: Word
    """ID of the subscription."""
    resource_group: Word
    """Resource group of recovered machines, unless `defaults.resourceGroup` or the machine says otherwise."""
    region: Word
    """Azure region, such as westeurope."""
    credentials_secret_ref: Reference | None = None
    """Secret with tenantId, clientId and clientSecret, or clientCertificate (PEM, with the private key), of a principal
    that may create machines. Default: the workload identity or managed identity of the process server."""
    resource_manager_endpoint: Annotated[str, Field(max_length=1024)] | None = None
    """Resource Manager endpoint of a sovereign or private cloud. Default: that of the public cloud."""
    authority_host: Annotated[str, Field(max_length=1024)] | None = None
    """Host of the token service, such as login.microsoftonline.us. Default: that of the public cloud."""
    ca_bundle: Annotated[str, Field(max_length=65536)] | None = None
    """CA certificates in PEM that the cloud's certificates are checked with. Default: those of the process server's
    host."""
    replicas: ReplicaStorage | None = None
    """Where warm replicas of the machines are kept that have target.warmReplica. Default: nowhere."""


class AzureStackHubSite(Model):
    """A tenant subscription of an Azure Stack Hub."""

    rules = (
        Rule(
            "self.resourceManagerEndpoint.matches('^https://[^/]+/?$')",
            "azureStackHub.resourceManagerEndpoint must be the tenant's endpoint, "
            "such as https://management.local.azurestack.external",
            path=".resourceManagerEndpoint",
        ),
    )

    resource_manager_endpoint: Annotated[str, Field(max_length=1024)]
    """Resource Manager endpoint for tenants, such as https://management.local.azurestack.external."""
    subscription: Word
    """ID of the tenant subscription."""
    resource_group: Word
    """Resource group of machines that fail back, unless `defaults.resourceGroup` or the machine says otherwise."""
    region: Word
    """Name of the region, such as local."""
    identity_system: IdentitySystem = IdentitySystem.AZURE_AD
    """AzureAD or ADFS. Default: AzureAD."""
    credentials_secret_ref: Reference
    """Secret with tenantId, clientId and clientSecret, or clientCertificate (PEM, with the private key), of a principal
    of the tenant."""
    ca_bundle: Annotated[str, Field(max_length=65536)] | None = None
    """CA certificates in PEM that the hub's certificates are checked with. Default: those of the process server's
    host."""


class SiteSpec(Model):
    """Where the site is and what it gives to its machines."""

    rules = (
        *(
            Rule(
                f"self.provider == '{provider}' || !has(self.{provider})",
                f"spec.{provider} belongs to provider {provider}, but spec.provider is another one: "
                f"remove spec.{provider}, or set provider: {provider}",
                f"'spec.{provider} belongs to provider {provider}, but spec.provider is ' + self.provider + "
                f"': remove spec.{provider}, or set provider: {provider}'",
            )
            for provider in Provider
        ),
        *(
            Rule(
                f"self.provider != '{provider}' || has(self.{provider})",
                f"provider {provider} needs spec.{provider}: at least {needs}",
            )
            for provider, needs in (
                (Provider.AZURE, "subscription, resourceGroup and region"),
                (
                    Provider.AZURE_STACK_HUB,
                    "resourceManagerEndpoint, subscription, resourceGroup, region and credentialsSecretRef",
                ),
            )
        ),
        Rule(
            "self.provider == oldSelf.provider",
            "spec.provider cannot be changed, because machines and process servers belong to it: make another Site",
            path=".provider",
        ),
    )

    provider: Provider
    """What runs the machines: azureStackHub, azure, or local (the host of the site's process server)."""
    local: LocalSite | None = None
    """Settings of provider local. Default: all its defaults."""
    azure: AzureSite | None = None
    """Settings of provider azure."""
    azure_stack_hub: AzureStackHubSite | None = None
    """Settings of provider azureStackHub."""
    credentials_secret_ref: Reference | None = None
    """Secret with the SSH login of the site's machines, for those that name none themselves. Default: none."""
    drill_network: Word | None = None
    """Network that drills use, unless they name one. Default: an isolated network made for the drill."""
    defaults: TargetDefaults | None = None
    """What machines become when they are recovered here, for all fields that they do not set themselves. Default:
    none."""


class SiteStatus(ResourceStatus):
    """What is known of the site."""

    registrar: Word | None = None
    """ServiceAccount in whose name registration keys of this site are issued."""
    process_servers: int | None = None
    """Number of registered process servers."""
    process_servers_alive: int | None = None
    """Number of those whose heartbeat arrives."""
    machines: int | None = None
    """Number of machines that are protected here."""


class Site(Resource):
    """A place where machines run: an Azure Stack Hub tenant, an Azure subscription, or the host of a process server."""

    definition = Definition(
        "Site",
        "sites",
        (),
        (
            Column("Provider", ".spec.provider", description="What runs the machines."),
            ready_column(),
            Column("Process servers", ".status.processServers", "integer", description="Registered process servers."),
            Column("Alive", ".status.processServersAlive", "integer", description="Those whose heartbeat arrives."),
            Column("Machines", ".status.machines", "integer", description="Machines that are protected here."),
            message_column(),
        ),
    )

    kind: str = "Site"
    spec: SiteSpec
    """Where the site is and what it gives to its machines."""
    status: SiteStatus = SiteStatus()
    """What is known of the site."""
