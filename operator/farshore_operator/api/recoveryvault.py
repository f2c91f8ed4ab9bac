"""RecoveryVault: where recovery points are kept, how they are encrypted, and which engine replicates into it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.siterecovery import SiteRecoveryReport
from farshore_operator.api.cel import Rule, compare, exactly_one
from farshore_operator.api.resource import (
    AS_SET,
    Column,
    Definition,
    Model,
    Reference,
    Resource,
    ResourceStatus,
    SecretKeyReference,
    message_column,
    ready_column,
)
from farshore_operator.api.siterecovery import SiteRecoverySettings
from farshore_operator.api.values import Duration, Text, Word


class Engine(StrEnum):
    """What replicates: Farshore itself, or Azure Site Recovery driven by Farshore."""

    NATIVE = "native"
    SITE_RECOVERY = "siteRecovery"


class BlobCredentialKind(StrEnum):
    """What the Secret's value is."""

    ACCOUNT_KEY = "accountKey"
    CONNECTION_STRING = "connectionString"
    SAS_TOKEN = "sasToken"
    SERVICE_PRINCIPAL = "servicePrincipal"


class BlobCredential(Model):
    """How to log in to the storage account."""

    kind: BlobCredentialKind = BlobCredentialKind.ACCOUNT_KEY
    """What the value is: accountKey, connectionString, or sasToken (of the container, with read, add, create, write,
    delete and list). servicePrincipal: the Secret has tenantId, clientId, clientSecret or clientCertificate, and
    authorityHost outside the public cloud; the principal needs the role Storage Blob Data Contributor on the
    container. Default: accountKey."""
    secret_ref: Reference
    """Secret that holds it."""
    key: Annotated[str, Field(max_length=253)] | None = None
    """Key in the Secret's data. Default: the word in `kind`, such as accountKey. Not for servicePrincipal."""

    @property
    def secret_key(self) -> str:
        """Key in the Secret's data, with the default resolved."""
        return self.key or self.kind.value

    @property
    def secret_keys(self) -> tuple[str, ...]:
        """Keys that the Secret's data must have."""
        if self.kind is BlobCredentialKind.SERVICE_PRINCIPAL:
            return ("tenantId", "clientId")
        return (self.secret_key,)


class AzureBlobStorage(Model):
    """A container in Azure Blob Storage."""

    rules = (
        Rule(
            "self.accountURL.matches('^https?://[^/]+(/[^/]+)?/?$')",
            "storage.azureBlob.accountURL must be the blob endpoint of the storage account, "
            "such as https://contoso.blob.core.windows.net",
            "'storage.azureBlob.accountURL \"' + self.accountURL + '\" is not the blob endpoint of a storage account; "
            "write one such as https://contoso.blob.core.windows.net'",
            ".accountURL",
        ),
        Rule(
            "self.container.matches('^[a-z0-9](-?[a-z0-9])+$') && size(self.container) >= 3 && "
            "size(self.container) <= 63",
            "storage.azureBlob.container must have 3 to 63 lower-case letters, digits and single hyphens, as "
            "Azure demands",
            path=".container",
        ),
        Rule(
            "(has(self.credential) && self.credential.kind != 'servicePrincipal') || "
            "self.accountURL.startsWith('https://')",
            "storage.azureBlob.accountURL must begin with https://: without a credential, and with a service "
            "principal, the login is a token, which goes over TLS only",
            path=".accountURL",
        ),
    )

    account_url: Annotated[str, Field(max_length=1024)]
    """Blob endpoint of the storage account, such as https://contoso.blob.core.windows.net."""
    container: Annotated[str, Field(max_length=63)]
    """Container of the vault. It must exist; `farshore vault create` makes it where `azure.region` is set."""
    prefix: Annotated[str, Field(max_length=512)] | None = None
    """Folder in the container, for vaults that share one. Default: none."""
    credential: BlobCredential | None = None
    """How to log in. Default: as the workload identity or managed identity of the process server's host, which needs
    the role Storage Blob Data Contributor on the container."""


class DirectoryStorage(Model):
    """A directory, for air-gapped sites and benchmarks."""

    rules = (
        Rule(
            "self.path.startsWith('/')",
            "storage.directory.path must be an absolute path, such as /srv/farshore/vault",
            path=".path",
        ),
    )

    path: Annotated[str, Field(max_length=1024)]
    """Absolute path, the same on every process server that uses the vault."""


class Storage(Model):
    """Where the recovery points are: exactly one of azureBlob and directory."""

    rules = (
        Rule(
            exactly_one("azureBlob", "directory"),
            "a vault has exactly one storage: set storage.azureBlob or storage.directory, not both and not none",
        ),
    )

    azure_blob: AzureBlobStorage | None = None
    """A container in Azure Blob Storage."""
    directory: DirectoryStorage | None = None
    """A directory that every process server of the vault sees at the same path."""


class KeyVaultKey(Model):
    """A key in Azure Key Vault that wraps the machines' data keys."""

    url: Annotated[str, Field(max_length=1024)]
    """URL of the key vault, such as https://contoso.vault.azure.net."""
    key_name: Annotated[str, Field(max_length=127)]
    """Name of an RSA key in it, software- or HSM-protected. Its newest version wraps, the one before stays usable."""
    credentials_secret_ref: Reference
    """Secret with tenantId, clientId and clientSecret of a principal that may read, wrap and unwrap with the key (role
    Key Vault Crypto Service Encryption User), and authorityHost outside the Azure public cloud."""


class PreviousKey(Model):
    """A key-encryption key that was in use before: exactly one of keySecretRef and keyVault."""

    rules = (
        Rule(
            exactly_one("keySecretRef", "keyVault"),
            "each of encryption.previousKeys is exactly one key: set its keySecretRef or its keyVault",
        ),
    )

    key_secret_ref: SecretKeyReference | None = None
    """Value in a Secret: 32 random bytes, raw or in base64."""
    key_vault: KeyVaultKey | None = None
    """Key in Azure Key Vault."""
    remove: bool = False
    """Whether this key may open the recovery points no more: its wrap is taken from every machine once the current key
    opens it. Leave it false until the condition KeysRotated is True. Default: false."""


class Encryption(Model):
    """The key-encryption key: exactly one of keySecretRef and keyVault."""

    rules = (
        Rule(
            exactly_one("keySecretRef", "keyVault"),
            "a vault has exactly one key-encryption key: set encryption.keySecretRef or encryption.keyVault, "
            "not both and not none",
        ),
    )

    key_secret_ref: SecretKeyReference | None = None
    """Value in a Secret: 32 random bytes, raw or in base64. Keep a copy outside the cluster: without it no recovery
    point can be read."""
    key_vault: KeyVaultKey | None = None
    """Key in Azure Key Vault."""
    previous_keys: Annotated[tuple[PreviousKey, ...], Field(max_length=4)] = ()
    """Keys that were current before, while they are rotated out. No recovery point is written anew: the data key of
    each machine is wrapped by the current key beside them. Default: none."""


class ImmutabilityMode(StrEnum):
    """Who may delete a recovery point before its time."""

    NONE = "None"
    UNLOCKED = "Unlocked"
    LOCKED = "Locked"


class Immutability(Model):
    """Protection of recovery points against deletion by whoever holds the credential."""

    rules = (
        Rule(
            "self.mode == 'None' || has(self.period)",
            "immutability.period is missing: say how long a recovery point cannot be deleted, such as 7d",
        ),
        Rule(
            "oldSelf.mode != 'Locked' || self.mode == 'Locked'",
            "immutability.mode is Locked, which Azure does not take back: leave it, or make a new vault",
        ),
        Rule(
            f"self.mode == 'None' || !has(self.period) || {compare('self.period', '>=', chr(39) + '1h' + chr(39))}",
            "immutability.period must be at least 1h",
            path=".period",
        ),
    )

    mode: ImmutabilityMode = ImmutabilityMode.NONE
    """None, Unlocked (an administrator of the storage account may lift it) or Locked (nobody may). Default: None."""
    period: Duration | None = None
    """How long after it was taken a recovery point cannot be deleted, such as 7d, whatever retention says. It needs a
    container with version-level immutability. No default."""


class Redundancy(StrEnum):
    """How often Azure keeps what is in a storage account, and where."""

    LOCAL = "Standard_LRS"
    ZONES = "Standard_ZRS"
    GEO = "Standard_GRS"
    GEO_READABLE = "Standard_RAGRS"
    GEO_ZONES = "Standard_GZRS"
    GEO_ZONES_READABLE = "Standard_RAGZRS"


class AzureVault(Model):
    """The vault as an Azure resource."""

    subscription: Word
    """ID of the Azure subscription."""
    resource_group: Word
    """Resource group of the vault."""
    vault_name: Word
    """Name of the Recovery Services vault (engine siteRecovery) or the storage account (engine native)."""
    region: Word | None = None
    """Azure region, such as westeurope, where it is made if it does not exist: a Recovery Services vault by the
    operator, a storage account by `farshore vault create`. Default: it must exist."""
    redundancy: Redundancy | None = None
    """How a storage account is made, such as Standard_ZRS; not used by engine siteRecovery. Default: Standard_GRS."""
    cache_storage_account: Text | None = None
    """Resource ID of the storage account that Site Recovery replicates through. Required by engine siteRecovery.
    Default: none."""
    credentials_secret_ref: Reference | None = None
    """Secret with tenantId, clientId and clientSecret, or clientCertificate (PEM, with the private key), of a principal
    that may manage the vault. Default: the identity of the operator's pod."""
    site_recovery: SiteRecoverySettings | None = None
    """Settings of engine siteRecovery. Default: all its defaults."""
    resource_manager_endpoint: Annotated[str, Field(max_length=1024)] | None = None
    """Resource Manager endpoint of a sovereign or private cloud. Default: that of the public cloud."""
    authority_host: Annotated[str, Field(max_length=1024)] | None = None
    """Host of the token service, such as login.microsoftonline.us. Default: that of the public cloud."""
    ca_bundle: Annotated[str, Field(max_length=65536)] | None = None
    """CA certificates in PEM that the cloud's certificates are checked with. Default: those of the operator's host."""


class RecoveryVaultSpec(Model):
    """What the vault should be."""

    rules = (
        Rule(
            "self.engine != 'native' || has(self.storage)",
            "engine native needs spec.storage: set storage.azureBlob or storage.directory",
        ),
        Rule(
            "self.engine != 'native' || has(self.encryption)",
            "engine native encrypts every recovery point and needs spec.encryption: set encryption.keySecretRef to a "
            "Secret with 32 random bytes",
        ),
        Rule(
            "self.engine != 'siteRecovery' || has(self.azure)",
            "engine siteRecovery needs spec.azure: subscription, resourceGroup and vaultName of the Recovery "
            "Services vault",
        ),
        Rule(
            "self.engine != 'siteRecovery' || (!has(self.storage) && !has(self.encryption))",
            "engine siteRecovery keeps recovery points by itself: remove spec.storage and spec.encryption, or "
            "use engine native",
        ),
        Rule(
            "!has(self.immutability) || self.immutability.mode == 'None' || self.engine != 'native' || "
            "(has(self.storage) && has(self.storage.azureBlob))",
            "spec.immutability needs storage.azureBlob, because a directory cannot hold files against their owner: "
            "remove it, or keep the vault in Azure Blob Storage",
        ),
        Rule(
            "self.engine == oldSelf.engine",
            "spec.engine cannot be changed, because the engines cannot read each other's recovery points: make another "
            "RecoveryVault and point the machines to it",
            path=".engine",
        ),
        Rule(
            "!has(oldSelf.storage) || (has(self.storage) && has(self.storage.azureBlob) == "
            "has(oldSelf.storage.azureBlob))",
            "spec.storage cannot become another kind of storage, because the recovery points would be left "
            "behind: make "
            "another RecoveryVault and point the machines to it",
        ),
    )

    engine: Engine = Engine.NATIVE
    """What replicates: native (Farshore) or siteRecovery (Azure Site Recovery). Default: native."""
    storage: Storage | None = None
    """Where the recovery points are. Required by engine native, not used by siteRecovery."""
    encryption: Encryption | None = None
    """The key that encrypts them. Required by engine native, not used by siteRecovery."""
    immutability: Immutability | None = None
    """Protection of recovery points against deletion. Default: none."""
    azure: AzureVault | None = None
    """The vault as an Azure resource. Required by engine siteRecovery; with engine native it says where
    `farshore vault create` makes storage account and container."""


class VaultPhase(StrEnum):
    """Whether machines can replicate into the vault."""

    PENDING = "Pending"  # something that it refers to is missing
    READY = "Ready"
    FAILED = "Failed"  # it needs a person: the Ready condition says why


class KeyRotation(Model):
    """How far the machines of the vault are with its current key-encryption key."""

    current_key: Text = ""
    """Name of the key that wraps now, as the process servers report it."""
    machines: int = 0
    """Machines whose vault was opened by a process server."""
    wrapped: int = 0
    """Machines whose data key the current key wraps."""
    previous_keys: Annotated[tuple[Text, ...], Field(max_length=32, json_schema_extra=AS_SET)] = ()
    """Names of other keys that open the data of any machine."""


class RecoveryVaultStatus(ResourceStatus):
    """What is known of the vault."""

    phase: VaultPhase | None = None
    """Pending, Ready or Failed."""
    machines: int | None = None
    """Number of machines that replicate into it."""
    keys: KeyRotation | None = None
    """How far the machines are with the current key-encryption key; absent until a process server has opened one."""
    capabilities: Annotated[tuple[Word, ...], Field(max_length=32, json_schema_extra=AS_SET)] = ()
    """What its engine can do, in CamelCase words such as Failback or WindowsAgent."""
    site_recovery: SiteRecoveryReport | None = None
    """What Azure Site Recovery says of the vault; the operator's driver alone writes this."""


class RecoveryVault(Resource):
    """Where recovery points are kept: a container in Azure Blob Storage or a directory, encrypted, self-describing."""

    definition = Definition(
        "RecoveryVault",
        "recoveryvaults",
        ("rv", "vault"),
        (
            Column("Engine", ".spec.engine", description="What replicates: native or siteRecovery."),
            ready_column(),
            Column("Machines", ".status.machines", "integer", description="Machines that replicate into it."),
            message_column(),
        ),
    )

    kind: str = "RecoveryVault"
    spec: RecoveryVaultSpec
    """What the vault should be."""
    status: RecoveryVaultStatus = RecoveryVaultStatus()
    """What is known of the vault."""
