"""Signed reports: written once, never changed, and a change of a byte is noticed, in the vault and outside."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.vault.rig import Rig

from farshore_engine.contract.faults import StopFault
from farshore_engine.processserver.reportpage import page_of
from farshore_engine.vault.reports import SignedReport

TEXT = json.dumps({"run": "drill-1", "machine": "team-a.db", "result": "Succeeded", "notes": "all well"})
LATER = json.dumps({"run": "drill-1", "machine": "team-a.db", "result": "Succeeded", "notes": "cleaned up"})


def test_a_report_is_written_once_and_one_that_tells_more_goes_behind_it() -> None:
    rig = Rig()
    first = rig.vault.reports.write("drill-1", TEXT, "<p>one</p>")
    assert rig.open().reports.write("drill-1", TEXT, "<p>one</p>") == first, "the answer was lost"
    second = rig.vault.reports.write("drill-1", LATER, "<p>two</p>")
    assert [first.name, second.name] == ["drill-1/000000", "drill-1/000001"]
    reports = rig.open().reports
    assert reports.runs() == ["drill-1"]
    assert reports.numbers("drill-1") == [0, 1]
    assert reports.read("drill-1", 0).report == TEXT
    assert reports.read("drill-1", 1).page == "<p>two</p>"


def test_nothing_of_a_report_can_be_read_without_the_key() -> None:
    rig = Rig()
    rig.vault.reports.write("drill-1", TEXT, "<p>all well</p>")
    data = rig.store.get(rig.vault.access.names.report("drill-1", 0))[0]
    assert b"all well" not in data


@pytest.mark.parametrize("move", ["flip", "other run", "other number"])
def test_a_report_that_was_altered_in_the_store_is_refused(move: str) -> None:
    rig = Rig()
    rig.vault.reports.write("drill-1", TEXT, "")
    names = rig.vault.access.names
    data = rig.store.get(names.report("drill-1", 0))[0]
    run, number = ("drill-2" if move == "other run" else "drill-1"), (1 if move == "other number" else 0)
    rig.store.put(names.report(run, number), data[:-1] + bytes([data[-1] ^ 1]) if move == "flip" else data)
    with pytest.raises(StopFault) as caught:
        rig.open().reports.read(run, number)
    assert caught.value.reason == "ReportDamaged"


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"report": TEXT.replace("well", "bad")}, id="the text"),
        pytest.param({"page": "<p>another</p>"}, id="the page"),
        pytest.param({"run": "drill-2"}, id="the run"),
        pytest.param({"number": 1}, id="the number"),
        pytest.param({"machine": "team-a.web"}, id="the machine"),
        pytest.param({"report": TEXT + "<p>", "page": "one</p>"}, id="bytes moved from one part to the next"),
        pytest.param({"signature": bytes(32)}, id="no signature"),
    ],
)
def test_an_exported_report_that_was_altered_does_not_verify(change: dict[str, Any]) -> None:
    rig = Rig()
    keys = rig.vault.access.keys
    exported = SignedReport.decode(rig.vault.reports.write("drill-1", TEXT, "<p>one</p>").encode())
    exported.verify(keys)
    with pytest.raises(StopFault, match="does not verify"):
        replace(exported, **change).verify(keys)


def test_a_report_of_another_machine_of_the_vault_does_not_verify() -> None:
    rig = Rig()
    other = Rig(rig.store, machine="team-b.web")
    exported = rig.vault.reports.write("drill-1", TEXT, "")
    with pytest.raises(StopFault, match="does not verify"):
        exported.verify(other.vault.access.keys)


def test_what_is_no_report_is_refused() -> None:
    for data in (b"", b"[]", b"{}", b'{"format": 1, "signature": {"algorithm": "BLAKE3-keyed", "salt": "00"}}'):
        with pytest.raises(ValueError):
            SignedReport.decode(data)


def test_a_page_shows_everything_as_text() -> None:
    hostile = "<script>alert(1)</script>"
    page = page_of(
        {
            "run": "drill-1",
            "machine": "team-a.db",
            "result": "Failed",
            "rpoSeconds": 12.5,
            "disksVerified": True,
            "probes": [{"name": "page", "result": "Failed", "answer": hostile}],
            "steps": [{"name": "Probe", "phase": "Failed", "message": "it did not answer"}],
            "removed": ["directory /x"],
            "notes": f"{hostile} & more",
            "unknown": [1],
        }
    )
    assert hostile not in page
    assert page.count("&lt;script&gt;") == 2
    assert '<b class="bad">Failed</b>' in page
    for shown in ("12.5", "yes", "it did not answer", "directory /x", "&amp; more", "farshore vault report"):
        assert shown in page
    for outside in ("http:", "https:", "src=", "url(", "@import"):
        assert outside not in page, "the page needs nothing else"
