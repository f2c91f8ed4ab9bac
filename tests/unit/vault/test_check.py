"""`check` names what is spoiled and no others (invariant 6), and what it calls good restores exactly."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from tests.contract.faulty_store import RecordingStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import KEK, MACHINE, Rig, packs
from tests.unit.vault.test_integrity import flip, pack_name, random_blocks, refs_at

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.vault.check import CheckReport, check_machine
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.records import FenceBody, RecordHeader, RecordKind, seal_record
from farshore_engine.vault.retention import RetentionRules


def check(rig: Rig, *, read_data: bool, point: str | None = None) -> CheckReport:
    vault = MachineVault.open(rig.store, KEK, rig.machine)
    try:
        chosen = vault.find(point) if point else None
        return check_machine(vault, read_data=read_data, point=chosen, threads=2)
    finally:
        vault.close()


@dataclass
class Story:
    """Three points; the last shares blocks with both others."""

    rig: Rig
    first: str
    second: str
    third: str

    @property
    def names(self) -> tuple[str, str, str]:
        return self.first, self.second, self.third


def story() -> Story:
    rig = Rig(pack_target=1 << 17)
    random_blocks(rig, "sda", [2, 5, 40], 1)
    rig.disks["sdb"] = bytearray(300 * 65536)
    random_blocks(rig, "sdb", [0, 299], 2)
    first = rig.commit().name
    rig.writer.flush()
    random_blocks(rig, "sda", [2], 3)
    rig.writer.flush()  # so that block 2 is in a pack of its own
    random_blocks(rig, "sda", [3], 3)
    second = rig.commit().name
    random_blocks(rig, "sda", [4], 4)
    third = rig.commit().name
    return Story(rig, first, second, third)


def exact(rig: Rig, name: str) -> bool:
    try:
        return rig.restored(name) == rig.points[name]
    except StopFault:
        return False


def test_a_sound_vault_is_clean_and_every_byte_is_read_once() -> None:
    told = story()
    fast, full = check(told.rig, read_data=False), check(told.rig, read_data=True)
    assert fast.findings == full.findings == ()
    assert fast.points == full.points == told.names
    assert fast.read == 0
    records = {(r["claim"], r["random"], r["offset"]): int(r["length"])
               for name in told.names for disk in ("sda",)
               for r in refs_at(told.rig, name, disk) if r["length"]}  # fmt: skip
    assert full.read == sum(records.values()) + 2 * 65552  # and the two blocks of sdb
    assert full.packs == len(packs(told.rig.store))
    assert full.spare_packs == (0, 0)


def transplant(told: Story) -> str:
    """Put the old pack with block 2 in the place of the newer one: authentic, right place, wrong time."""
    rig = told.rig
    old, new = refs_at(rig, told.first)[2], refs_at(rig, told.second)[2]
    assert (old["offset"], old["length"]) == (new["offset"], new["length"])  # only the digest in the map tells
    data = bytearray(rig.store.get(pack_name(rig, old))[0])
    rig.store.put(pack_name(rig, new), data)
    return pack_name(rig, new)


def flipped(told: Story, point: str, block: int) -> str:
    ref = refs_at(told.rig, point)[block]
    name = pack_name(told.rig, ref)
    flip(told.rig, name, int(ref["offset"]) + 5)
    return name


def node_flipped(told: Story, point: str, disk: int) -> str:
    root = told.rig.vault.find(point).manifest.disks[disk].root
    assert root is not None
    name = told.rig.vault.access.names.packs + root.pack
    flip(told.rig, name, root.offset + 3)
    return name


def truncated(told: Story, point: str, block: int) -> str:
    ref = refs_at(told.rig, point)[block]
    name = pack_name(told.rig, ref)
    told.rig.store.put(name, told.rig.store.get(name)[0][: int(ref["offset"]) + 100])
    return name


def gone(told: Story, name: str) -> str:
    told.rig.store.delete(name)
    return name


def slot_of(told: Story, point: str) -> str:
    return told.rig.vault.access.names.slot(told.rig.vault.find(point).slot)


def swapped(told: Story) -> str:
    store = told.rig.store
    one, other = (
        pack_name(told.rig, refs_at(told.rig, told.first)[5]),
        pack_name(told.rig, refs_at(told.rig, told.second)[3]),
    )
    a, b = store.get(one)[0], store.get(other)[0]
    store.put(one, b)
    store.put(other, a)
    return one


def rolled_back(told: Story, point: str) -> str:
    """Another record that was sealed for that slot: say of a writer whose put lost."""
    rig, name = told.rig, slot_of(told, point)
    header = RecordHeader(MACHINE, rig.vault.find(point).slot, 1, "ps-1", 1, RecordKind.FENCE, "")
    rig.store.put(name, seal_record(rig.vault.access.keys, header, FenceBody(reason="x", time=rig.clock())))
    return name


def foreign(told: Story, part: str) -> str:
    """Objects of another machine, copied over ours under our names."""
    rig = told.rig
    other = Rig(rig.store, machine="team-b.db", pack_target=1 << 17)
    random_blocks(other, "sda", [2, 5, 40], 1)
    other.commit()
    theirs = [n for n in rig.store.list("machines/team-b.db/") if f"/{part}/0" in n][-1]
    name = slot_of(told, told.second) if part == "chain" else pack_name(rig, refs_at(rig, told.first)[5])
    rig.store.put(name, rig.store.get(theirs)[0])
    return name


Damage = Callable[[Story], str]


@pytest.mark.parametrize(
    ("damage", "seen_fast"),
    [
        pytest.param(lambda t: flipped(t, t.second, 3), False, id="a flipped bit in a block of two points"),
        pytest.param(lambda t: flipped(t, t.third, 4), False, id="a flipped bit in a block of the last point"),
        pytest.param(lambda t: flipped(t, t.first, 2), False, id="a flipped bit in a block that was replaced later"),
        pytest.param(lambda t: node_flipped(t, t.second, 0), True, id="a flipped bit in a root"),
        pytest.param(lambda t: node_flipped(t, t.first, 1), True, id="a flipped bit in a root of all points"),
        pytest.param(lambda t: gone(t, pack_name(t.rig, refs_at(t.rig, t.second)[3])), True, id="a missing pack"),
        pytest.param(lambda t: truncated(t, t.second, 3), True, id="a pack cut short in a block"),
        pytest.param(swapped, None, id="two packs that changed places"),
        pytest.param(transplant, None, id="an old pack in the place of a new one"),
        pytest.param(lambda t: gone(t, slot_of(t, t.second)), True, id="a missing slot"),
        pytest.param(lambda t: rolled_back(t, t.second), True, id="a slot rolled back"),
        pytest.param(lambda t: foreign(t, "chain"), True, id="another machine's slot"),
        pytest.param(lambda t: foreign(t, "packs"), None, id="another machine's pack"),
    ],
)
def test_damage_is_named_and_spoils_what_needs_it(damage: Damage, seen_fast: bool | None) -> None:
    told = story()
    name = damage(told)
    fast, full = check(told.rig, read_data=False), check(told.rig, read_data=True)
    assert full.findings
    assert name in {finding.name for finding in full.findings}
    if seen_fast is not None:
        assert bool(fast.findings) is seen_fast
    listed = told.rig.names()
    for point in told.names:
        good = point in listed and point not in full.spoiled
        assert exact(told.rig, point) is good, point
    assert set(fast.spoiled) <= set(full.spoiled)


def test_the_blocks_are_named_to_the_one() -> None:
    told = story()
    name = flipped(told, told.second, 3)
    findings = check(told.rig, read_data=True).findings
    assert [(f.point, f.disk, f.runs, f.name) for f in findings] == [
        (point, "sda", ((3, 1),), name) for point in (told.second, told.third)
    ]
    assert all("does not verify" in f.why for f in findings)
    alone = check(told.rig, read_data=True, point=told.first)
    assert (alone.findings, alone.points) == ((), (told.first,))


def test_a_lost_node_loses_what_it_covers_and_no_more() -> None:
    told = story()
    root = told.rig.vault.find(told.third).manifest.disks[1].root
    assert root is not None
    leaf = told.rig.open().nodes.fetch("sdb", 1, [(0, root.ref())])[0].entries[1]  # of the blocks 256 to 299
    flip(told.rig, pack_name(told.rig, leaf), int(leaf["offset"]))
    findings = check(told.rig, read_data=False).findings
    assert [(f.point, f.disk, f.runs) for f in findings] == [(name, "sdb", ((256, 44),)) for name in told.names]


@pytest.mark.parametrize("seed", range(30))
def test_whatever_is_damaged_what_is_called_good_restores_exactly(seed: int) -> None:
    """Growing, shrinking, discarding, pruning; then some object is removed, cut, flipped or exchanged."""
    chance = random.Random(seed)
    rig = Rig(MemoryStore(), pack_target=1 << 15)
    for _ in range(chance.randint(1, 7)):
        for disk in ("sda", "sdb")[: chance.randint(1, 2)]:
            size = chance.choice([64, 300, 700]) * 65536 if chance.random() < 0.4 or disk not in rig.disks else None
            length = (size or len(rig.disks[disk])) // 65536
            rig.write(disk, {chance.randrange(length): chance.choice([0, chance.randrange(9)]) for _ in range(9)}, size)
        rig.point("sda" if "sda" in rig.disks else "sdb", {})
        if chance.random() < 0.2:
            rig.prune(RetentionRules(keep_all=timedelta(0)))
        if chance.random() < 0.2:
            rig.start()
    assert check(rig, read_data=True).findings == ()
    good = [n for n in rig.store.list("") if "/packs/" in n or "/chain/0" in n]
    for _ in range(chance.randint(1, 3)):
        name = chance.choice(good)
        data = bytearray(rig.store.get(name)[0]) if name in list(rig.store.list("")) else bytearray()
        kind = chance.choice(["remove", "cut", "flip", "exchange"])
        if kind == "remove" or not data:
            rig.store.delete(name)
        elif kind == "cut":
            rig.store.put(name, data[: chance.randrange(len(data))])
        elif kind == "flip":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
            rig.store.put(name, data)
        else:
            other = chance.choice([n for n in rig.store.list("") if ("/packs/" in n) == ("/packs/" in name)])
            rig.store.put(name, rig.store.get(other)[0])
    full, fast = check(rig, read_data=True), check(rig, read_data=False)
    assert set(fast.spoiled) <= set(full.spoiled)
    for point in rig.names():
        assert exact(rig, point) is (point not in full.spoiled), point


def test_shared_maps_are_walked_once() -> None:
    """Many points of a disk whose map has some nodes cost the nodes of one, and what each changed."""
    rig = Rig(pack_target=1 << 15)
    rig.disks["sda"] = bytearray(1536 * 65536)
    rig.write("sda", {i * 256: i + 1 for i in range(6)})
    rig.commit()
    for turn in range(8):
        rig.points.clear()
        rig.point("sda", {turn % 3: 100 + turn})
    calls = RecordingStore(rig.store)
    vault = MachineVault(type(rig.vault.access)(calls, rig.vault.access.names, rig.vault.access.keys), cached_nodes=1)
    check_machine(vault)
    vault.close()
    asked = [name for operation, name in calls.calls if operation == "get_range"]
    assert len(asked) < 9 * 2 * 3 + 2 * 7  # nine points that changed a leaf and the root, and one map in full


def test_a_wrong_base_is_told_and_spoils_nothing() -> None:
    told = story()
    rig = told.rig
    rig.store.put(rig.vault.access.names.base, str(rig.vault.find(told.third).slot).encode())
    report = check(rig, read_data=True)
    assert report.findings == () and report.points == told.names
    assert rig.vault.access.names.base in report.notes[0]
    rig.store.put(rig.vault.access.names.base, b"99")
    assert "slot 99, which is not there" in check(rig, read_data=False).notes[0]


def test_a_lost_end_of_the_chain_is_told_by_the_packs_of_its_claim() -> None:
    told = story()
    rig = told.rig
    rig.start()
    random_blocks(rig, "sda", [9], 9)
    rig.commit()
    for slot in (rig.chain.head, rig.chain.claim):
        rig.store.delete(rig.vault.access.names.slot(slot))
    (finding,) = check(rig, read_data=False).findings
    assert "its end is lost" in finding.why


def test_packs_that_no_point_needs_are_counted_and_are_no_damage() -> None:
    told = story()
    random_blocks(told.rig, "sda", [7], 7)
    told.rig.writer.flush()
    told.rig.sink.drain()
    report = check(told.rig, read_data=False)
    assert report.findings == ()
    assert report.spare_packs is not None and report.spare_packs[0] == 1


def test_a_point_that_is_pruned_meanwhile_is_not_reported() -> None:
    told = story()
    done: list[bool] = []

    def on(operation: str, name: str) -> None:
        if operation == "list" and name.endswith("/packs/") and not done:
            done.append(True)
            told.rig.prune(RetentionRules(keep_all=timedelta(0)))

    access = told.rig.vault.access
    vault = MachineVault(type(access)(RecordingStore(told.rig.store, on), access.names, access.keys))
    report = check_machine(vault, read_data=True)
    vault.close()
    assert done and report.findings == ()


def test_a_store_that_goes_away_is_not_damage() -> None:
    told = story()

    def on(operation: str, name: str) -> None:
        if operation == "get_range":
            raise WaitFault("away")

    access = told.rig.vault.access
    vault = MachineVault(type(access)(RecordingStore(told.rig.store, on), access.names, access.keys))
    with pytest.raises(WaitFault):
        check_machine(vault)
    vault.close()
