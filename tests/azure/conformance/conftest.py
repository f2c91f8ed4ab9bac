"""The cloud of the simulator's own tests, of which each life gets a fresh one."""

from __future__ import annotations

from tests.azure.siterecovery_sim.conftest import cloud

__all__ = ["cloud"]
