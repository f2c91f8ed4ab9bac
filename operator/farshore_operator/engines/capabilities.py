"""The capabilities of the engines: the only declaration of them, which refusals, statuses and documentation share.

Decisions ask for a capability; they never compare engine names."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from farshore_operator.api.protectedvm import OSType
from farshore_operator.api.recoveryvault import Engine


class Capability(StrEnum):
    """What an engine may be able to do."""

    LINUX_AGENT = "LinuxAgent"
    WINDOWS_AGENT = "WindowsAgent"
    KEY_IN_SECRET = "KeyInSecret"
    KEY_VAULT = "KeyVault"
    TEST_FAILOVER = "TestFailover"
    FAILOVER = "Failover"
    OWN_SERVERS = "OwnServers"  # our process servers do the work: they log in to machines, and move their bytes
    PLANNED_FAILOVER = "PlannedFailover"
    REQUIRED_SHUTDOWN = "RequiredShutdown"  # a failover ends when the source cannot be switched off
    ABORT = "Abort"
    REPROTECT = "Reprotect"
    FAILBACK = "Failback"
    CHANGE_POINT = "ChangePoint"
    CHOSEN_PROBES = "ChosenProbes"  # questions to the recovered machine
    CHOSEN_INTERFACES = "ChosenInterfaces"  # private addresses, several network interfaces of the recovered machine
    CONSISTENCY_GROUP = "ConsistencyGroup"
    KEEP_POINTS = "KeepPoints"  # a commit leaves the recovery points
    PAUSE = "Pause"


@dataclass(frozen=True)
class EngineFacts:
    """What is true of an engine in this release."""

    capabilities: frozenset[Capability]


FACTS = {
    Engine.NATIVE: EngineFacts(
        frozenset(
            {
                Capability.LINUX_AGENT,
                Capability.KEY_IN_SECRET,
                Capability.KEY_VAULT,
                Capability.TEST_FAILOVER,
                Capability.FAILOVER,
                Capability.OWN_SERVERS,
                Capability.PLANNED_FAILOVER,
                Capability.REQUIRED_SHUTDOWN,
                Capability.CHANGE_POINT,
                Capability.ABORT,
                Capability.REPROTECT,
                Capability.FAILBACK,
                Capability.CHOSEN_PROBES,
                Capability.CHOSEN_INTERFACES,
                Capability.CONSISTENCY_GROUP,
                Capability.KEEP_POINTS,
                Capability.PAUSE,
            }
        ),
    ),
    Engine.SITE_RECOVERY: EngineFacts(
        frozenset(
            {
                Capability.LINUX_AGENT,
                Capability.WINDOWS_AGENT,
                Capability.TEST_FAILOVER,
                Capability.FAILOVER,
                Capability.CHANGE_POINT,
            }
        ),
    ),
}

LACKING: dict[Engine, dict[Capability, str]] = {
    Engine.NATIVE: {
        Capability.WINDOWS_AGENT: (
            "engine native has no agent for Windows: use a RecoveryVault with engine: siteRecovery for this machine"
        ),
    },
    Engine.SITE_RECOVERY: {
        Capability.PLANNED_FAILOVER: (
            "Site Recovery has no planned failover of physical machines: set mode to unplanned, with shutdownSource "
            "BestEffort and recoveryPoint Latest"
        ),
        Capability.REQUIRED_SHUTDOWN: (
            "Site Recovery fails over also when the source cannot be switched off: set shutdownSource to BestEffort or "
            "Never"
        ),
        Capability.ABORT: (
            "Site Recovery cannot undo a failover: change the recovery point, or commit; the source machine can be "
            "started at its site by hand once the recovered one is stopped"
        ),
        Capability.REPROTECT: (
            "Site Recovery does not replicate physical machines back to Azure Stack Hub: bring the machine home by its "
            "VHDs, as docs/concepts/site-recovery.md says, or protect it with a RecoveryVault of engine native"
        ),
        Capability.FAILBACK: (
            "Site Recovery does not fail physical machines back to Azure Stack Hub: bring the machine home by its "
            "VHDs, as docs/concepts/site-recovery.md says, or protect it with a RecoveryVault of engine native"
        ),
        Capability.CHOSEN_PROBES: (
            "with engine siteRecovery nobody of Farshore is in the network of the recovered machine to ask it: remove "
            "the probes, or ask in an http or job hook after the group"
        ),
        Capability.CHOSEN_INTERFACES: (
            "private addresses and several network interfaces are not told to Site Recovery, which gives the machine "
            "the interfaces of its source at free addresses: remove target.privateIP and target.interfaces, or use a "
            "RecoveryVault of engine native"
        ),
        Capability.CONSISTENCY_GROUP: (
            "points of several machines at one instant are not taken with engine siteRecovery: remove "
            "spec.consistencyGroup, or use a RecoveryVault of engine native"
        ),
        Capability.OWN_SERVERS: (
            "Site Recovery brings its own servers (a configuration server or an appliance): process servers of "
            "Farshore are not asked"
        ),
        Capability.KEEP_POINTS: (
            "Site Recovery deletes the recovery points with the commit: change the recovery point before, if that is "
            "needed"
        ),
        Capability.PAUSE: (
            "Site Recovery cannot pause replication, which goes on: set spec.paused to false, or limit the bandwidth "
            "on its process server"
        ),
        Capability.KEY_IN_SECRET: "Site Recovery keeps recovery points by itself: remove spec.encryption",
        Capability.KEY_VAULT: "Site Recovery keeps recovery points by itself: remove spec.encryption",
    },
}
"""What to say and to do when an engine does not have a capability that is asked for: one sentence for each."""

AGENT_FOR = {OSType.LINUX: Capability.LINUX_AGENT, OSType.WINDOWS: Capability.WINDOWS_AGENT}
