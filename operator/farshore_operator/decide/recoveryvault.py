"""Decides on a RecoveryVault: its Secrets resolve, and its engine is one that this release has."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from farshore_engine.contract.replication import KeyReport
from farshore_engine.contract.siterecovery import SiteRecoveryReport
from farshore_operator.api import RecoveryVault
from farshore_operator.api.recoveryvault import Engine, KeyRotation, RecoveryVaultStatus, VaultPhase
from farshore_operator.decide.decision import Decision, Outcome
from farshore_operator.decide.naming import REFUSED_ANNOTATION
from farshore_operator.decide.references import SecretUse, problems, summary
from farshore_operator.engines.capabilities import FACTS
from farshore_operator.report.conditions import Health, Seen, Verdict, ready, settle, stalled, waiting

RETRY = timedelta(seconds=8)
KEYS_ROTATED = "KeysRotated"
SERVER_CONNECTED = "ServerConnected"
SITE_RECOVERY_HEALTHY = "SiteRecoveryHealthy"
_PHASES = {Health.READY: VaultPhase.READY, Health.RECONCILING: VaultPhase.PENDING, Health.STALLED: VaultPhase.FAILED}


@dataclass(frozen=True)
class ObservedVault:
    """A vault, its Secrets, the number of machines that replicate into it, and which keys open each of these.

    `keys` has None for a machine whose vault no process server has opened.
    """

    vault: RecoveryVault
    secrets: tuple[SecretUse, ...]
    machines: int
    keys: tuple[KeyReport | None, ...] = ()


def decide(observed: ObservedVault, now: datetime) -> Decision[RecoveryVaultStatus]:
    """Decide on a vault. Whether its storage answers is for the process servers to see: the operator never opens it."""
    vault, meta = observed.vault, observed.vault.metadata
    if meta.deletion_timestamp:
        return Decision(None)
    verdict = judge(vault, observed.secrets)
    facts = FACTS[vault.spec.engine]
    status = RecoveryVaultStatus(
        observed_generation=meta.generation,
        conditions=settle(
            vault.status.conditions, verdict, (*rotation(observed), *infrastructure(vault)), meta.generation, now
        ),
        phase=_PHASES[verdict.health],
        machines=observed.machines,
        keys=_keys(observed),
        capabilities=tuple(sorted(facts.capabilities)),
        site_recovery=vault.status.site_recovery,
    )
    return Decision(status, (), RETRY if verdict.health is Health.RECONCILING else None)


def judge(vault: RecoveryVault, secrets: tuple[SecretUse, ...]) -> Verdict:
    """Return whether machines can replicate into the vault."""
    missing = problems(vault.metadata.namespace, secrets)
    if missing:
        problem = summary(missing)
        return waiting(problem.reason, problem.message + _to_be_made(vault))
    if vault.spec.engine is Engine.SITE_RECOVERY:
        return _driven(vault.status.site_recovery)
    return ready(message="everything that it refers to is there")


def _to_be_made(vault: RecoveryVault) -> str:
    """Return who makes the storage, where that is asked for: a person, for it takes rights that nobody here has."""
    azure = vault.spec.azure
    if vault.spec.engine is not Engine.NATIVE or azure is None or not azure.region:
        return ""
    name, refused = vault.metadata.name, vault.metadata.annotations.get(REFUSED_ANNOTATION, "")
    told = f". The last try was refused: {refused}" if refused else ""
    return f". `farshore vault create {name} --make-secret` makes storage account, container and their Secret{told}"


def _driven(report: SiteRecoveryReport | None) -> Verdict:
    """Return what the driver of Site Recovery says of the vault."""
    if report is None:
        return waiting("LookingAtVault", "Site Recovery is about to be asked")
    if not report.reason:
        return ready(message="machines can replicate into it")
    text = f"{report.message}. {report.remedy}" if report.remedy else report.message
    return (waiting if report.waits else stalled)(report.reason, text)


def infrastructure(vault: RecoveryVault) -> tuple[Seen, ...]:
    """Return how the configuration servers and appliances of a vault of Site Recovery are."""
    report = vault.status.site_recovery
    if report is None or vault.spec.engine is not Engine.SITE_RECOVERY or not report.exists:
        return ()
    names = ", ".join(one.name for one in report.appliances)
    away = [one.name for one in report.appliances if not one.connected]
    if not report.appliances:
        server = Seen(SERVER_CONNECTED, False, "NoServerRegistered", f"{report.message}. {report.remedy}")
    elif away:
        server = Seen(SERVER_CONNECTED, False, "ServerNotConnected", f"Site Recovery does not hear of {away[0]}")
    else:
        server = Seen(SERVER_CONNECTED, True, "Connected", f"Site Recovery hears of {names}")
    if not report.checks:
        return (server, Seen(SITE_RECOVERY_HEALTHY, True, "Healthy", "Site Recovery reports no health error"))
    first = report.checks[0]
    more = f" (and {len(report.checks) - 1} more)" if len(report.checks) > 1 else ""
    text = f"{first.message}. {first.remedy}{more}"
    return (server, Seen(SITE_RECOVERY_HEALTHY, False, first.name, text))


def rotation(observed: ObservedVault) -> tuple[Seen, ...]:
    """Return the condition KeysRotated while previous keys are named: whether they are needed no more."""
    encryption = observed.vault.spec.encryption
    if encryption is None or not encryption.previous_keys:
        return ()
    known = [keys for keys in observed.keys if keys is not None]
    behind = [keys for keys in known if not keys.wrapped]
    if behind:
        why = behind[0].message or "their process servers have not wrapped them yet"
        message = f"{len(behind)} of {len(known)} machines still need a previous key: {why}"
        return (Seen(KEYS_ROTATED, False, "KeyNeeded", message),)
    if len(known) < len(observed.keys):
        message = f"{len(observed.keys) - len(known)} machines were not opened yet, so what they need is not known"
        return (Seen(KEYS_ROTATED, False, "NotKnown", message),)
    left = sorted({name for keys in known for name in keys.previous})
    if not left:
        message = "no other key opens any machine: remove encryption.previousKeys and destroy those keys"
        return (Seen(KEYS_ROTATED, True, "Removed", message),)
    message = (
        f"the current key opens all {len(known)} machines; {', '.join(left)} still do too: set remove: true in "
        "encryption.previousKeys to end that"
    )
    return (Seen(KEYS_ROTATED, True, "Wrapped", message),)


def _keys(observed: ObservedVault) -> KeyRotation | None:
    known = [keys for keys in observed.keys if keys is not None]
    if not known:
        return None
    return KeyRotation(
        current_key=next((keys.current for keys in known if keys.wrapped), known[0].current),
        machines=len(known),
        wrapped=sum(keys.wrapped for keys in known),
        previous_keys=tuple(sorted({name for keys in known for name in keys.previous}))[:32],
    )


def fold(status: RecoveryVaultStatus, outcome: Outcome) -> RecoveryVaultStatus:
    """Take over nothing."""
    return status
