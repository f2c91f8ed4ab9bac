"""A vault whose key-encryption key is in Azure Key Vault, through Microsoft's SDK against a simulator with real RSA."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from tests.contract.keyvault_simulator import KeyVault, running
from tests.contract.memory_store import MemoryStore
from tests.unit.vault.rig import KEK, MACHINE, Rig

from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.vault.keydocument import KeyDocument
from farshore_engine.vault.keyring import KeyRing, LocalKey, Previous
from farshore_engine.vault.keyvault import KeyVaultKey
from farshore_engine.vault.machine import MachineVault

KEY = "farshore"


@pytest.fixture
def vault(tmp_path: Path) -> Iterator[KeyVault]:
    with running(tmp_path) as found:
        found.new_version(KEY)
        yield found


def key_of(vault: KeyVault, **changes: object) -> KeyVaultKey:
    return KeyVaultKey.connect(vault.access(KEY, **changes), **vault.options)


def document(store: MemoryStore) -> KeyDocument:
    return KeyDocument.decode(store.get(f"machines/{MACHINE}/key.json")[0], MACHINE)


def test_a_machine_is_made_and_opened_with_a_key_in_key_vault(vault: KeyVault) -> None:
    store, ring = MemoryStore(), KeyRing(key_of(vault))
    made = MachineVault.open(store, ring, MACHINE, create=True)
    (wrap,) = document(store).wraps
    assert wrap.kek.startswith(f"{vault.address}/keys/{KEY}/")
    assert (wrap.algorithm, wrap.nonce, len(wrap.wrapped)) == ("RSA-OAEP-256", b"", 256)
    assert MachineVault.open(store, KeyRing(key_of(vault)), MACHINE).access.keys == made.access.keys
    assert vault.secret not in repr(ring) + store.get(f"machines/{MACHINE}/key.json")[0].decode()


def test_a_wrap_of_one_machine_does_not_open_another(vault: KeyVault) -> None:
    key = key_of(vault)
    wrap = key.wrap(bytes(32), MACHINE)
    assert key.unwrap(wrap, MACHINE) == bytes(32)
    with pytest.raises(StopFault, match="belongs to another machine"):
        key.unwrap(wrap, "team-a.web")


def test_from_a_secret_to_key_vault_without_touching_data(vault: KeyVault) -> None:
    rig = Rig()
    rig.point("sda", {1: 1})
    before = {name for name in rig.store.list("") if not name.endswith("key.json")}
    ring = KeyRing(key_of(vault), (Previous(LocalKey(KEK)),))
    report = rig.vault.rotate(ring)
    assert report.wrapped and report.current.startswith(vault.address)
    assert report.previous == (LocalKey(KEK).name(),)
    removed = rig.vault.rotate(KeyRing(key_of(vault), (Previous(LocalKey(KEK), remove=True),)))
    assert removed.previous == ()
    with pytest.raises(StopFault, match="does not open the data"):
        rig.open()
    opened = MachineVault.open(rig.store, KeyRing(key_of(vault)), MACHINE)
    assert len(opened.catalogue().points) == 1
    assert before == {name for name in rig.store.list("") if not name.endswith("key.json")}


def test_a_new_version_in_key_vault_wraps_and_the_last_one_stays(vault: KeyVault) -> None:
    store, ring = MemoryStore(), KeyRing(key_of(vault))
    opened = MachineVault.open(store, ring, MACHINE, create=True)
    versions = [document(store).wraps[0].kek]
    for _ in range(3):
        versions.append(f"{vault.address}/keys/{KEY}/{vault.new_version(KEY)}")
        assert opened.rotate(ring).current == versions[-1]
        assert opened.rotate(ring).current == versions[-1]
    assert [wrap.kek for wrap in document(store).wraps] == versions[-2:]


REFUSALS: dict[str, tuple[Callable[[KeyVault], object], str, str]] = {
    "a disabled key": (
        lambda v: [setattr(one, "enabled", False) for one in v.keys[KEY].values()],
        "KeyVaultKeyDisabled",
        "the key is disabled",
    ),
    "a version that is gone": (lambda v: v.keys[KEY].clear(), "KeyVaultKeyMissing", "does not exist"),
    "no right to unwrap": (lambda v: v.granted.discard("unwrapKey"), "KeyVaultRefused", "ForbiddenByRbac"),
    "a wrong client secret": (lambda v: setattr(v, "secret", "other"), "KeyVaultRefused", "access refused"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_key_vault_refuses_is_told(vault: KeyVault, case: str) -> None:
    store, access = MemoryStore(), vault.access(KEY)
    MachineVault.open(store, KeyRing(key_of(vault)), MACHINE, create=True)
    break_it, reason, text = REFUSALS[case]
    break_it(vault)
    with pytest.raises(StopFault) as caught:
        MachineVault.open(store, KeyRing(KeyVaultKey.connect(access, **vault.options)), MACHINE)
    assert caught.value.reason == reason
    assert text in caught.value.message and caught.value.remedy
    assert access.client_secret.get_secret_value() not in str(caught.value)


def test_throttling_is_waited_out_as_key_vault_says(vault: KeyVault) -> None:
    store = MemoryStore()
    MachineVault.open(store, KeyRing(key_of(vault)), MACHINE, create=True)
    vault.trouble = [(429, {"Retry-After": "0"})] * 2
    MachineVault.open(store, KeyRing(key_of(vault)), MACHINE)
    fresh = KeyVaultKey.connect(vault.access(KEY), **vault.options, retry_total=0)
    vault.trouble = [(429, {"Retry-After": "7"})] * 99
    with pytest.raises(WaitFault) as caught:
        MachineVault.open(store, KeyRing(fresh), MACHINE)
    assert (caught.value.reason, caught.value.retry_after) == ("KeyVaultThrottled", 7.0)


def test_while_key_vault_is_away_what_is_open_goes_on_and_what_opens_waits(vault: KeyVault) -> None:
    """The running process server has the data key in memory; one that starts says what it waits for."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        away = KeyVaultKey.connect(
            vault.access(KEY, url=f"https://127.0.0.1:{taken.getsockname()[1]}"), **vault.options, retry_total=0
        )

        class OnKeyVault(Rig):
            def open(self) -> MachineVault:
                return MachineVault.open(self.store, KeyRing(key_of(vault)), self.machine, create=True)

        rig = OnKeyVault()
        first = rig.point("sda", {1: 1})
        report = rig.vault.rotate(KeyRing(away, (Previous(key_of(vault)),)))
        assert not report.wrapped and report.needed and "no answer" in report.message
        rig.point("sda", {2: 2})
        assert len(rig.open().catalogue().points) == 2
        fault: Fault
        with pytest.raises(WaitFault) as caught:
            MachineVault.open(rig.store, KeyRing(away), "team-a.new", create=True)
        fault = caught.value
        assert fault.reason == "KeyVaultUnreachable" and "127.0.0.1" in fault.remedy
        assert first.name in [p.manifest.name for p in rig.vault.catalogue().points]


def test_a_key_vault_without_tls_is_refused(vault: KeyVault) -> None:
    with pytest.raises(StopFault, match="not reached by https"):
        key_of(vault, url="http://contoso.vault.azure.net", client_secret=SecretStr("x"))
