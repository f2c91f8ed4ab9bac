"""`farshore site discover`: the machines of a Hub, what protects them, and manifests for the rest."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from tests.azure.hub.conftest import GROUP, SIZE, add
from tests.azuresim import AzureSim, seeds
from typer.testing import CliRunner

from farshore_cli.commands import site as command
from farshore_cli.discovering import Wishes, discovered, written
from farshore_cli.discovery import OPEN, Discovery, as_json
from farshore_cli.main import build
from farshore_engine.contract.faults import StopFault
from farshore_operator.api import ProtectedVM
from farshore_operator.kube.client import Client

NAMESPACE = "shop"


class Cluster:
    """The objects of a namespace, as the API server lists them."""

    def __init__(self, sim: AzureSim) -> None:
        given = sim.credential()
        login = {"tenantId": given.tenant_id, "clientId": given.client_id, "clientSecret": given.client_secret}
        data = {key: base64.b64encode(value.encode()).decode() for key, value in login.items()}
        hub = {
            "resourceManagerEndpoint": sim.endpoint, "subscription": sim.subscription, "resourceGroup": GROUP,
            "region": sim.region, "caBundle": sim.ca_bundle.read_text(), "credentialsSecretRef": {"name": "hub-login"},
        }  # fmt: skip
        self.objects: dict[str, list[dict[str, Any]]] = {"Secret": [self.named("hub-login") | {"data": data}]}
        self.add("Site", "stack", {"provider": "azureStackHub", "azureStackHub": hub})

    def named(self, name: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "namespace": NAMESPACE}}

    def add(self, kind: str, name: str, spec: dict[str, Any], **more: Any) -> None:
        body = {"apiVersion": "farshore.dev/v1alpha1", "kind": kind, **self.named(name), "spec": spec, **more}
        self.objects.setdefault(kind, []).append(body)

    def protect(self, name: str, address: str, machine: str = "") -> None:
        source = {"siteRef": {"name": "stack"}, "address": address, **({"machine": machine} if machine else {})}
        refs = {"policyRef": {"name": "standard"}, "vaultRef": {"name": "vault"}}
        self.add("ProtectedVM", name, {"source": source, **refs, "target": {"siteRef": {"name": "shore"}}})

    def get(self, kind: Any, namespace: str, name: str) -> dict[str, Any] | None:
        return next((one for one in self.list_all(kind, namespace) if one["metadata"]["name"] == name), None)

    def list_all(self, kind: Any, namespace: str) -> list[dict[str, Any]]:
        return self.objects.get(kind.kind, [])


@pytest.fixture
def cluster(sim: AzureSim, subnet: str) -> Cluster:
    add(sim, subnet, "web-01", "10.1.0.4")
    add(sim, subnet, "renamed", "10.1.0.5")
    add(sim, subnet, "Till.7", "10.1.0.6", running=False)
    add(sim, subnet, "ps", "10.1.0.100")
    data = seeds.disk(sim, GROUP, "win-data", gib=10)
    disk = seeds.disk(sim, GROUP, "win-os", gib=30, os_type="Windows")
    seeds.machine(sim, GROUP, "win", disk, [seeds.nic(sim, GROUP, "win-nic", subnet, "10.1.0.8")], [data], size=SIZE)
    made = Cluster(sim)
    made.protect("web-01", "web.example")
    made.protect("database", "10.1.0.5")
    made.protect("gone", "10.1.0.99")
    appliance = {
        "version": "1", "address": "10.1.0.100", "dataPort": 9443, "lastContact": "2030-01-01T00:00:00Z",
        "clockSkewSeconds": 0, "spool": {"usedBytes": 0, "sizeBytes": 1},
    }  # fmt: skip
    made.add("ProcessServer", "ps-1", {"siteRef": {"name": "stack"}}, status={"appliance": appliance})
    return made


def look(cluster: Cluster, **wishes: str) -> tuple[Discovery, dict[str, str]]:
    return discovered(cast(Client, cluster), "stack", Wishes(NAMESPACE, **wishes))


def test_machines_are_matched_by_address_and_by_name(cluster: Cluster) -> None:
    found, _ = look(cluster)
    by = {one.machine.name: one.protected_by or one.process_server for one in found.found}
    assert by == {"web-01": "web-01", "renamed": "database", "Till.7": "", "ps": "ps-1", "win": ""}
    assert [one.machine.name for one in found.unprotected] == ["Till.7", "win"]
    assert found.lost == ("gone",)


def test_what_programs_get_says_the_same(cluster: Cluster) -> None:
    shown = json.loads(json.dumps(as_json(look(cluster)[0])))
    assert shown["unprotected"] == ["Till.7", "win"] and shown["withoutMachine"] == ["gone"]
    win = next(one for one in shown["machines"] if one["name"] == "win")
    assert (win["privateAddresses"], win["osType"], win["state"]) == (["10.1.0.8"], "windows", "running")
    assert [(one["lun"], one["bytes"] >> 30) for one in win["disks"]] == [(None, 30), (0, 10)]


def test_manifests_are_valid_and_say_what_is_open(cluster: Cluster) -> None:
    texts = look(cluster)[1]
    assert sorted(texts) == ["till-7.yaml", "win.yaml"]
    till, win = (ProtectedVM.of(yaml.safe_load(texts[name])) for name in sorted(texts))
    assert (till.metadata.name, till.metadata.namespace) == ("till-7", NAMESPACE)
    assert (till.spec.source.address, till.spec.source.machine) == ("10.1.0.6", "Till.7")
    assert till.spec.source.site_ref.name == "stack" and till.spec.policy_ref.name == OPEN
    assert win.spec.source.os_type == "windows" and win.spec.source.machine is None
    assert texts["till-7.yaml"].count("# fill in:") == 4
    assert "Start it" in texts["till-7.yaml"] and "engine siteRecovery" in texts["win.yaml"]


def test_what_there_is_only_one_of_is_filled_in(cluster: Cluster) -> None:
    cluster.add("ReplicationPolicy", "standard", {"rpoThreshold": "15m"})
    cluster.add("RecoveryVault", "vault", {})
    cluster.add("Site", "shore", {"provider": "local", "local": {}})
    text = look(cluster)[1]["till-7.yaml"]
    vm = ProtectedVM.of(yaml.safe_load(text))
    assert (vm.spec.policy_ref.name, vm.spec.vault_ref.name) == ("standard", "vault")
    assert vm.spec.target.site_ref.name == "shore" and text.count("# fill in:") == 1
    cluster.add("RecoveryVault", "second", {})
    assert ProtectedVM.of(yaml.safe_load(look(cluster)[1]["till-7.yaml"])).spec.vault_ref.name == OPEN
    assert ProtectedVM.of(yaml.safe_load(look(cluster, vault="second")[1]["win.yaml"])).spec.vault_ref.name == "second"


def test_names_that_are_taken_get_the_group_too(cluster: Cluster) -> None:
    cluster.protect("till-7", "10.9.9.9", "somebody-else")
    assert "till-7-factory.yaml" in look(cluster)[1]


def test_files_that_are_there_are_left(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("mine")
    said = written(tmp_path, {"a.yaml": "theirs", "b.yaml": "new"})
    assert (tmp_path / "a.yaml").read_text() == "mine" and (tmp_path / "b.yaml").read_text() == "new"
    assert "left as it is" in said[0] and "written" in said[1]


def test_sites_that_are_no_hub_and_secrets_that_are_missing_are_named(cluster: Cluster) -> None:
    cluster.add("Site", "shore", {"provider": "local", "local": {}})
    with pytest.raises(StopFault, match="provider local"):
        discovered(cast(Client, cluster), "shore", Wishes(NAMESPACE))
    with pytest.raises(StopFault, match="no Site"):
        discovered(cast(Client, cluster), "nowhere", Wishes(NAMESPACE))
    cluster.objects["Secret"].clear()
    with pytest.raises(StopFault, match="hub-login"):
        look(cluster)


@pytest.mark.parametrize(
    ("options", "code"),
    [([], 0), (["--require-protected"], 1), (["-o", "json"], 0)],
    ids=["to look", "in CI", "for programs"],
)
def test_the_command(
    options: list[str], code: int, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "_client", lambda: cluster)
    asked = ["site", "discover", "stack", "-n", NAMESPACE, "--manifests", str(tmp_path / "new"), *options]
    done = CliRunner().invoke(build(), asked, env={"COLUMNS": "200"})
    assert done.exit_code == code, done.output
    assert sorted(one.name for one in (tmp_path / "new").iterdir()) == ["till-7.yaml", "win.yaml"]
    if "json" in options:
        assert json.loads(done.stdout)["unprotected"] == ["Till.7", "win"]
    else:
        assert "2 of 5 machines are not protected: Till.7, win" in done.stdout
        assert "process server ps-1" in done.stdout and "ProtectedVM gone" in done.stdout
