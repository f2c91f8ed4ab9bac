"""The clouds of the other tests: the one of the provider's, and the one of Site Recovery's."""

from __future__ import annotations

from tests.azure.provider.conftest import sim
from tests.azure.siterecovery_sim.conftest import cloud

__all__ = ["cloud", "sim"]
