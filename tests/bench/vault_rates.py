"""Each stage between a disk and the vault alone, as agent and process server do it, and the vault without them.

The sum of the stages' CPU time bounds what the parts can do together: on `n` cores no more than n / sum.
"""

from __future__ import annotations

import os
import resource
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from tests.bench.rows import Row
from tests.machine.agent_rig import make_identity

from farshore_engine.agent.source import READ_DEPTH, Reader, read_ahead
from farshore_engine.blocks.content import digest_block, zero_blocks
from farshore_engine.blocks.encoded import LEVEL, SEGMENT, encode, payload_of
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency
from farshore_engine.hydrate.raw import hydrate
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.encoder import BATCH
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.newfile import create_file
from farshore_engine.vault.pack import PackSink, SealedPack
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter
from farshore_engine.wire.stream import TlsStream

CALL = BATCH * BLOCK_SIZE  # bytes that one call of a stage handles, as one wire frame holds
KEK = bytes(32)
DONE = b"."


@dataclass(frozen=True)
class Measured:
    """What a stage needed for `size` bytes of disk content."""

    name: str
    size: int  # bytes
    seconds: float
    cpu: float  # seconds, of all threads of this process

    @property
    def rate(self) -> float:
        """MiB/s."""
        return self.size / 2**20 / self.seconds

    @property
    def cost(self) -> float:
        """CPU seconds for a GiB."""
        return self.cpu / (self.size / 2**30)


def measured(name: str, size: int, work: Callable[[], object]) -> Measured:
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Measured(name, size, seconds, cpu)


def stages(device: str, size: int, directory: Path) -> list[Measured]:
    """Measure every stage alone on the first `size` bytes of a disk; spool and vault are made in `directory`."""
    data, read = _read(device, size)
    calls = [memoryview(data)[at : at + CALL] for at in range(0, len(data), CALL)]
    payloads = [memoryview(payload_of([encode(KEK, call)[1]])) for call in calls]
    kept: list[SealedPack] = []
    _vault(DirectoryStore(directory / "stages"), _Keep(kept)).encode(data, threads=1)
    return [
        read,
        measured("zero test", size, lambda: [zero_blocks(c) for c in calls]),
        measured("TLS of what is compressed, both ends", size, lambda: _tls(payloads, directory)),
        measured("digests (BLAKE3)", size, lambda: [digest_block(KEK, b) for c in calls for b in _blocks(c)]),
        measured("compression (zstd)", size, lambda: [_compressed(c) for c in calls]),
        measured("encryption (AES-GCM)", size, lambda: _encrypt(kept)),
        measured("spool: write and sync", size, lambda: _spool(kept, directory)),
        measured("vault: put with sync", size, lambda: _put(kept, directory)),
    ]


def slowest(parts: list[Measured]) -> Measured:
    """Return the stage with the lowest rate; each was measured in one thread (reading: as many as an agent has)."""
    return min(parts, key=lambda part: part.rate)


def limit(parts: list[Measured]) -> float:
    """Return the MiB/s at which the stages use up all cores."""
    return (os.cpu_count() or 1) * 1024 / sum(part.cost for part in parts)


def vault_rows(data: bytes, directory: Path) -> list[Row]:
    """Measure the vault alone: encode, put and hydrate on a directory store, all cores, checked byte for byte."""
    size, threads = len(data), os.cpu_count() or 1
    store = DirectoryStore(directory / "alone")
    nowhere = _vault(store, _Forget())
    bench = _vault(store, None)
    image = directory / "alone.raw"
    found = [
        measured("vault alone: encode to nowhere", size, lambda: nowhere.encode(data, threads)),
        measured("vault alone: encode, put and commit", size, lambda: bench.replicate(data, threads)),
        measured("vault alone: the same again, nothing changed", size, lambda: bench.replicate(data, threads)),
        measured("vault alone: hydrate", size, lambda: bench.hydrate(image, threads)),
    ]
    assert image.read_bytes() == data, "the hydrated image differs from what went into the vault"
    return [Row(one.name, one.rate, "MiB/s") for one in found]


class _Keep:
    """A sink that keeps packs in memory."""

    def __init__(self, packs: list[SealedPack]) -> None:
        self._packs = packs

    def accept(self, pack: SealedPack) -> None:
        self._packs.append(pack)

    def drain(self) -> None:
        return


class _Forget:
    """A sink that forgets packs."""

    def accept(self, pack: SealedPack) -> None:
        return

    def drain(self) -> None:
        return


@dataclass(frozen=True)
class _Bench:
    vault: MachineVault
    writer: PointWriter

    def encode(self, data: bytes, threads: int) -> None:
        view = memoryview(data)

        def add(at: int) -> None:
            part = view[at : at + CALL]
            first = at // BLOCK_SIZE
            self.writer.add("sda", np.arange(first, first + len(part) // BLOCK_SIZE), part)

        with ThreadPoolExecutor(threads) as pool:
            for done in pool.map(add, range(0, len(data), CALL)):
                del done
        self.writer.flush()

    def replicate(self, data: bytes, threads: int) -> None:
        self.encode(data, threads)
        disks = (DiskFields("sda", "sda", len(data)),)
        self.writer.commit(
            PointFields(datetime.now(UTC), Consistency.CRASH, disks, MachineDescription(hostname="bench"))
        )

    def hydrate(self, image: Path, threads: int) -> None:
        point = self.vault.newest()
        assert point is not None
        hydrate(PointReader(self.vault, point), "sda", image, threads=threads)


def _vault(store: DirectoryStore, sink: PackSink | None) -> _Bench:
    vault = MachineVault.open(store, KEK, f"bench.{secrets.token_hex(4)}", create=True)
    uploader = sink or PackUploader(store, vault.access.names, threads=2)
    return _Bench(vault, PointWriter(vault, vault.claim(writer="bench", epoch=1, reason="bench"), uploader))


def _read(device: str, size: int) -> tuple[bytes, Measured]:
    """Read as the agent does, letting go of what was read; then give the content too."""
    reader = Reader(device)
    try:
        with ThreadPoolExecutor(READ_DEPTH) as workers:
            blocks = np.arange(size // BLOCK_SIZE, dtype=np.int64)

            def read() -> None:
                for _ in read_ahead(reader, blocks, workers, lambda data: None):
                    pass

            found = measured("read, past the page cache", size, read)
            data = b"".join(part for _, _, part in read_ahead(reader, blocks, workers, bytes))
    finally:
        reader.close()
    return data, found


def _blocks(call: memoryview) -> Iterator[memoryview]:
    for at in range(0, len(call), BLOCK_SIZE):
        yield call[at : at + BLOCK_SIZE]


def _compressed(call: memoryview) -> object:
    segments = np.zeros(len(call) // BLOCK_SIZE, SEGMENT)
    segments["offset"], segments["length"] = np.arange(segments.size) * BLOCK_SIZE, BLOCK_SIZE
    buffer = zstandard.BufferWithSegments(call, segments.tobytes())
    return zstandard.ZstdCompressor(level=LEVEL).multi_compress_to_buffer(buffer, threads=0)


def _encrypt(packs: list[SealedPack]) -> None:
    """Encrypt as many bytes as the packs hold, in pieces of about a compressed block."""
    cipher, nonce, piece = AESGCM(KEK), bytes(12), BLOCK_SIZE // 2  # the output is thrown away: the nonce may repeat
    for pack in packs:
        view = memoryview(pack.data)
        for at in range(0, len(view), piece):
            cipher.encrypt(nonce, view[at : at + piece], None)


def _spool(packs: list[SealedPack], directory: Path) -> None:
    for number, pack in enumerate(packs):
        create_file(directory / f"spooled{number}", pack.data)


def _put(packs: list[SealedPack], directory: Path) -> None:
    """Let the vault take over what `_spool` has written, and let go of it."""
    store = DirectoryStore(directory / "put")
    for number in range(len(packs)):
        path = directory / f"spooled{number}"
        store.put_file(f"packs/{number}", path)
        path.unlink()


def _tls(calls: list[memoryview], directory: Path) -> None:
    """Send all calls through one TLS 1.3 connection on loopback, with both ends in this process."""
    identity = directory / "identity"
    if not identity.exists():
        make_identity(identity)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(identity / "server.pem", identity / "server.key")
    client = ssl.create_default_context(cafile=str(identity / "ca.pem"))
    client.minimum_version = server.minimum_version = ssl.TLSVersion.TLSv1_3
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = threading.Thread(target=_send, args=(client, listener.getsockname()[1], calls))
        sender.start()
        plain, _ = listener.accept()
        with server.wrap_socket(plain, server_side=True) as secured:
            stream, buffer = TlsStream(secured, 30), memoryview(bytearray(max(map(len, calls))))
            for call in calls:
                got = 0
                while got < len(call):
                    count = stream.recv_into(buffer[got : len(call)])
                    assert count, "the connection of the bench broke"
                    got += count
            stream.sendall(DONE)
        sender.join()


def _send(context: ssl.SSLContext, port: int, calls: list[memoryview]) -> None:
    plain = socket.create_connection(("127.0.0.1", port))
    with context.wrap_socket(plain, server_hostname="farshore-process-server") as secured:
        stream = TlsStream(secured, 30)
        for call in calls:
            stream.sendall(call)
        stream.recv_into(memoryview(bytearray(len(DONE))))  # closing earlier would reset what is on its way
