"""The cloud of the simulator's own tests, with a driver in front of it."""

from __future__ import annotations

import pytest
from tests.azure.siterecovery.scene import NAMESPACE, Control, Scene, settings
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud, cloud

from farshore_operator.engines.siterecovery.wishes import VaultWish

__all__ = ["cloud"]


@pytest.fixture
def classic(cloud: Cloud) -> Scene:
    """An existing vault with a configuration server."""
    vault = cloud.sr.vault(GROUP, VAULT, classic=True)
    cloud.sr.unified_setup(vault, "cs1")
    return Scene(cloud, Control(VaultWish(NAMESPACE, "asr", settings(cloud), log_storage=cloud.storage_id)))


@pytest.fixture
def modern(cloud: Cloud) -> Scene:
    """A vault of today with a replication appliance."""
    vault = cloud.sr.vault(GROUP, VAULT)
    appliance = cloud.sr.appliance(vault, "appliance1")
    control = Control(VaultWish(NAMESPACE, "asr", settings(cloud), log_storage=cloud.storage_id))
    return Scene(cloud, control, appliance=appliance)
