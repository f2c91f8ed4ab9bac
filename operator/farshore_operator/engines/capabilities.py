"""The capabilities of the engines. Decisions ask for a capability; they never compare engine names."""

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


@dataclass(frozen=True)
class EngineFacts:
    """What is true of an engine in this release; `available` False refuses it altogether, with the remedy."""

    available: bool
    capabilities: frozenset[Capability]
    remedy: str = ""


FACTS = {
    Engine.NATIVE: EngineFacts(
        True,
        frozenset(
            {
                Capability.LINUX_AGENT,
                Capability.KEY_IN_SECRET,
                Capability.KEY_VAULT,
                Capability.TEST_FAILOVER,
                Capability.FAILOVER,
            }
        ),
    ),
    Engine.SITE_RECOVERY: EngineFacts(
        False, frozenset(), "Engine siteRecovery is not in this release: use engine: native"
    ),
}

AGENT_FOR = {OSType.LINUX: Capability.LINUX_AGENT, OSType.WINDOWS: Capability.WINDOWS_AGENT}

NO_WINDOWS = "engine native has no agent for Windows: use a RecoveryVault with engine: siteRecovery for this machine"
