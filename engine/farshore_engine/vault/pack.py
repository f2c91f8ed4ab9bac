"""Packs being written: records are compressed, encrypted and gathered to objects of 8 MiB and more.

    magic   8 bytes   "FSPACKv1"
    salt    32 bytes  of the pack's key
    records           ciphertext and 16-byte tag each, one after another; the nonce is the record's offset

A block record is the zstd frame of the block, or the block itself where that is shorter (then the record is exactly
BLOCK_SIZE + 16 bytes long). A node record is always a zstd frame.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from farshore_engine.blocks.buffers import Buffers
from farshore_engine.vault.crypto import SALT_SIZE, MachineKeys, Purpose, new_salt
from farshore_engine.vault.names import PackId

PACK_MAGIC = b"FSPACKv1"
PACK_HEADER = len(PACK_MAGIC) + SALT_SIZE
PACK_TARGET = 8 << 20  # bytes from which on a pack is sealed
PACK_MAX = 16 << 20  # no pack is larger
RESERVE_MAX = PACK_MAX - PACK_TARGET - PACK_HEADER
SPARE_BUFFERS = 4

_buffers = Buffers(PACK_MAX, SPARE_BUFFERS)  # of all machines: fresh memory costs more than what is done with it


@dataclass(frozen=True)
class SealedPack:
    """A finished pack: the content of the object `names.pack(id)`. Nobody changes the memory behind `data`."""

    id: PackId
    data: memoryview


class PackSink(Protocol):
    """Where finished packs go: straight to the vault (`upload.PackUploader`), or through a spool first.

    Both methods are called from several threads.
    """

    def accept(self, pack: SealedPack) -> None:
        """Take over a pack. It may block (back-pressure). If it raises, the pack is offered again by a later flush."""
        ...

    def drain(self) -> None:
        """Return once every accepted pack is durable in the vault; raises the fault that prevents it."""
        ...


class OpenPack:
    """A pack that is being filled: each thread writes into the part that it reserved."""

    def __init__(self, pack: PackId, keys: MachineKeys, salt: bytes | None = None) -> None:
        """Start a pack; `salt` is given by test vectors only."""
        salt = salt or new_salt()
        self.id = pack
        self.cipher: AESGCM = keys.cipher(Purpose.PACK, salt)
        self.buffer = _buffers.take()  # untouched pages take no memory
        self.buffer[:PACK_HEADER] = PACK_MAGIC + salt
        self.end = PACK_HEADER
        self.writing = 0
        self.closed = False

    def sealed(self) -> SealedPack:
        """Return the finished pack."""
        return SealedPack(self.id, self.buffer[: self.end].toreadonly())


class Packer:
    """Gives out places in packs to threads and passes finished packs to the sink.

    `in_flight` names every pack that it began and that was not released yet: no prune may delete those.
    """

    def __init__(self, keys: MachineKeys, claim: int, sink: PackSink, *, target: int = PACK_TARGET) -> None:
        """Make packs under the claim in slot `claim`, of `target` bytes and more."""
        self._keys = keys
        self._claim = claim
        self._sink = sink
        self._target = min(target, PACK_TARGET)
        self._state = threading.Condition()
        self._current: OpenPack | None = None
        self._unsealed = 0  # packs closed to reservations and not yet accepted
        self._refused: list[SealedPack] = []
        self._in_flight: set[PackId] = set()
        self.bytes_sealed = 0
        self.packs_sealed = 0

    @property
    def in_flight(self) -> frozenset[PackId]:
        """The packs that no point reaches yet, but one may."""
        with self._state:
            return frozenset(self._in_flight)

    def hold(self, packs: Iterable[PackId]) -> None:
        """Count packs as in flight that an earlier process made and that the next point will reach."""
        with self._state:
            self._in_flight.update(packs)

    def release(self, packs: Iterable[PackId]) -> None:
        """Forget packs that a visible point reaches by now, or that were given up."""
        with self._state:
            self._in_flight.difference_update(packs)

    def restart_count(self) -> None:
        """Count sealed packs and bytes anew, for the next point."""
        with self._state:
            self.bytes_sealed = self.packs_sealed = 0

    def reserve(self, length: int) -> tuple[OpenPack, int]:
        """Reserve `length` bytes; return the pack and the offset. `written` must follow, whatever happens."""
        if not 0 < length <= RESERVE_MAX:
            raise ValueError(f"cannot reserve {length} bytes of a pack")
        full = None
        with self._state:
            pack = self._current
            if pack is not None and pack.end >= self._target:
                full = self._close(pack)
                pack = None
            if pack is None:
                pack = self._current = OpenPack(PackId.new(self._claim), self._keys)
                self._in_flight.add(pack.id)
            offset = pack.end
            pack.end += length
            pack.writing += 1
        try:
            if full is not None:
                self._deliver(full)
        except BaseException:
            self.written(pack)
            raise
        return pack, offset

    def written(self, pack: OpenPack) -> None:
        """Report that one reservation of the pack was filled."""
        with self._state:
            pack.writing -= 1
            last = pack.closed and pack.writing == 0
        if last:
            self._deliver(pack)

    def flush(self) -> frozenset[PackId]:
        """Seal the open pack, wait for those that other threads still fill, and offer refused ones again.

        Returns the packs that are in flight and that the sink has now.
        """
        with self._state:
            in_flight = frozenset(self._in_flight)
            full = self._close(self._current) if self._current is not None else None
        if full is not None:
            self._deliver(full)
        with self._state:
            self._state.wait_for(lambda: self._unsealed == 0)
            refused, self._refused = self._refused, []
        while refused:
            try:
                self._sink.accept(refused[0])
            except BaseException:
                with self._state:
                    self._refused = refused + self._refused
                raise
            refused = refused[1:]
        return in_flight

    def _close(self, pack: OpenPack) -> OpenPack | None:
        """Close the current pack to reservations; return it if it is to be delivered now. The lock is held."""
        self._current = None
        pack.closed = True
        self._unsealed += 1
        return pack if pack.writing == 0 else None

    def _deliver(self, pack: OpenPack) -> None:
        sealed = pack.sealed()
        accepted = False
        try:
            self._sink.accept(sealed)
            accepted = True
        finally:
            with self._state:
                self._unsealed -= 1
                self.bytes_sealed += len(sealed.data)
                self.packs_sealed += 1
                if not accepted:
                    self._refused.append(sealed)
                self._state.notify_all()
