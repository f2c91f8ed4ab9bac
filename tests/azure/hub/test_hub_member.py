"""What a failback to a Hub is told of the place: the defaults of the machine's home."""

from __future__ import annotations

from tests.unit.decide_world import observed

from farshore_operator.api import Site
from farshore_operator.decide.failback import member
from farshore_operator.decide.runspec import Chosen


def test_a_machine_that_goes_home_to_a_hub_gets_the_defaults_of_its_home() -> None:
    hub = {
        "resourceManagerEndpoint": "https://management.local.azurestack.external", "subscription": "s",
        "resourceGroup": "factory", "region": "local", "credentialsSecretRef": {"name": "hub-login"},
    }  # fmt: skip
    defaults = {"size": "Standard_DS1_v2", "network": "plant", "subnet": "floor", "diskType": "Premium_LRS"}
    spec = {"provider": "azureStackHub", "azureStackHub": hub, "defaults": defaults}
    home = Site.of({"kind": "Site", "metadata": {"name": "stack", "namespace": "shop"}, "spec": spec})
    target = member(Chosen(observed(source_site=home))).target
    assert target is not None
    assert (target.size, target.network, target.subnet, target.disk_type) == tuple(defaults.values())
    assert target.private_ip == "", "it is that of the machine"


def test_a_machine_that_goes_home_to_a_host_gets_nothing_of_a_cloud() -> None:
    assert member(Chosen(observed())).target is None
