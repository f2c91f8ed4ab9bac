"""Rotation and erasure: nobody is locked out, wherever it is killed, and what is erased never opens again."""

from __future__ import annotations

import contextlib
import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.contract.faulty_store import DyingStore, Killed, RecordingStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import KEK, MACHINE, START, Rig

from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.chain import Fenced
from farshore_engine.vault.erasure import erase_machine
from farshore_engine.vault.keydocument import ErasedKey, KeyDocument
from farshore_engine.vault.keyring import KeyRing, LocalKey, Previous, WrongKey, rotate, unwrap
from farshore_engine.vault.machine import MachineVault

OLD, NEW, OTHER = LocalKey(KEK), LocalKey(bytes(range(100, 132))), LocalKey(bytes(range(200, 232)))
ADD = KeyRing(NEW, (Previous(OLD),))
REMOVE = KeyRing(NEW, (Previous(OLD, remove=True),))


def names_of(rig: Rig) -> list[str]:
    return [w.kek for w in KeyDocument.decode(rig.store.get(f"machines/{MACHINE}/key.json")[0], MACHINE).wraps]


def opens(rig: Rig, key: LocalKey) -> bool:
    try:
        MachineVault.open(rig.store, KeyRing(key), MACHINE).close()
    except WrongKey:
        return False
    return True


def with_a_point() -> Rig:
    rig = Rig()
    rig.point("sda", {1: 1, 5: 2})
    return rig


def test_rotation_has_two_steps_and_touches_no_data() -> None:
    rig = with_a_point()
    objects = {n: v for n, v in rig.store.objects.items() if not n.endswith("key.json")}  # type: ignore[attr-defined]
    report = rig.vault.rotate(ADD)
    assert report.wrapped and report.previous == (OLD.name(),) and not report.needed
    assert opens(rig, OLD) and opens(rig, NEW)
    assert rig.vault.rotate(REMOVE).previous == ()
    assert not opens(rig, OLD) and opens(rig, NEW)
    assert objects == {n: v for n, v in rig.store.objects.items() if not n.endswith("key.json")}  # type: ignore[attr-defined]
    rig.point("sda", {2: 3})  # who had it open goes on
    reader = MachineVault.open(rig.store, KeyRing(NEW), MACHINE)
    assert len(reader.catalogue().points) == 2


def test_a_rotated_machine_costs_two_looks_and_no_write() -> None:
    rig = with_a_point()
    rig.vault.rotate(ADD)
    store = RecordingStore(rig.store)
    rotate(store, rig.vault.access.names, ADD, rig.vault.access.keys)
    assert [operation for operation, _ in store.calls] == ["get"]


def test_a_key_that_the_ring_does_not_name_keeps_its_wrap() -> None:
    """Somebody gave an auditor a key of his own; rotating ours does not take it away."""
    rig = with_a_point()
    rig.vault.rotate(KeyRing(OTHER, (Previous(OLD),)))
    rig.vault.rotate(REMOVE)
    assert names_of(rig) == [OTHER.name(), NEW.name()]


def test_a_key_is_not_removed_before_the_current_one_opens() -> None:
    """The current key's wrap is there and of another data key: somebody tampered with it."""
    rig = with_a_point()
    access = rig.vault.access
    document = KeyDocument.decode(rig.store.get(access.names.key)[0], MACHINE)
    forged = KeyDocument(MACHINE, (*document.wraps, NEW.wrap(bytes(32), MACHINE)))
    rig.store.put(access.names.key, forged.encode())
    with pytest.raises(StopFault, match="wrapped another data key"):
        rotate(rig.store, access.names, REMOVE, access.keys)
    assert opens(rig, OLD)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before it takes effect", "after it took effect"])
def test_killed_anywhere_one_of_the_keys_opens(after_effect: bool) -> None:
    for at in range(4):
        rig = with_a_point()
        access = rig.vault.access
        store = DyingStore(rig.store, at, after_effect=after_effect)
        try:
            rotate(store, access.names, ADD, access.keys)
            rotate(store, access.names, REMOVE, access.keys)
        except Killed:
            pass
        assert opens(rig, OLD) or opens(rig, NEW)
        ring = KeyRing(NEW, (Previous(OLD, remove=True),))
        MachineVault.open(rig.store, ring, MACHINE).rotate(ring)
        assert opens(rig, NEW) and not opens(rig, OLD)


def test_many_rotate_at_once() -> None:
    rig = with_a_point()
    access = rig.vault.access
    start = threading.Barrier(6)

    def run(number: int) -> None:
        start.wait()
        ring = REMOVE if number % 2 else KeyRing(OTHER, (Previous(OLD),))
        rotate(rig.store, access.names, ring, access.keys)

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(run, range(6)))
    assert sorted(names_of(rig)) == sorted([OTHER.name(), NEW.name()])


def test_erased_it_never_opens_again_and_says_when_and_by_whom() -> None:
    rig = with_a_point()
    erased = erase_machine(rig.vault, by="ada", reason="left the company", writer="cli", clock=lambda: START)
    again = erase_machine(rig.vault, by="bob", reason="", writer="cli", clock=rig.clock)
    assert again == erased
    for create in (False, True):
        with pytest.raises(ErasedKey) as caught:
            MachineVault.open(rig.store, KEK, MACHINE, create=create)
        assert "erased on 2025-03-01 at 12:00:00 UTC by ada (left the company)" in caught.value.message
    assert b"wrapped" not in rig.store.get(rig.vault.access.names.key)[0]
    with pytest.raises(Fenced):
        rig.point("sda", {2: 3})
    with pytest.raises(ErasedKey):
        rig.vault.rotate(ADD)


def test_a_point_that_a_run_holds_is_not_erased() -> None:
    rig = with_a_point()
    newest = rig.vault.newest()
    assert newest is not None
    rig.vault.pin(newest, "drill-7")
    with pytest.raises(StopFault, match="held by drill-7"):
        erase_machine(rig.vault, by="ada", reason="", writer="cli", clock=rig.clock)
    rig.check_every_visible_point()
    rig.point("sda", {2: 3})  # nor was anybody fenced
    rig.vault.unpin(newest.slot, "drill-7")
    erase_machine(rig.vault, by="ada", reason="", writer="cli", clock=rig.clock)


@pytest.mark.parametrize("after_effect", [False, True], ids=["before it takes effect", "after it took effect"])
def test_an_erasure_that_is_killed_is_finished_by_repeating_it(after_effect: bool) -> None:
    for at in range(3):
        rig = with_a_point()
        assert isinstance(rig.store, MemoryStore)
        store = MemoryStore()
        store.objects, store._versions = copy.copy(rig.store.objects), rig.store._versions
        dying = MachineVault.open(DyingStore(store, at, after_effect=after_effect), KEK, MACHINE)
        with contextlib.suppress(Killed):
            erase_machine(dying, by="ada", reason="", writer="cli", clock=rig.clock)
        try:
            vault = MachineVault.open(store, KEK, MACHINE)
        except ErasedKey:
            continue
        erase_machine(vault, by="ada", reason="", writer="cli", clock=rig.clock)
        with pytest.raises(ErasedKey):
            MachineVault.open(store, KEK, MACHINE)


@settings(deadline=None)
@given(st.binary(max_size=400), st.integers(0, 400), st.sampled_from(["cut", "insert", "replace"]))
def test_a_key_document_that_somebody_broke_is_refused_and_does_no_more(junk: bytes, at: int, how: str) -> None:
    good = KeyDocument(MACHINE, (OLD.wrap(bytes(32), MACHINE), NEW.wrap(bytes(32), MACHINE))).encode()
    broken = {"cut": good[:at], "insert": good[:at] + junk + good[at:], "replace": good[:at] + junk}[how]
    for data in (broken, junk, b"[" * 5000, b'{"format": 1, "machine": "team-a.db", "wraps": [], "erased": [1]}'):
        try:
            unwrap(KeyDocument.decode(data, MACHINE), KeyRing(OLD))
        except StopFault as fault:
            assert fault.remedy
