"""A simulated Azure Stack Hub of a test's own, and the product's client that speaks to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from tests.azuresim import AzureSim, seeds
from tests.azuresim.hub import hub

from farshore_engine.azurestack.machines import Machines
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.site import CloudCredential, CloudProvider, CloudSite, IdentitySystem

GROUP = "factory"
SIZE = "Standard_D2_v2"
FAST = {"poll_every": 0, "retry_backoff_factor": 0, "retry_total": 2}


def site_of(sim: AzureSim, *, adfs: bool = False, secret: str = "", certificate: str = "") -> CloudSite:
    given = sim.credential()
    login: dict[str, Any] = {"certificate": certificate} if certificate else {}
    login = login or {"client_secret": secret or given.client_secret}
    return CloudSite(
        name="hub", provider=CloudProvider.AZURE_STACK_HUB, subscription=sim.subscription, resource_group=GROUP,
        region=sim.region, endpoint=sim.endpoint, ca_bundle=sim.ca_bundle.read_text(),
        identity_system=IdentitySystem.ADFS if adfs else IdentitySystem.AZURE_AD,
        credential=CloudCredential(tenant_id=given.tenant_id, client_id=given.client_id, **login),
    )  # fmt: skip


@pytest.fixture
def sim() -> Iterator[AzureSim]:
    with hub() as running:
        running.group(GROUP)
        yield running


@pytest.fixture
def connect() -> Iterator[Callable[..., ResourceManager]]:
    with ExitStack() as stack:

        def make(site: CloudSite, **options: Any) -> ResourceManager:
            return stack.enter_context(ResourceManager(site, **{**FAST, **options}))

        yield make


@pytest.fixture
def manager(sim: AzureSim, connect: Callable[..., ResourceManager]) -> ResourceManager:
    return connect(site_of(sim))


@pytest.fixture
def machines(manager: ResourceManager) -> Machines:
    return Machines(manager)


@pytest.fixture
def subnet(sim: AzureSim) -> str:
    return seeds.subnet_id(seeds.vnet(sim, GROUP))


def add(sim: AzureSim, subnet: str, name: str, address: str, **options: Any) -> str:
    """A machine with a system disk of 1 GiB at `address`; gives its id."""
    disk = seeds.disk(sim, GROUP, f"{name}-os", os_type="Linux")
    nic = seeds.nic(sim, GROUP, f"{name}-nic", subnet, address)
    return seeds.machine(sim, GROUP, name, disk, [nic], **{"size": SIZE, **options})
