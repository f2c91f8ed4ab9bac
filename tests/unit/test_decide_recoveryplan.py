"""The condition RecoveryPlanInPlace of a FailoverPlan, and the event of a change from outside."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from farshore_engine.contract.siterecovery import RecoveryPlanReport
from farshore_operator.api.planstatus import FailoverPlanStatus
from farshore_operator.decide import recoveryplan
from farshore_operator.report.conditions import ready, settle
from farshore_operator.report.happening import EventType, transitions

NOW = datetime(2025, 1, 31, 8, 0, tzinfo=UTC)


def _report(**more: Any) -> RecoveryPlanReport:
    fields: dict[str, Any] = {
        "vault": "asr",
        "name": "farshore-shop-1",
        "groups": 2,
        "machines": ("db1", "web1"),
        **more,
    }
    return RecoveryPlanReport(**fields)


def _status(report: RecoveryPlanReport | None, now: datetime = NOW) -> FailoverPlanStatus:
    return FailoverPlanStatus(conditions=settle((), ready(), recoveryplan.seen(report), 1, now))


def test_a_plan_that_has_nothing_to_do_with_site_recovery_has_no_such_condition() -> None:
    assert _status(None).condition(recoveryplan.IN_PLACE) is None


def test_what_is_in_place_is_told_with_what_is_left_out_and_what_was_put_back() -> None:
    left = ("group web, hook before/dns: a job that Farshore makes, not Site Recovery",)
    status = _status(_report(in_place=True, left_out=left, changed="web1 taken out", changed_at=NOW))
    found = status.condition(recoveryplan.IN_PLACE)
    assert found is not None and (found.status.value, found.reason) == ("True", "InPlace")
    assert found.message == (
        "recovery plan farshore-shop-1 of RecoveryVault asr is as declared: 2 machines in 2 groups. On 2025-01-31 "
        "08:00 UTC it was found changed and put back: web1 taken out. Not in it: " + left[0]
    )


def test_a_change_from_outside_is_an_event_and_so_is_that_it_was_put_back() -> None:
    before = _status(_report(in_place=True))
    during = _status(
        _report(
            reason="ChangedOutside", message="web1 taken out outside of Farshore: it is put back", remedy="Change it"
        )
    )
    (warning,) = transitions(before, during)
    assert (warning.type, warning.reason) == (EventType.WARNING, "ChangedOutside")
    assert "web1 taken out" in warning.note
    (back,) = transitions(during, _status(_report(in_place=True), NOW + timedelta(minutes=1)))
    assert (back.type, back.reason) == (EventType.NORMAL, recoveryplan.IN_PLACE)


def test_what_is_in_the_way_is_told_with_the_remedy() -> None:
    report = _report(reason="TooManyGroups", message="it has 8", remedy="Merge groups")
    found = _status(report).condition(recoveryplan.IN_PLACE)
    assert found is not None and (found.status.value, found.reason) == ("False", "TooManyGroups")
    assert found.message == "recovery plan farshore-shop-1 of RecoveryVault asr: it has 8. Merge groups"
