"""The cloud of the Site Recovery simulator's own tests."""

from __future__ import annotations

from tests.azure.siterecovery_sim.conftest import cloud

__all__ = ["cloud"]
