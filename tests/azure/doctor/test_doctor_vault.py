"""`farshore doctor vault` of a container: all that is in the way at once, and nothing is left behind by looking."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from pydantic import SecretBytes
from tests.azure.doctor.played import NAMESPACE, PlayedCluster, by_name, errors, named
from tests.contract.blob_container import blob_container
from tests.contract.keyvault_simulator import running
from typer.testing import CliRunner

from farshore_cli.dev.azurite import Azurite
from farshore_cli.doctoring.vault import checks_of
from farshore_cli.main import build
from farshore_engine.checklist import Checklist
from farshore_engine.contract.assignment import AzureBlobAccess
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.networkpath import path_to
from farshore_engine.vault.keycheck import check_key, try_key
from farshore_engine.vault.keyvault import KeyVaultKey
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.sastoken import check_token
from farshore_engine.vault.storagecheck import judge_account, judge_clock
from farshore_engine.vault.stores import open_store
from farshore_operator.api import RecoveryVault

KEY = b"k" * 32
NOW = datetime(2030, 1, 1, tzinfo=UTC)


class Scene:
    """A vault in a container of Azurite, and its Secrets."""

    def __init__(self, azurite: Azurite, container: str) -> None:
        self.azurite, self.container = azurite, container
        self.cluster = PlayedCluster()
        self.cluster.secret("storage", accountKey=azurite.key)
        self.cluster.secret("vault-key", key=KEY)
        self.spec: dict[str, Any] = {
            "storage": {
                "azureBlob": {
                    "accountURL": azurite.account_url, "container": container,
                    "credential": {"secretRef": {"name": "storage"}},
                }
            },
            "encryption": {"keySecretRef": {"name": "vault-key", "key": "key"}},
        }  # fmt: skip

    @property
    def blob(self) -> dict[str, Any]:
        found: dict[str, Any] = self.spec["storage"]["azureBlob"]
        return found

    def token(self, rights: str, ends: timedelta = timedelta(days=90)) -> None:
        """Log in with a token instead of the key."""
        text = generate_container_sas(
            self.azurite.account, self.container, account_key=self.azurite.key,
            permission=ContainerSasPermissions.from_string(rights), expiry=datetime.now(UTC) + ends,
        )  # fmt: skip
        self.cluster.secret("token", sasToken=text)
        self.blob["credential"] = {"kind": "sasToken", "secretRef": {"name": "token"}}

    def checks(self, **more: Any) -> tuple[Check, ...]:
        meta = {"name": "v", "namespace": NAMESPACE}
        return checks_of(RecoveryVault.of({"metadata": meta, "spec": self.spec}), self.cluster.where, **more)

    def names(self) -> list[str]:
        return list(self.store.list(""))

    @property
    def store(self) -> Any:
        from pydantic import SecretStr

        key = SecretStr(self.azurite.key)
        return open_store(AzureBlobAccess(account_url=self.azurite.account_url, container=self.container,
                                          account_key=key))  # fmt: skip


@pytest.fixture
def scene(azurite: Azurite, container_name: str) -> Iterator[Scene]:
    with blob_container(azurite, container_name):
        yield Scene(azurite, container_name)


def test_a_vault_in_order_and_nothing_is_left_behind(scene: Scene) -> None:
    found = by_name(scene.checks())
    assert errors(tuple(found.values())) == set()
    assert "is this host" in found["NetworkPath"].message and "HTTPS" in found["NetworkPath"].message
    assert "StorageV2" in found["Account"].message
    assert "nothing was written" in found["Rights"].message
    assert found["Format"].message.startswith("there is no vault yet")
    assert found["DataKeys"].result is CheckResult.SKIPPED
    assert scene.names() == []


def test_a_vault_with_a_machine_is_opened_and_another_key_is_told(scene: Scene) -> None:
    MachineVault.open(scene.store, KEY, "shop.web", create=True).close()
    before = scene.names()
    assert by_name(scene.checks())["DataKeys"].message == "the keys open 1 machines"
    scene.cluster.objects["Secret"] = [one for one in scene.cluster.objects["Secret"] if "key" not in one["data"]]
    scene.cluster.secret("vault-key", key=b"x" * 32)
    found = scene.checks()
    assert errors(found) == {"DataKeys"}
    assert "key" in by_name(found)["DataKeys"].remedy and scene.names() == before


def test_all_that_is_missing_is_said_at_once(scene: Scene) -> None:
    scene.blob["container"] = "another-one"
    scene.spec["encryption"] = {"keySecretRef": {"name": "nowhere", "key": "key"}}
    found = scene.checks(now=lambda: datetime.now(UTC) + timedelta(hours=1))
    assert errors(found) == {"Container", "KeySecret", "Clock"}
    assert "Create the container" in by_name(found)["Container"].remedy
    assert "s ahead of Azure's" in by_name(found)["Clock"].message


def test_a_name_that_does_not_resolve_skips_what_hangs_on_it(scene: Scene) -> None:
    def nobody(_: str) -> tuple[str, ...]:
        raise OSError("no such name")

    found = scene.checks(resolve=nobody)
    assert errors(found) == {"NetworkPath"} and "DNS" in by_name(found)["NetworkPath"].remedy
    assert {"Login", "Container", "Rights"} <= named(found, CheckResult.SKIPPED)
    assert by_name(found)["Key"].result is CheckResult.PASSED


def test_a_wrong_account_key_is_told_once_and_never_shown(scene: Scene) -> None:
    wrong = "d3Jvbmcga2V5IHRoYXQgbXVzdCBub3QgYmUgc2hvd24="
    scene.cluster.objects["Secret"] = [one for one in scene.cluster.objects["Secret"] if "key" in one["data"]]
    scene.cluster.secret("storage", accountKey=wrong)
    found = scene.checks()
    assert errors(found) == {"Login"} and wrong not in str(found)


def test_locks_that_are_asked_for_and_not_there(scene: Scene) -> None:
    scene.spec["immutability"] = {"mode": "Locked", "period": "7d"}
    assert errors(scene.checks()) == {"Immutability"}


@pytest.mark.parametrize(
    ("rights", "wrong"),
    [
        pytest.param("racwdl", set(), id="all"),
        pytest.param("racwl", {"Credential", "Rights"}, id="no delete"),
        pytest.param("rl", {"Credential", "Rights"}, id="read only"),
        pytest.param("racwd", {"Credential", "Container"}, id="no list"),
    ],
)
def test_a_token_is_judged_by_what_it_says_and_by_what_it_can(scene: Scene, rights: str, wrong: set[str]) -> None:
    scene.token(rights)
    found = scene.checks()
    assert errors(found) == wrong
    assert "sig=" not in str(found)
    assert scene.names() == []


def test_the_command_prints_all_and_fails(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farshore_cli.doctoring.vault.current", lambda _: scene.cluster.where)
    scene.cluster.add("RecoveryVault", "v", scene.spec)
    answer = CliRunner().invoke(build(), ["doctor", "vault", "v", "-o", "json"])
    assert answer.exit_code == 0, answer.output
    assert {one["name"] for one in json.loads(answer.output)} >= {"NetworkPath", "Login", "Container", "Rights", "Key"}
    scene.spec["encryption"] = {"keySecretRef": {"name": "nowhere", "key": "key"}}
    answer = CliRunner().invoke(build(), ["doctor", "vault", "v"], env={"COLUMNS": "200"})
    assert answer.exit_code == 1
    assert "machines cannot replicate into vault v: 1 error" in answer.output and "Create it" in answer.output


def test_a_vault_that_is_not_there_is_said(scene: Scene) -> None:
    with pytest.raises(StopFault, match="no RecoveryVault other in namespace shop"):
        scene.cluster.where.need(RecoveryVault, "other")


def test_a_directory_of_the_process_servers_is_not_looked_for_here(tmp_path: Path) -> None:
    cluster = PlayedCluster()
    cluster.secret("vault-key", key=KEY)
    spec = {
        "storage": {"directory": {"path": str(tmp_path / "elsewhere")}},
        "encryption": {"keySecretRef": {"name": "vault-key", "key": "key"}},
    }
    vault = RecoveryVault.of({"metadata": {"name": "v", "namespace": NAMESPACE}, "spec": spec})
    found = checks_of(vault, cluster.where)
    assert errors(found) == set() and "Directory" in named(found, CheckResult.SKIPPED)
    (tmp_path / "elsewhere").mkdir()
    assert by_name(checks_of(vault, cluster.where))["Format"].result is CheckResult.PASSED


ACCOUNTS = [
    pytest.param("Standard_GRS", "StorageV2", "false", True, None, id="general purpose v2"),
    pytest.param("Premium_LRS", "BlockBlobStorage", "false", True, None, id="premium block blobs"),
    pytest.param("Premium_LRS", "FileStorage", "false", False, StopFault, id="premium file shares"),
    pytest.param("Premium_LRS", "StorageV2", "false", False, StopFault, id="premium page blobs"),
    pytest.param("Standard_LRS", "StorageV2", "true", False, WaitFault, id="hierarchical namespace"),
    pytest.param("Standard_LRS", "StorageV2", "true", True, StopFault, id="hierarchical namespace, locks wanted"),
    pytest.param("Standard_LRS", "Storage", "false", False, WaitFault, id="general purpose v1"),
    pytest.param("Standard_LRS", "Storage", "false", True, StopFault, id="general purpose v1, locks wanted"),
]


@pytest.mark.parametrize(("sku", "kind", "hns", "locks", "fault"), ACCOUNTS)
def test_kinds_of_account(sku: str, kind: str, hns: str, locks: bool, fault: type[Fault] | None) -> None:
    said = {"sku_name": sku, "account_kind": kind, "is_hns_enabled": hns}
    if fault is None:
        assert kind in judge_account(said, locks=locks)
        return
    with pytest.raises(fault) as caught:
        judge_account(said, locks=locks)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("seconds", "fault"), [(0, None), (-200, None), (400, WaitFault), (-1000, StopFault)],
    ids=["agrees", "a little", "much", "too much"],
)  # fmt: skip
def test_clocks(seconds: int, fault: type[Fault] | None) -> None:
    if fault is None:
        assert judge_clock(NOW, NOW + timedelta(seconds=seconds))
        return
    with pytest.raises(fault, match=f"{abs(seconds)} s"):
        judge_clock(NOW, NOW + timedelta(seconds=seconds))


@pytest.mark.parametrize(
    ("token", "locks", "fault"),
    [
        pytest.param("sp=racwdl&se=2030-06-01&sr=c&sig=x", False, None, id="good"),
        pytest.param("?sp=racwdli&se=2030-06-01T00:00:00Z&sr=c&sig=x", True, None, id="may lock"),
        pytest.param("sp=racwdl&se=2030-06-01&sr=c&sig=x", True, StopFault, id="may not lock"),
        pytest.param("sp=racwdl&se=2029-06-01&sr=c&sig=x", False, StopFault, id="ended"),
        pytest.param("sp=racwdl&se=2030-01-05&sr=c&sig=x", False, WaitFault, id="ends soon"),
        pytest.param("sp=racwdl&se=2030-06-01&sr=b&sig=x", False, StopFault, id="of one blob"),
        pytest.param("sp=racwdl&se=2030-06-01&srt=o&ss=b&sig=x", False, StopFault, id="of an account, objects only"),
        pytest.param("sp=racwdl&se=2030-06-01&srt=sco&ss=b&sig=x", False, None, id="of an account"),
        pytest.param("si=policy&sr=c&sig=x", False, None, id="by an access policy"),
        pytest.param("sp=racwdl", False, StopFault, id="cut off"),
    ],
)
def test_tokens(token: str, locks: bool, fault: type[Fault] | None) -> None:
    if fault is None:
        assert check_token(token, locks=locks, now=NOW)
        return
    with pytest.raises(fault):
        check_token(token, locks=locks, now=NOW)


@pytest.mark.parametrize(
    ("addresses", "said"),
    [
        pytest.param(("52.239.1.1",), "the public endpoint", id="public"),
        pytest.param(("10.1.0.9",), "a private endpoint", id="private"),
        pytest.param(("10.1.0.9", "52.239.1.1"), "the public endpoint", id="both"),
        pytest.param(("127.0.0.1",), "is this host", id="here"),
    ],
)
def test_the_path_is_told_by_the_addresses(
    addresses: tuple[str, ...], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    monkeypatch.delenv("https_proxy", raising=False)
    path = path_to("https://contoso.blob.core.windows.net", lambda _: addresses)
    assert said in path.describe() and path.port == 443


def test_a_proxy_resolves_names_itself_and_its_login_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://user:hidden@proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    path = path_to("https://contoso.blob.core.windows.net", lambda _: ())
    assert path.describe().endswith("through the HTTPS proxy proxy.example:3128") and "hidden" not in str(path)
    assert path_to("https://inside.example", lambda _: ("10.0.0.1",)).proxy == ""


def test_a_key_in_key_vault_is_tried_there(tmp_path: Path) -> None:
    with running(tmp_path) as vault:
        vault.new_version("farshore")
        key = KeyVaultKey.connect(vault.access("farshore"), **vault.options)
        assert f"({vault.address}/keys/farshore)" in try_key(key)
        vault.granted.discard("unwrapKey")
        with pytest.raises(StopFault, match="access refused"):
            try_key(key)


def test_a_key_that_is_none() -> None:
    found = Checklist()
    assert check_key(found, SecretBytes(b"short")) is None
    assert errors(tuple(found.lines)) == {"Key"}
