"""Tells of a machine's move from one experience of Site Recovery to the other as a condition: `spec.switchTo`."""

from __future__ import annotations

from farshore_engine.contract.replication import CheckResult
from farshore_engine.contract.siterecovery import SWITCH
from farshore_operator.api import RecoveryVault
from farshore_operator.api.protectedvm import ProtectedVM
from farshore_operator.engines.capabilities import FACTS, Capability
from farshore_operator.engines.siterecovery import naming
from farshore_operator.report.conditions import Seen

SWITCHED = "Switched"
_REASONS = {CheckResult.PASSED: "UnderWay", CheckResult.WARNING: "Waiting", CheckResult.ERROR: "Refused"}


def serving(vault: RecoveryVault | None, goal: RecoveryVault | None) -> RecoveryVault | None:
    """Return the vault whose driver serves a machine: the one that it moves to, if both are of engine siteRecovery."""
    return goal if _driven(vault) and _driven(goal) else vault


def seen(vm: ProtectedVM, vault: RecoveryVault | None, goal: RecoveryVault | None) -> tuple[Seen, ...]:
    """Return the condition Switched of a machine that is to move; none for others."""
    if vm.spec.switch_to is None:
        return ()
    name = vm.spec.switch_to.name
    if vault is not None and not _driven(vault):
        text = f"RecoveryVault {vault.metadata.name} is not of engine siteRecovery, whose machines alone can move"
        return (Seen(SWITCHED, False, "NotSupported", f"{text}: spec.switchTo has no effect"),)
    if goal is None:
        text = f"spec.switchTo names RecoveryVault {name}, which does not exist: create it"
        return (Seen(SWITCHED, False, "RecoveryVaultNotFound", text),)
    if not _driven(goal):
        text = f"spec.switchTo names RecoveryVault {name}, which is not of engine siteRecovery: name one that is"
        return (Seen(SWITCHED, False, "NotSupported", text),)
    report = vm.status.replication
    if report is None or report.process_server != naming.driver(name):
        return (Seen(SWITCHED, False, "Waiting", f"RecoveryVault {name} is about to look at it"),)
    check = next((one for one in report.checks if one.name == SWITCH), None)
    if check is not None:
        text = f"{check.message}. {check.remedy}" if check.remedy else check.message
        return (Seen(SWITCHED, False, _REASONS.get(check.result, "Waiting"), text),)
    return (Seen(SWITCHED, True, "Moved", f"it is protected in RecoveryVault {name}"),)


def _driven(vault: RecoveryVault | None) -> bool:
    return vault is not None and Capability.OWN_SERVERS not in FACTS[vault.spec.engine].capabilities
