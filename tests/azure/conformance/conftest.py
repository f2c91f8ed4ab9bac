"""The engines that the suite runs against; each test gets a fresh world of one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.azure.conformance.life import Life, Native
from tests.azure.conformance.service import Service
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud, cloud

__all__ = ["begin", "cloud"]
Begin = Callable[..., Life]
ENGINES = ("native", "classic", "modernized")


@pytest.fixture(params=ENGINES)
def begin(request: pytest.FixtureRequest) -> Begin:
    """Return what begins a life: names of machines, fields of the plan; they are protected."""
    if request.param == "native":
        return Native
    found: Cloud = request.getfixturevalue("cloud")
    return lambda *machines, **plan: site_recovery(found, request.param, *machines, **plan)


def site_recovery(found: Cloud, experience: str, *machines: str, **plan: Any) -> Service:
    """Begin a life with Site Recovery, up to protected machines."""
    vault = found.sr.vault(GROUP, VAULT, classic=experience == "classic")
    appliance = None
    if experience == "classic":
        found.sr.unified_setup(vault, "cs1")
    else:
        appliance = found.sr.appliance(vault, "appliance1")
    life = Service(found, *(machines or ("web-01",)), appliance=appliance, **plan)
    life.until_protected()
    return life
