"""The journal of a run, and pins."""

from __future__ import annotations

import pytest
from tests.unit.vault.rig import Rig

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.journal import JournalTaken
from farshore_engine.vault.pins import list_pins


def test_entries_come_back_in_order_and_once() -> None:
    rig = Rig()
    for sequence in range(12):
        rig.vault.journal.append("run-1", sequence, {"step": f"s{sequence}", "disks": ["a", "b"]})
    rig.vault.journal.append("run-1", 3, {"disks": ["a", "b"], "step": "s3"})  # the answer was lost
    assert [e["step"] for e in rig.open().journal.entries("run-1")] == [f"s{n}" for n in range(12)]
    rig.vault.journal.append("run-2", 0, {})
    assert rig.vault.journal.runs() == ["run-1", "run-2"]
    assert rig.vault.journal.entries("run-3") == []


def test_two_control_planes_do_not_write_one_entry() -> None:
    rig = Rig()
    rig.vault.journal.append("run-1", 0, {"step": "mine"})
    with pytest.raises(JournalTaken) as caught:
        rig.open().journal.append("run-1", 0, {"step": "theirs"})
    assert caught.value.entry == {"step": "mine"}


def test_a_journal_ends_where_an_entry_is_missing() -> None:
    rig = Rig()
    for sequence in (0, 1, 3):
        rig.vault.journal.append("run-1", sequence, {"n": sequence})
    assert [e["n"] for e in rig.vault.journal.entries("run-1")] == [0, 1]


@pytest.mark.parametrize("move", ["flip", "other sequence", "other run"])
def test_a_journal_that_was_altered_is_refused(move: str) -> None:
    rig = Rig()
    rig.vault.journal.append("run-1", 0, {"n": 0})
    names = rig.vault.access.names
    data = rig.store.get(names.journal("run-1", 0))[0]
    run = "run-2" if move == "other run" else "run-1"
    if move == "flip":
        rig.store.put(names.journal(run, 0), data[:-1] + bytes([data[-1] ^ 1]))
    else:
        rig.store.put(names.journal(run, 1 if move == "other sequence" else 0), data)
    with pytest.raises(StopFault) as caught:
        rig.vault.journal.entries(run)
    assert caught.value.reason == "JournalDamaged"


def test_nothing_in_the_vault_is_readable_without_the_key() -> None:
    rig = Rig()
    rig.change("sda", {})
    rig.disks["sda"][:24] = b"the secret of the source"
    rig.send("sda", [0])
    rig.commit()
    rig.vault.journal.append("run-1", 0, {"note": "the secret of the run"})
    for name in rig.store.list(""):
        assert b"the secret" not in rig.store.get(name)[0], name


def test_pins_are_counted_by_point_and_released_by_name() -> None:
    rig = Rig()
    rig.point("sda", {1: 1})
    point = rig.vault.catalogue().points[0]
    for name in ("run-1", "drill.2", "run-1"):
        rig.vault.pin(point, name)
    assert list_pins(rig.vault.access) == {point.slot: ("drill.2", "run-1")}
    assert rig.vault.catalogue().points[0].summary.pinned
    rig.vault.unpin(point.slot, "run-1")
    rig.vault.unpin(point.slot, "run-1")
    assert list_pins(rig.vault.access) == {point.slot: ("drill.2",)}


@pytest.mark.parametrize("name", ["", "a/b", "..", "-x", "x" * 300])
def test_a_pin_that_cannot_be_a_name_is_refused(name: str) -> None:
    rig = Rig()
    rig.point("sda", {1: 1})
    with pytest.raises(StopFault) as caught:
        rig.vault.pin(rig.vault.catalogue().points[0], name)
    assert caught.value.reason == "BadName"
