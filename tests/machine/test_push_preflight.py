"""Preflight against real machines: each thing that can be wrong has its own check, reason and remedy."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.machine.push_rig import Shell, source_of
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_engine.contract.assignment import Source
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.processserver.installer import DataPort, PreflightOutcome
from farshore_engine.processserver.push.checklist import Needs
from farshore_engine.processserver.push.preflight import ORDER, run_preflight

MIB = 1 << 20
NEEDS = Needs("0.1.0-00000000", 30 * MIB, 90 * MIB, (3, 2, 0), ("ssse3",))
SMALL = (SourceDisk(size_mib=32),)
OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEl2sKcxNkOVoVSoWrOJPsAKr2v/JtVfUMmKmTrLOMqd"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A data port on every address of this host."""
    with socket.create_server(("0.0.0.0", 0)) as server:
        yield server


def preflight(
    source: Source, data_port: DataPort | None = None, now: Callable[[], float] = time.time
) -> PreflightOutcome:
    return asyncio.run(run_preflight(source, data_port, NEEDS, now))


def check_of(outcome: PreflightOutcome, name: str) -> Check:
    assert [c.name for c in outcome.checks] == list(ORDER), "the list is always complete and in the same order"
    return next(c for c in outcome.checks if c.name == name)


def test_a_good_machine_passes_every_check_and_is_not_touched(listener: socket.socket) -> None:
    with NamespaceSource(SMALL) as machine:
        machine.exec("touch /run/before; sleep 0.02")
        outcome = preflight(source_of(machine), DataPort(machine.gateway, listener.getsockname()[1]))
        touched = machine.exec("find /opt /etc /usr /srv /root /var/lib /tmp -xdev -newer /run/before").stdout
        not_passed = {c.name: c.message for c in outcome.checks if c.result is not CheckResult.PASSED}
        assert set(not_passed) == {"ServiceManager"}  # a namespace machine has none, which is a warning
        assert outcome.errors == ()
        assert touched == ""
        assert outcome.host_key.split()[:2] == machine.exec("cat /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[:2]


def test_a_pinned_key_that_fits_is_accepted() -> None:
    with NamespaceSource(SMALL) as machine:
        pinned = preflight(source_of(machine)).host_key
        outcome = preflight(source_of(machine).model_copy(update={"host_key": pinned}))
        assert "pinned one" in check_of(outcome, "HostKey").message
        assert outcome.errors == ()


LOGINS = {
    "root by password": ("root", "", ["password"]),
    "root by key": ("root", "", ["private_key"]),
    "sudo that asks for the password": ("alice", "", ["password"]),
    "sudo without a password": (
        "alice",
        "echo 'alice ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/farshore-alice",
        ["private_key"],
    ),
    "key login, sudo with its own password": ("alice", "", ["private_key", "sudo_password"]),
    "another login shell": ("alice", "chsh -s /bin/dash alice", ["password"]),
}


@pytest.mark.parametrize(("user", "commands", "names"), LOGINS.values(), ids=LOGINS)
def test_ways_to_become_root(user: str, commands: str, names: list[str]) -> None:
    with NamespaceSource(SMALL, user=user) as machine:
        machine.exec(commands or "true")
        values = {
            "password": machine.password,
            "sudo_password": machine.password,
            "private_key": machine.key_path.read_text(),
        }
        outcome = preflight(source_of(machine, **{name: values[name] for name in names}))
        assert outcome.errors == ()
        assert check_of(outcome, "RootOrSudo").result is CheckResult.PASSED


def test_a_key_with_a_passphrase_needs_it(tmp_path: Path) -> None:
    with NamespaceSource(SMALL) as machine:
        locked = tmp_path / "locked"
        locked.write_text(machine.key_path.read_text())
        locked.chmod(0o600)
        subprocess.run(
            ["ssh-keygen", "-q", "-p", "-N", "open sesame", "-f", str(locked)], check=True, capture_output=True
        )
        key = locked.read_text()
        assert preflight(source_of(machine, private_key=key, passphrase="open sesame")).errors == ()
        without = check_of(preflight(source_of(machine, private_key=key)), "SSHLogin")
        wrong = check_of(preflight(source_of(machine, private_key=key, passphrase="nonsense")), "SSHLogin")
        assert (without.result, wrong.result) == (CheckResult.ERROR, CheckResult.ERROR)
        assert "needs a passphrase" in without.message
        assert "does not fit" in wrong.message


# What is broken -> (user, how, the check, its result, words of the message, words of the remedy)
BROKEN = {
    "password logins are switched off": (
        "root",
        Shell("sed -i 's/^PasswordAuthentication.*/PasswordAuthentication no/' /etc/ssh/sshd_config", sshd=True),
        "SSHLogin", CheckResult.ERROR, "does not offer", "PasswordAuthentication yes",
    ),
    "root may not log in": (
        "root",
        Shell("sed -i 's/^PermitRootLogin.*/PermitRootLogin no/' /etc/ssh/sshd_config", sshd=True),
        "SSHLogin", CheckResult.ERROR, "refused the login of root", "PermitRootLogin",
    ),
    "no SFTP subsystem": (
        "root", Shell("sed -i '/^Subsystem/d' /etc/ssh/sshd_config", sshd=True),
        "SFTPSubsystem", CheckResult.ERROR, "no SFTP subsystem", "Subsystem sftp",
    ),
    "an SFTP server that is not there": (
        "root", Shell("sed -i 's,^Subsystem.*,Subsystem sftp /usr/lib/nothing,' /etc/ssh/sshd_config", sshd=True),
        "SFTPSubsystem", CheckResult.ERROR, "no SFTP subsystem", "Subsystem sftp",
    ),
    "sudo does not know the user": (
        "alice", Shell("rm /etc/sudoers.d/farshore-alice"),
        "RootOrSudo", CheckResult.ERROR, "does not let user alice become root", "NOPASSWD",
    ),
    "sudo wants a terminal": (
        "alice", Shell("echo 'Defaults requiretty' >>/etc/sudoers.d/farshore-alice"),
        "RootOrSudo", CheckResult.ERROR, "requiretty", "!requiretty",
    ),
    "no sudo": (
        "alice", Shell("mv /usr/bin/sudo /usr/bin/sudo.away"),
        "RootOrSudo", CheckResult.ERROR, "no sudo", "Install sudo",
    ),
    "no tar": ("root", Shell("mv /usr/bin/tar /usr/bin/tar.away"), "Tools", CheckResult.ERROR, "no tar", "Install tar"),
    "the disk of /opt is full": (
        "root", Shell("mount -t tmpfs -o size=100m tmpfs /opt && head -c 60M /dev/zero >/opt/ballast"),
        "FreeSpace", CheckResult.ERROR, "/opt has 40 MiB free", "Free 144 MiB on /opt",
    ),
    "/opt is read-only": (
        "root", Shell("mount -t tmpfs -o ro tmpfs /opt"),
        "FreeSpace", CheckResult.ERROR, "/opt is read-only", "writable",
    ),
    "the host name is not in /etc/hosts": (
        "root", Shell("echo 127.0.0.1 localhost >/etc/hosts"),
        "HostNameMapping", CheckResult.WARNING, "does not resolve", "/etc/hosts",
    ),
    "the host name maps to a foreign address": (
        "root", Shell('echo "192.168.77.7 $(uname -n)" >/etc/hosts'),
        "HostNameMapping", CheckResult.WARNING, "192.168.77.7", "/etc/hosts",
    ),
    "the other product is there": (
        "root", Shell("mkdir -p /usr/local/ASR"),
        "EarlierInstall", CheckResult.WARNING, "Azure Site Recovery", "remove the one",
    ),
    "an installation was broken off": (
        "root", Shell("mkdir -p /etc/farshore/agent && echo {} >/etc/farshore/agent/config.json"),
        "EarlierInstall", CheckResult.PASSED, "will be completed", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("user", "how", "name", "result", "message", "remedy"), BROKEN.values(), ids=BROKEN)
def test_what_can_be_wrong_in_the_machine(
    user: str, how: Shell, name: str, result: CheckResult, message: str, remedy: str
) -> None:
    with NamespaceSource(SMALL, user=user) as machine:
        how.apply(machine)
        outcome = preflight(source_of(machine))
        found = check_of(outcome, name)
        assert (found.result, message in found.message, remedy in found.remedy) == (result, True, True), found
        assert machine.password not in str(outcome)
        blamed = {c.name for c in outcome.errors}
        assert blamed == ({name} if result is CheckResult.ERROR else set())


def test_a_wrong_password_is_named_and_the_rest_skipped() -> None:
    with NamespaceSource(SMALL) as machine:
        outcome = preflight(source_of(machine, password="not-the-password"))
        assert "refused the login of root by password" in check_of(outcome, "SSHLogin").message
        later = ORDER[ORDER.index("SSHLogin") + 1 :]
        assert {check_of(outcome, name).result for name in later} == {CheckResult.SKIPPED}
        assert "not-the-password" not in str(outcome)


def test_a_changed_host_key_stops_before_the_password_is_sent() -> None:
    with NamespaceSource(SMALL) as machine:
        outcome = preflight(source_of(machine).model_copy(update={"host_key": OTHER_KEY}))
        found = check_of(outcome, "HostKey")
        seen = machine.exec("ssh-keygen -l -f /etc/ssh/ssh_host_ed25519_key.pub").stdout.split()[1]
        assert found.result is CheckResult.ERROR
        assert seen in found.message
        assert found.message.count("SHA256:") == 2
        assert check_of(outcome, "SSHLogin").result is CheckResult.SKIPPED
        assert "Accepted" not in machine.machines.inspect(machine.name).console.read_text()  # type: ignore[union-attr]


CLOCKS = {
    "right": (0, CheckResult.PASSED),
    "two minutes behind us": (120, CheckResult.WARNING),
    "ten minutes behind us": (600, CheckResult.ERROR),
    "ten minutes ahead of us": (-600, CheckResult.ERROR),
}


@pytest.mark.parametrize(("shift", "result"), CLOCKS.values(), ids=CLOCKS)
def test_clock_against_ours(shift: int, result: CheckResult) -> None:
    with NamespaceSource(SMALL) as machine:
        found = check_of(preflight(source_of(machine), now=lambda: time.time() + shift), "Clock")
        assert found.result is result
        assert "time server" in found.remedy or result is CheckResult.PASSED


ROUTES = {
    "through a channel of sshd": "",
    "sshd forwards nothing": "AllowTcpForwarding no",
}


@pytest.mark.parametrize("setting", ROUTES.values(), ids=ROUTES)
def test_route_back_to_the_data_port(setting: str, listener: socket.socket) -> None:
    with NamespaceSource(SMALL) as machine:
        if setting:
            Shell(f"echo '{setting}' >>/etc/ssh/sshd_config", sshd=True).apply(machine)
        port = listener.getsockname()[1]
        reached = check_of(preflight(source_of(machine), DataPort(machine.gateway, port)), "RouteToDataPort")
        listener.close()
        closed = check_of(preflight(source_of(machine), DataPort(machine.gateway, port)), "RouteToDataPort")
        assert reached.result is CheckResult.PASSED
        assert (closed.result, f"TCP port {port}" in closed.remedy) == (CheckResult.ERROR, True)


DISKS = {
    "all": ((), (), CheckResult.PASSED),
    "an included name that is not there": (("sdz",), (), CheckResult.ERROR),
    "an excluded name that is not there": ((), ("sdz",), CheckResult.WARNING),
    "everything excluded": ((), ("DISK",), CheckResult.ERROR),
    "included by path": (("/dev/DISK",), (), CheckResult.PASSED),
}


@pytest.mark.parametrize(("include", "exclude", "result"), DISKS.values(), ids=DISKS)
def test_disks_to_protect(include: tuple[str, ...], exclude: tuple[str, ...], result: CheckResult) -> None:
    with NamespaceSource(SMALL) as machine:
        disk = machine.loop_device(0).removeprefix("/dev/")
        chosen = {
            "include_disks": tuple(word.replace("DISK", disk) for word in include),
            "exclude_disks": tuple(word.replace("DISK", disk) for word in exclude),
        }
        found = check_of(preflight(source_of(machine).model_copy(update=chosen)), "Disks")
        assert found.result is result
        assert disk in found.message + found.remedy


def test_a_public_source_address_is_a_warning() -> None:
    with NamespaceSource(SMALL, public=True) as machine:
        outcome = preflight(source_of(machine).model_copy(update={"address": machine.public_address}))
        assert check_of(outcome, "PublicAddress").result is CheckResult.WARNING
        assert outcome.errors == ()


def test_nothing_listens_and_nobody_is_there() -> None:
    with NamespaceSource(SMALL) as machine:
        refused = preflight(source_of(machine).model_copy(update={"port": 2222}))
        machine.exec("ip link set eth0 down")
        silent = preflight(source_of(machine))
    unknown = preflight(source_of(machine).model_copy(update={"address": "no-such-machine.invalid"}))
    said = {check_of(outcome, "Reachability").message.split(" ", 1)[1] for outcome in (refused, silent, unknown)}
    assert said == {
        "port 2222 refused the connection",
        "port 22 does not answer",
        "name no-such-machine.invalid cannot be resolved",
    }
    for outcome in (refused, silent, unknown):
        assert [c.name for c in outcome.errors] == ["Reachability"]


def test_a_port_that_is_not_ssh_is_said_to_be_none(listener: socket.socket) -> None:
    source = Source(address="127.0.0.1", port=listener.getsockname()[1])
    with NamespaceSource(SMALL) as machine:
        credentials = source_of(machine).credentials
    listener.listen()

    def greet() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the first one only looks whether the port is open, and closes it
                connection.settimeout(60)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):  # else closing resets the connection before the answer is read
                    pass

    server = threading.Thread(target=greet, daemon=True)
    server.start()
    found = check_of(preflight(source.model_copy(update={"credentials": credentials})), "SSHLogin")
    server.join(60)
    assert found.result is CheckResult.ERROR
    assert "SSH" in found.message


DOCTORS = {
    "a good machine": ("", 0, "can be protected, 1 warning"),
    "no tar": ("mv /usr/bin/tar /usr/bin/tar.away", 1, "cannot be protected yet: 1 error"),
}


@pytest.mark.parametrize(("commands", "code", "verdict"), DOCTORS.values(), ids=DOCTORS)
def test_doctor_without_a_cluster(commands: str, code: int, verdict: str, listener: socket.socket) -> None:
    with NamespaceSource(SMALL) as machine:
        machine.exec(commands or "true")
        reach = f"{machine.gateway}:{listener.getsockname()[1]}"
        line = [sys.executable, "-m", "farshore_cli.main", "doctor", "--address", machine.address, "--ask-password"]
        done = subprocess.run(
            [*line, "--data-port", reach], input=machine.password + "\n", capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (code, "")
        assert verdict in done.stdout
        assert all(name in done.stdout for name in ORDER)
        assert machine.password not in done.stdout
