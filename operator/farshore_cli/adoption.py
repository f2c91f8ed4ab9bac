"""Asks Site Recovery what it protects, and the cluster what it knows of that."""

from __future__ import annotations

from farshore_engine.contract.faults import StopFault
from farshore_operator.api import ProtectedVM, RecoveryVault
from farshore_operator.api.recoveryvault import Engine
from farshore_operator.engines.siterecovery import reading
from farshore_operator.engines.siterecovery.adopt import Adoption, Place, adopt
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.facts import PolicyFacts
from farshore_operator.kube.client import Client
from farshore_operator.kube.resources import PROTECTED_VM, RECOVERY_VAULT
from farshore_operator.kube.siterecovery import credential_of, settings_of


def adopted(client: Client, place: Place) -> Adoption:
    """Return manifests for what Site Recovery protects and no ProtectedVM means.

    Raises:
        Fault: the vault does not exist or is of another engine; the API or Azure is away or refuses.
    """
    body = client.get(RECOVERY_VAULT, place.namespace, place.vault)
    vault = RecoveryVault.of(body) if body is not None else None
    if vault is None or vault.spec.engine is not Engine.SITE_RECOVERY or vault.spec.azure is None:
        raise StopFault(
            f"there is no RecoveryVault {place.namespace}/{place.vault} of engine siteRecovery",
            "Apply one that names the Recovery Services vault in spec.azure first",
        )
    azure = VaultClient(settings_of(vault.spec.azure, credential_of(client, place.namespace, vault.spec.azure)))
    whole = [reading.item(azure, one) for one in reading.items(azure)]
    policies: dict[str, PolicyFacts] = {}
    for appliance in reading.appliances(azure):
        policies |= reading.policies(azure, appliance)
    vms = [ProtectedVM.of(one) for one in client.list_all(PROTECTED_VM, place.namespace)]
    taken = {vm.spec.source.address: vm.metadata.name for vm in vms}
    return adopt([one for one in whole if one is not None], policies, taken, place)
