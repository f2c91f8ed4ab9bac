"""What the decision on a RecoveryVault is made from."""

from __future__ import annotations

from farshore_operator.api import ProtectedVM, RecoveryVault
from farshore_operator.api.recoveryvault import Encryption, PreviousKey
from farshore_operator.decide.recoveryvault import ObservedVault
from farshore_operator.decide.references import SecretUse
from farshore_operator.observe.world import World, spec_ref


def observe(world: World, vault: RecoveryVault) -> ObservedVault:
    """Collect the Secrets and the machines of a vault."""
    namespace, name = vault.metadata.namespace, vault.metadata.name
    machines = world.all(ProtectedVM, namespace, lambda body: spec_ref(body, "vaultRef") == name)
    return ObservedVault(
        vault=vault,
        secrets=vault_secrets(world, vault),
        machines=len(machines),
        keys=tuple(vm.status.replication.keys if vm.status.replication else None for vm in machines),
    )


def vault_secrets(world: World, vault: RecoveryVault) -> tuple[SecretUse, ...]:
    """Look the Secrets of a vault up."""
    namespace, spec = vault.metadata.namespace, vault.spec
    found = []
    if spec.storage and spec.storage.azure_blob and spec.storage.azure_blob.credential:
        credential = spec.storage.azure_blob.credential
        field = "spec.storage.azureBlob.credential.secretRef"
        found.append(world.secret(namespace, field, credential.secret_ref.name, credential.secret_keys))
    if spec.encryption:
        found += _key_secrets(world, namespace, "spec.encryption", spec.encryption)
        for number, key in enumerate(spec.encryption.previous_keys):
            found += _key_secrets(world, namespace, f"spec.encryption.previousKeys[{number}]", key)
    if spec.azure and spec.azure.credentials_secret_ref:
        field = "spec.azure.credentialsSecretRef"
        found.append(world.secret(namespace, field, spec.azure.credentials_secret_ref.name))
    return tuple(found)


def _key_secrets(world: World, namespace: str, field: str, key: Encryption | PreviousKey) -> list[SecretUse]:
    found = []
    if key.key_secret_ref:
        ref = key.key_secret_ref
        found.append(world.secret(namespace, f"{field}.keySecretRef", ref.name, (ref.key,), encryption_key=True))
    if key.key_vault:
        name = key.key_vault.credentials_secret_ref.name
        found += [
            world.secret(namespace, f"{field}.keyVault.credentialsSecretRef", name, (needed,))
            for needed in ("tenantId", "clientId", "clientSecret")
        ]
    return found
