"""Large files reach the disk whole whichever way they take, and a vault takes over a file that lies beside it."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from farshore_engine.blocks.buffers import Buffers
from farshore_engine.vault import directory_store, newfile
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.newfile import ALIGNMENT, DIRECT_FROM, create_file
from farshore_engine.vault.store import AlreadyExists

LARGE = DIRECT_FROM + ALIGNMENT + 17


def aligned(size: int) -> memoryview:
    buffer = Buffers(2 * DIRECT_FROM, 1).take()
    buffer[:size] = os.urandom(size)
    return buffer[:size]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"few bytes", id="small"),
        pytest.param(aligned(LARGE), id="large-with-an-unaligned-end"),
        pytest.param(aligned(DIRECT_FROM), id="large-and-aligned"),
        pytest.param(aligned(LARGE)[1:], id="large-in-unaligned-memory"),
    ],
)
def test_a_file_holds_what_was_given(tmp_path: Path, data: bytes | memoryview) -> None:
    create_file(tmp_path / "new", data)
    assert (tmp_path / "new").read_bytes() == bytes(data)
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "new", b"other")


def test_a_file_that_cannot_be_made_durable_is_not_left_behind(tmp_path: Path) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        create_file(tmp_path / "new", aligned(LARGE), fail)
    assert not (tmp_path / "new").exists()


def test_a_file_system_without_direct_writes_does_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(newfile.fcntl, "fcntl", lambda *given: 0 if len(given) == 2 else refuse())
    data = aligned(LARGE)
    create_file(tmp_path / "new", data)
    assert (tmp_path / "new").read_bytes() == bytes(data)


def test_a_buffer_comes_back_only_when_nobody_sees_it_any_more() -> None:
    buffers = Buffers(ALIGNMENT, 1)
    first = buffers.take()
    part = first[:10].toreadonly()
    first[:4] = b"mine"
    del first
    gc.collect()
    second = buffers.take()
    second[:4] = b"that"
    assert bytes(part[:4]) == b"mine"
    del second, part
    gc.collect()
    assert bytes(buffers.take()[:4]) in (b"mine", b"that")


def test_a_vault_takes_a_file_over_without_copying_it(tmp_path: Path) -> None:
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"pack")
    store = DirectoryStore(tmp_path / "vault")
    store.put_file("packs/1", spooled)
    assert (tmp_path / "vault/packs/1").stat().st_ino == spooled.stat().st_ino
    spooled.unlink()
    assert store.get("packs/1")[0] == b"pack"
    spooled.write_bytes(b"other")
    with pytest.raises(AlreadyExists):
        store.put_file("packs/1", spooled)
    assert store.get("packs/1")[0] == b"pack"


def test_a_file_on_another_file_system_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spooled = tmp_path / "spooled"
    spooled.write_bytes(b"pack")
    store = DirectoryStore(tmp_path / "vault")
    real = os.link

    def link(source: Path, target: Path) -> None:
        if source == spooled:
            raise OSError(18, "Invalid cross-device link")
        real(source, target)

    monkeypatch.setattr(directory_store.os, "link", link)
    store.put_file("packs/1", spooled)
    assert store.get("packs/1")[0] == b"pack"
    with pytest.raises(AlreadyExists):
        store.put_file("packs/1", spooled)
