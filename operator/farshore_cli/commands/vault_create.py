"""`farshore vault create`: makes the storage account and container of a vault, where its spec.azure asks for that."""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from farshore_cli.commands.vault import app as vault_app
from farshore_engine.contract.faults import Fault, StopFault

if TYPE_CHECKING:
    from collections.abc import Callable

    from farshore_cli.doctoring.cluster import Namespace
    from farshore_engine.azure.storageaccount import StorageWish
    from farshore_operator.api import RecoveryVault

app = typer.Typer()
LONGEST = 1000  # characters of what is noted at the vault


@vault_app.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Name of the RecoveryVault.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    make_secret: Annotated[
        bool,
        typer.Option("--make-secret", help="Make the Secret with the account key too, if it does not exist."),
    ] = False,
) -> None:
    """Make the storage account and container of a vault in Azure, as spec.azure asks; what is there stays as it is.

    It may be repeated. The login is that of spec.azure.credentialsSecretRef, which needs the right to make storage
    accounts; the operator and the process servers need no such right.
    """
    from farshore_cli.doctoring.cluster import current
    from farshore_operator.api import RecoveryVault

    where = current(namespace)
    vault = where.need(RecoveryVault, name)
    try:
        said = make(vault, where, make_secret=make_secret)
    except Fault as fault:
        note(vault, where, fault)
        raise
    note(vault, where, None)
    for line in said:
        print(line)


def note(vault: RecoveryVault, where: Namespace, fault: Fault | None) -> None:
    """Let the vault's condition tell why its storage could not be made, while it is not there; None takes that away.

    Who may not change the vault has seen the fault all the same.
    """
    from farshore_operator.decide.naming import REFUSED_ANNOTATION
    from farshore_operator.kube.resources import RECOVERY_VAULT

    if fault is None and REFUSED_ANNOTATION not in vault.metadata.annotations:
        return
    told = f"{fault.reason}: {fault.message}. {fault.remedy}"[:LONGEST] if fault is not None else None
    with suppress(Fault):
        where.annotate(RECOVERY_VAULT, vault.metadata.name, REFUSED_ANNOTATION, told)


def make(vault: RecoveryVault, where: Namespace, *, make_secret: bool) -> list[str]:
    """Make what is missing, and return what was made and what is to be known; raises Fault."""
    from farshore_cli.doctoring.clouds import cloud_of_vault
    from farshore_engine.azure.cloud import Cloud
    from farshore_engine.azure.storageaccount import account_key, make_storage

    wish, azure = wished(vault), vault.spec.azure
    assert azure is not None, "wished has looked"
    cloud = Cloud(cloud_of_vault(azure, vault.metadata.name, where))
    try:
        found = make_storage(cloud, wish)
        said = [f"made: {one}" for one in found.made] or ["everything was there"]
        said += [f"left as it is: {one}" for one in found.notes]
        said += _address(vault, found.endpoint)
        said += _secret(vault, where, lambda: account_key(cloud, wish.group, wish.name), make_secret=make_secret)
    finally:
        cloud.close()
    return said


def wished(vault: RecoveryVault) -> StorageWish:
    """Return what a vault asks for.

    Raises:
        StopFault: it does not ask, or says two things.
    """
    from farshore_engine.azure.storageaccount import StorageWish
    from farshore_operator.api.recoveryvault import Engine, ImmutabilityMode, Redundancy

    spec, name = vault.spec, vault.metadata.name
    blob = spec.storage.azure_blob if spec.storage is not None else None
    if spec.engine is not Engine.NATIVE or blob is None:
        raise StopFault(
            f"vault {name} is not of engine native in Azure Blob Storage",
            "A Recovery Services vault is made by the operator, where spec.azure.region is set",
            reason="NothingToMake",
        )
    if spec.azure is None or not spec.azure.region:
        raise StopFault(
            f"vault {name} does not ask for its storage to be made",
            "Set spec.azure: subscription, resourceGroup, vaultName (the storage account) and region",
            reason="NotAsked",
        )
    host = urlsplit(blob.account_url).hostname or ""
    if host.partition(".")[0] != spec.azure.vault_name and "." in host and not host.replace(".", "").isdigit():
        raise StopFault(
            f"spec.azure.vaultName is {spec.azure.vault_name}, and storage.azureBlob.accountURL is that of "
            f"{host.partition('.')[0]}",
            "Let both name the same storage account",
            reason="TwoAccounts",
        )
    lock = spec.immutability
    return StorageWish(
        group=spec.azure.resource_group,
        name=spec.azure.vault_name,
        container=blob.container,
        redundancy=(spec.azure.redundancy or Redundancy.GEO).value,
        locks=lock is not None and lock.mode is not ImmutabilityMode.NONE,
    )


def _address(vault: RecoveryVault, endpoint: str) -> list[str]:
    storage = vault.spec.storage
    given = storage.azure_blob.account_url if storage is not None and storage.azure_blob is not None else ""
    if not endpoint or given.rstrip("/") == endpoint.rstrip("/"):
        return []
    return [f"set storage.azureBlob.accountURL to {endpoint.rstrip('/')} (it is {given})"]


def _secret(vault: RecoveryVault, where: Namespace, key: Callable[[], str], *, make_secret: bool) -> list[str]:
    """Make the Secret that the vault logs in with; one that exists is never touched."""
    from farshore_operator.api.recoveryvault import BlobCredentialKind
    from farshore_operator.kube.resources import SECRET

    storage = vault.spec.storage
    assert storage is not None and storage.azure_blob is not None, "wished has looked"
    credential = storage.azure_blob.credential
    if credential is None or credential.kind is BlobCredentialKind.SERVICE_PRINCIPAL:
        who = "the principal" if credential is not None else "the identity of each process server's host"
        return [f"give {who} the role Storage Blob Data Contributor on the container"]
    name = credential.secret_ref.name
    if where.client.get(SECRET, where.name, name) is not None:
        return [f"Secret {name} is there, and stays as it is"]
    if not make_secret:
        return [
            f"Secret {name} is not there: make it, or repeat with --make-secret to have the account key put into it"
        ]
    if credential.kind is not BlobCredentialKind.ACCOUNT_KEY:
        raise StopFault(
            f"the vault logs in with a {credential.kind}, and only an account key can be put into a Secret here",
            f"Make the token yourself and put it into Secret {name}, or set kind: accountKey",
            reason="OtherCredential",
        )
    data = {credential.secret_key: base64.b64encode(key().encode()).decode()}
    where.create(SECRET, {"metadata": {"name": name, "namespace": where.name}, "type": "Opaque", "data": data})
    return [f"made: Secret {name} with the account key"]
