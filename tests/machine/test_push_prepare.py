"""`farshore prepare linux`: the script makes a machine that fails preflight pass it, and repeats without a change."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest
from tests.machine.push_rig import reload_sshd, source_of
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_cli.commands.prepare import linux_script
from farshore_engine.contract.assignment import Source
from farshore_engine.contract.replication import CheckResult
from farshore_engine.processserver.push.checklist import Needs
from farshore_engine.processserver.push.preflight import run_preflight

NEEDS = Needs("0.1.0-00000000", 30 << 20, 90 << 20, (3, 2, 0), ())
SPOIL = (
    "sed -i '/^Subsystem/d; s/^PasswordAuthentication.*/PasswordAuthentication no/; "
    "s/^PubkeyAuthentication.*//' /etc/ssh/sshd_config; echo PubkeyAuthentication no >>/etc/ssh/sshd_config; "
    "printf 'Match User nobody\\n  X11Forwarding no\\n' >>/etc/ssh/sshd_config; echo 127.0.0.1 localhost >/etc/hosts"
)


def wrong(source: Source) -> set[str]:
    """The checks that did not pass, without the one about the missing service manager."""
    checks = asyncio.run(run_preflight(source, None, NEEDS)).checks
    return {c.name for c in checks if c.result in (CheckResult.ERROR, CheckResult.WARNING)} - {"ServiceManager"}


def run(machine: NamespaceSource, script: str) -> list[str]:
    """Run the script as root inside; gives what it says it changed."""
    said = machine.exec(["sh", "-s"], stdin=script, timeout=300).stdout.splitlines()
    assert any(line.startswith("farshore: ready") for line in said)
    return [
        line for line in said if not line.startswith(("farshore: ready", "farshore: check", "farshore: the account"))
    ]


@pytest.mark.parametrize("account", ["root", "farshore"])
def test_prepared_with_a_key(account: str) -> None:
    with NamespaceSource((SourceDisk(size_mib=32),)) as machine:
        machine.exec(SPOIL + "; rm -f /root/.ssh/authorized_keys")
        reload_sshd(machine)
        source = source_of(machine, private_key=machine.key_path.read_text())
        assert source.credentials is not None
        login = source.credentials.model_copy(update={"username": account})
        source = source.model_copy(update={"credentials": login})
        assert wrong(source) == {"SSHLogin"}
        script = linux_script(account, machine.key_path.with_suffix(".key.pub").read_text())
        first = run(machine, script)
        reload_sshd(machine)  # only so that the test does not race with the daemon's own reload
        assert wrong(source) == set()
        assert any("Subsystem" in line for line in first)
        assert any("/etc/hosts" in line for line in first)
        assert run(machine, script) == []


def test_prepared_for_a_password() -> None:
    with NamespaceSource((SourceDisk(size_mib=32),)) as machine:
        machine.exec(SPOIL)
        reload_sshd(machine)
        assert wrong(source_of(machine)) == {"SSHLogin"}
        run(machine, linux_script("root", ""))
        reload_sshd(machine)
        assert wrong(source_of(machine)) == set()
        assert machine.exec("sshd -t").stderr == ""


def test_a_configuration_that_sshd_refuses_is_not_put_in_place() -> None:
    with NamespaceSource((SourceDisk(size_mib=32),)) as machine:
        machine.exec("sed -i '/^Subsystem/d' /etc/ssh/sshd_config; echo 'NoSuchOption yes' >>/etc/ssh/sshd_config")
        before = machine.exec("cat /etc/ssh/sshd_config").stdout
        script = linux_script("root", machine.key_path.with_suffix(".key.pub").read_text())
        done = machine.exec(["sh", "-s"], stdin=script, check=False)
        assert done.returncode != 0
        assert "does not accept" in done.stderr
        assert machine.exec("cat /etc/ssh/sshd_config").stdout == before


def test_every_script_is_posix_shell(tmp_path: Path) -> None:
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEl2sKcxNkOVoVSoWrOJPsAKr2v/JtVfUMmKmTrLOMqd you're@home"
    scripts = [linux_script("root", ""), linux_script("farshore", key)]
    for script in scripts:
        done = subprocess.run(["sh", "-n"], input=script, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
