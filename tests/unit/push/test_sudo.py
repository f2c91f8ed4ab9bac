"""sudo says no in many ways; each is told apart, and the password goes nowhere but to its standard input."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from pydantic import SecretStr

from farshore_engine.contract.assignment import SSHCredentials
from farshore_engine.contract.faults import StopFault
from farshore_engine.processserver.push.sudo import Elevation, find_elevation


@dataclass(frozen=True)
class Said:
    status: int
    stdout: str
    stderr: str


@dataclass
class Machine:
    """Answers `sudo -n` with one text and `sudo -S` with another; remembers what it was sent."""

    silent: Said
    loud: Said = Said(1, "", "")
    uid: str = "1000"
    received: bytes = b""

    async def __call__(self, command: str, *, stdin: bytes = b"", timeout: float = 60) -> Said:
        assert "hunter2" not in command
        if command == "id -u":
            return Said(0, f"{self.uid}\n", "")
        self.received += stdin
        return self.loud if "-S" in command else self.silent


GRANTED = Said(0, "0\n", "")
WANTS_PASSWORD = Said(1, "", "sudo: a password is required\n")
CREDENTIALS = SSHCredentials(username="alice", password=SecretStr("hunter2"))
KEY_ONLY = SSHCredentials(username="alice", private_key=SecretStr("x"))


def find(machine: Machine, credentials: SSHCredentials = CREDENTIALS) -> Elevation:
    return asyncio.run(find_elevation(machine, credentials))


def test_root_needs_no_sudo() -> None:
    assert find(Machine(Said(127, "", ""), uid="0")).wrap("true") == "exec true"


def test_no_password_is_sent_to_a_sudo_that_asks_for_none() -> None:
    machine = Machine(GRANTED)
    assert find(machine).prompt_answer == b""
    assert machine.received == b""


def test_the_password_goes_to_standard_input_only() -> None:
    machine = Machine(WANTS_PASSWORD, GRANTED)
    found = find(machine)
    assert (machine.received, found.prompt_answer) == (b"hunter2\n", b"hunter2\n")
    assert "hunter2" not in repr(found) + found.wrap("true")


def test_a_password_for_sudo_alone_comes_first() -> None:
    machine = Machine(WANTS_PASSWORD, GRANTED)
    find(machine, CREDENTIALS.model_copy(update={"sudo_password": SecretStr("other")}))
    assert machine.received == b"other\n"


REFUSALS = {
    "not a sudoer": (CREDENTIALS, Said(1, "", "alice is not in the sudoers file."), "SudoRefused"),
    "not allowed": (CREDENTIALS, Said(1, "", "user alice is not allowed to execute 'id' as root"), "SudoRefused"),
    "may not run": (CREDENTIALS, Said(1, "", "Sorry, user alice may not run sudo on db1."), "SudoRefused"),
    "wrong password": (CREDENTIALS, Said(1, "", "sudo: 1 incorrect password attempt"), "SudoPasswordRefused"),
    "none in the Secret": (KEY_ONLY, WANTS_PASSWORD, "SudoPasswordMissing"),
    "requiretty": (CREDENTIALS, Said(1, "", "sudo: sorry, you must have a tty to run sudo"), "SudoRequiresTTY"),
    "no sudo": (CREDENTIALS, Said(127, "", "env: 'sudo': No such file or directory"), "SudoMissing"),
    "anything else": (CREDENTIALS, Said(1, "", "sudo: unable to open /etc/sudoers: I/O error"), "SudoFailed"),
}  # fmt: skip


@pytest.mark.parametrize(("credentials", "said", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(credentials: SSHCredentials, said: Said, reason: str) -> None:
    silent = said if reason in ("SudoRequiresTTY", "SudoMissing", "SudoPasswordMissing") else WANTS_PASSWORD
    with pytest.raises(StopFault) as caught:
        find(Machine(silent, said), credentials)
    assert caught.value.reason == reason
    assert caught.value.remedy
    assert "hunter2" not in str(caught.value)
