"""Tells of a FailoverPlan's recovery plan at Site Recovery as a condition.

It is beside Ready: runs of the FailoverPlan do not need it.
"""

from __future__ import annotations

from farshore_engine.contract.siterecovery import RecoveryPlanReport
from farshore_operator.report.conditions import Seen

IN_PLACE = "RecoveryPlanInPlace"


def seen(report: RecoveryPlanReport | None) -> tuple[Seen, ...]:
    """Return the condition RecoveryPlanInPlace; none for a plan that has nothing to do with Site Recovery."""
    if report is None:
        return ()
    where = f"recovery plan {report.name} of RecoveryVault {report.vault}"
    if report.in_place:
        text = f"{where} is as declared: {len(report.machines)} machines in {report.groups} groups"
        if report.changed and report.changed_at is not None:
            text += f". On {report.changed_at:%Y-%m-%d %H:%M} UTC it was found changed and put back: {report.changed}"
        if report.left_out:
            text += f". Not in it: {'; '.join(report.left_out)}"
        return (Seen(IN_PLACE, True, "InPlace", text),)
    text = f"{where}: {report.message}"
    return (Seen(IN_PLACE, False, report.reason or "Unknown", f"{text}. {report.remedy}" if report.remedy else text),)
