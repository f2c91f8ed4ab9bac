"""Every example of the REST specification for a call that the product makes goes through SDK and simulator.

The examples are of Hyper-V: the simulator knows that provider only as far as they go. Asserted are: the request leaves
the SDK as the example has it; the example's answer passes the models; the simulator's answer has every member that the
example's has, and the same states.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from azure.identity import ClientSecretCredential
from azure.mgmt.recoveryservices import RecoveryServicesClient
from azure.mgmt.recoveryservices import models as vault_models
from azure.mgmt.recoveryservicessiterecovery import SiteRecoveryManagementClient, models
from tests.azuresim import AzureSim
from tests.azuresim.arm import strict
from tests.azuresim.siterecovery import SiteRecovery, siterecovery
from tests.azuresim.siterecovery.failover_jobs import drill_details
from tests.azuresim.siterecovery.policies import policy_id
from tests.azuresim.siterecovery.state import (
    CLASSIC,
    HYPERV,
    MODERN,
    Account,
    Container,
    Drill,
    Fabric,
    Item,
    Mapping,
    Phase,
    Plan,
    Point,
    Policy,
    Protectable,
    Server,
    Target,
    Task,
    Vault,
    container_id,
    fabric_id,
)  # fmt: skip
from tests.azuresim.siterecovery.world import Snapshot

FOLDER = Path(__file__).parents[2] / "azuresim" / "examples" / "siterecovery"
NAMES = sorted(one.stem for one in FOLDER.glob("*.json"))
STATES = (
    "protectionState", "protectionStateDescription", "activeLocation", "testFailoverState",
    "testFailoverStateDescription",
    "allowedOperations", "connectionStatus", "providerVersionState", "pairingStatus", "bcdrState", "health", "state",
    "role",
    "protectionStatus", "currentScenarioStatus", "recoveryFabricFriendlyName", "targetProtectionContainerId",
    "sendToOwners",
    "failoverDeploymentModel", "groupType", "recoveryPointType", "fabricType", "supportedReplicationProviders", "type",
)  # fmt: skip
"""Members whose values must be those of the example."""
ELSE = {
    "ReplicationEvents_List": ("eventType", "severity"),
    "ReplicationJobs_Restart": ("state",),
    "ReplicationProtectedItems_SwitchProvider": STATES,  # the example answers a planned failover of Hyper-V
    "ReplicationProtectedItems_ResolveHealthErrors": ("allowedOperations", "recoveryFabricFriendlyName"),
    # of Azure to Azure
    "ReplicationProtectedItems_FailoverCancel": ("allowedOperations", "recoveryFabricFriendlyName"),  # of VMware
}


def example(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


class Scene:
    """A vault as the examples have it: vault1, cloud1, protectionprofile1, two machines, a plan, a job."""

    def __init__(self, sr: SiteRecovery, given: dict[str, Any]) -> None:
        self.sr, self.name, self.path = sr, given["operation"], given["path"].split("/")
        everything = json.dumps(given)
        answered = (given.get("response") or {}).get("properties") or {}
        self.past = "lastSuccessfulFailoverTime" in answered
        self.provider = CLASSIC if self.name in CLASSIC_ONES else HYPERV
        sr.sim.group(self._after("resourceGroups", "rg"))
        self.vault = Vault(
            sr.sim.subscription,
            self._after("resourceGroups", "rg"),
            self._after("vaults", "v"),
            {"location": "westeurope"},
        )
        sr.vaults[self.vault.id.lower()] = self.vault
        guid = "6d224fc6-f326-5d35-96de-fbf51efb3179"
        name = self._after("replicationFabrics", "cloud1")
        self.fabric = Fabric(
            name,
            name,
            self.provider,
            guid,
            self._after("replicationRecoveryServicesProviders", "241641e6-ee7b-4ee4-8141-821fadda43fa"),
        )
        self.container = Container(self._after("replicationProtectionContainers", f"cloud_{guid}"), name)
        self.fabric.containers[self.container.name.lower()] = self.container
        self.vault.fabrics[name.lower()] = self.fabric
        policy = next(iter(re.findall(r"replicationPolicies/(\w+)", everything)), "protectionprofile1")
        self.policy = policy
        if self.name != "ReplicationPolicies_Create":
            self.vault.policies[policy.lower()] = Policy(policy, self.provider, {})
        machines = {"vm1": "f8491e4f-817a-40dd-a90c-af773978c75b", "vm2": "c0c14913-3d7a-48ea-9531-cc99e0e686e6"}
        asked = self._after("replicationProtectedItems", "")
        if asked and asked not in machines.values():
            machines["vm1"] = asked
        for friendly, machine in machines.items():
            self.container.protectables[machine] = Protectable(machine, friendly, friendly, "WINDOWS", None)
        if self.name not in UNMAPPED:
            self.container.mappings["cloud1protectionprofile1"] = Mapping(
                "cloud1protectionprofile1", policy_id(self.vault, policy), self.provider
            )
        self.items = {one: self._item(friendly, one) for friendly, one in machines.items()}

    def _after(self, word: str, default: str) -> str:
        return self.path[self.path.index(word) + 1] if word in self.path[:-1] else default

    def _item(self, friendly: str, machine: str) -> Item:
        protectable = f"{container_id(self.vault, self.fabric, self.container)}/replicationProtectableItems/{machine}"
        item = Item(machine, friendly, self.provider, policy_id(self.vault, self.policy), protectable, None, Target(),
        self.vault, self.fabric,
                    self.container, Phase.PROTECTED)  # fmt: skip
        item.points = [
            Point(one, self.sr.clock.now(), "CrashConsistent", Snapshot({}))
            for one in ("b22134ea-620c-474b-9fa5-3c1cb47708e3", "34cb2d05-e730-4d3f-b96b-a60a5e92acb2",
            "e4d05fe9-5dfd-47be-b50b-aad306b2802d")
        ]  # fmt: skip
        if self.past:
            item.last_failover = item.last_drill = self.sr.clock.now()
            item.failover_point, item.drill = item.points[0].id, Drill.CLEANED
        if self.name == "ReplicationProtectedItems_FailoverCancel":
            item.drill = Drill.NONE
        wanted = self._after("recoveryPoints", "")
        if wanted:
            item.points[0].id = wanted
        return item

    def arrange(self) -> None:
        """Bring the scene where the example's call finds it."""
        setup = {
            "ReplicationProtectedItems_TestFailoverCleanup": self._drilled,
            "ReplicationProtectedItems_ApplyRecoveryPoint": self._pending,
            "ReplicationProtectedItems_FailoverCommit": self._planned,
            "ReplicationProtectedItems_FailoverCancel": self._planned,
            "ReplicationProtectedItems_Reprotect": self._committed,
            "ReplicationRecoveryPlans_TestFailoverCleanup": self._drilled,
            "ReplicationRecoveryPlans_FailoverCommit": self._planned, "ReplicationJobs_Cancel": self._job,
            "ReplicationJobs_Get": self._job,
            "ReplicationJobs_List": self._job, "ReplicationJobs_Restart": self._job,
            "ReplicationJobs_Resume": self._job,
            "ReplicationEvents_Get": self._event, "ReplicationEvents_List": self._event,
            "ReplicationAlertSettings_Get": self._alert,
            "ReplicationAlertSettings_List": self._alert, "ReplicationVaultHealth_Get": self._ill,
            "ReplicationVaultHealth_Refresh": self._ill, "ReplicationProtectedItems_SwitchProvider": self._goal,
            "ReplicationProtectedItems_UpdateMobilityService": self._account,
            "ReplicationAppliances_List": self._appliance,
        }  # fmt: skip
        if self.name not in BARE:
            self.container.items.update(self.items)
            for one in self.items.values():
                self.container.protectables[one.name].item_id = one.id if "Protectable" not in self.name else ""
        if "RecoveryPlans" in self.name and not self.name.endswith("_Create"):
            self._plan()
        setup.get(self.name, lambda: None)()

    def _drilled(self) -> None:
        for one in self.items.values():
            one.drill = Drill.WAITING

    def _pending(self) -> None:
        for one in self.items.values():
            one.phase, one.drill = Phase.COMMIT_PENDING, Drill.CLEANED

    def _planned(self) -> None:
        for one in self.items.values():
            one.phase = Phase.PLANNED_COMMIT_PENDING
            one.drill = Drill.CLEANED if "Commit" in self.name else Drill.NONE
            one.failover_point, one.last_drill, one.last_failover = (
                one.points[0].id,
                self.sr.clock.now(),
                self.sr.clock.now(),
            )

    def _committed(self) -> None:
        for one in self.items.values():
            one.phase, one.drill = Phase.PLANNED_COMMITTED, Drill.CLEANED

    def _job(self) -> None:
        scenario = {"ReplicationJobs_Cancel": "PlannedFailover", "ReplicationJobs_Resume": "TestFailover"}.get(
            self.name, "DeleteRecoveryPlan"
        )
        job = self.sr.job(
            self.vault,
            scenario,
            "A job",
            [Task("A", "A")],
            "ProtectionEntity",
            "f8491e4f-817a-40dd-a90c-af773978c75b",
            "vm1",
        )
        del self.vault.jobs[job.id]
        job.id = self._after("replicationJobs", job.id)
        self.vault.jobs[job.id] = job
        if self.name.endswith(("_Get", "_List")):
            self.sr.end(job)
        elif self.name.endswith("_Restart"):
            self.sr.end(job, state="Failed", description="Failed")
            job.again = lambda: None
        elif self.name.endswith("_Resume"):
            self.sr.end(job, state="Suspended", description="WaitingForStopTestFailover")
            item = next(iter(self.items.values()))
            job.details = drill_details(item, ("vnetavrai", "Subnet1"), None)
        job.allowed = {"_Cancel": ["Cancel"], "estart": ["Restart"], "Resume": ["Resume", "Cancel"]}.get(
            self.name[-7:] if "Cancel" in self.name else self.name[-6:], [])  # fmt: skip
        if self.name.endswith("_Cancel"):
            job.allowed = ["Cancel"]

    def _event(self) -> None:
        self.sr.event(self.vault, "Virtual machine health is OK", "VmHealth", "OK", "vm1")
        self.vault.events[0].name = self._after("replicationEvents", self.vault.events[0].name)
        if self.name.endswith("_List"):
            self.sr.event(self.vault, "TestFailover - Failed", "JobStatus", "Critical", "vm1", [
                {"errorCode": "499", "errorMessage": "m", "possibleCauses": "c",
                "recommendedAction": "r"}])  # fmt: skip

    def _alert(self) -> None:
        self.vault.alerts["defaultAlertSetting"] = {
            "sendToOwners": "false",
            "customEmailAddresses": ["a@b.c"],
            "locale": "en-US",
        }

    def _appliance(self) -> None:
        self.sr.appliance(self.vault, "appliance1")

    def _ill(self) -> None:
        self.fabric.servers = [Server("ps", "10.0.0.4", errors=["78186"])]
        for one in self.items.values():
            one.process_server = self.fabric.servers[0].id

    def _goal(self) -> None:
        other = Vault(self.vault.subscription, self.vault.group, "vault2", {"location": "westeurope"})
        self.sr.vaults[other.id.lower()] = other
        goal = Fabric(
            "cloud2",
            "cloud2",
            MODERN,
            "guid2",
            "5efaa202-e958-435e-8171-706bf735fcc4",
            servers=[Server("a", "10.0.0.5")],
        )
        goal.containers["c2"] = Container("c2", "cloud2")
        other.fabrics["cloud2"] = goal

    def _account(self) -> None:
        self.fabric.accounts = [Account("root", "2")]

    def _plan(self) -> None:
        at = {"replicationProtectedItems": [], "startGroupActions": [], "endGroupActions": []}
        machine = next(iter(self.items.values()))
        boot = {
            **at,
            "groupType": "Boot",
            "replicationProtectedItems": [{"id": machine.id, "virtualMachineId": machine.name}],
        }
        plan = Plan(
            "RPtest1",
            fabric_id(self.vault, self.fabric),
            "ResourceManager",
            [{**at, "groupType": "Shutdown"}, {**at, "groupType": "Failover"}, boot],
        )
        self.vault.plans["rptest1"] = plan
        plan.last_test = plan.last_unplanned = plan.last_planned = self.sr.clock.now()


CLASSIC_ONES = (
    "ReplicationProtectionContainers_DiscoverProtectableItem", "ReplicationProtectedItems_UpdateMobilityService",
    "ReplicationProtectedItems_SwitchProvider",
)  # fmt: skip
UNMAPPED = (
    "ReplicationPolicies_Delete", "ReplicationFabrics_Delete", "ReplicationProtectionContainers_Get",
    "ReplicationProtectionContainers_List", "ReplicationProtectionContainers_ListByReplicationFabrics",
)  # fmt: skip
BARE = (
    "ReplicationProtectedItems_Create", "ReplicationFabrics_Delete", "ReplicationPolicies_Delete",
    "ReplicationPolicies_Create",
    "ReplicationProtectionContainerMappings_Delete", "ReplicationProtectionContainers_DiscoverProtectableItem",
)  # fmt: skip


def send(sim: AzureSim, given: dict[str, Any]) -> Any:
    """Make the example's call with the SDK; what comes at its end."""
    secret = sim.credential()
    credential = ClientSecretCredential(
        secret.tenant_id, secret.client_id, secret.client_secret, authority=secret.authority,
        disable_instance_discovery=True, connection_verify=str(sim.ca_bundle),
    )  # fmt: skip
    family, _, verb = given["operation"].partition("_")
    kind = RecoveryServicesClient if family == "Vaults" else SiteRecoveryManagementClient
    client = kind(credential, sim.subscription, **sim.client_options())
    group = getattr(client, snake(family))
    method = getattr(group, f"begin_{snake(verb)}", None) or getattr(group, snake(verb))
    values = given["path"].strip("/").split("/")
    arguments = [one for one in values[3::2] if one not in ("Microsoft.RecoveryServices", "default")]
    if "body" in given:
        arguments.append(model_of(group, method.__name__)(given["body"]))
    more = {"instance_type": "InMageAzureV2"} if family == "SupportedOperatingSystems" else {}
    done = method(*arguments, **more)
    if hasattr(done, "result"):
        return done.result()
    return list(done) if hasattr(done, "by_page") else done


def snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def model_of(group: Any, method: str) -> Any:
    """The body's model, from the annotations of the SDK's method."""
    hints = getattr(type(group), method).__annotations__
    found = next(re.search(r"_models\.(\w+)|\.([A-Z]\w+)'?[,\]>]", str(hint)) for name, hint in hints.items()
                 if "IO[bytes]" in str(hint) or "JSON" in str(hint) or "bytes" in str(hint))  # fmt: skip
    assert found is not None
    name = found[1] or found[2]
    return getattr(models, name, None) or getattr(vault_models, name)


def missing(wanted: Any, got: Any, path: str = "") -> list[str]:
    """Paths of members that the example has and the simulator's answer has not."""
    if isinstance(wanted, dict):
        if not isinstance(got, dict):
            return [path]
        if path.endswith(("affectedObjectDetails", "tags")):
            return []
        return [
            one
            for key, value in wanted.items()
            for one in (missing(value, got[key], f"{path}.{key}") if key in got else [f"{path}.{key}"])
        ]
    if isinstance(wanted, list) and wanted:
        return missing(wanted[0], got[0], f"{path}[0]") if got else [f"{path}[0]"]
    return []


def states(body: Any, path: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(body, dict):
        for key, value in body.items():
            if key in STATES and not isinstance(value, dict):
                found[f"{path}.{key}"] = value
            found |= states(value, f"{path}.{key}")
    elif isinstance(body, list) and body:
        found |= states(body[0], f"{path}[0]")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_an_example_of_the_specification_passes_client_and_simulator(name: str) -> None:
    given = example(name)
    subscription = given["path"].split("/")[2]
    region = "westus" if given["operation"] == "Vaults_CreateOrUpdate" else "westeurope"
    with AzureSim(subscription=subscription, region=region) as sim:
        sr = siterecovery(sim)
        if given["operation"] == "Vaults_CreateOrUpdate":
            sim.group(given["path"].split("/")[4])
        else:
            Scene(sr, given).arrange()
        answer = send(sim, given)
        sent = next(one for one in sim.calls if one.plane == "arm" and one.method == given["method"])
        assert sent.path.lower() == given["path"].lower()
        if "body" in given:
            assert json.loads(sent.body) == given["body"]
        if "response" in given:
            compare(given, answer)


def compare(given: dict[str, Any], answer: Any) -> None:
    wanted = given["response"]
    if given["operation"] == "Vaults_CreateOrUpdate":
        del wanted["tags"]  # the example answers tags that its request does not set
    if isinstance(answer, list):
        got = {"value": [one.as_dict() for one in answer]}
        for one in wanted["value"]:
            assert strict.write(type(answer[0]), one) == one
    else:
        got = answer.as_dict()
        assert strict.write(type(answer), wanted) == wanted
    assert missing(wanted, got) == []
    skip = ELSE.get(given["operation"], ())
    expected = {
        key: value for key, value in states(wanted).items() if not key.endswith(tuple(f".{one}" for one in skip))
    }
    assert {key: value for key, value in states(got).items() if key in expected} == expected
