"""Decides on a RecoveryVault: its Secrets resolve, and its engine is one that this release has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from farshore_operator.api import RecoveryVault
from farshore_operator.api.recoveryvault import RecoveryVaultStatus, VaultPhase
from farshore_operator.decide.decision import Decision, Outcome
from farshore_operator.decide.references import SecretUse, problems, summary
from farshore_operator.engines.capabilities import FACTS, NO_KEY_VAULT, Capability
from farshore_operator.report.conditions import Health, Verdict, ready, settle, stalled, waiting

RETRY = timedelta(seconds=8)
_PHASES = {Health.READY: VaultPhase.READY, Health.RECONCILING: VaultPhase.PENDING, Health.STALLED: VaultPhase.FAILED}


@dataclass(frozen=True)
class ObservedVault:
    """A vault, its Secrets, and the number of machines that replicate into it."""

    vault: RecoveryVault
    secrets: tuple[SecretUse, ...]
    machines: int


def decide(observed: ObservedVault, now: datetime) -> Decision[RecoveryVaultStatus]:
    """Decide on a vault. Whether its storage answers is for the process servers to see: the operator never opens it."""
    vault, meta = observed.vault, observed.vault.metadata
    if meta.deletion_timestamp:
        return Decision(None)
    verdict = judge(vault, observed.secrets)
    facts = FACTS[vault.spec.engine]
    status = RecoveryVaultStatus(
        observed_generation=meta.generation,
        conditions=settle(vault.status.conditions, verdict, (), meta.generation, now),
        phase=_PHASES[verdict.health],
        machines=observed.machines,
        capabilities=tuple(sorted(facts.capabilities)),
    )
    return Decision(status, (), RETRY if verdict.health is Health.RECONCILING else None)


def judge(vault: RecoveryVault, secrets: tuple[SecretUse, ...]) -> Verdict:
    """Return whether machines can replicate into the vault."""
    facts = FACTS[vault.spec.engine]
    if not facts.available:
        return stalled("EngineNotAvailable", facts.remedy)
    encryption = vault.spec.encryption
    if encryption and encryption.key_vault and Capability.KEY_VAULT not in facts.capabilities:
        return stalled("KeyVaultNotSupported", NO_KEY_VAULT)
    missing = problems(vault.metadata.namespace, secrets)
    if missing:
        problem = summary(missing)
        return waiting(problem.reason, problem.message)
    return ready(message="everything that it refers to is there")


def fold(status: RecoveryVaultStatus, outcome: Outcome) -> RecoveryVaultStatus:
    """Take over nothing."""
    return status
