"""`farshore vault create`: storage account and container where the vault asks for them, once, and nothing of others."""

from __future__ import annotations

from typing import Any

import pytest
from tests.azure.doctor.played import NAMESPACE, PlayedCluster
from tests.azuresim import AzureSim
from tests.azuresim.authorization import grant_role
from typer.testing import CliRunner

from farshore_cli.commands.vault_create import make
from farshore_cli.dev.azurite import Azurite
from farshore_cli.doctoring.vault import checks_of
from farshore_cli.main import build
from farshore_engine.azure import cloud as cloud_module
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.replication import CheckResult
from farshore_operator.api import RecoveryVault
from farshore_operator.decide import recoveryvault
from farshore_operator.decide.references import SecretUse

ACCOUNT = "farshorevault"
WRITES = ("PUT", "PATCH", "DELETE")


class Scene:
    """A vault whose storage is not there yet, in the simulator."""

    def __init__(self, sim: AzureSim) -> None:
        self.sim, self.cluster, login = sim, PlayedCluster(), sim.credential()
        self.login(login.client_id, login.client_secret)
        self.azure: dict[str, Any] = {
            "subscription": sim.subscription, "resourceGroup": "rg", "vaultName": ACCOUNT, "region": sim.region,
            "credentialsSecretRef": {"name": "azure"}, "resourceManagerEndpoint": sim.endpoint,
            "authorityHost": sim.authority, "caBundle": sim.ca_bundle.read_text(),
        }  # fmt: skip
        self.blob: dict[str, Any] = {
            "accountURL": f"https://{ACCOUNT}.blob.core.windows.net", "container": "points",
            "credential": {"secretRef": {"name": "storage"}},
        }  # fmt: skip
        self.more: dict[str, Any] = {}

    def login(self, client: str, secret: str) -> None:
        kept = self.cluster.objects.setdefault("Secret", [])
        kept[:] = [one for one in kept if one["metadata"]["name"] != "azure"]
        self.cluster.secret("azure", tenantId=self.sim.tenant, clientId=client, clientSecret=secret)

    @property
    def vault(self) -> RecoveryVault:
        spec = {
            "storage": {"azureBlob": self.blob}, "azure": self.azure,
            "encryption": {"keySecretRef": {"name": "vault-key", "key": "key"}}, **self.more,
        }  # fmt: skip
        return RecoveryVault.of({"metadata": {"name": "v", "namespace": NAMESPACE}, "spec": spec})

    def make(self, make_secret: bool = False) -> list[str]:
        return make(self.vault, self.cluster.where, make_secret=make_secret)

    def writes(self) -> list[str]:
        return [one.path.rpartition("/providers/")[2] for one in self.sim.calls if one.method in WRITES]

    def stored(self, below: str = "") -> dict[str, Any]:
        group = f"/subscriptions/{self.sim.subscription}/resourceGroups/rg"
        return self.sim.store.need(f"{group}/providers/Microsoft.Storage/storageAccounts/{ACCOUNT}{below}").body


@pytest.fixture
def scene(sim: AzureSim) -> Scene:
    return Scene(sim)


def test_what_is_missing_is_made_once_and_safely(scene: Scene) -> None:
    said = scene.make()
    assert said[0] == f"made: storage account {ACCOUNT} (Standard_GRS, {scene.sim.region})"
    assert "made: container points" in said and "--make-secret" in said[-1]
    account = scene.stored()
    assert account["tags"] == {"farshore-owner": "farshore"} and account["sku"]["name"] == "Standard_GRS"
    wanted = {"minimumTlsVersion": "TLS1_2", "allowBlobPublicAccess": False, "supportsHttpsTrafficOnly": True}
    assert wanted.items() <= account["properties"].items()
    assert scene.stored("/blobServices/default/containers/points")["properties"]["publicAccess"] == "None"
    assert scene.stored("/blobServices/default")["properties"]["containerDeleteRetentionPolicy"]["days"] == 7
    before = len(scene.writes())
    assert scene.make()[0] == "everything was there" and len(scene.writes()) == before


def test_locks_come_with_versions_a_container_that_locks_and_an_end_of_former_versions(scene: Scene) -> None:
    scene.more = {"immutability": {"mode": "Locked", "period": "7d"}}
    scene.azure["redundancy"] = "Standard_ZRS"
    said = scene.make()
    assert "made: container points, with version-level immutability" in said
    assert scene.stored()["sku"]["name"] == "Standard_ZRS"
    assert scene.stored("/blobServices/default")["properties"]["isVersioningEnabled"] is True
    (rule,) = scene.stored("/managementPolicies/default")["properties"]["policy"]["rules"]
    assert rule["definition"]["filters"]["prefixMatch"] == ["points/"]
    assert set(rule["definition"]["actions"]) == {"version"}
    before = len(scene.writes())
    assert scene.make()[0] == "everything was there" and len(scene.writes()) == before


def test_a_creation_that_was_cut_off_is_finished(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_module, "TIMES", {**cloud_module.TIMES, "retry_total": 0})
    scene.sim.faults.server_error("PUT", "*/containers/points")
    with pytest.raises(WaitFault):
        scene.make()
    assert scene.make()[:1] == ["made: container points"]


def test_an_account_of_others_only_gets_the_container(scene: Scene) -> None:
    scene.sim.parts["storage"].account(ACCOUNT, "rg")
    scene.stored()["properties"]["minimumTlsVersion"] = "TLS1_0"
    said = scene.make()
    assert said[:2] == ["made: container points", f"left as it is: {ACCOUNT} takes TLS older than 1.2"]
    assert [one.rpartition("/")[2] for one in scene.writes()] == ["points"]
    scene.more = {"immutability": {"mode": "Locked", "period": "7d"}}
    with pytest.raises(StopFault, match="keeps no blob versions"):
        scene.make()


def name_is_taken(scene: Scene) -> None:
    scene.sim.group("others")
    scene.sim.parts["storage"].account(ACCOUNT, "others")


def policy_forbids(scene: Scene) -> None:
    scene.sim.faults.policy("PUT", "*/storageAccounts/*")


def may_only_read(scene: Scene) -> None:
    reader = scene.sim.principal("11111111-2222-3333-4444-555555555555", "reader-secret")
    grant_role(scene.sim, reader, "Reader", f"/subscriptions/{scene.sim.subscription}")
    scene.login(reader.client_id, reader.secret)


def group_is_missing(scene: Scene) -> None:
    scene.azure["resourceGroup"] = "gone"


def is_in_another_region(scene: Scene) -> None:
    scene.sim.parts["storage"].account(ACCOUNT, "rg")
    scene.stored()["location"] = "northeurope"


def holds_files_only(scene: Scene) -> None:
    scene.sim.parts["storage"].account(ACCOUNT, "rg", "FileStorage", "Premium_LRS")


def does_not_ask(scene: Scene) -> None:
    del scene.azure["region"]


def says_two_accounts(scene: Scene) -> None:
    scene.azure["vaultName"] = "another"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        pytest.param(name_is_taken, "NameTaken", id="name taken"),
        pytest.param(policy_forbids, "PolicyDenied", id="policy"),
        pytest.param(may_only_read, "AccessRefused", id="no right"),
        pytest.param(group_is_missing, "ResourceGroupNotFound", id="no group"),
        pytest.param(is_in_another_region, "BadAccount", id="another region"),
        pytest.param(holds_files_only, "BadAccount", id="file shares"),
        pytest.param(does_not_ask, "NotAsked", id="not asked for"),
        pytest.param(says_two_accounts, "TwoAccounts", id="two accounts"),
    ],
)
def test_each_refusal_says_what_to_do(scene: Scene, spoil: Any, reason: str) -> None:
    spoil(scene)
    with pytest.raises(Fault) as caught:
        scene.make()
    assert (caught.value.reason, bool(caught.value.remedy)) == (reason, True), caught.value


def test_the_secret_is_made_where_asked_and_never_touched(scene: Scene) -> None:
    said = scene.make(make_secret=True)
    assert said[-1] == "made: Secret storage with the account key"
    key = scene.cluster.where.secret("storage", "x")["accountKey"].decode()
    assert key in scene.sim.parts["storage"].keys_of(
        next(iter(scene.sim.store.of("Microsoft.Storage/storageAccounts")))
    )
    assert key not in str(said)
    assert scene.make(make_secret=True)[-1] == "Secret storage is there, and stays as it is"


@pytest.mark.parametrize(
    ("credential", "who"),
    [
        pytest.param(None, "the identity of each process server's host", id="no credential"),
        pytest.param({"kind": "servicePrincipal", "secretRef": {"name": "p"}}, "the principal", id="a principal"),
    ],
)
def test_a_login_by_token_needs_a_role_and_no_key(scene: Scene, credential: dict[str, Any] | None, who: str) -> None:
    scene.blob.pop("credential")
    if credential is not None:
        scene.blob["credential"] = credential
    assert scene.make(make_secret=True)[-1] == f"give {who} the role Storage Blob Data Contributor on the container"


def test_a_vault_made_that_way_passes_its_checks(scene: Scene, azurite: Azurite, container_name: str) -> None:
    scene.sim.parts["storage"].serve_with(azurite.connection_string)
    scene.blob |= {"accountURL": azurite.account_url, "container": container_name}
    scene.cluster.secret("vault-key", key=b"k" * 32)
    scene.make(make_secret=True)
    found = checks_of(scene.vault, scene.cluster.where)
    assert [one for one in found if one.result is CheckResult.ERROR] == []
    assert "Rights" in {one.name for one in found if one.result is CheckResult.PASSED}


def test_the_command(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.cluster.add("RecoveryVault", "v", scene.vault.dump()["spec"])
    monkeypatch.setattr("farshore_cli.doctoring.cluster.current", lambda _: scene.cluster.where)
    answer = CliRunner().invoke(build(), ["vault", "create", "v", "--make-secret"])
    assert answer.exit_code == 0 and "made: container points" in answer.output, answer.output


def test_a_refusal_ends_in_the_vaults_condition_until_it_is_mended(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = scene.cluster.add("RecoveryVault", "v", scene.vault.dump()["spec"])
    monkeypatch.setattr("farshore_cli.doctoring.cluster.current", lambda _: scene.cluster.where)
    scene.sim.faults.policy("PUT", "*/storageAccounts/*")
    answer = CliRunner().invoke(build(), ["vault", "create", "v"])
    assert answer.exit_code == 1 and isinstance(answer.exception, StopFault)
    missing = SecretUse("spec.storage.azureBlob.credential.secretRef", "storage", ("accountKey",))
    told = recoveryvault.judge(RecoveryVault.of(body), (missing,)).message
    assert "The last try was refused: PolicyDenied: cannot make storage account" in told and "exempted" in told
    assert CliRunner().invoke(build(), ["vault", "create", "v"]).exit_code == 0
    assert "refused" not in recoveryvault.judge(RecoveryVault.of(body), (missing,)).message


def test_the_condition_of_the_vault_says_who_makes_it(scene: Scene) -> None:
    missing = SecretUse("spec.storage.azureBlob.credential.secretRef", "storage", ("accountKey",))
    verdict = recoveryvault.judge(scene.vault, (missing,))
    assert verdict.reason == "SecretNotFound" and "farshore vault create v --make-secret" in verdict.message
    del scene.azure["region"]
    assert "vault create" not in recoveryvault.judge(scene.vault, (missing,)).message
