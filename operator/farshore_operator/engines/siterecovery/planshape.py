"""Recovery plans between the SDK's models and our facts, in both directions, so that both can be compared."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from azure.mgmt.recoveryservicessiterecovery import models

from farshore_operator.engines.siterecovery.facts import PlanFacts, PlanGroup, PlanStep
from farshore_operator.engines.siterecovery.naming import last
from farshore_operator.engines.siterecovery.wishes import Manual

BOOT = "Boot"
FIXED = ("Shutdown", "Failover")
"""Groups that every plan has and the service adds: all machines are switched off, then failed over, then started."""
MANUAL = "ManualActionDetails"
TO_AZURE = "PrimaryToRecovery"
NOTHING = "None"
"""Name of the scenario of what nobody works on, as items show it."""
OVER = ("", "None", "Succeeded", "Completed", "CompletedWithInformation", "Failed", "Cancelled", "PartiallySucceeded")
"""What the last scenario of a plan that nobody works on has come to; a drill that waits is Suspended."""


def facts(one: Any) -> PlanFacts:
    """Translate a recovery plan."""
    properties = one.properties
    scenario, status = properties.current_scenario, _plain(properties.current_scenario_status)
    doing = _plain(scenario.scenario_name) if scenario is not None and status not in OVER else ""
    return PlanFacts(
        name=one.name,
        fabric=last(properties.primary_fabric_id or "").lower(),
        groups=tuple(_group(group) for group in properties.groups or ()),
        doing="" if doing == NOTHING else doing,
    )


def step(manual: Manual) -> PlanStep:
    """Return what waits for a person in a recovery plan."""
    types = {"UnplannedFailover", *(["TestFailover"] if manual.drills else [])}
    return PlanStep(manual.name, MANUAL, manual.text, frozenset(types), frozenset({TO_AZURE}))


def comparable(groups: tuple[PlanGroup, ...]) -> tuple[PlanGroup, ...]:
    """Return what is compared of a plan: its groups of machines, and the others only if something was added to them.

    Ids have no case, and the machines of a group no order, for they go side by side.
    """
    boot = (replace(one, items=tuple(sorted(i.lower() for i in one.items))) for one in groups if one.kind == BOOT)
    fixed = (PlanGroup(one.kind, (), one.before, one.after) for one in groups if one.kind != BOOT)
    return (*boot, *(one for one in fixed if one.before or one.after))


def digest(groups: tuple[PlanGroup, ...], fabric: str) -> str:
    """Return a word that is the same for the same plan."""
    parts = [fabric.lower()]
    for one in comparable(groups):
        parts += [one.kind, *one.items]
        for place, steps in (("before", one.before), ("after", one.after)):
            parts += [part for s in steps for part in (place, s.name, s.kind, s.text, *sorted(s.types))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def model(one: PlanGroup) -> models.RecoveryPlanGroup:
    """Return a group as the service takes it."""
    return models.RecoveryPlanGroup(
        group_type=one.kind,
        replication_protected_items=[models.RecoveryPlanProtectedItem(id=item) for item in one.items],
        start_group_actions=[_action(step) for step in one.before],
        end_group_actions=[_action(step) for step in one.after],
    )


def _action(one: PlanStep) -> models.RecoveryPlanAction:
    return models.RecoveryPlanAction(
        action_name=one.name,
        failover_types=sorted(one.types),
        failover_directions=sorted(one.directions),
        custom_details=models.RecoveryPlanManualActionDetails(description=one.text),
    )


def _group(one: Any) -> PlanGroup:
    items = tuple(item.id or "" for item in one.replication_protected_items or ())
    before, after = (tuple(_step(s) for s in steps or ()) for steps in (one.start_group_actions, one.end_group_actions))
    return PlanGroup(_plain(one.group_type), items, before, after)


def _step(one: Any) -> PlanStep:
    details = one.custom_details
    kind = _plain(details.instance_type) if details is not None else ""
    return PlanStep(
        one.action_name or "",
        kind,
        (getattr(details, "description", "") or "") if kind == MANUAL else "",
        frozenset(_plain(word) for word in one.failover_types or ()),
        frozenset(_plain(word) for word in one.failover_directions or ()),
    )


def _plain(word: Any) -> str:
    """Return the word itself: the SDK makes an enumeration of those that it knows."""
    return str(getattr(word, "value", word) or "")
