"""What a drill's status tells, and when it lets its object go."""

from __future__ import annotations

from tests.unit.decide_world import NOW, meta, run

from farshore_operator.api import TestFailover
from farshore_operator.decide import testfailover


def test_a_drill_shows_what_it_measured_and_what_each_probe_was_answered() -> None:
    answers = [{"name": "page", "passed": False, "answer": "/ answered 503"}, {"name": "db", "passed": True}]
    members = [{"protectedVM": "web-01", "probes": answers, "address": "10.0.0.9", "port": 22}]
    ended = run("TestFailover", "Failed", members=members, rpoSeconds=12.5, rtoSeconds=None)
    drill = TestFailover.of({"metadata": meta("d"), "spec": {"protectedVMRef": {"name": "web-01"}}})
    status = testfailover.decide(testfailover.ObservedDrill(drill, (), (), ended), NOW).status
    assert status.rpo_seconds == 12.5
    assert status.rto_seconds is None
    (machine,) = status.machines
    assert [(one.name, one.passed) for one in machine.probes] == [("page", False), ("db", True)]


def test_a_drill_that_is_cleaned_up_says_what_was_removed_and_looked_for() -> None:
    removed = ["process 4711", "/state/machines/web-01-d/disk-0.raw", "pin d of slot 7"]
    members = [{"protectedVM": "web-01", "removed": removed, "lookedFor": ["machine web-01-d", "pin d of any point"]}]
    ended = run("TestFailover", "CleanedUp", members=members)
    drill = TestFailover.of({"metadata": meta("d"), "spec": {"protectedVMRef": {"name": "web-01"}}})
    status = testfailover.decide(testfailover.ObservedDrill(drill, (), (), ended), NOW).status
    for condition in ("CleanedUp", "Ready"):
        message = status.condition(condition).message
        assert message.startswith("nothing is left of the drill: web-01: removed process 4711, ")
        assert message.endswith("looked for and not found: machine web-01-d, pin d of any point")


def test_a_deletion_that_waits_says_what_for_and_how_to_end_it() -> None:
    """A drill whose process server is gone for ever held its object back without a word on the way out."""
    kept = meta("d", deletionTimestamp=NOW.isoformat(), finalizers=[testfailover.FINALIZER])
    drill = TestFailover.of({"metadata": kept, "spec": {"protectedVMRef": {"name": "web-01"}}})
    found = testfailover.ObservedDrill(drill, (), (), run("TestFailover", "CleaningUp"))
    decision = testfailover.decide(found, NOW)
    assert decision.actions == ()
    assert "farshore.dev/force-delete" in decision.status.next_step
