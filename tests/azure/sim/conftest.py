"""A simulated cloud of a test's own, and Microsoft's clients that speak to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.network import NetworkManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from azure.mgmt.storage import StorageManagementClient
from tests.azuresim import AzureSim, seeds
from tests.azuresim.arm.identity import Principal

EMPTY = {
    "location": "westeurope",
    "properties": {"diskSizeGB": 1, "creationData": {"createOption": "Empty"}},
}
DISKS = "*/Microsoft.Compute/disks/*"


@dataclass
class Clients:
    """The SDK's clients for one principal, without retries unless a test asks for some."""

    sim: AzureSim
    stack: ExitStack
    made: dict[tuple[str, str], Any] = field(default_factory=dict)
    retries: int = 0

    def credential(self, who: Principal | None = None) -> ClientSecretCredential:
        given = self.sim.credential(who)
        made = ClientSecretCredential(
            given.tenant_id, given.client_id, given.client_secret, authority=given.authority,
            disable_instance_discovery=True, connection_verify=str(self.sim.ca_bundle),
        )  # fmt: skip
        self.stack.callback(made.close)
        return made

    def client(self, kind: Any, who: Principal | None = None, **options: Any) -> Any:
        key = (kind.__name__, (who or self.sim.me).client_id + repr(options))
        if key not in self.made:
            given = {"retry_total": self.retries, **self.sim.client_options(), **options}
            made = kind(self.credential(who), self.sim.subscription, **given)
            self.stack.callback(made.close)
            self.made[key] = made
        return self.made[key]

    @property
    def compute(self) -> ComputeManagementClient:
        return self.client(ComputeManagementClient)

    @property
    def network(self) -> NetworkManagementClient:
        return self.client(NetworkManagementClient)

    @property
    def resources(self) -> ResourceManagementClient:
        return self.client(ResourceManagementClient)

    @property
    def storage(self) -> StorageManagementClient:
        return self.client(StorageManagementClient)

    @property
    def authorization(self) -> AuthorizationManagementClient:
        return self.client(AuthorizationManagementClient)


@pytest.fixture
def sim() -> Iterator[AzureSim]:
    with AzureSim() as running:
        running.group("rg")
        yield running


@pytest.fixture
def azure(sim: AzureSim) -> Iterator[Clients]:
    with ExitStack() as stack:
        yield Clients(sim, stack)


@pytest.fixture
def refused() -> Callable[..., HttpResponseError]:
    """Do a call to its end and give the refusal; a call that is not refused fails the test."""

    def run(call: Callable[..., Any], *arguments: Any, **options: Any) -> HttpResponseError:
        with pytest.raises(HttpResponseError) as found:
            answer = call(*arguments, **options)
            if hasattr(answer, "result"):
                answer.result()
            elif hasattr(answer, "by_page"):
                list(answer)
        return found.value

    return run


def code(error: HttpResponseError) -> str:
    """Azure's code of a refusal, wherever the SDK puts it."""
    return str(error.error.code if error.error else getattr(error, "error_code", "")) or ""


@pytest.fixture
def subnet(sim: AzureSim) -> str:
    return seeds.subnet_id(seeds.vnet(sim, "rg"))


def body(os_disk: str, nics: list[str], data: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    return {
        "location": "westeurope",
        "properties": {
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "storageProfile": {
                "osDisk": {"osType": "Linux", "createOption": "Attach", "managedDisk": {"id": os_disk}},
                "dataDisks": [
                    {"lun": lun, "createOption": "Attach", "managedDisk": {"id": one}}
                    for lun, one in enumerate(data or [])
                ],
            },
            "networkProfile": {
                "networkInterfaces": [{"id": one, "properties": {"primary": n == 0}} for n, one in enumerate(nics)]
            },
            **properties,
        },
    }  # fmt: skip


@pytest.fixture
def parts(sim: AzureSim, subnet: str) -> tuple[str, str]:
    """An OS disk and a network interface."""
    return seeds.disk(sim, "rg", "os", os_type="Linux", generation="V2"), seeds.nic(
        sim, "rg", "nic", subnet, "10.1.0.9"
    )
