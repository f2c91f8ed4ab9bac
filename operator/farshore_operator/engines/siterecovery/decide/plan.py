"""The recovery plan of a FailoverPlan: made when its machines are protected, kept as declared, deleted with it.

Plans have no tags. Ours are marked by their name, which holds a digest of the FailoverPlan's, and are noted in the
vault's report before they are made. One of that name that is not noted is taken over only if it holds no machine of
anybody else, as after the cluster was rebuilt; what is somebody else's is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from farshore_engine.contract.operation import Operation
from farshore_engine.contract.siterecovery import RecoveryPlanReport
from farshore_operator.engines.siterecovery import planshape
from farshore_operator.engines.siterecovery.calls import Call, CreatePlan, DeletePlan, UpdatePlan
from farshore_operator.engines.siterecovery.decide.report import COPYING, FAILED
from farshore_operator.engines.siterecovery.decide.verdict import Verdict, resting, told, under_way
from farshore_operator.engines.siterecovery.facts import Item, Job, PlanFacts, PlanGroup
from farshore_operator.engines.siterecovery.naming import last
from farshore_operator.engines.siterecovery.wishes import PlanWish

MAX_GROUPS = 7
"""Microsoft: "You can have up to seven groups" ("Create and customize recovery plans", 2016)."""
MAX_MACHINES = 100
"""Microsoft: "Up to 100 protected instances can be added to one recovery plan" ("About recovery plans")."""
CONTAINER = "/replicationProtectionContainers/"


@dataclass(frozen=True)
class PlanView:
    """A FailoverPlan and its recovery plan as they were read.

    Attributes:
        name: of the recovery plan in the vault.
        found: the recovery plan of that name, None if there is none.
        noted: whether the vault's report says that it is ours.
        items: the replicated items of its machines by name; None for a machine that has none, or is about to go.
        job: of the recorded operation.
    """

    wish: PlanWish
    vault: str
    name: str
    found: PlanFacts | None = None
    noted: bool = False
    items: Mapping[str, Item | None] = field(default_factory=dict)
    job: Job | None = None


def decide(view: PlanView, now: datetime) -> Verdict[RecoveryPlanReport]:
    """Return the next call for a recovery plan, and its report."""
    recorded = view.wish.report.operation if view.wish.report is not None else None
    kept = recorded if under_way(recorded, view.job, now) or resting(recorded, view.job, now) else None
    base = _base(view, kept)
    for step in (_refused, _foreign, _waits, _busy, _moved):
        verdict = step(view, base)
        if verdict is not None:
            return verdict
    if not base.machines:
        text = "Site Recovery protects none of its machines yet"
        return Verdict(_said(base, "NoMachineProtected", text), _drop(view))
    return _follow(view, base, now)


def ours(view: PlanView) -> bool:
    """Tell whether the recovery plan of that name may be changed: it is noted, or holds our machines only."""
    if view.noted or view.found is None:
        return True
    own = {item.id.lower() for item in view.items.values() if item is not None}
    return bool(view.found.items) and view.found.items <= own


def groups(view: PlanView) -> tuple[PlanGroup, ...]:
    """Return the groups of the recovery plan: those of the FailoverPlan that have a machine already."""
    found = []
    for group in view.wish.groups:
        items = [item.id for name in group.machines if (item := _protected(view, name)) is not None]
        if items:
            before, after = (tuple(planshape.step(one) for one in steps) for steps in (group.before, group.after))
            found.append(PlanGroup(planshape.BOOT, tuple(items), before, after))
    return tuple(found)


def _base(view: PlanView, kept: Operation | None) -> RecoveryPlanReport:
    old = view.wish.report
    names = [name for group in view.wish.groups for name in group.machines]
    ready = {name for name in names if _protected(view, name) is not None}
    return RecoveryPlanReport(
        vault=view.vault,
        name=view.name,
        groups=len(groups(view)),
        machines=tuple(name for name in names if name in ready),
        missing=tuple(name for name in names if name not in ready),
        left_out=view.wish.left_out,
        seen=old.seen if old is not None else "",
        changed=old.changed if old is not None else "",
        changed_at=old.changed_at if old is not None else None,
        operation=kept,
    )


def _refused(view: PlanView, base: RecoveryPlanReport) -> Verdict[RecoveryPlanReport] | None:
    """Refuse what cannot be said to Site Recovery; a plan that is there already is left as it is."""
    fault = view.wish.refusal
    if fault is not None:
        return Verdict(_said(base, fault.reason, fault.message, fault.remedy))
    if len(view.wish.groups) > MAX_GROUPS:
        text = f"a recovery plan of Site Recovery has at most {MAX_GROUPS} groups, and this has {len(view.wish.groups)}"
        return Verdict(_said(base, "TooManyGroups", text, "Merge groups, or split the FailoverPlan"))
    count = len(base.machines) + len(base.missing)
    if count > MAX_MACHINES:
        text = f"a recovery plan of Site Recovery has at most {MAX_MACHINES} machines, and this has {count}"
        return Verdict(_said(base, "TooManyMachines", text, "Split the FailoverPlan"))
    fabrics = sorted({item.fabric for name in base.machines if (item := view.items.get(name)) is not None})
    if len(fabrics) > 1:
        text = f"its machines replicate from several servers ({', '.join(fabrics)}), and a recovery plan has one source"
        return Verdict(_said(base, "SeveralServers", text, "Write a FailoverPlan for the machines of each server"))
    return None


def _foreign(view: PlanView, base: RecoveryPlanReport) -> Verdict[RecoveryPlanReport] | None:
    if ours(view):
        return None
    text = f"the vault has a recovery plan {view.name} that was not made from this FailoverPlan: it is left as it is"
    remedy = "Look at it in the portal and delete it there, or give the FailoverPlan another name"
    return Verdict(_said(base, "NotOurs", text, remedy))


def _waits(view: PlanView, base: RecoveryPlanReport) -> Verdict[RecoveryPlanReport] | None:
    kept, job = base.operation, view.job
    if kept is None:
        return None
    if job is not None and job.failed:
        why = told(job)
        return Verdict(_said(base, "OperationFailed", why.message, f"{why.remedy}. It is tried again after a while"))
    text = f"{kept.call} is under way at Site Recovery (job {kept.job or 'unknown'})"
    old = view.wish.report
    reason = old.reason if old is not None and old.reason == "ChangedOutside" else "Writing"
    return Verdict(_said(base, reason, text))


def _busy(view: PlanView, base: RecoveryPlanReport) -> Verdict[RecoveryPlanReport] | None:
    if view.found is None or not view.found.doing or _as_declared(view):
        return None
    text = f"somebody runs it at Site Recovery ({view.found.doing}): it is changed once that is over"
    return Verdict(_said(base, "InUse", text, "End what was begun in the portal; clean a test failover up"))


def _moved(view: PlanView, base: RecoveryPlanReport) -> Verdict[RecoveryPlanReport] | None:
    """Leave machines that run in Azure in the plan that they are in, or out of it.

    Microsoft: "After failover it is recommended to not change a VM from one Recovery Plan and add it to another, as our
    backend uses the Recovery Plan name to identify the failover operation" ("About recovery plans").
    """
    there = view.found.items if view.found is not None else frozenset()
    wanted = {one.lower() for group in groups(view) for one in group.items}
    gone = {name: item.id.lower() for name, item in view.items.items() if item is not None and item.recovered}
    stuck = sorted(name for name, one in gone.items() if (one in there) is not (one in wanted))
    if not stuck:
        return None
    text = (
        f"{', '.join(stuck)} runs in Azure, and is neither put into a plan nor taken out of one until it is protected"
    )
    return Verdict(_said(base, "FailedOver", text, "Nothing is to be done: runs of the FailoverPlan do not need it"))


def _as_declared(view: PlanView) -> bool:
    wanted, found = groups(view), view.found
    if found is None or not wanted:
        return False
    return found.fabric == _fabric(view)[0] and planshape.comparable(found.groups) == planshape.comparable(wanted)


def _drop(view: PlanView) -> Call | None:
    return DeletePlan(view.found.name) if view.found is not None and view.noted else None


def _follow(view: PlanView, base: RecoveryPlanReport, now: datetime) -> Verdict[RecoveryPlanReport]:
    wanted, (fabric, fabric_id) = groups(view), _fabric(view)
    word = planshape.digest(wanted, fabric)
    if _as_declared(view):
        return Verdict(_there(base.model_copy(update={"seen": word})))
    call: Call
    if view.found is None:
        call = CreatePlan(view.name, fabric_id, wanted)
    elif view.found.fabric != fabric:
        call = DeletePlan(view.found.name)  # its source cannot be changed: it is made anew
    else:
        call = UpdatePlan(view.found.name, wanted)
    if base.seen != word:  # it was never seen as it is declared now
        return Verdict(_said(base, "Writing", "it is being written"), call)
    what = _difference(view, wanted)
    text = f"{what} outside of Farshore: it is put back"
    changed = base.model_copy(update={"changed": what[:1000], "changed_at": now})
    return Verdict(_said(changed, "ChangedOutside", text, "Change the FailoverPlan instead"), call)


def _there(base: RecoveryPlanReport) -> RecoveryPlanReport:
    if not base.missing:
        return base.model_copy(update={"in_place": True, "message": "it is as declared"})
    text = f"it is without {', '.join(base.missing)}, which Site Recovery does not protect yet"
    return _said(base, "MachinesMissing", text, "Look at these ProtectedVMs: they are put in by themselves")


def _difference(view: PlanView, wanted: tuple[PlanGroup, ...]) -> str:
    """Say what was changed of a recovery plan."""
    if view.found is None:
        return "it was deleted"
    names = {item.id.lower(): name for name, item in view.items.items() if item is not None}
    known = {one.lower() for group in wanted for one in group.items}
    added = [names.get(one, last(one)) for one in sorted(view.found.items - known)]
    gone = [names.get(one, last(one)) for one in sorted(known - view.found.items)]
    said = [f"{', '.join(added)} put in"] if added else []
    said += [f"{', '.join(gone)} taken out"] if gone else []
    if not said:
        members = [one.items for one in planshape.comparable(view.found.groups) if one.kind == planshape.BOOT]
        same = members == [one.items for one in planshape.comparable(wanted)]
        said = ["its actions were changed" if same else "its groups were changed"]
    return "; ".join(said)


def _protected(view: PlanView, name: str) -> Item | None:
    """Return the item of a machine that a recovery plan can hold: its first copy is there."""
    item = view.items.get(name)
    if item is None or item.switched_to:
        return None
    word = item.state.lower()
    return None if any(one in word for one in (*COPYING, *FAILED)) else item


def _fabric(view: PlanView) -> tuple[str, str]:
    """Return name, in lower case, and id of the server that the machines replicate from."""
    item = next(item for group in view.wish.groups for name in group.machines if (item := _protected(view, name)))
    at = item.id.lower().find(CONTAINER.lower())
    return item.fabric.lower(), item.id[:at]


def _said(base: RecoveryPlanReport, reason: str, message: str, remedy: str = "") -> RecoveryPlanReport:
    return base.model_copy(update={"reason": reason, "message": message, "remedy": remedy})
