"""What a FailoverPlan asks of a recovery plan of Site Recovery, and what of it such a plan cannot do.

A manual action waits, so an approval is one. Nothing else maps: a Job and a call belong to Farshore, a probe asks from
outside, and Site Recovery has no limit of how many machines of a group go at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from farshore_engine.contract.faults import StopFault
from farshore_operator.api import FailoverPlan
from farshore_operator.api.failoverplan import Group
from farshore_operator.api.hook import Hook, OnFailure
from farshore_operator.engines.siterecovery.wishes import GroupWish, Manual, PlanWish


@dataclass(frozen=True)
class PlannedMachine:
    """A machine that a plan means: its name, its RecoveryVault, and whether that is one of engine siteRecovery."""

    name: str
    vault: str
    site_recovery: bool


def plan_wish(plan: FailoverPlan, members: Mapping[str, tuple[PlannedMachine, ...]], vault: str) -> PlanWish | None:
    """Return what a FailoverPlan asks of a vault, None if that is nothing and nothing was reported of it there.

    Args:
        plan: the FailoverPlan.
        members: its machines by group, each in the first group that means it.
        vault: the RecoveryVault of engine siteRecovery that is asked for.
    """
    name, report = plan.metadata.name, plan.status.site_recovery
    vaults = sorted({one.vault for group in members.values() for one in group if one.site_recovery})
    known = report.vault if report is not None else ""
    keeper = known if known in vaults else next(iter(vaults), "")
    if plan.metadata.deletion_timestamp is not None or keeper != vault:
        # Whoever reported of it withdraws that; of a plan that is gone there is nothing to withdraw.
        return PlanWish(name, unwanted=True, report=report) if known == vault else None
    refusal = None
    if len(vaults) > 1:
        text = f"its machines replicate into several vaults ({', '.join(vaults)}), and a recovery plan belongs to one"
        refusal = StopFault(text, "Write a FailoverPlan for the machines of each vault", reason="SeveralVaults")
    groups, left = [], []
    for group in plan.spec.groups:
        mine = tuple(one.name for one in members.get(group.name, ()) if one.vault == vault)
        left += [f"machine {one.name}: it replicates into {one.vault}" for one in members.get(group.name, ())
                 if one.vault != vault]  # fmt: skip
        left += _left_out(plan, group)
        groups.append(GroupWish(group.name, mine, _manual(group.before), _manual(group.after)))
    used = tuple(one for one in groups if one.machines)
    return PlanWish(name, used, tuple(dict.fromkeys(left)), refusal, report=report)


def _left_out(plan: FailoverPlan, group: Group) -> list[str]:
    found = []
    for place, hooks in (("before", group.before), ("after", group.after)):
        for hook in hooks:
            why = _unlike(hook)
            if why:
                found.append(f"group {group.name}, hook {place}/{hook.name}: {why}")
    if group.probes or plan.spec.probes:
        found.append(f"group {group.name}, probes: Site Recovery does not ask recovered machines")
    if group.max_parallel is not None:
        found.append(f"group {group.name}, maxParallel: Site Recovery recovers all machines of a group at a time")
    return found


def _unlike(hook: Hook) -> str:
    """Say what of a hook a recovery plan does not do; empty if it does all of it."""
    if hook.approval is None:
        return f"{'a job' if hook.job is not None else 'a call'} that Farshore makes, not Site Recovery"
    held = []
    if hook.approval.users or hook.approval.groups or hook.approval.count > 1:
        held.append("who may approve, and how many must, is told in its text only")
    if hook.timeout is not None:
        held.append("a manual action has no timeout")
    if hook.on_failure is not OnFailure.STOP:
        held.append("a manual action cannot be rejected")
    return "; ".join(held)


def _manual(hooks: tuple[Hook, ...]) -> tuple[Manual, ...]:
    return tuple(Manual(one.name, _text(one), one.in_drills) for one in hooks if one.approval is not None)


def _text(hook: Hook) -> str:
    approval = hook.approval
    if approval is None:
        return ""
    who = ", ".join((*approval.users, *(f"group {one}" for one in approval.groups)))
    if not who and approval.count == 1:
        return approval.message
    return f"{approval.message} (to be confirmed by {approval.count} of: {who or 'anybody'})"
