"""Key-encryption keys: the port to what wraps data keys, the key in a Secret, and opening, rotating and erasing.

The data key of a machine never changes. Rotation adds a wrap by the new key beside the old one, and only a second,
separate step takes the old one away, so that nobody who has one of the keys is ever locked out by a crash.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.replication import KeyReport
from farshore_engine.vault.crypto import KEY_SIZE, NONCE_SIZE, MachineKeys, kek_id, new_data_key, parse_kek
from farshore_engine.vault.keydocument import ErasedKey, Erasure, KeyDocument, Wrap, damaged_key
from farshore_engine.vault.names import MachineNames
from farshore_engine.vault.store import AlreadyExists, ObjectNotFound, ObjectStore, Version, VersionMismatch

ATTEMPTS = 10  # changes of key.json by others that may get in between
LOCAL = "A256GCM"


class KeyWrapper(Protocol):
    """A key-encryption key. Thread-safe.

    `wrap` and `unwrap` raise WaitFault while the key's service is away, StopFault when it refuses.
    """

    def name(self) -> str:
        """Return the name under which this key wraps now; it may ask the key's service."""
        ...

    def made(self, wrap: Wrap) -> bool:
        """Return whether this key (one of its versions) made the wrap, by its name; asks nobody."""
        ...

    def wrap(self, data_key: bytes, machine: str) -> Wrap:
        """Encrypt a data key and bind it to the machine."""
        ...

    def unwrap(self, wrap: Wrap, machine: str) -> bytes:
        """Decrypt a data key that this key wrapped; raises StopFault if it does not verify."""
        ...

    def label(self) -> str:
        """Return how messages call the key; asks nobody."""
        ...


@dataclass(frozen=True)
class LocalKey:
    """A key-encryption key of 32 bytes, as a Secret holds it. Its repr shows no key."""

    _key: bytes = field(repr=False)

    @classmethod
    def parse(cls, secret: bytes) -> LocalKey:
        """Read the key as `crypto.parse_kek` does; raises StopFault."""
        return cls(parse_kek(secret))

    def name(self) -> str:
        """See KeyWrapper."""
        return kek_id(self._key)

    def label(self) -> str:
        """See KeyWrapper."""
        return f"id {kek_id(self._key)}"

    def made(self, wrap: Wrap) -> bool:
        """See KeyWrapper."""
        return wrap.kek == kek_id(self._key)

    def wrap(self, data_key: bytes, machine: str, nonce: bytes | None = None) -> Wrap:
        """See KeyWrapper. `nonce` is given by test vectors only."""
        nonce = nonce or secrets.token_bytes(NONCE_SIZE)
        return Wrap(self.name(), LOCAL, AESGCM(self._key).encrypt(nonce, data_key, binding(machine)), nonce)

    def unwrap(self, wrap: Wrap, machine: str) -> bytes:
        """See KeyWrapper."""
        try:
            if wrap.algorithm != LOCAL:
                raise ValueError
            return AESGCM(self._key).decrypt(wrap.nonce, wrap.wrapped, binding(machine))
        except (InvalidTag, ValueError) as error:
            raise damaged_key(machine, "its tag does not verify") from error


def binding(machine: str) -> bytes:
    """Return what a wrap is bound to."""
    return b"farshore/1 data key\0" + machine.encode()


@dataclass(frozen=True)
class Previous:
    """A key that machines may still be wrapped by; `remove`: its wrap is to go once the current key opens."""

    key: KeyWrapper
    remove: bool = False


@dataclass(frozen=True)
class KeyRing:
    """The vault's keys: the current one wraps, the previous ones only open."""

    current: KeyWrapper
    previous: tuple[Previous, ...] = ()

    @classmethod
    def of(cls, kek: bytes | KeyRing) -> KeyRing:
        """Return the ring of one key in a Secret, or the ring itself."""
        return kek if isinstance(kek, KeyRing) else cls(LocalKey.parse(kek))

    @property
    def wrappers(self) -> tuple[KeyWrapper, ...]:
        """Every key, the current one first."""
        return (self.current, *(one.key for one in self.previous))


class WrongKey(StopFault):
    """None of the given key-encryption keys opens this machine's data key."""

    def __init__(self, machine: str, wanted: str, given: str) -> None:
        super().__init__(
            f"the key-encryption key ({given}) does not open the data of {machine}: {wanted} wrapped it",
            "Give the key with which the vault was first used, or was rotated to; without it the data cannot be read "
            "by anybody",
            reason="WrongKey",
        )


def read_document(store: ObjectStore, names: MachineNames) -> tuple[KeyDocument, Version]:
    """Return key.json of a machine, erased or not.

    Raises:
        StopFault: there is none, or it cannot be used.
    """
    try:
        data, version = store.get(names.key)
    except ObjectNotFound:
        raise no_machine(names.machine) from None
    return KeyDocument.decode(data, names.machine), version


def no_machine(machine: str) -> StopFault:
    """Return the fault that the vault does not know a machine."""
    return StopFault(
        f"the vault holds nothing of {machine}",
        "Check the machine's namespace and name, or wait for its first recovery point",
        reason="NoMachine",
    )


def unwrap(document: KeyDocument, ring: KeyRing) -> MachineKeys:
    """Open a machine's data key with whichever key of the ring can.

    Raises:
        ErasedKey: it was destroyed.
        WrongKey: no key of the ring wrapped it.
        Fault: the keys that did are away or refuse.
    """
    if document.erased is not None:
        raise ErasedKey(document.machine, document.erased)
    failed: Fault | None = None
    for key in ring.wrappers:
        for wrap in reversed(document.wraps):  # of several versions of one key the newest wrapped last
            if not key.made(wrap):
                continue
            try:
                data_key = key.unwrap(wrap, document.machine)
            except Fault as fault:
                failed = failed if isinstance(failed, WaitFault) else fault
                continue
            if len(data_key) != KEY_SIZE:
                raise damaged_key(document.machine, "it does not hold a data key")
            return MachineKeys(document.machine, data_key)
    if failed is not None:
        raise failed
    wanted = " or ".join(f"key id {wrap.kek}" for wrap in document.wraps) or "no key"
    raise WrongKey(document.machine, wanted, ", ".join(key.label() for key in ring.wrappers))


def open_keys(store: ObjectStore, names: MachineNames, ring: KeyRing, *, create: bool) -> MachineKeys:
    """Open the data key of a machine; with `create`, make one if the vault does not know the machine.

    Raises:
        Fault: as `unwrap` and `read_document`, or the store is away.
    """
    for _ in range(2):
        try:
            return unwrap(read_document(store, names)[0], ring)
        except StopFault as fault:
            if fault.reason != "NoMachine" or not create:
                raise
        document = KeyDocument(names.machine, (ring.current.wrap(new_data_key(), names.machine),))
        try:
            store.put(names.key, document.encode(), create_only=True)
        except AlreadyExists:
            continue
    raise WaitFault(f"key.json of {names.machine} comes and goes", "Check the vault's storage", reason="VaultUnstable")


def rotate(store: ObjectStore, names: MachineNames, ring: KeyRing, keys: MachineKeys) -> KeyReport:
    """Bring key.json to what the ring asks for: a wrap by the current key, none by keys that are to be removed.

    A wrap by the current key is unwrapped again before it counts, and nothing is removed before it counts. It can be
    killed anywhere and run by several at once; wraps of keys that the ring does not know stay.

    Raises:
        ErasedKey: the data key was destroyed meanwhile.
        Fault: the store or the current key is away or refuses; key.json opens as before.
    """
    current = ring.current.name()
    for _ in range(ATTEMPTS):
        document, version = read_document(store, names)
        if document.erased is not None:
            raise ErasedKey(names.machine, document.erased)
        wraps = document.wraps
        if not any(wrap.kek == current for wrap in wraps):
            fresh = ring.current.wrap(keys.data_key, names.machine)
            _must_open(ring.current, fresh, keys)
            wraps = (*_newest_two(ring.current, wraps), fresh)
        else:
            leaving = [one.key for one in ring.previous if one.remove]
            stay = tuple(w for w in wraps if w.kek == current or not any(key.made(w) for key in leaving))
            if stay != wraps:
                _must_open(ring.current, next(w for w in wraps if w.kek == current), keys)
                wraps = stay
        if wraps == document.wraps:
            return _report(current, wraps)
        try:
            store.put_if(names.key, replace(document, wraps=wraps).encode(), version)
        except VersionMismatch:
            continue  # another one changed it: look again
    raise WaitFault(f"key.json of {names.machine} is being changed by others", "Nothing", reason="KeyBusy")


def key_report(document: KeyDocument, ring: KeyRing, fault: Fault) -> KeyReport:
    """Say how the keys of a machine stand when `rotate` could not finish because of `fault`."""
    made = [wrap.kek for wrap in document.wraps if ring.current.made(wrap)]
    needed = [w.kek for w in document.wraps if not made and any(one.key.made(w) for one in ring.previous)]
    others = tuple(wrap.kek for wrap in document.wraps if wrap.kek not in made)
    return KeyReport(
        current=made[-1] if made else ring.current.label(),
        wrapped=bool(made),
        previous=others,
        needed=tuple(needed),
        message=f"the data key is not wrapped by the current key yet: {fault.message}",
    )


def erase_keys(store: ObjectStore, names: MachineNames, by: str, reason: str, clock: Callable[[], datetime]) -> Erasure:
    """Replace key.json by the record that it was erased; whoever repeats it gets the first record.

    Raises:
        StopFault: the vault does not know the machine, or the store holds key.json fast.
    """
    for _ in range(ATTEMPTS):
        document, version = read_document(store, names)
        if document.erased is not None:
            return document.erased
        erased = Erasure(clock().astimezone(UTC).replace(microsecond=0), by, reason)
        try:
            store.put_if(names.key, KeyDocument(names.machine, (), erased).encode(), version)
        except VersionMismatch:
            continue
        return erased
    raise WaitFault(f"key.json of {names.machine} is being changed by others", "Nothing", reason="KeyBusy")


def _newest_two(key: KeyWrapper, wraps: tuple[Wrap, ...]) -> tuple[Wrap, ...]:
    """Leave out what older versions of the same key wrapped, but for the last one: a key that rotates itself must not
    let the document grow for ever."""
    own = [wrap for wrap in wraps if key.made(wrap)]
    return tuple(wrap for wrap in wraps if wrap not in own[:-1])


def _must_open(key: KeyWrapper, wrap: Wrap, keys: MachineKeys) -> None:
    if key.unwrap(wrap, keys.machine) != keys.data_key:
        raise damaged_key(keys.machine, f"key {wrap.kek} wrapped another data key")


def _report(current: str, wraps: tuple[Wrap, ...]) -> KeyReport:
    return KeyReport(current=current, wrapped=True, previous=tuple(wrap.kek for wrap in wraps if wrap.kek != current))
