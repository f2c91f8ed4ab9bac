"""`farshore vault rotate` and `erase`, on a directory, with nothing but files."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from tests.unit.vault.rig import KEK, MACHINE, Rig
from typer.testing import CliRunner, Result

from farshore_cli.main import build
from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.keydocument import ErasedKey
from farshore_engine.vault.keyring import WrongKey
from farshore_engine.vault.machine import MachineVault

NEW = bytes(range(50, 82))


class Night:
    """A vault with two machines, and the files that somebody has."""

    def __init__(self, directory: Path) -> None:
        self.store = DirectoryStore(directory / "vault", durable=False)
        for machine in (MACHINE, "team-a.web"):
            rig = Rig(self.store, machine=machine)
            rig.point("sda", {1: 1})
            rig.sink.close()
            rig.vault.close()
        self.place = ["--directory", str(directory / "vault")]
        (directory / "old").write_bytes(KEK)
        (directory / "new").write_bytes(base64.b64encode(NEW) + b"\n")
        self.directory = directory

    def run(self, *words: str, key: str = "old") -> Result:
        return CliRunner().invoke(build(), ["vault", *words, *self.place, "--key-file", str(self.directory / key)])

    def opens(self, machine: str, key: bytes) -> bool:
        try:
            MachineVault.open(self.store, key, machine).close()
        except WrongKey:
            return False
        return True


@pytest.fixture
def night(tmp_path: Path) -> Night:
    return Night(tmp_path)


def test_rotate_in_two_steps(night: Night) -> None:
    new = str(night.directory / "new")
    first = night.run("rotate", "--new-key-file", new)
    assert first.exit_code == 0 and "opens it too" in first.stdout
    assert all(night.opens(m, key) for m in (MACHINE, "team-a.web") for key in (KEK, NEW))
    second = night.run("rotate", "--new-key-file", new, "--remove-old")
    assert second.exit_code == 0 and "too" not in second.stdout
    assert all(night.opens(m, NEW) and not night.opens(m, KEK) for m in (MACHINE, "team-a.web"))
    again = night.run("rotate", "--new-key-file", new, "--remove-old")
    assert again.exit_code == 0  # with the old key given, which opens nothing any more
    assert night.run("list", key="new").exit_code == 0


def test_one_machine_only(night: Night) -> None:
    night.run("rotate", "db", "--new-key-file", str(night.directory / "new"), "--remove-old")
    assert not night.opens(MACHINE, KEK) and night.opens("team-a.web", KEK)


def test_with_a_key_that_opens_nothing_every_machine_is_named(night: Night) -> None:
    (night.directory / "wrong").write_bytes(bytes(32))
    outcome = night.run("rotate", "--new-key-file", str(night.directory / "new"), key="wrong")
    assert isinstance(outcome.exception, StopFault)
    assert f"2 of 2 machines were not rotated: {MACHINE}, team-a.web" in outcome.exception.message


def test_without_a_new_key_it_says_how_to_give_one(night: Night) -> None:
    outcome = night.run("rotate")
    assert isinstance(outcome.exception, StopFault) and "--new-key-file" in outcome.exception.remedy


def test_erase_wants_the_full_id_and_then_says_what_is_lost(night: Night) -> None:
    refused = night.run("erase", "db")
    assert isinstance(refused.exception, StopFault) and refused.exception.reason == "NotConfirmed"
    assert night.opens(MACHINE, KEK)
    done = night.run("erase", "db", "--confirm", MACHINE, "--by", "ada", "--reason", "contract ended")
    assert done.exit_code == 0 and "by ada: no point of it opens any more" in done.stdout
    with pytest.raises(ErasedKey, match="by ada"):
        MachineVault.open(night.store, KEK, MACHINE)
    listed = night.run("list")
    assert listed.exit_code == 0 and "erased on" in listed.stdout and "team-a.web" in listed.stdout
    assert "erased on" in night.run("rotate", "--new-key-file", str(night.directory / "new")).stdout


def test_recover_names_what_the_store_lacks(night: Night) -> None:
    """A directory keeps no versions; what it does with a store that does is tested with the vault."""
    outcome = night.run("recover")
    assert isinstance(outcome.exception, StopFault)
    assert f"2 of 2 machines were not recovered: {MACHINE}, team-a.web" in outcome.exception.message
    assert "cannot lock objects against deletion" in outcome.stdout
