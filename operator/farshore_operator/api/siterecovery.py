"""How Azure Site Recovery is used: which configuration server or appliance, and with which accounts."""

from __future__ import annotations

from farshore_operator.api.resource import Model
from farshore_operator.api.values import Word


class SiteRecoverySettings(Model):
    """Which parts of a Recovery Services vault machines replicate through."""

    appliance: Word | None = None
    """Name of the configuration server or replication appliance, as the vault shows it. Default: the only one."""
    process_server: Word | None = None
    """Name of its process server. Default: the first one that is healthy."""
    linux_account: Word | None = None
    """Name of the account at the configuration server with which the Mobility service is installed on Linux machines.
    Default: the only one. An appliance has its own accounts."""
    windows_account: Word | None = None
    """Name of the account with which it is installed on Windows machines. Default: the only one."""
    recovery_plans: bool = True
    """Whether each FailoverPlan whose machines replicate into the vault gets a recovery plan there, for the portal and
    for emergencies without Farshore. False deletes those that were made. Default: true."""
