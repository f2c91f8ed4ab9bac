"""What all steps at a Hub share: this process server as it finds itself there, and how the Hub is spoken to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from farshore_engine.azurestack.mastertarget import Host
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.site import CloudSite


@dataclass(frozen=True)
class HubSetting:
    """Built once for a process server. `connect` opens Resource Manager of a site."""

    host: Host = field(default_factory=Host)
    connect: Callable[[CloudSite], ResourceManager] = ResourceManager
