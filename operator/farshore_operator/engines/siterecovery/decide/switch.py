"""The move of a machine from the classic experience to the modernized one, which Site Recovery makes by itself.

Until the new item is there the old one protects the machine, and is what is told; what is in the way of the move is
told beside it, in Microsoft's words, and nothing else is begun.
"""

from __future__ import annotations

from farshore_engine.contract.faults import Fault
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.replication import Check, CheckResult, ReplicationReport
from farshore_engine.contract.siterecovery import SWITCH
from farshore_operator.engines.siterecovery.calls import SwitchProvider
from farshore_operator.engines.siterecovery.decide.verdict import told
from farshore_operator.engines.siterecovery.facts import Appliance, Item, Job, Problem, Scenario

OLDEST = (9, 50)
"""Microsoft: agent and configuration server 9.50 or newer ("Move from classic to modernized VMware disaster
recovery")."""
WAITING_DRILL = "WaitingForCompletion"


def step(
    item: Item,
    goal: Appliance | None,
    vault: str,
    kept: Operation | None,
    job: Job | None,
    old: ReplicationReport | None,
) -> tuple[Check, SwitchProvider | None]:
    """Return what there is to tell of the move, and its call if it can begin now.

    Args:
        item: the item of the classic experience.
        goal: the appliance that the machine moves to, None if it is not known yet.
        vault: the resource id of the vault that it moves into.
        kept: the recorded operation, if it goes on or rests after a failure.
        job: its job.
        old: what was reported last.
    """
    if item.switched_to:
        return _check(CheckResult.PASSED, f"Site Recovery has moved it to {item.switched_to}"), None
    if item.doing == SwitchProvider.__name__ or (job is not None and not job.over):
        part = f", {job.percent} %" if job is not None and job.percent is not None else ""
        return _check(
            CheckResult.PASSED, f"Site Recovery moves it (job {item.job or (job.id if job else '')}{part})"
        ), None
    if kept is not None:
        return _resting(job, old), None
    wrong = _wrong_goal(goal) or _unfit(item)
    if wrong is not None or goal is None:
        return wrong or _check(CheckResult.WARNING, "the vault that it moves into is not ready"), None
    text = f"Site Recovery is about to move it to appliance {goal.friendly}"
    return _check(CheckResult.PASSED, text), SwitchProvider(item, vault, goal)


def refused(fault: Fault) -> Check:
    """Return what to tell when Site Recovery refuses to begin."""
    return _check(CheckResult.ERROR, fault.message, f"{fault.remedy}. It is tried again after a while")


def _resting(job: Job | None, old: ReplicationReport | None) -> Check:
    if job is not None and job.failed:
        why = told(job)
        return _check(CheckResult.ERROR, why.message, f"{why.remedy}. It is tried again after a while")
    known = next((one for one in (old.checks if old is not None else ()) if one.name == SWITCH), None)
    return known or _check(CheckResult.PASSED, "what was begun for it is waited for")


def _wrong_goal(goal: Appliance | None) -> Check | None:
    if goal is None:
        text = "the vault that it moves into is not ready: see the conditions of its RecoveryVault"
        return _check(CheckResult.WARNING, text)
    if goal.scenario is not Scenario.MODERN:
        text = f"{goal.friendly} is a configuration server, and a machine moves to a replication appliance"
        return _check(CheckResult.ERROR, text, "Name in spec.vaultRef a RecoveryVault of the modernized experience")
    if not goal.connected:
        text = f"Site Recovery does not hear of appliance {goal.friendly}"
        return _check(CheckResult.WARNING, text, "Start it, check its clock and HTTPS to Azure")
    severe = tuple(one for one in goal.problems if one.severe)
    return _said(severe) if severe else None


def _unfit(item: Item) -> Check | None:
    if item.recovered:
        text = "it runs in Azure: a machine that is failed over does not move"
        return _check(CheckResult.ERROR, text, "Commit the failover, and protect the machine in the new vault")
    if item.drill == WAITING_DRILL:
        return _check(CheckResult.WARNING, "its test failover is not cleaned up", "Clean the drill up")
    if item.job:
        return _check(CheckResult.WARNING, f"Site Recovery is at work on it ({item.doing}, job {item.job})")
    if item.state != "Protected" or item.resync:
        text = f"its replication is not settled ({item.state_text or item.state}{', resynchronising' * item.resync})"
        return _check(CheckResult.WARNING, text, "It moves once it is protected")
    if _version(item.agent_version) < OLDEST:
        text = f"its Mobility service {item.agent_version or '(unknown)'} is older than 9.50"
        return _check(
            CheckResult.ERROR, text, "Upgrade it in the portal: Site Recovery, Replicated items, Update agent"
        )
    if item.blockers:
        return _said(item.blockers)
    if item.health == "Critical":
        return _said(item.problems or (Problem("Critical", "its replication health is critical"),))
    return None


def _said(problems: tuple[Problem, ...]) -> Check:
    """Return everything that Site Recovery says against it, in its own words."""
    text = "; ".join(one.told for one in problems)
    remedy = "; ".join(dict.fromkeys(one.remedy for one in problems if one.remedy))
    return _check(CheckResult.ERROR, text, remedy or "Look at the replicated item in the vault")


def _version(text: str) -> tuple[int, ...]:
    """Return major and minor number; what cannot be read counts as new, for Site Recovery checks it itself."""
    parts = text.split(".")[:2]
    return tuple(int(one) for one in parts) if text and all(one.isdigit() for one in parts) else OLDEST


def _check(result: CheckResult, message: str, remedy: str = "") -> Check:
    return Check(name=SWITCH, result=result, message=message[:4000], remedy=remedy[:4000])
