"""Whatever is in a vault, a reader ends, in bounded memory, with the right bytes or a fault that says what is wrong.

Without the key every kind of object is mutated, in seeded ways; with a stolen data key, what is sealed with it.
"""

from __future__ import annotations

import copy
import json
import random
import time
import tracemalloc
from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import zstandard
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import KEK, MACHINE, Rig
from tests.unit.vault.test_integrity import refs_at

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.vault.check import check_machine
from farshore_engine.vault.crypto import Place, Purpose, nonce_at
from farshore_engine.vault.decoder import Decoder, RecordSpoiled
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.encoding import REF
from farshore_engine.vault.envelope import LENGTH, MAGIC, MAX_BODY, RecordDamaged, open_body, parse, seal, unzstd
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.names import PackId
from farshore_engine.vault.node import NODE_MAX, Node, NodeDamaged
from farshore_engine.vault.pack import PACK_HEADER, PACK_MAGIC
from farshore_engine.vault.records import RecordHeader, RecordKind, open_record
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.store import WHOLE_MAX

MEMORY = 96 << 20  # bytes that a reader may take at most, whatever is there
SECONDS = 60.0
Content = dict[str, tuple[bytes, str]]


@cache
def vault() -> tuple[Content, dict[str, dict[str, bytes]]]:
    """The objects of a small vault with every kind of object in it, and what its points must restore to."""
    rig = Rig(pack_target=1 << 16)
    for turn in range(5):
        rig.point("sda", {turn: turn + 1, turn + 1: turn + 50, 63: turn})
    names = rig.names()
    rig.vault.pin(rig.vault.find(names[1]), "drill-1")
    rig.clock.now = rig.clock.now.replace(year=2026)
    rig.prune(RetentionRules(at_least=2))
    rig.point("sda", {9: 9})
    rig.vault.journal.append("run-1", 0, {"step": "Fence"})
    rig.vault.journal.append("run-1", 1, {"step": "Hydrate"})
    content = dict(rig.store.objects)  # type: ignore[attr-defined]
    assert any(name.endswith("/base") for name in content)
    return content, rig.points


def kind_of(name: str) -> str:
    if name.endswith(("vault.json", "key.json", "base")):
        return name.rpartition("/")[2]
    return name.removeprefix(f"machines/{MACHINE}/").partition("/")[0]


KINDS = ("vault.json", "key.json", "base", "chain", "packs", "pins", "journal")


def read_everything(store: MemoryStore, points: dict[str, dict[str, bytes]]) -> None:
    """Do all that readers do. Faults are fine; anything else is a bug, and so are wrong bytes."""
    try:
        opened = MachineVault.open(store, KEK, MACHINE)
    except Fault:
        return
    try:
        reader = Rig.restored
        catalogue = opened.catalogue()
        assert len(catalogue.damaged) <= 20_000
        for point in catalogue.points:
            try:
                found = reader(_Only(store), point.manifest.name)  # type: ignore[arg-type]
            except Fault:
                continue
            assert found == points[point.manifest.name]
        check_machine(opened, read_data=True, threads=1)
        for run in opened.journal.runs():
            try:
                opened.journal.entries(run)
            except Fault:
                continue
        catalogue = opened.catalogue(newest=1)
    except Fault:
        return
    finally:
        opened.close()


class _Only:
    """What `Rig.restored` needs of a rig."""

    def __init__(self, store: MemoryStore) -> None:
        self.store, self.machine = store, MACHINE


def write_too(store: MemoryStore) -> None:
    """What a writer does with a vault that was tampered with: it opens and prunes, or says why not."""
    rig = Rig.__new__(Rig)
    rig.store, rig.machine = store, MACHINE
    try:
        opened = MachineVault.open(store, KEK, MACHINE)
        chain = opened.claim(writer="ps-1", epoch=1, reason="test")
        from datetime import UTC, datetime

        from farshore_engine.vault.prune import prune

        prune(opened, chain, RetentionRules(at_least=2), in_flight=frozenset, clock=lambda: datetime.now(UTC))
    except Fault:
        return


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Return the object's bytes, changed in one of many ways."""
    array = bytearray(data)
    way = chance.randrange(11)
    if way == 0:
        return bytes(array[: chance.randrange(len(array) + 1)])
    if way == 1:
        return bytes(array) + chance.randbytes(chance.choice([1, 16, 70_000]))
    if way == 2:
        for _ in range(chance.choice([1, 1, 4, 40])):
            array[chance.randrange(len(array))] ^= 1 << chance.randrange(8)
        return bytes(array)
    if way == 3:  # a length field at its extremes, wherever it may be
        at = chance.randrange(max(1, min(len(array), 96)))
        array[at : at + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"])
        return bytes(array)
    if way == 4:
        return b""
    if way == 5:
        return b"[" * 60_000
    if way == 6:
        return MAGIC + LENGTH.pack(60_000) + b'{"a":' * 12_000 + bytes(64)
    if way == 7:
        return b"\xff\xfe" + bytes(array[2:])
    if way == 8:
        return bytes(array[:40]) + zstandard.ZstdCompressor().compress(bytes(1 << 20)) + bytes(array[40:])
    if way == 9:
        return chance.choice([b"{}", b"[]", b"null", b'{"format": 1}', b'"x"', b"9" * 5000, b"-1", b"1e9", b"\0" * 64])
    at = chance.randrange(len(array) + 1)
    return bytes(array[:at] + array[at + chance.randrange(64) :])


@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_object_is_refused_or_harmless(kind: str) -> None:
    content, points = vault()
    names = [name for name in content if kind_of(name) == kind]
    assert names
    for seed in range(80):
        chance = random.Random(f"{kind} {seed}")
        store = MemoryStore()
        store.objects = dict(content)
        name = chance.choice(names)
        store.put(name, mutated(content[name][0], chance))
        started = time.monotonic()
        read_everything(store, points)
        write_too(store)
        assert time.monotonic() - started < SECONDS, (kind, seed)


@pytest.mark.parametrize(
    "name",
    [
        "chain/999999999999",
        "chain/000000000000",
        "chain/0000000000001",
        "chain/notaslotname",
        "packs/000000000001-zzzzzzzzzzzzzzzz",
        "packs/x",
        "pins/1/x",
        "pins/999999999999/x",
        "pins/000000000003/sub/x",
        "journal/run-1/x",
        "journal/run-1/999999",
        "journal/x",
        "elsewhere/x",
    ],
)
def test_an_object_that_does_not_belong_there_stops_nobody(name: str) -> None:
    content, points = vault()
    store = MemoryStore()
    store.objects = dict(content) | {f"machines/{MACHINE}/{name}": (b"x", "v")}
    started = time.monotonic()
    read_everything(store, points)
    write_too(_memory(store.objects))
    assert time.monotonic() - started < SECONDS
    opened = MachineVault.open(store, KEK, MACHINE)
    names = {point.manifest.name for point in opened.catalogue().points}
    opened.close()
    plain = MemoryStore()
    plain.objects = dict(content)
    before = MachineVault.open(plain, KEK, MACHINE)
    assert names == {point.manifest.name for point in before.catalogue().points}
    before.close()


@pytest.mark.parametrize("name", ["vault.json", "key.json", "base", "chain", "pins"])
def test_an_object_of_gigabytes_is_not_read(name: str, tmp_path: object) -> None:
    """Sparse here; whoever may write to the store could put a terabyte."""
    from pathlib import Path

    content, points = vault()
    store = DirectoryStore(Path(str(tmp_path)), durable=False)
    for each, (data, _) in content.items():
        store.put(each, data)
    victim = next(each for each in sorted(content, reverse=True) if kind_of(each) == name)
    with (Path(str(tmp_path)) / victim).open("wb") as file:
        file.truncate(20 * WHOLE_MAX)
    tracemalloc.start()
    try:
        read_everything(store, points)  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def bombs() -> Iterator[tuple[str, bytes]]:
    compress = zstandard.ZstdCompressor().compress
    yield "more than it may", compress(bytes(MAX_BODY + 1))
    yield "of unknown size", zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 28))
    huge = bytearray(zstandard.ZstdCompressor().compress(bytes(100)))
    yield "that claims four gigabytes", b"\x28\xb5\x2f\xfd\xa0" + (0xFFFFFFF0).to_bytes(4, "little") + bytes(huge[6:])
    yield "in a frame", compress(compress(bytes(1 << 28)))
    yield "behind a small frame", compress(b"{}") + compress(bytes(1 << 28))
    yield "that says less than it holds", _lying(1 << 24, 100)
    yield "with a window of two gigabytes", b"\x28\xb5\x2f\xfd\x00\xa8" + bytes(32)
    yield "that is skipped", b"\x50\x2a\x4d\x18\xff\xff\xff\x7f" + bytes(32)
    yield "of nothing", b""


def _lying(size: int, claimed: int) -> bytes:
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(size)))
    assert frame[4] >> 6 == 2  # four bytes of content size
    frame[5 if frame[4] & 0x20 else 6 : (5 if frame[4] & 0x20 else 6) + 4] = claimed.to_bytes(4, "little")
    return bytes(frame)


@pytest.mark.parametrize(("name", "frame"), list(bombs()), ids=[name for name, _ in bombs()])
def test_a_decompression_bomb_takes_no_memory(name: str, frame: bytes) -> None:
    rig = Rig()
    keys, pack, salt = rig.vault.access.keys, PackId(1, 1), b"s" * 32
    place = Place(MACHINE, "sda").block(0)
    record = keys.cipher(Purpose.PACK, salt).encrypt(nonce_at(PACK_HEADER), frame, place)
    rig.store.put(rig.vault.access.names.pack(pack), PACK_MAGIC + salt + record)
    refs = np.zeros(1, REF)
    refs[0]["claim"], refs[0]["random"], refs[0]["offset"], refs[0]["length"] = 1, 1, PACK_HEADER, len(record)
    decoder = Decoder(rig.store, rig.vault.access.names, keys)
    tracemalloc.start()
    try:
        with pytest.raises(RecordSpoiled):
            list(decoder.fetch(refs, lambda _: place, BLOCK_SIZE))
        from farshore_engine.vault.decoder import plan_spans

        (span,) = plan_spans(refs)
        with pytest.raises(RecordSpoiled):
            decoder.open_blocks(span, *decoder.load(span), refs, lambda _: place)
        if name not in ("in a frame",):  # there the outer frame is sound, and what is in it is no JSON
            with pytest.raises(zstandard.ZstdError):
                unzstd(frame, MAX_BODY)
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def hostile_bodies() -> dict[str, dict[str, object] | bytes]:
    disk = {"id": "sda", "name": "sda", "sizeBytes": 64 * BLOCK_SIZE}
    root = {"pack": "000000000001-0000000000000001", "offset": 40, "length": 100, "digest": "00" * 32}
    point = {"name": "p", "time": "2025-03-01T12:00:00Z", "consistency": "crash", "machine": {"hostname": "x"}}
    return {
        "deep": b"[" * 1_000_000,
        "deep objects": b'{"name":' * 1_000_000,
        "not UTF-8": b'{"name": "\xff\xfe"}',
        "a number without end": b'{"sizeBytes": ' + b"9" * 100_000 + b"}",
        "a disk of an exabyte": point | {"disks": [disk | {"sizeBytes": 1 << 60, "root": root}]},
        "a negative disk": point | {"disks": [disk | {"sizeBytes": -1}]},
        "a root of no pack": point | {"disks": [disk | {"root": root | {"pack": "../../x"}}]},
        "a root beyond everything": point | {"disks": [disk | {"root": root | {"offset": 1 << 40}}]},
        "a root that is as long as can be": point | {"disks": [disk | {"root": root | {"length": (1 << 32) - 1}}]},
        "a digest that is none": point | {"disks": [disk | {"root": root | {"digest": "zz"}}]},
        "thousands of disks": point | {"disks": [disk] * 5_000},
        "a date beyond all": point | {"time": "99999-01-01T00:00:00Z", "disks": [disk]},
        "no time zone": point | {"time": "2025-03-01T12:00:00", "disks": [disk]},
    }


@pytest.mark.parametrize("name", hostile_bodies())
def test_a_record_sealed_by_a_thief_of_the_key_is_refused_or_harmless(name: str) -> None:
    content, points = vault()
    store = MemoryStore()
    store.objects = copy.copy(dict(content))
    opened = MachineVault.open(store, KEK, MACHINE)
    keys, names = opened.access.keys, opened.access.names
    head = max(int(each[-12:]) for each in content if kind_of(each) == "chain" and each[-12:].isdigit())
    opened.close()
    body = hostile_bodies()[name]
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    for kind in RecordKind:
        header = RecordHeader(MACHINE, head + 1, 1, "thief", 1, kind, "")
        store.put(names.slot(head + 1), seal(keys, Purpose.CHAIN, header.fields(), text))
        started = time.monotonic()
        read_everything(store, points | {"p": {}})
        write_too(store)
        assert time.monotonic() - started < SECONDS


def test_sealed_bytes_survive_no_mutation() -> None:
    """Records and nodes alone, many more times: nothing but the documented exceptions."""
    content, _ = vault()
    opened = MachineVault.open(_memory(content), KEK, MACHINE)
    keys = opened.access.keys
    opened.close()
    slots = [(name, data) for name, (data, _) in content.items() if kind_of(name) == "chain" and name[-1].isdigit()]
    journal = [data for name, (data, _) in content.items() if kind_of(name) == "journal"]
    node = Node.decode(Node(0, _entries()).encode(), 0).encode()
    for seed in range(1500):
        chance = random.Random(seed)
        name, data = chance.choice(slots)
        changed = mutated(data, chance)
        if changed != data:
            with pytest.raises(RecordDamaged):
                open_record(keys, int(name[-12:]), changed)
        sealed = chance.choice(journal)
        changed = mutated(sealed, chance)
        if changed != sealed:
            with pytest.raises(RecordDamaged):
                open_body(keys, Purpose.JOURNAL, parse(changed))
        try:
            found = Node.decode(mutated(node, chance)[: NODE_MAX * 2], chance.randrange(3))
            assert found.entries.size == 256
        except NodeDamaged:
            pass


def _memory(content: Content) -> MemoryStore:
    store = MemoryStore()
    store.objects = dict(content)
    return store


def _entries() -> np.ndarray:  # type: ignore[type-arg]
    rig = Rig()
    point = rig.point("sda", {i: i + 1 for i in range(64)})
    entries = np.zeros(256, REF)
    entries[:64] = refs_at(rig, point.name)
    return entries


def test_every_fault_says_what_to_do() -> None:
    """A reader that stops says what is wrong, where, and what to do."""
    content, _ = vault()
    for name in ("vault.json", f"machines/{MACHINE}/key.json"):
        for data in (b"", b"[" * 70_000, b"\xff", b"{}", b"[]"):
            store = _memory(content)
            store.put(name, data)
            with pytest.raises(StopFault) as caught:
                MachineVault.open(store, KEK, MACHINE)
            assert caught.value.remedy and name.rpartition("/")[2] in caught.value.message
