"""Machine sizes that the simulated region knows, with the capabilities that ResourceSkus lists for them.

Source: learn.microsoft.com/azure/virtual-machines/sizes (the page of each series) and the example
ComputeRP/examples/skus/ListAvailableResourceSkus.json of the REST specification.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """One size. `generations` as in HyperVGenerations; `temporary_gib` 0 means no temporary disk."""

    name: str
    family: str
    cores: int
    memory_gib: float
    max_disks: int
    premium: bool = True
    generations: str = "V1,V2"
    architecture: str = "x64"
    max_nics: int = 2
    temporary_gib: int = 0
    zones: tuple[str, ...] = ("1", "2", "3")

    @property
    def tier_name(self) -> str:
        return self.name.removeprefix("Standard_")

    def capabilities(self) -> list[dict[str, str]]:
        found = {
            "MaxResourceVolumeMB": self.temporary_gib * 1024, "OSVhdSizeMB": 1047552, "vCPUs": self.cores,
            "MemoryPreservingMaintenanceSupported": True, "HyperVGenerations": self.generations,
            "MemoryGB": f"{self.memory_gib:g}", "MaxDataDiskCount": self.max_disks,
            "CpuArchitectureType": self.architecture, "LowPriorityCapable": True, "PremiumIO": self.premium,
            "VMDeploymentTypes": "IaaS", "vCPUsAvailable": self.cores, "EphemeralOSDiskSupported": False,
            "EncryptionAtHostSupported": self.premium, "CapacityReservationSupported": True,
            "AcceleratedNetworkingEnabled": self.cores > 1, "RdmaEnabled": False,
            "MaxNetworkInterfaces": self.max_nics,
        }  # fmt: skip
        return [{"name": name, "value": str(value)} for name, value in found.items()]

    def sku(self, region: str, restrictions: list[dict[str, Any]]) -> dict[str, Any]:
        """The entry of ResourceSkus for this size."""
        ultra = [{"name": "UltraSSDAvailable", "value": "True"}]
        details = [{"Name": [zone], "capabilities": ultra} for zone in self.zones] if self.premium else []
        return {
            "resourceType": "virtualMachines", "name": self.name, "tier": "Standard", "size": self.tier_name,
            "family": self.family, "locations": [region],
            "locationInfo": [{"location": region, "zones": list(self.zones), "zoneDetails": details}],
            "capabilities": self.capabilities(), "restrictions": restrictions,
        }  # fmt: skip


SIZES = (
    Size("Standard_A1_v2", "standardAv2Family", 1, 2, 2, premium=False, generations="V1", temporary_gib=10, zones=()),
    Size("Standard_B1s", "standardBSFamily", 1, 1, 2, temporary_gib=4),
    Size("Standard_B2s", "standardBSFamily", 2, 4, 4, max_nics=3, temporary_gib=8),
    Size("Standard_B2ms", "standardBSFamily", 2, 8, 4, max_nics=3, temporary_gib=16),
    Size("Standard_A0", "standardA0_A7Family", 1, 0.75, 1, premium=False, generations="V1", temporary_gib=20, zones=()),
    Size("Standard_D1_v2", "standardDv2Family", 1, 3.5, 4, premium=False, generations="V1", temporary_gib=50),
    Size("Standard_D2_v2", "standardDv2Family", 2, 7, 8, premium=False, generations="V1", temporary_gib=100),
    Size("Standard_DS3_v2", "standardDSv2Family", 4, 14, 16, max_nics=4, temporary_gib=28),
    Size("Standard_D4_v3", "standardDv3Family", 4, 16, 8, premium=False, generations="V1", temporary_gib=100),
    Size("Standard_DC2as_v5", "standardDCASv5Family", 2, 8, 4, generations="V2"),
    Size("Standard_DC2es_v5", "standardDCEV5Family", 2, 8, 4, generations="V2"),
    Size("Standard_DS1_v2", "standardDSv2Family", 1, 3.5, 4, temporary_gib=7),
    Size("Standard_D2_v3", "standardDv3Family", 2, 8, 4, premium=False, generations="V1", temporary_gib=50),
    Size("Standard_D2s_v3", "standardDSv3Family", 2, 8, 4, temporary_gib=16),
    Size("Standard_D4s_v3", "standardDSv3Family", 4, 16, 8, temporary_gib=32),
    Size("Standard_D2s_v5", "standardDSv5Family", 2, 8, 4),
    Size("Standard_D4s_v5", "standardDSv5Family", 4, 16, 8),
    Size("Standard_D8s_v5", "standardDSv5Family", 8, 32, 16, max_nics=4),
    Size("Standard_D2as_v5", "standardDASv5Family", 2, 8, 4),
    Size("Standard_E2s_v5", "standardESv5Family", 2, 16, 4),
    Size("Standard_E4s_v5", "standardESv5Family", 4, 32, 8),
    Size("Standard_F2s_v2", "standardFSv2Family", 2, 4, 4, temporary_gib=16),
    Size("Standard_DC2s_v3", "standardDCSv3Family", 2, 16, 4, generations="V2"),
    Size("Standard_D2ps_v5", "standardDPSv5Family", 2, 8, 4, generations="V2", architecture="Arm64"),
)

DISK_TYPES = {
    "Standard_LRS": "Standard", "StandardSSD_LRS": "Standard", "Premium_LRS": "Premium", "UltraSSD_LRS": "Ultra",
    "PremiumV2_LRS": "Premium", "Premium_ZRS": "Premium", "StandardSSD_ZRS": "Standard",
}  # fmt: skip
"""Disk types and their tier. Source: the enumeration DiskStorageAccountTypes of DiskRP's specification."""

NEEDS_ZONE = ("UltraSSD_LRS", "PremiumV2_LRS")
"""Source: learn.microsoft.com/azure/virtual-machines/disks-types: only to zonal machines, where zones exist."""
