"""Recovery Services vaults and Azure Site Recovery, as far as Farshore calls them.

    sr = siterecovery(sim)
    vault = sr.vault("rg", "vault", classic=True)
    server = sr.unified_setup(vault, "cs1")
    machine = sr.world.machine("web1", "10.0.0.11", [Path("os.img")])

Sources in brackets: [spec example X] is examples/2025-08-01/X.json of Azure/azure-rest-api-specs; [SDK] the models and
docstrings of azure-mgmt-recoveryservicessiterecovery 2.0.0; [PS] the source of Az.RecoveryServices; [doc] Microsoft's
documentation; [MIGRATE] its page "Automate VMware to Azure agent-based migration using Azure Site Recovery REST API",
whose samples are of InMageRcm and 2025-08-01; [RECORDED] test_siterecovery_V2A_*_scenarios.yaml of
Azure/azure-cli-extensions, what the service answered in 2023; "tutorial" the page "Replicate Azure Stack VMs to Azure".
[inf] is inferred and listed in docs/azure-unverified.md.
"""

from __future__ import annotations

from tests.azuresim.arm.store import Resource
from tests.azuresim.sim import AzureSim
from tests.azuresim.siterecovery.refusals import SetupRefused
from tests.azuresim.siterecovery.seeding import protected
from tests.azuresim.siterecovery.service import SiteRecovery
from tests.azuresim.siterecovery.state import Target
from tests.azuresim.siterecovery.world import SourceDisk, SourceMachine

__all__ = ["SetupRefused", "SiteRecovery", "SourceDisk", "SourceMachine", "Target", "plug", "protected", "siterecovery"]


def plug(sim: AzureSim) -> None:
    """Add the service to a simulator: `sim.parts["siterecovery"]`."""
    from tests.azuresim.siterecovery.infrastructure import Infrastructure
    from tests.azuresim.siterecovery.items import Items
    from tests.azuresim.siterecovery.monitoring import Monitoring
    from tests.azuresim.siterecovery.plans import Plans
    from tests.azuresim.siterecovery.policies import Policies
    from tests.azuresim.siterecovery.vaults import Vaults

    service = sim.parts["siterecovery"] = SiteRecovery(sim)

    def gone(vault: Resource) -> None:
        service.vaults.pop(vault.id.lower(), None)

    sim.gone["microsoft.recoveryservices/vaults"] = gone
    for part in (Vaults, Monitoring, Infrastructure, Policies):
        sim.arm.add(part(service).routes())
    items = Items(service)
    sim.arm.add(items.routes())
    sim.arm.add(Plans(service, items.failover).routes())


def siterecovery(sim: AzureSim) -> SiteRecovery:
    """The service of a simulator; added when it is not there yet."""
    if "siterecovery" not in sim.parts:
        plug(sim)
    found: SiteRecovery = sim.parts["siterecovery"]
    return found
