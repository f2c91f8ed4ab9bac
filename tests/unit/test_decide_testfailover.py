"""A drill is refused with a reason rather than carried out with a part left out."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide_world import NOW, meta, run

from farshore_operator.api import TestFailover
from farshore_operator.decide import testfailover


def decided(*probes: dict[str, Any]) -> Any:
    body = {"metadata": meta("d"), "spec": {"protectedVMRef": {"name": "web-01"}, "probes": list(probes)}}
    observed = testfailover.ObservedDrill(TestFailover.of(body), (), (), None)
    return testfailover.decide(observed, NOW).status


@pytest.mark.parametrize(
    ("probe", "refused"),
    [
        pytest.param({"name": "shop", "http": {"path": "/health"}}, True, id="a page"),
        pytest.param({"name": "db", "tcp": {"port": 5432}}, True, id="a port"),
        pytest.param({"name": "login", "ssh": {"port": 2222}}, True, id="another SSH port"),
        pytest.param({"name": "login", "ssh": {}}, False, id="the SSH server"),
    ],
)
def test_a_probe_that_cannot_be_asked_is_refused_by_name(probe: dict[str, Any], refused: bool) -> None:
    stalled = decided(probe).condition("Stalled")
    assert (stalled.reason == "ProbeNotSupported") is refused
    assert (probe["name"] in stalled.message) is refused


def test_a_deletion_that_waits_says_what_for_and_how_to_end_it() -> None:
    """A drill whose process server is gone for ever held its object back without a word on the way out."""
    kept = meta("d", deletionTimestamp=NOW.isoformat(), finalizers=[testfailover.FINALIZER])
    drill = TestFailover.of({"metadata": kept, "spec": {"protectedVMRef": {"name": "web-01"}}})
    found = testfailover.ObservedDrill(drill, (), (), run("TestFailover", "CleaningUp"))
    decision = testfailover.decide(found, NOW)
    assert decision.actions == ()
    assert "farshore.dev/force-delete" in decision.status.next_step
