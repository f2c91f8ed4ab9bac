"""What the decision on a RecoveryVault is made from."""

from __future__ import annotations

from farshore_operator.api import ProtectedVM, RecoveryVault
from farshore_operator.decide.recoveryvault import ObservedVault
from farshore_operator.decide.references import SecretUse
from farshore_operator.observe.world import World, spec_ref


def observe(world: World, vault: RecoveryVault) -> ObservedVault:
    """Collect the Secrets and the machines of a vault."""
    namespace, name = vault.metadata.namespace, vault.metadata.name
    return ObservedVault(
        vault=vault,
        secrets=vault_secrets(world, vault),
        machines=world.count(ProtectedVM, namespace, lambda body: spec_ref(body, "vaultRef") == name),
    )


def vault_secrets(world: World, vault: RecoveryVault) -> tuple[SecretUse, ...]:
    """Look the Secrets of a vault up."""
    namespace, spec = vault.metadata.namespace, vault.spec
    found = []
    if spec.storage and spec.storage.azure_blob:
        credential = spec.storage.azure_blob.credential
        field = "spec.storage.azureBlob.credential.secretRef"
        found.append(world.secret(namespace, field, credential.secret_ref.name, (credential.secret_key,)))
    if spec.encryption and spec.encryption.key_secret_ref:
        ref = spec.encryption.key_secret_ref
        field = "spec.encryption.keySecretRef"
        found.append(world.secret(namespace, field, ref.name, (ref.key,), encryption_key=True))
    if spec.encryption and spec.encryption.key_vault:
        field = "spec.encryption.keyVault.credentialsSecretRef"
        found.append(world.secret(namespace, field, spec.encryption.key_vault.credentials_secret_ref.name))
    if spec.azure and spec.azure.credentials_secret_ref:
        field = "spec.azure.credentialsSecretRef"
        found.append(world.secret(namespace, field, spec.azure.credentials_secret_ref.name))
    return tuple(found)
