"""Invariant 6: a tag and a digest are verified before a byte leaves the vault. A damaged object spoils the points that
need it, says so, and no others."""

from __future__ import annotations

import numpy as np
import pytest
from tests.contract.faulty_store import TornStore
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import KEK, MACHINE, START, Rig

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.crypto import (
    TAG_SIZE,
    MachineKeys,
    Place,
    Purpose,
    kek_id,
    nonce_at,
    parse_kek,
)
from farshore_engine.vault.decoder import Decoder, RecordSpoiled, plan_spans
from farshore_engine.vault.encoding import REF, Refs
from farshore_engine.vault.envelope import MAX_BODY, RecordDamaged, seal
from farshore_engine.vault.keyring import WrongKey
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.names import MachineNames, PackId
from farshore_engine.vault.pack import PACK_HEADER, PACK_MAGIC
from farshore_engine.vault.reader import PointReader, PointSpoiled
from farshore_engine.vault.records import FenceBody, RecordHeader, RecordKind, open_record, seal_record
from farshore_engine.vault.retention import RetentionRules


def flip(rig: Rig, name: str, offset: int, bit: int = 1) -> None:
    data = bytearray(rig.store.get(name)[0])
    data[offset] ^= bit
    rig.store.put(name, data)


def refs_at(rig: Rig, point: str, disk: str = "sda") -> Refs:
    vault = rig.open()
    refs = PointReader(vault, vault.find(point)).lookup(disk, 0, 64)
    vault.close()
    return refs


def pack_name(rig: Rig, ref: Refs) -> str:
    return rig.vault.access.names.pack(PackId(int(ref["claim"]), int(ref["random"])))


def two_points() -> tuple[Rig, str, str]:
    """The second point needs block 1 of the first and has its own block 2."""
    rig = Rig(pack_target=1 << 17)
    first = rig.point("sda", {1: 1, 2: 2, 40: 40})
    second = rig.point("sda", {2: 22, 3: 33})
    return rig, first.name, second.name


@pytest.mark.parametrize("where", [0, 7, 8, 39], ids=["magic", "end of magic", "salt", "end of salt"])
def test_a_flipped_bit_in_a_packs_header_spoils_its_blocks(where: int) -> None:
    rig, first, second = two_points()
    flip(rig, pack_name(rig, refs_at(rig, second)[3]), where)
    with pytest.raises((PointSpoiled, StopFault)):
        rig.restored(second)
    assert rig.restored(first) == rig.points[first]


@pytest.mark.parametrize("place", ["first byte", "middle", "tag"])
def test_a_flipped_bit_in_a_block_spoils_the_points_that_need_it(place: str) -> None:
    rig, first, second = two_points()
    ref = refs_at(rig, second)[3]
    offset = {"first byte": 0, "middle": int(ref["length"]) // 2, "tag": int(ref["length"]) - 1}[place]
    flip(rig, pack_name(rig, ref), int(ref["offset"]) + offset)
    with pytest.raises(PointSpoiled) as caught:
        rig.restored(second)
    assert (caught.value.point, caught.value.disk, caught.value.first, caught.value.count) == (second, "sda", 3, 1)
    assert rig.restored(first) == rig.points[first]
    vault = rig.open()
    reader = PointReader(vault, vault.find(second))
    assert reader.read_blocks("sda", 0, 3) == rig.disks["sda"][: 3 * BLOCK_SIZE]
    assert reader.read_blocks("sda", 4, 60) == rig.disks["sda"][4 * BLOCK_SIZE :]


@pytest.mark.parametrize("place", ["first byte", "tag"])
def test_a_flipped_bit_in_a_node_spoils_the_points_that_need_it(place: str) -> None:
    rig, first, second = two_points()
    root = rig.vault.find(second).manifest.disks[0].root
    assert root is not None
    flip(rig, rig.vault.access.names.packs + root.pack, root.offset + (0 if place == "first byte" else root.length - 1))
    with pytest.raises(PointSpoiled) as caught:
        rig.restored(second)
    assert (caught.value.point, caught.value.first, caught.value.count) == (second, 0, 64)
    assert rig.restored(first) == rig.points[first]


@pytest.mark.parametrize("part", ["magic", "length", "epoch in the header", "ciphertext", "tag"])
def test_a_flipped_bit_in_a_record_spoils_that_point(part: str) -> None:
    rig, first, second = two_points()
    third = rig.point("sda", {4: 4}).name
    name = rig.vault.access.names.slot(rig.vault.find(second).slot)
    data = rig.store.get(name)[0]
    offset = {
        "magic": 0,
        "length": 11,
        "epoch in the header": data.index(b'"epoch":') + 8,
        "ciphertext": len(data) - 40,
        "tag": len(data) - 1,
    }[part]
    flip(rig, name, offset)
    with pytest.raises(StopFault) as caught:
        rig.restored(second)
    assert caught.value.reason == "PointDamaged"
    catalogue = rig.open().catalogue()
    assert [p.manifest.name for p in catalogue.points] == [first, third]
    assert len(catalogue.damaged) == 1
    for name in (first, third):
        assert rig.restored(name) == rig.points[name]


def test_a_missing_pack_names_point_disk_and_blocks() -> None:
    rig, first, second = two_points()
    rig.store.delete(pack_name(rig, refs_at(rig, second)[3]))
    with pytest.raises(PointSpoiled, match=r"is damaged at .* of disk sda: .*is missing"):
        rig.restored(second)
    assert rig.restored(first) == rig.points[first]


def test_a_missing_slot_is_told() -> None:
    rig, first, second = two_points()
    third = rig.point("sda", {4: 4}).name
    rig.store.delete(rig.vault.access.names.slot(rig.vault.find(second).slot))
    catalogue = rig.open().catalogue()
    assert [d.why for d in catalogue.damaged] == ["it is missing"]
    assert [p.manifest.name for p in catalogue.points] == [first, third]


def test_a_torn_write_that_the_store_acknowledged_is_found() -> None:
    torn: list[str] = []

    def tear(name: str) -> bool:
        if "/packs/" in name and len(torn) == 1:
            torn.append(name)
            return True
        return False

    rig = Rig(TornStore(MemoryStore(), tear))
    first = rig.point("sda", {1: 1}).name
    torn.append("from now on")
    second = rig.point("sda", {2: 2}).name
    with pytest.raises((PointSpoiled, StopFault)):
        rig.restored(second)
    assert rig.restored(first) == rig.points[first]


def swap_bytes(rig: Rig, one: Refs, other: Refs) -> None:
    """Exchange two records of equal length in place."""
    assert one["length"] == other["length"]
    for target, source in ((one, other), (other, one)):
        assert target is not source
    data = {n: bytearray(rig.store.get(n)[0]) for n in {pack_name(rig, one), pack_name(rig, other)}}

    def part(ref: Refs) -> bytes:
        return bytes(data[pack_name(rig, ref)][int(ref["offset"]) : int(ref["offset"]) + int(ref["length"])])

    a, b = part(one), part(other)
    for ref, content in ((one, b), (other, a)):
        start = int(ref["offset"])
        data[pack_name(rig, ref)][start : start + len(content)] = content
    for name, content in data.items():
        rig.store.put(name, content)


def random_blocks(rig: Rig, disk: str, indexes: list[int], seed: int) -> None:
    """Let the source write incompressible blocks, whose records all have the same length."""
    content = rig.disks.setdefault(disk, bytearray(64 * BLOCK_SIZE))
    for index in indexes:
        random = np.random.default_rng(seed * 1000 + index)
        content[index * BLOCK_SIZE : (index + 1) * BLOCK_SIZE] = random.bytes(BLOCK_SIZE)
    rig.send(disk, indexes)


def test_two_blocks_that_change_places_are_refused() -> None:
    rig = Rig()
    random_blocks(rig, "sda", [5, 6], 1)
    point = rig.commit()
    refs = refs_at(rig, point.name)
    swap_bytes(rig, refs[5], refs[6])
    with pytest.raises(PointSpoiled, match="does not verify"):
        rig.restored(point.name)


def fetch(rig: Rig, ref: Refs, place: bytes) -> bytes:
    """Read one record as if the map pointed to it for that place."""
    refs = np.zeros(1, REF)
    refs[0] = ref
    decoder = Decoder(rig.store, rig.vault.access.names, rig.vault.access.keys)
    return next(iter(decoder.fetch(refs, lambda _: place, BLOCK_SIZE)))[1]


@pytest.mark.parametrize(
    ("machine", "disk", "index"),
    [
        pytest.param(MACHINE, "sda", 6, id="another block"),
        pytest.param(MACHINE, "sdb", 5, id="another disk"),
        pytest.param("team-b.db", "sda", 5, id="another machine"),
        pytest.param(MACHINE + "s", "da", 5, id="the same letters, split elsewhere"),
    ],
)
def test_a_block_opens_at_its_own_place_only(machine: str, disk: str, index: int) -> None:
    """Even if a map pointed to it: the place is bound by the encryption, not only by the map."""
    rig = Rig()
    random_blocks(rig, "sda", [5], 1)
    ref = refs_at(rig, rig.commit().name)[5]
    assert fetch(rig, ref, Place(MACHINE, "sda").block(5)) == rig.disks["sda"][5 * BLOCK_SIZE : 6 * BLOCK_SIZE]
    with pytest.raises(RecordSpoiled, match="does not verify"):
        fetch(rig, ref, Place(machine, disk).block(index))
    with pytest.raises(RecordSpoiled, match="does not verify"):
        fetch(rig, ref, Place(MACHINE, "sda").node(0, 5))


def test_an_older_version_of_a_block_under_a_new_map_is_refused() -> None:
    """It is encrypted by the right key for the right place: only the digest in the map tells it apart. The whole old
    pack is put in the place of the new one, which has the same layout."""
    rig = Rig()
    random_blocks(rig, "sda", [5], 1)
    first = rig.commit()
    rig.writer.flush()
    random_blocks(rig, "sda", [5], 2)
    rig.writer.flush()
    second = rig.commit()
    old, new = refs_at(rig, first.name)[5], refs_at(rig, second.name)[5]
    assert (old["offset"], old["length"]) == (new["offset"], new["length"])
    rig.store.put(pack_name(rig, new), rig.store.get(pack_name(rig, old))[0])
    with pytest.raises(PointSpoiled, match="valid but wrong"):
        rig.restored(second.name)
    assert rig.restored(first.name) == rig.points[first.name]


def test_another_machines_pack_is_refused() -> None:
    store = MemoryStore()
    mine, theirs = Rig(store), Rig(store, machine="team-b.db")
    for rig in (mine, theirs):
        random_blocks(rig, "sda", [5], 1)
        rig.writer.flush()
        rig.commit()
    name = mine.names()[0]
    ours, others = refs_at(mine, name)[5], refs_at(theirs, theirs.names()[0])[5]
    store.put(pack_name(mine, ours), store.get(pack_name(theirs, others))[0])
    with pytest.raises(PointSpoiled, match="does not verify"):
        mine.restored(name)


def test_another_machines_chain_and_key_are_refused() -> None:
    store = MemoryStore()
    mine, theirs = Rig(store), Rig(store, machine="team-b.db")
    mine.point("sda", {1: 1})
    theirs.point("sda", {1: 1})
    slot = mine.chain.head
    store.put(mine.vault.access.names.slot(slot), store.get(theirs.vault.access.names.slot(slot))[0])
    catalogue = mine.open().catalogue()
    assert catalogue.points == ()
    assert "team-b.db" in catalogue.damaged[0].why
    store.put(mine.vault.access.names.key, store.get(theirs.vault.access.names.key)[0])
    with pytest.raises(StopFault, match="belongs to"):
        mine.open()


def test_a_record_in_another_slot_is_refused() -> None:
    rig, _, _ = two_points()
    names = rig.vault.access.names
    rig.store.put(names.slot(rig.chain.head + 1), rig.store.get(names.slot(rig.chain.head))[0])
    damaged = rig.open().catalogue().damaged
    assert [d.slot for d in damaged] == [rig.chain.head + 1]


def test_a_record_that_its_follower_does_not_follow_is_refused() -> None:
    """Another validly sealed record in its slot: say an earlier one that somebody kept."""
    rig, first, second = two_points()
    slot = rig.vault.find(first).slot
    header = RecordHeader(MACHINE, slot, 1, "ps-1", 1, RecordKind.FENCE, "")
    rig.store.put(
        rig.vault.access.names.slot(slot),
        seal_record(rig.vault.access.keys, header, FenceBody(reason="x", time=START)),
    )
    catalogue = rig.open().catalogue()
    assert [p.manifest.name for p in catalogue.points] == [second]
    assert "follows" in catalogue.damaged[0].why


def test_a_wrong_key_says_so() -> None:
    rig, _, _ = two_points()
    wrong = bytes(32)
    with pytest.raises(WrongKey) as caught:
        MachineVault.open(rig.store, wrong, MACHINE)
    assert kek_id(wrong) in caught.value.message
    assert kek_id(KEK) in caught.value.message
    assert KEK.hex() not in str(caught.value)


@pytest.mark.parametrize("field", ["nonce", "wrapped"])
def test_a_damaged_key_document_says_so(field: str) -> None:
    rig, _, _ = two_points()
    name = rig.vault.access.names.key
    text = rig.store.get(name)[0].decode()
    at = text.index(f'"{field}"') + len(field) + 6
    rig.store.put(name, (text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :]).encode())
    with pytest.raises(StopFault) as caught:
        rig.open()
    assert caught.value.reason == "KeyDamaged"


@pytest.mark.parametrize(
    ("secret", "valid"),
    [
        pytest.param(KEK, True, id="32 raw bytes"),
        pytest.param(KEK.hex().encode() + b"\n", True, id="hex with a newline"),
        pytest.param(b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", True, id="base64"),
        pytest.param(b"correct horse battery staple", False, id="a passphrase"),
        pytest.param(b"", False, id="nothing"),
        pytest.param(KEK[:16], False, id="128 bits"),
    ],
)
def test_how_a_key_may_be_given(secret: bytes, valid: bool) -> None:
    if valid:
        assert parse_kek(secret) == KEK
        return
    with pytest.raises(StopFault) as caught:
        parse_kek(secret)
    assert "openssl rand" in caught.value.remedy


def test_keys_do_not_show() -> None:
    keys = MachineKeys(MACHINE, b"\x42" * 32)
    assert "42" not in repr(keys) and "B" * 5 not in repr(keys)


@pytest.mark.parametrize("content", [b"\0" * (BLOCK_SIZE + 1), b"\0" * (64 << 20)], ids=["a byte too much", "a bomb"])
def test_a_decompression_bomb_is_refused(content: bytes) -> None:
    """Only somebody with the data key can make one; it is refused before memory is taken."""
    import zstandard

    rig = Rig()
    keys, pack, salt = rig.vault.access.keys, PackId(1, 1), b"s" * 32
    place = Place(MACHINE, "sda").block(0)
    frame = zstandard.ZstdCompressor().compress(content)
    record = keys.cipher(Purpose.PACK, salt).encrypt(nonce_at(PACK_HEADER), frame, place)
    rig.store.put(rig.vault.access.names.pack(pack), PACK_MAGIC + salt + record)
    ref = np.zeros((), REF)
    ref["claim"], ref["random"], ref["offset"], ref["length"] = 1, 1, PACK_HEADER, len(record)
    with pytest.raises(RecordSpoiled, match="does not decompress"):
        fetch(rig, ref, place)


def test_a_record_that_inflates_too_far_is_refused() -> None:
    keys = MachineKeys(MACHINE, bytes(32))
    header = RecordHeader(MACHINE, 1, 1, "ps-1", 1, RecordKind.FENCE, "").fields()
    with pytest.raises(ValueError, match="is over"):
        seal(keys, Purpose.CHAIN, header, bytes(MAX_BODY + 1))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"FSRECv01",
        b"FSRECv01\xff\xff\xff\xff",
        b"FSRECv01\0\0\0\2{}" + bytes(32),
        b"FSRECv01\0\0\0\2[]" + bytes(32),
        b"FSRECv01\0\0\0\1{" + bytes(32),
        b"x" * 100,
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(RecordDamaged):
        open_record(MachineKeys(MACHINE, bytes(32)), 1, data)


def test_spans_are_coalesced_and_bounded() -> None:
    refs = np.zeros(8, REF)
    refs["claim"] = [1, 1, 1, 2, 1, 1, 0, 1]
    refs["offset"] = [40, 1040, 500_000, 40, 5000, 9_000_000, 0, 2040]
    refs["length"] = [1000, 1000, 1000, 1000, 1000, 1000, 0, 1000]
    spans = plan_spans(refs, gap=10_000)
    assert [(s.pack.claim, s.offset, s.length, s.positions) for s in spans] == [
        (1, 40, 5960, (0, 1, 7, 4)),
        (1, 500_000, 1000, (2,)),
        (1, 9_000_000, 1000, (5,)),
        (2, 40, 1000, (3,)),
    ]
    assert len(plan_spans(refs, gap=10_000, records=2)) == 5
    assert len(plan_spans(refs, gap=10_000, span=2000)) == 6
    assert plan_spans(refs[:0]) == []


def test_the_other_points_outlive_a_prune_of_the_damaged_one() -> None:
    rig, first, second = two_points()
    third = rig.point("sda", {3: 3, 2: 2}).name
    refs = refs_at(rig, second)
    flip(rig, pack_name(rig, refs[3]), int(refs[3]["offset"]))
    rig.prune(RetentionRules())
    for name in (first, third):
        assert rig.restored(name) == rig.points[name]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"format": 2}'], ids=["empty", "no format", "newer"])
def test_a_vault_of_an_unknown_format_is_refused(content: bytes) -> None:
    rig = Rig()
    rig.store.put("vault.json", content)
    with pytest.raises(StopFault):
        rig.open()


def test_nothing_is_made_unless_asked() -> None:
    store = MemoryStore()
    for prefix in ("", "eu/prod"):
        with pytest.raises(StopFault):
            MachineVault.open(store, KEK, MACHINE, prefix=prefix)
    assert store.objects == {}
    MachineVault.open(store, KEK, MACHINE, prefix="eu/prod", create=True)
    assert sorted(store.objects) == ["eu/prod/machines/team-a.db/key.json", "eu/prod/vault.json"]
    with pytest.raises(StopFault) as caught:
        MachineVault.open(store, KEK, "../x", prefix="eu/prod", create=True)
    assert caught.value.reason == "BadName"
    assert MachineNames("a.b").pack(PackId(3, 255)) == "machines/a.b/packs/000000000003-00000000000000ff"
    assert TAG_SIZE == 16
