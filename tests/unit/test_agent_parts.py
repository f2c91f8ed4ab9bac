"""Small pure parts of the agent: pages of the trace, balances, mount tables, disk signatures, pacing, frames."""

from __future__ import annotations

import json
import logging
import struct
import subprocess
import sys
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from farshore_engine.agent.channel import _FrameBuffer
from farshore_engine.agent.config import DiskChoice
from farshore_engine.agent.description import recovery_scripts
from farshore_engine.agent.disks import Disk, choose
from farshore_engine.agent.exclusion import swap_blocks
from farshore_engine.agent.logs import JsonLines
from farshore_engine.agent.mounts import Mount, Swap, file_systems, parse_mountinfo, parse_swaps
from farshore_engine.agent.pacing import TokenBucket
from farshore_engine.agent.signatures import disk_signature, is_bootable, signature_of, table_entries
from farshore_engine.agent.tracker import accounting
from farshore_engine.agent.tracker.accounting import BARRIER_RETRIES, Account, Books
from farshore_engine.agent.tracker.interface import TrackedDisk
from farshore_engine.agent.tracker.ringpages import EventLayout, PageLayout, decode, record_places
from farshore_engine.blocks import bitmap
from farshore_engine.contract.faults import StopFault
from farshore_engine.wire.frames import FrameKind, WireError, encode_prefix

LAYOUT = PageLayout(4096, 8, 16)
EVENT = EventLayout("block_bio_queue", 77, dev=8, sector=16, sectors=24, rwbs=28)


def event(sector: int, sectors: int, rwbs: bytes = b"WS", number: int = 77, dev: int = 5) -> bytes:
    data = struct.pack("<HBBi", number, 0, 0, 1) + struct.pack("<I", dev).ljust(8, b"\0")
    return (data + struct.pack("<QI", sector, sectors) + rwbs).ljust(40, b"\0")


def short(data: bytes) -> bytes:
    """A record whose length is in its type."""
    return struct.pack("<I", len(data) // 4 | 5 << 5) + data


def long(data: bytes) -> bytes:
    """A record whose length stands behind its header."""
    return struct.pack("<II", 0 | 5 << 5, len(data) + 4) + data


def discarded(length: int) -> bytes:
    """An event that a filter took back after it was written: padding with a time, which does not end the page."""
    return struct.pack("<II", 29 | 1 << 5, length) + b"\xff" * (length - 4)


TIME_EXTEND = struct.pack("<II", 30 | 9 << 5, 1)
TIME_STAMP = struct.pack("<II", 31 | 9 << 5, 1)
END = struct.pack("<I", 29)


def page(*records: bytes, flags: int = 0) -> bytes:
    body = b"".join(records)
    return (struct.pack("<QQ", 0, len(body) | flags) + body).ljust(4096, b"\0")


def sectors_of(*pages: bytes) -> list[int]:
    words = np.frombuffer(b"".join(pages), np.uint32)
    places, _ = record_places(words, LAYOUT)
    return sorted(decode(words, places, EVENT).sector.tolist())


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        pytest.param([page()], [], id="an empty page"),
        pytest.param([page(short(event(8, 1)), short(event(16, 1)))], [8, 16], id="two events"),
        pytest.param([page(long(event(8, 1)), short(event(16, 1)))], [8, 16], id="a length behind the header"),
        pytest.param([page(TIME_EXTEND, short(event(8, 1)), TIME_STAMP, short(event(9, 1)))], [8, 9], id="times"),
        pytest.param([page(short(event(8, 1)), discarded(24), short(event(9, 1)))], [8, 9], id="a discarded event"),
        pytest.param([page(short(event(8, 1)), END, short(event(9, 1)))], [8], id="padding ends the page"),
        pytest.param([page(short(event(8, 1, b"R")), short(event(9, 1, b"RA")))], [], id="reads are left out"),
        pytest.param([page(*(short(event(8, 1, f)) for f in (b"N", b"DS", b"FWS", b"WFS")))], [8] * 4, id="all writes"),
        pytest.param([page(short(event(8, 1, number=5)))], [], id="another event"),
        pytest.param([page(short(event(1 << 40, 1)))], [1 << 40], id="a sector past 32 bits"),
        pytest.param([page(*[short(event(8, 1))] * 90), page(short(event(9, 1)))], [8] * 90 + [9], id="unequal pages"),
    ],
)
def test_events_are_read_from_pages(pages: list[bytes], expected: list[int]) -> None:
    assert sectors_of(*pages) == expected


def test_a_page_with_missed_events_says_so() -> None:
    words = np.frombuffer(page(short(event(8, 1)), flags=1 << 31), np.uint32)
    places, missed = record_places(words, LAYOUT)
    assert (places.size, missed) == (1, True)


def test_a_balance_is_exact_from_its_base() -> None:
    account = Account(base=100)
    account.traced += 8
    assert account.deficit(108) == 0
    assert account.deficit(116) == 8
    assert account.deficit(100) == -8, "traced and not yet in the statistics"
    account.forgive(116)
    assert account.deficit(116) == 0


@pytest.mark.parametrize(
    ("late", "drains", "lost"),
    [
        pytest.param(1, 1, [], id="all is traced at once"),
        pytest.param(3, 3, [], id="a completion is told late"),
        pytest.param(0, BARRIER_RETRIES + 1, ["sda"], id="an event that nobody tells of is not waited for for ever"),
    ],
)
def test_books_drain_again_until_they_balance(
    monkeypatch: pytest.MonkeyPatch, late: int, drains: int, lost: list[str]
) -> None:
    written = iter((100, 108))
    monkeypatch.setattr(accounting, "can_be_checked", lambda name: True)
    monkeypatch.setattr(accounting, "written_sectors", lambda name: next(written))
    told: list[str] = []
    sink = SimpleNamespace(lost=lambda disk, reason: told.append(disk))
    books = Books((TrackedDisk("sda", "sda", 8, 0, 1 << 20),), cast(Any, sink))
    calls: list[int] = []

    def drain() -> None:
        calls.append(1)
        if len(calls) == late:
            books.note("sda", 8)

    books.report(books.settle(drain))
    assert (len(calls), told) == (drains, lost)


MOUNTINFO = """\
22 27 0:21 / /proc rw - proc proc rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw,discard
30 27 8:2 / /srv/my\\040data rw - xfs /dev/sda2 rw
31 27 8:1 /var/lib /mnt/bind rw - ext4 /dev/sda1 rw
32 27 8:3 /sub /a rw - ext4 /dev/sda3 rw
33 27 8:3 / /b rw - ext4 /dev/sda3 rw
"""


def test_each_file_system_of_a_disk_is_found_once_by_its_whole_mount() -> None:
    mounts = parse_mountinfo(MOUNTINFO)
    found = file_systems({"8:0", "8:1", "8:2", "8:3"}, mounts)
    assert [m.point for m in found] == ["/", "/srv/my data", "/b"]
    assert found[0] == Mount("8:1", "/", "ext4", "/dev/sda1", "rw,relatime,rw,discard", "/")


def test_swap_areas_are_read() -> None:
    text = "Filename\tType\tSize\tUsed\tPriority\n/dev/sda5 partition 1 0 -2\n/swap\\040file file 1 0 -3\n"
    assert parse_swaps(text) == [Swap("/dev/sda5", False), Swap("/swap file", True)]
    assert parse_swaps("Filename Type\n") == []


def made(tmp_path: Path, *command: str, size: int = 64 << 20) -> bytes:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*command, str(image)], check=True, capture_output=True)
    with image.open("rb") as file:
        return file.read(128 << 10)


UUID = "56bfa5f0-d2a6-4a94-806c-eaebef914971"


@pytest.mark.parametrize(
    ("command", "size", "expected"),
    [
        pytest.param(("mkfs.ext4", "-q", "-U", UUID, "-L", "data"), 16, ("ext4", UUID, "data"), id="ext4"),
        pytest.param(("mkfs.ext2", "-q", "-U", UUID), 16, ("ext2", UUID, ""), id="ext2"),
        pytest.param(("mkfs.xfs", "-q", "-m", f"uuid={UUID}", "-L", "x"), 400, ("xfs", UUID, "x"), id="xfs"),
        pytest.param(("mkfs.btrfs", "-q", "-U", UUID, "-L", "b"), 256, ("btrfs", UUID, "b"), id="btrfs"),
        pytest.param(("mkfs.vfat", "-F32", "-i12345678", "-nESP"), 64, ("vfat", "1234-5678", "ESP"), id="vfat"),
        pytest.param(("mkswap", "-U", UUID), 16, ("swap", UUID, ""), id="swap"),
    ],
)  # fmt: skip
def test_file_systems_are_recognised(
    tmp_path: Path, command: tuple[str, ...], size: int, expected: tuple[str, str, str]
) -> None:
    found = signature_of(made(tmp_path, *command, size=size << 20))
    assert found is not None
    assert (found.kind, found.uuid, found.label) == expected


@pytest.mark.parametrize(
    ("script", "identity", "kinds", "bootable"),
    [
        pytest.param(
            "label: dos\nlabel-id: 0x1234abcd\nsize=8MiB,type=83\n", "dos-1234abcd", ["0x83"], False, id="dos"
        ),
        pytest.param(
            f"label: gpt\nlabel-id: {UUID}\nsize=8MiB,type=U\n",
            f"gpt-{UUID}",
            ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b"],
            True,
            id="gpt with an EFI system partition",
        ),
    ],
)
def test_partition_tables_are_recognised(
    tmp_path: Path, script: str, identity: str, kinds: list[str], bootable: bool
) -> None:
    head = made(tmp_path, "bash", "-c", f"printf '{script}' | sfdisk -q $0")
    assert disk_signature(head) == identity
    assert [entry.type_id for entry in table_entries(head)] == kinds
    assert is_bootable(head) is bootable


def test_an_empty_disk_has_no_signature() -> None:
    assert disk_signature(bytes(4096)) == ""
    assert signature_of(bytes(4096)) is None
    assert not is_bootable(bytes(4096))


SDA = Disk("serial-A", "sda", "/dev/sda", 8, 0, 1 << 30)
SDB = Disk("serial-B", "sdb", "/dev/sdb", 8, 16, 1 << 30)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        pytest.param(DiskChoice(), ["sda", "sdb"], id="all by default"),
        pytest.param(DiskChoice(include=("serial-B",)), ["sdb"], id="included by id"),
        pytest.param(DiskChoice(include=("/dev/sda",)), ["sda"], id="included by path"),
        pytest.param(DiskChoice(exclude=("sda",)), ["sdb"], id="excluded by name"),
        pytest.param(DiskChoice(include=("sda", "sdb"), exclude=("serial-A",)), ["sdb"], id="exclusion wins"),
        pytest.param(DiskChoice(include=("sda", "sdz")), ["sda"], id="one that is not there yet"),
    ],
)
def test_disks_are_chosen(choice: DiskChoice, expected: list[str]) -> None:
    assert [d.name for d in choose([SDA, SDB], choice) if d.replicated] == expected


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        pytest.param(DiskChoice(include=("sdz",)), r"this machine has sda \(serial-A\)", id="unknown disk"),
        pytest.param(DiskChoice(exclude=("sda", "sdb")), "no disk to protect", id="nothing left"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(choice: DiskChoice, said: str) -> None:
    with pytest.raises(StopFault, match=said):
        choose([SDA, SDB], choice)


def test_swap_on_another_disk_is_not_left_out() -> None:
    assert bitmap.count(swap_blocks(SDA, [Swap("/dev/null", False), Swap("/nowhere", True)])) == 0


def test_bandwidth_is_held_to_the_limit() -> None:
    now = [0.0]
    bucket = TokenBucket(1000, clock=lambda: now[0])
    sent = 0
    while now[0] < 10:
        now[0] += bucket.take(100)
        sent += 100
    assert 9900 <= sent <= 10400


def test_no_limit_means_no_wait() -> None:
    assert TokenBucket(0).take(1 << 30) == 0


def test_frames_are_cut_from_any_pieces() -> None:
    stream = encode_prefix(FrameKind.PING, {}) + encode_prefix(FrameKind.DIGESTS, {"a": 1}, 3) + b"xyz"
    for step in (1, 7, len(stream)):
        buffer = _FrameBuffer()
        frames = [f for at in range(0, len(stream), step) for f in buffer.feed(stream[at : at + step])]
        assert frames == [(FrameKind.PING, {}, b""), (FrameKind.DIGESTS, {"a": 1}, b"xyz")]


def test_a_frame_that_is_none_is_refused() -> None:
    with pytest.raises(WireError, match="not a Farshore frame"):
        _FrameBuffer().feed(b"GET / HTTP/1.1\r\n")


def test_log_lines_are_held_and_then_written() -> None:
    out = StringIO()
    handler = JsonLines(out)
    logger = logging.Logger("test")
    logger.addHandler(handler)
    with handler.held():
        logger.warning("inside", extra={"fields": {"point": "p1"}})
        assert out.getvalue() == ""
    line = json.loads(out.getvalue())
    assert (line["message"], line["level"], line["point"]) == ("inside", "warning", "p1")


def test_recovery_scripts_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "10-app").write_text("#!/bin/sh\n")
    (tmp_path / "10-app").chmod(0o750)
    assert recovery_scripts(tmp_path) == [{"name": "10-app", "mode": 0o750, "content": "#!/bin/sh\n"}]
    (tmp_path / "20-big").write_bytes(bytes(256 << 10))
    with pytest.raises(StopFault, match="more than 256 KiB"):
        recovery_scripts(tmp_path)
    assert recovery_scripts(tmp_path / "none") == []


BLOCKED = """
import sys
for name in ("pydantic", "kubernetes", "kopf", "cryptography", "yaml", "structlog"):
    sys.modules[name] = None
import farshore_engine.agent.main, farshore_engine.agent.agent, farshore_engine.agent.checks
import farshore_engine.agent.watchdog
"""


def test_the_agent_needs_nothing_but_numpy_and_blake3() -> None:
    subprocess.run([sys.executable, "-c", BLOCKED], check=True)
