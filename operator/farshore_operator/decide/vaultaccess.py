"""From a RecoveryVault and its Secrets to a vault that can be opened: for appliances, and for people with files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pydantic import SecretBytes, SecretStr

from farshore_engine.contract.assignment import AzureBlobAccess, DirectoryAccess, KeyVaultAccess, VaultAccess
from farshore_engine.contract.assignment import PreviousKey as Previous
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.site import CloudCredential
from farshore_operator.api import RecoveryVault
from farshore_operator.api.recoveryvault import (
    AzureBlobStorage,
    BlobCredential,
    BlobCredentialKind,
    Encryption,
    ImmutabilityMode,
    KeyVaultKey,
    PreviousKey,
    Storage,
)
from farshore_operator.decide.keys import key_bytes

Values = Mapping[str, bytes]
Secrets = Callable[[str, str], Values]
"""Returns the data of a Secret, given its name and the field that names it; raises a fault that says what lacks."""


def vault_access(vault: RecoveryVault, secrets: Secrets) -> VaultAccess:
    """Return the vault with its secrets; raises a fault that names what does not resolve."""
    name, storage = vault.metadata.name, vault.spec.storage
    if storage is None:
        raise _unusable(name)
    where, prefix = storage_access(name, storage, secrets)
    lock = vault.spec.immutability
    locks = lock is not None and lock.mode is not ImmutabilityMode.NONE
    return VaultAccess(
        name=name,
        storage=where,
        prefix=prefix,
        key=encryption_key(vault, secrets),
        previous_keys=previous_keys(vault, secrets),
        immutable_for=lock.period if lock is not None and locks else None,
        immutable_locked=lock is not None and lock.mode is ImmutabilityMode.LOCKED,
    )


def encryption_key(vault: RecoveryVault, secrets: Secrets) -> SecretBytes | KeyVaultAccess:
    """Return the key-encryption key, 32 bytes or one in Azure Key Vault; a fault names what does not resolve."""
    name, encryption = vault.metadata.name, vault.spec.encryption
    if encryption is None:
        raise _unusable(name)
    return _key(name, "spec.encryption", encryption, secrets)


def previous_keys(vault: RecoveryVault, secrets: Secrets) -> tuple[Previous, ...]:
    """Return the keys that were current before; a fault names what does not resolve."""
    name, encryption = vault.metadata.name, vault.spec.encryption
    return tuple(
        Previous(key=_key(name, f"spec.encryption.previousKeys[{number}]", one, secrets), remove=one.remove)
        for number, one in enumerate(encryption.previous_keys if encryption else ())
    )


def _key(vault: str, field: str, key: Encryption | PreviousKey, secrets: Secrets) -> SecretBytes | KeyVaultAccess:
    if key.key_vault is not None:
        return _key_vault(f"RecoveryVault {vault} {field}", key.key_vault, secrets)
    if key.key_secret_ref is None:
        raise _unusable(vault)
    ref, field = key.key_secret_ref, f"RecoveryVault {vault} {field}.keySecretRef"
    found = key_bytes(secret_value(secrets(ref.name, field), ref.name, ref.key, field))
    if found is None:
        raise StopFault(
            f"{field}: key {ref.key} of Secret {ref.name} is not 32 bytes, raw or in base64",
            "Put the vault's key there",
            reason="SecretKeyInvalid",
        )
    return SecretBytes(found)


def _key_vault(where: str, key: KeyVaultKey, secrets: Secrets) -> KeyVaultAccess:
    field = f"{where}.keyVault.credentialsSecretRef"
    secret = key.credentials_secret_ref.name
    values = secrets(secret, field)
    tenant, client, password = (
        secret_text(secret_value(values, secret, word, field), secret, word, field).strip()
        for word in ("tenantId", "clientId", "clientSecret")
    )
    authority = values.get("authorityHost", b"")
    return KeyVaultAccess(
        url=key.url,
        key_name=key.key_name,
        tenant_id=tenant,
        client_id=client,
        client_secret=SecretStr(password),
        authority=secret_text(authority, secret, "authorityHost", field).strip(),
    )


def _unusable(name: str) -> StopFault:
    return StopFault(
        f"RecoveryVault {name} has no storage, or no key",
        "Set spec.storage, and spec.encryption.keySecretRef or keyVault",
        reason="VaultNotUsable",
    )


def storage_access(vault: str, storage: Storage, secrets: Secrets) -> tuple[AzureBlobAccess | DirectoryAccess, str]:
    """Return where the vault is and its prefix there; raises a fault that names what does not resolve."""
    if storage.azure_blob is not None:
        return _blob(storage.azure_blob, vault, secrets), storage.azure_blob.prefix or ""
    if storage.directory is None:
        raise StopFault(f"RecoveryVault {vault} has no storage", "Set spec.storage", reason="VaultNotUsable")
    return DirectoryAccess(path=storage.directory.path), ""


def _blob(blob: AzureBlobStorage, vault: str, secrets: Secrets) -> AzureBlobAccess:
    field = f"RecoveryVault {vault} spec.storage.azureBlob.credential"
    return blob_access(blob.account_url, blob.container, blob.credential, field, secrets)


def blob_access(
    account_url: str, container: str, credential: BlobCredential | None, field: str, secrets: Secrets
) -> AzureBlobAccess:
    """Return a container with its credential, which `field` names; a fault names what does not resolve."""
    if credential is None:
        return AzureBlobAccess(account_url=account_url, container=container)
    values = secrets(credential.secret_ref.name, field)
    name, key = credential.secret_ref.name, credential.secret_key
    if credential.kind is BlobCredentialKind.SERVICE_PRINCIPAL:
        given = values.get("authorityHost")
        return AzureBlobAccess(
            account_url=account_url,
            container=container,
            principal=cloud_login(values, name, field),
            authority=secret_text(given, name, "authorityHost", field).strip() if given else "",
        )
    secret = SecretStr(secret_text(secret_value(values, name, key, field), name, key, field).strip())
    kind = credential.kind
    return AzureBlobAccess(
        account_url=account_url,
        container=container,
        account_key=secret if kind is BlobCredentialKind.ACCOUNT_KEY else None,
        connection_string=secret if kind is BlobCredentialKind.CONNECTION_STRING else None,
        sas_token=secret if kind is BlobCredentialKind.SAS_TOKEN else None,
    )


def cloud_login(values: Values, name: str, field: str) -> CloudCredential:
    """Return the principal of a cloud that Secret `name` holds, which `field` names."""

    def text(key: str) -> str:
        return secret_text(secret_value(values, name, key, field), name, key, field).strip()

    def secret(key: str) -> SecretStr | None:
        return SecretStr(text(key)) if values.get(key) else None

    password, certificate = secret("clientSecret"), secret("clientCertificate")
    if (password is None) == (certificate is None):
        raise WaitFault(
            f"{field}: Secret {name} must have exactly one of clientSecret and clientCertificate",
            "Add the one that the principal logs in with, and take the other away",
            reason="SecretKeyNotFound",
        )
    return CloudCredential(
        tenant_id=text("tenantId"), client_id=text("clientId"), client_secret=password, certificate=certificate
    )


def secret_value(values: Values, secret: str, key: str, field: str) -> bytes:
    """Return one value of a Secret; raises WaitFault if it is not there."""
    if not values.get(key):
        has = ", ".join(sorted(values)) or "none"
        raise WaitFault(
            f"{field}: Secret {secret} has no key {key} (it has {has})", "Add it", reason="SecretKeyNotFound"
        )
    return values[key]


def secret_text(value: bytes, secret: str, key: str, field: str) -> str:
    """Read a value that must be text; the value itself never enters a message."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise StopFault(
            f"{field}: key {key} of Secret {secret} is not text",
            "Put it there as UTF-8; a private key in PEM or OpenSSH format, not in DER",
            reason="SecretKeyInvalid",
        ) from None
