"""`farshore vault` with nothing but the storage credential and the key: as a process, on the real stores."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient
from tests.contract.vault_cli import Terminal
from tests.unit.vault.rig import KEK, Rig

from farshore_engine.contract.points import Consistency
from farshore_engine.vault.azure_store import AzureBlobStore
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.store import ObjectStore


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(base64.b64encode(KEK).decode() + "\n")
    return path


@pytest.fixture(params=["directory", "azure"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, key_file: Path, container_name: str
) -> Iterator[tuple[ObjectStore, Terminal]]:
    """A store, and a terminal whose environment says where it is."""
    terminal = Terminal(tmp_path / "home", {"FARSHORE_VAULT_KEY_FILE": str(key_file)})
    if request.param == "directory":
        terminal.environment["FARSHORE_VAULT_DIRECTORY"] = str(tmp_path / "vault")
        (tmp_path / "vault").mkdir()
        yield DirectoryStore(tmp_path / "vault"), terminal
        return
    azurite = request.getfixturevalue("azurite")
    terminal.environment |= {
        "FARSHORE_VAULT_ACCOUNT_URL": azurite.account_url,
        "FARSHORE_VAULT_CONTAINER": container_name,
        "AZURE_STORAGE_KEY": azurite.key,
    }
    with BlobServiceClient(azurite.account_url, credential=azurite.key) as service:
        service.create_container(container_name)
        yield AzureBlobStore.connect(azurite.account_url, container_name, azurite.key), terminal
        service.delete_container(container_name)


def test_machines_and_points_are_listed(place: tuple[ObjectStore, Terminal]) -> None:
    store, terminal = place
    rig, other = Rig(store), Rig(store, machine="team-b.web")
    first = rig.point("sda", {1: 1})
    rig.write("sda", {2: 2})
    second = rig.commit(Consistency.APP)
    other.point("sda", {1: 1})
    rig.vault.pin(rig.vault.find(first.name), "run-7")
    listed = json.loads(terminal.ok("list", "-o", "json"))["machines"]
    assert [(row["machine"], row["points"]) for row in listed] == [("team-a.db", 2), ("team-b.web", 1)]
    for machine in ("db", "team-a.db"):
        told = json.loads(terminal.ok("list", machine, "-o", "json"))
        assert [point["name"] for point in told["points"]] == [second.name, first.name]
        assert [point["pins"] for point in told["points"]] == [[], ["run-7"]]
    table = terminal.ok("list", "db")
    assert second.name in table and "app" in table and "run-7" in table
    store.delete(rig.vault.access.names.slot(rig.vault.find(first.name).slot))
    assert "it is missing" in terminal.ok("list", "db")
    assert "team-a.db" in terminal.run("list", "nobody").stderr


def test_a_pin_that_nobody_will_release_is_released_by_hand(place: tuple[ObjectStore, Terminal]) -> None:
    store, terminal = place
    rig = Rig(store)
    point = rig.point("sda", {1: 1})
    rig.vault.pin(rig.vault.find(point.name), "export-of-a-dead-laptop")
    assert "export-of-a-dead-laptop" in terminal.run("unpin", "db", point.name, "another").stderr
    terminal.ok("unpin", "db", point.name, "export-of-a-dead-laptop")
    assert rig.vault.find(point.name).pins == ()


def manifests(vault: Path, *, encoded: bool) -> str:
    key = base64.b64encode(KEK).decode()
    secret = f"data: {{key: {base64.b64encode(key.encode()).decode()}}}" if encoded else f"stringData: {{key: {key}}}"
    return f"""
apiVersion: farshore.dev/v1alpha1
kind: RecoveryVault
metadata: {{name: main}}
spec:
  storage: {{directory: {{path: {vault}}}}}
  encryption: {{keySecretRef: {{name: vault-key, key: key}}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: vault-key}}
{secret}
"""


@pytest.mark.parametrize("encoded", [True, False], ids=["data", "stringData"])
def test_the_manifests_from_git_are_enough(tmp_path: Path, encoded: bool) -> None:
    rig = Rig(DirectoryStore(tmp_path / "vault"))
    point = rig.point("sda", {1: 1})
    text = manifests(tmp_path / "vault", encoded=encoded)
    (tmp_path / "all.yaml").write_text(text)
    vault, secret = text.split("---")
    (tmp_path / "vault.yaml").write_text(vault)
    (tmp_path / "secret.yaml").write_text(secret)
    terminal = Terminal(tmp_path / "home")
    for files in (["all.yaml"], ["vault.yaml", "secret.yaml"]):
        words = [word for name in files for word in ("--vault-file", str(tmp_path / name))]
        assert point.name in terminal.ok("list", "db", *words)
    piped = terminal.run("list", "db", "--vault-file", "-", stdin=text)
    assert point.name in piped.stdout, piped.stderr
    alone = terminal.run("list", "db", "--vault-file", str(tmp_path / "vault.yaml"))
    assert alone.returncode == 1
    assert "vault-key" in alone.stderr


def test_a_blob_vault_from_git_with_its_credential(
    azurite: object, tmp_path: Path, container_name: str, key_file: Path
) -> None:
    account_url, key = azurite.account_url, azurite.key  # type: ignore[attr-defined]
    with BlobServiceClient(account_url, credential=key) as service:
        service.create_container(container_name)
        point = Rig(AzureBlobStore.connect(account_url, container_name, key)).point("sda", {1: 1})
        (tmp_path / "vault.yaml").write_text(
            f"""
kind: RecoveryVault
metadata: {{name: main}}
spec:
  storage:
    azureBlob:
      accountURL: {account_url}
      container: {container_name}
      credential: {{secretRef: {{name: blob}}}}
  encryption: {{keySecretRef: {{name: vault-key, key: key}}}}
---
kind: Secret
metadata: {{name: blob}}
stringData: {{accountKey: {key}}}
"""
        )
        terminal = Terminal(tmp_path / "home")
        told = terminal.ok("list", "db", "--vault-file", str(tmp_path / "vault.yaml"), "--key-file", str(key_file))
        assert point.name in told
        for content in (key, azurite.connection_string):  # type: ignore[attr-defined]
            (tmp_path / "credential").write_text(content + "\n")
            words = ["--account-url", account_url, "--container", container_name, "--key-file", str(key_file)]
            assert point.name in terminal.ok("list", "db", *words, "--credential-file", str(tmp_path / "credential"))
        service.delete_container(container_name)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param([], "--vault-file", id="nothing said"),
        pytest.param(["--directory", "no/such/place"], "no directory", id="a wrong path"),
        pytest.param(["--directory", "."], "there is no vault here", id="not a vault"),
        pytest.param(["--container", "c", "--account-url", "http://127.0.0.1:9/a"], "credential", id="no credential"),
        pytest.param(["--directory", ".", "--key-file", "none"], "cannot be read from none", id="no key file"),
        pytest.param(["--vault-file", "none.yaml"], "none.yaml", id="no manifest"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, key_file: Path, words: list[str], told: str) -> None:
    terminal = Terminal(tmp_path / "home", {"FARSHORE_VAULT_KEY_FILE": str(key_file)})
    done = terminal.run("list", *words)
    assert done.returncode == 1
    assert told in done.stderr
    assert "what to do" in done.stderr
    assert list((tmp_path / "home").iterdir()) == []
