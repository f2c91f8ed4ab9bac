"""What a machine becomes in Azure, as Site Recovery is told and tells."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TargetWish:
    """What a machine becomes: resource ids; a field that is empty leaves the choice to Site Recovery."""

    resource_group: str
    network: str = ""
    subnet: str = ""
    name: str = ""
    size: str = ""
    disk_type: str = "StandardSSD_LRS"
    availability_set: str = ""
    zone: str = ""
    tags: tuple[tuple[str, str], ...] = ()
