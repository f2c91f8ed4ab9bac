"""`farshore vault` with nothing but the storage credential and the key: as a process, on the real stores."""

from __future__ import annotations

import base64
import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from tests.contract.blob_container import blob_store
from tests.contract.vault_cli import Terminal
from tests.unit.vault.rig import KEK, Rig
from tests.unit.vault.test_integrity import flip, pack_name, refs_at

from farshore_cli.dev.azurite import Azurite
from farshore_cli.vaultplace import Place
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.points import Consistency
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
    with blob_store(azurite, container_name) as store:
        yield store, terminal


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
    azurite: Azurite, tmp_path: Path, container_name: str, key_file: Path
) -> None:
    account_url, key = azurite.account_url, azurite.key
    with blob_store(azurite, container_name) as store:
        point = Rig(store).point("sda", {1: 1})
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
        for content in (key, azurite.connection_string):
            (tmp_path / "credential").write_text(content + "\n")
            words = ["--account-url", account_url, "--container", container_name, "--key-file", str(key_file)]
            assert point.name in terminal.ok("list", "db", *words, "--credential-file", str(tmp_path / "credential"))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        pytest.param({}, "--vault-file", id="nothing said"),
        pytest.param({"directory": Path("no/such/place")}, "no directory", id="a wrong path"),
        pytest.param({"container": "c", "account_url": "http://127.0.0.1:9/a"}, "credential", id="no credential"),
        pytest.param({"container": "c", "directory": Path()}, "both", id="two places"),
        pytest.param({"directory": Path(), "key_file": Path("none")}, "cannot be read from none", id="no key file"),
        pytest.param({"vault_file": (Path("none.yaml"),)}, "none.yaml", id="no manifest"),
    ],
)
def test_what_is_missing_is_said(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, Any], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StopFault) as caught:
        Place(**({"key_file": key_file, "environment": {}} | given)).access()
    assert told in str(caught.value) and caught.value.remedy
    assert list(tmp_path.iterdir()) == [key_file]


def test_a_place_without_a_vault_is_said_and_left_alone(tmp_path: Path, key_file: Path) -> None:
    terminal = Terminal(tmp_path / "home", {"FARSHORE_VAULT_KEY_FILE": str(key_file)})
    done = terminal.run("list", "--directory", ".")
    assert done.returncode == 1
    assert "there is no vault here" in done.stderr and "what to do" in done.stderr
    assert list((tmp_path / "home").iterdir()) == []


def test_a_check_tells_sound_from_spoiled_from_unknown(place: tuple[ObjectStore, Terminal], tmp_path: Path) -> None:
    store, terminal = place
    rig = Rig(store, pack_target=1 << 17)
    first = rig.point("sda", {1: 1, 2: 2}).name
    second = rig.point("sda", {2: 22, 3: 33}).name
    sound = terminal.run("check", "--read-data")
    assert (sound.returncode, "2 points, 0 of them spoiled" in sound.stdout) == (0, True), sound.stdout + sound.stderr
    ref = refs_at(rig, second)[3]
    flip(rig, pack_name(rig, ref), int(ref["offset"]))
    assert terminal.run("check").returncode == 0
    spoiled = terminal.run("check", "db", "--read-data", "-o", "json")
    assert spoiled.returncode == 3
    (machine,) = json.loads(spoiled.stdout)["machines"]
    assert machine["spoiledPoints"] == [second]
    (finding,) = machine["findings"]
    assert finding | {"why": ""} == {
        "object": pack_name(rig, ref), "point": second, "disk": "sda", "blocks": [{"first": 3, "count": 1}], "why": "",
    }  # fmt: skip
    assert terminal.run("check", "db", "--read-data", "--point", first).returncode == 0
    (tmp_path / "wrong").write_bytes(bytes(32))
    unknown = terminal.run("check", "--key-file", str(tmp_path / "wrong"))
    assert unknown.returncode == 1
    assert "key" in unknown.stdout
    store.delete(rig.vault.access.names.key)
    lost = terminal.run("check")
    assert lost.returncode == 3
    assert "team-a.db: SPOILED" in lost.stdout


def test_a_check_of_a_store_that_is_away_cannot_tell(tmp_path: Path, key_file: Path) -> None:
    words = ["--account-url", "http://127.0.0.1:9/a", "--container", "c", "--key-file", str(key_file)]
    away = Terminal(tmp_path / "home", {"AZURE_STORAGE_KEY": "a2V5", "FARSHORE_VAULT_PATIENCE": "1"})
    assert away.run("check", *words).returncode == 1


def test_points_are_exported_exactly(place: tuple[ObjectStore, Terminal], tmp_path: Path) -> None:
    store, terminal = place
    rig = Rig(store, pack_target=1 << 20)
    rig.write("sda", {i: i + 1 for i in range(20)}, 40 * 65536 + 512)
    rig.write("sdb", {3: 3}, 5 * 65536)
    rig.clock.now += timedelta(minutes=5)
    first = rig.commit()
    second = rig.point("sda", {1: 77})
    told = terminal.run("export", "db", first.name, "out.raw")
    assert told.returncode == 1 and "{disk}" in told.stderr
    (tmp_path / "home/all").mkdir()
    terminal.ok("export", "db", second.name, "all/")
    for disk in ("sda", "sdb"):
        assert (tmp_path / f"home/all/{disk}.raw").read_bytes() == rig.points[second.name][disk]
    terminal.ok("export", "team-a.db", first.time.isoformat(), "old-{disk}.img", "--disk", "sda")
    assert (tmp_path / "home/old-sda.img").read_bytes() == rig.points[first.name]["sda"]
    again = terminal.run("export", "db", second.name, "old-sda.img", "--disk", "sda")
    assert again.returncode == 1 and "--force" in again.stderr
    assert (tmp_path / "home/old-sda.img").read_bytes() == rig.points[first.name]["sda"]
    terminal.ok("export", "db", "Latest", "old-sda.img", "--disk", "sda", "--force")
    assert (tmp_path / "home/old-sda.img").read_bytes() == rig.points[second.name]["sda"]
    assert all(point.pins == () for point in rig.open().catalogue().points)


def test_a_spoiled_point_is_not_exported_and_the_others_are(tmp_path: Path, key_file: Path) -> None:
    rig = Rig(DirectoryStore(tmp_path / "vault"), pack_target=1 << 17)
    first = rig.point("sda", {1: 1, 2: 2}).name
    second = rig.point("sda", {2: 22, 3: 33}).name
    terminal = Terminal(tmp_path / "home", {"FARSHORE_VAULT_KEY_FILE": str(key_file)})
    terminal.environment["FARSHORE_VAULT_DIRECTORY"] = str(tmp_path / "vault")
    lost = pack_name(rig, refs_at(rig, second)[3])
    rig.store.delete(lost)
    refused = terminal.run("export", "db", second, "image")
    assert refused.returncode == 1
    assert "is damaged" in refused.stderr and lost in refused.stderr
    assert not list((tmp_path / "home").iterdir())
    terminal.ok("export", "db", first, "image")
    assert (tmp_path / "home/image").read_bytes() == rig.points[first]["sda"]


def test_an_export_that_stops_at_a_flipped_bit_leaves_no_file_and_keeps_the_one_that_was_there(
    tmp_path: Path, key_file: Path
) -> None:
    """Half a disk under the name that was asked for looked like a whole one."""
    rig = Rig(DirectoryStore(tmp_path / "vault"), pack_target=1 << 17)
    first = rig.point("sda", {i: i + 1 for i in range(20)}, 20 * 65536).name
    second = rig.point("sda", {19: 77}).name
    lost = pack_name(rig, refs_at(rig, second)[19])
    flip(rig, lost, int(refs_at(rig, second)[19]["offset"]) + 20)
    terminal = Terminal(tmp_path / "home", {"FARSHORE_VAULT_KEY_FILE": str(key_file)})
    terminal.environment["FARSHORE_VAULT_DIRECTORY"] = str(tmp_path / "vault")
    image = tmp_path / "home/image"
    for words in ((), ("--format", "vhd")):
        stopped = terminal.run("export", "db", second, "image", *words)
        assert stopped.returncode == 1 and lost.rpartition("/")[2] in stopped.stderr
        assert not image.exists()
    terminal.ok("export", "db", first, "image")  # what is left of the other is in nobody's way
    assert image.read_bytes() == rig.points[first]["sda"]
    assert not list((tmp_path / "home").glob("*.part*"))
    assert terminal.run("export", "db", second, "image", "--force").returncode == 1
    assert image.read_bytes() == rig.points[first]["sda"]
    (tmp_path / "home/other.part").write_bytes(b"somebody's own")
    refused = terminal.run("export", "db", first, "other")
    assert refused.returncode == 1 and "other.part is there" in refused.stderr
    terminal.ok("export", "db", first, "image")


def test_an_export_in_other_formats(tmp_path: Path, key_file: Path) -> None:
    rig = Rig(DirectoryStore(tmp_path / "vault"))
    point = rig.point("sda", {1: 1, 30: 30}, 32 * 65536)
    terminal = Terminal(tmp_path / "home", {"FARSHORE_VAULT_KEY_FILE": str(key_file)})
    terminal.environment["FARSHORE_VAULT_DIRECTORY"] = str(tmp_path / "vault")
    terminal.ok("export", "db", "Latest", "image", "--format", "vhd")
    data = (tmp_path / "home/image").read_bytes()
    assert data[: 32 * 65536] == rig.points[point.name]["sda"] and data[-512:-504] == b"conectix"
    refused = terminal.run("export", "db", "Latest", "image")
    assert refused.returncode == 1 and "--force" in refused.stderr
    terminal.ok("export", "db", "Latest", "image", "--format", "qcow2", "--force")
    subprocess.run(["qemu-img", "convert", "-O", "raw", "image", "raw"], cwd=tmp_path / "home", check=True)
    assert (tmp_path / "home/raw").read_bytes() == rig.points[point.name]["sda"]


def test_a_killed_export_goes_on_and_lets_go_of_its_pin(tmp_path: Path, key_file: Path) -> None:
    rig = Rig(DirectoryStore(tmp_path / "vault"))
    point = rig.point("sda", {i: i + 1 for i in range(1000)}, 1000 * 65536)
    terminal = Terminal(tmp_path / "home", {"FARSHORE_VAULT_KEY_FILE": str(key_file)})
    terminal.environment["FARSHORE_VAULT_DIRECTORY"] = str(tmp_path / "vault")
    caught = False
    while not caught:  # it may end before it is killed
        with terminal.started("export", "db", point.name, "image") as process:
            while process.poll() is None and not (tmp_path / "home/image.part").exists():
                time.sleep(0.005)
            process.kill()
            process.wait()
        caught = (tmp_path / "home/image.part").exists()
        assert (tmp_path / "home/image").exists() != caught, "a file has its name when all of it is there"
        (tmp_path / "home/image").unlink(missing_ok=True)
    terminal.ok("export", "db", point.name, "image")
    assert (tmp_path / "home/image").read_bytes() == rig.points[point.name]["sda"]
    assert rig.vault.find(point.name).pins == ()


def test_an_export_that_may_not_write_goes_on_unpinned_and_says_so(
    azurite: Azurite, tmp_path: Path, container_name: str, key_file: Path
) -> None:
    account_url, key = azurite.account_url, azurite.key
    with blob_store(azurite, container_name) as store:
        rig = Rig(store)
        point = rig.point("sda", {1: 1})
        sas = generate_container_sas(
            azurite.account,
            container_name,
            account_key=key,
            permission=ContainerSasPermissions(read=True, list=True),
            expiry=datetime.now(UTC) + timedelta(hours=1),
        )
        words = ["--account-url", account_url, "--container", container_name, "--key-file", str(key_file)]
        terminal = Terminal(tmp_path / "home", {"AZURE_STORAGE_SAS_TOKEN": sas})
        done = terminal.run("export", "db", point.name, "image", *words)
        assert done.returncode == 0, done.stderr
        assert "not held against pruning" in done.stderr
        assert (tmp_path / "home/image").read_bytes() == rig.points[point.name]["sda"]


def test_no_secret_is_taken_from_or_shown_on_a_command_line(tmp_path: Path, key_file: Path) -> None:
    """Invariant 10: the options that carry secrets name files, and messages do not repeat what is in them."""
    secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQ="
    terminal = Terminal(tmp_path / "home", {"AZURE_STORAGE_KEY": secret})
    (tmp_path / "bad").write_text(f"kind: Secret\nmetadata: {{name: x}}\ndata: {{key: '{secret}!'\n")
    (tmp_path / "key").write_text(secret)
    for words in (
        ["--vault-file", str(tmp_path / "bad")],
        ["--directory", ".", "--key-file", str(tmp_path / "key")],
        ["--account-url", "http://127.0.0.1:9/a", "--container", "c", "--key-file", str(key_file)],
    ):
        done = terminal.run("list", *words, FARSHORE_VAULT_PATIENCE="1")
        assert done.returncode == 1
        assert secret[:-1] not in done.stderr + done.stdout
