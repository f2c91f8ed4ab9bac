"""Installing, replacing, removing and powering off on real machines, also after being killed in the middle."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine.push_rig import MACHINE_ID, Shell, agent_pid, certificates, identity, source_of, with_id
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_engine.bundle import Bundle, build_bundle
from farshore_engine.bundle.service import systemd_unit
from farshore_engine.contract.assignment import Source
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.push import PushInstaller

SMALL = (SourceDisk(size_mib=32),)
OURS = ("/opt/farshore", "/etc/farshore", "/var/lib/farshore", "/run/farshore", "/var/log/farshore-agent.log")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return build_bundle()


@pytest.fixture(params=["root", "alice"])
def machine(request: pytest.FixtureRequest) -> Iterator[NamespaceSource]:
    """A machine whose login is root, and one whose login may use sudo with its password."""
    with NamespaceSource(SMALL, user=request.param) as running:
        yield running


@pytest.fixture
def root_machine() -> Iterator[NamespaceSource]:
    with NamespaceSource(SMALL) as running:
        yield running


def quiet(_: str) -> None:
    """Take a progress sentence."""


def left_over(machine: NamespaceSource) -> str:
    """What of an installation is in the machine: files and processes."""
    paths = machine.exec(f"ls -d {' '.join(OURS)} /etc/init.d/farshore* /etc/rc?.d/*farshore* 2>/dev/null; true").stdout
    return paths + machine.exec("grep -l ^/opt/farshore /proc/[0-9]*/cmdline 2>/dev/null; true").stdout


def test_install_twice_then_uninstall_twice(machine: NamespaceSource, bundle: Bundle) -> None:
    installer, source = PushInstaller(bundle), source_of(machine)
    steps: list[str] = []
    outcome = installer.install(source, identity(DataPort("10.9.9.9", 9443)), steps.append)
    first = agent_pid(machine)
    assert (outcome.version, outcome.host_key.split()[0]) == (bundle.id, "ssh-ed25519")
    assert steps[-1] == "the agent runs"

    modes = machine.exec("stat -c '%a %U %n' /etc/farshore/agent /etc/farshore/agent/*").stdout.splitlines()
    assert modes == [
        "700 root /etc/farshore/agent",
        *(f"600 root /etc/farshore/agent/{name}" for name in ("ca.pem", "certificate.pem", "config.json", "key.pem")),
    ]
    config = json.loads(machine.exec("cat /etc/farshore/agent/config.json").stdout)
    assert (config["machineId"], config["servers"]) == (MACHINE_ID, [{"host": "10.9.9.9", "port": 9443}])
    assert machine.exec("/opt/farshore/current/bin/farshore-agent version").stdout.strip() == bundle.version
    assert machine.exec("ls -A /opt/farshore").stdout.split() == [bundle.id, "current"]

    steps.clear()
    assert installer.install(source, identity(DataPort("10.9.9.9", 9443)), steps.append) == outcome
    assert steps[-1] == "the agent is current and runs"
    assert not any("sending" in step for step in steps)
    assert agent_pid(machine) == first, "an agent that is current is not restarted"

    for _ in range(2):
        installer.uninstall(source)
        assert left_over(machine) == ""


def test_uninstall_keeps_the_recovery_scripts_of_the_user(root_machine: NamespaceSource, bundle: Bundle) -> None:
    installer, source = PushInstaller(bundle), source_of(root_machine)
    installer.install(source, identity(), quiet)
    root_machine.exec("echo '#!/bin/sh' >/etc/farshore/recovery.d/10-mine")
    installer.uninstall(source)
    assert root_machine.exec("find /etc/farshore -type f").stdout.split() == ["/etc/farshore/recovery.d/10-mine"]


def test_upgrade_restarts_with_the_new_version_and_keeps_one_old_one(
    root_machine: NamespaceSource, bundle: Bundle
) -> None:
    source = source_of(root_machine)
    pids = []
    for name in ("0.0.7-aaaaaaaa", "0.0.8-bbbbbbbb", "0.0.9-cccccccc"):
        PushInstaller(with_id(bundle, name)).install(source, identity(), quiet)
        pids.append(agent_pid(root_machine))
    assert len(set(pids)) == 3
    assert root_machine.exec("readlink /opt/farshore/current").stdout.strip() == "0.0.9-cccccccc"
    assert root_machine.exec("ls /opt/farshore").stdout.split() == ["0.0.8-bbbbbbbb", "0.0.9-cccccccc", "current"]
    running = root_machine.exec("tr '\\0' ' ' </proc/$(cat /run/farshore-agent.pid)/cmdline").stdout
    assert running.startswith("/opt/farshore/0.0.9-cccccccc/lib/ld-linux-x86-64.so.2")


def test_new_servers_and_certificates_cost_no_restart_but_other_disks_do(
    root_machine: NamespaceSource, bundle: Bundle
) -> None:
    installer, source = PushInstaller(bundle), source_of(root_machine)
    installer.install(source, identity(), quiet)
    first = agent_pid(root_machine)
    installer.install(source, identity(DataPort("127.0.0.2", 9999)), quiet)
    certificates.cache_clear()  # renewed
    renewed = identity(DataPort("127.0.0.2", 9999))
    installer.install(source, renewed, quiet)
    assert agent_pid(root_machine) == first
    assert root_machine.exec("cat /etc/farshore/agent/key.pem").stdout == renewed.key
    deadline = time.monotonic() + 120
    while "127.0.0.2:9999" not in root_machine.exec("cat /var/log/farshore-agent.log").stdout:
        assert time.monotonic() < deadline, "the running agent dials the new server"
        time.sleep(0.5)
    disk = root_machine.loop_device(0)
    installer.install(source.model_copy(update={"include_disks": (disk,)}), renewed, quiet)
    assert agent_pid(root_machine) != first


KILL_AT = ("making room", "sending the agent (", "sending the agent: 50", "unpacking", "writing", "starting")


@pytest.mark.parametrize("moment", KILL_AT)
def test_a_push_that_was_killed_is_finished_by_the_next(moment: str, bundle: Bundle) -> None:
    with NamespaceSource(SMALL) as machine:
        source = source_of(machine)
        child = os.fork()
        if child == 0:  # the process server, which dies at that step; the machine goes on with what it was told

            def die(step: str) -> None:
                if step.startswith(moment) or (moment == "making room" and step.startswith("logging in")):
                    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGKILL)).start()

            try:
                PushInstaller(bundle).install(source, identity(), die)
                time.sleep(1)
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        outcome = PushInstaller(bundle).install(source, identity(), quiet)
        agent_pid(machine)
        assert outcome.version == bundle.id
        assert machine.exec("ls -A /opt/farshore").stdout.split() == [bundle.id, "current"]


def test_a_bundle_that_arrives_damaged_is_refused(root_machine: NamespaceSource, bundle: Bundle) -> None:
    wrong = dataclasses.replace(bundle, sha256="0" * 64)
    with pytest.raises(WaitFault, match="damaged") as caught:
        PushInstaller(wrong).install(source_of(root_machine), identity(), quiet)
    assert caught.value.reason == "BundleDamaged"
    assert root_machine.exec("ls -A /opt/farshore").stdout == ""


def test_a_machine_without_sha256sum_checks_the_hash_with_the_bundle(bundle: Bundle) -> None:
    with NamespaceSource(SMALL) as machine:
        machine.exec("mv /usr/bin/sha256sum /usr/bin/sha256sum.away")
        with pytest.raises(WaitFault, match="damaged"):
            PushInstaller(dataclasses.replace(bundle, sha256="0" * 64)).install(source_of(machine), identity(), quiet)
        PushInstaller(bundle).install(source_of(machine), identity(), quiet)
        agent_pid(machine)


def test_an_agent_that_does_not_stay_up_is_reported_with_its_own_words(
    root_machine: NamespaceSource, bundle: Bundle
) -> None:
    broken = dataclasses.replace(identity(), certificate="not a certificate")
    # A post hook that an earlier agent owed makes the start as slow as that on a busy machine.
    slow = {"point": "p", "environment": {}, "hooks": [{"name": "slow", "command": ["/bin/sh", "-c", "sleep 5"]}]}
    root_machine.exec("mkdir -p /run/farshore && cat >/run/farshore/hooks.json", stdin=json.dumps(slow))
    with pytest.raises(StopFault) as caught:
        PushInstaller(bundle).install(source_of(root_machine), broken, quiet)
    assert caught.value.reason == "AgentDoesNotStart"
    assert "certificate" in caught.value.message
    PushInstaller(bundle).install(source_of(root_machine), identity(), quiet)
    agent_pid(root_machine)


def test_a_full_disk_is_said_and_healed(bundle: Bundle) -> None:
    with NamespaceSource(SMALL) as machine:
        Shell("mount -t tmpfs -o size=60m tmpfs /opt").apply(machine)
        with pytest.raises((StopFault, WaitFault)) as caught:
            PushInstaller(bundle).install(source_of(machine), identity(), quiet)
        assert "No space left" in caught.value.message
        machine.exec("mount -o remount,size=300m /opt")
        PushInstaller(bundle).install(source_of(machine), identity(), quiet)
        agent_pid(machine)


def test_an_agent_that_dies_is_started_again(root_machine: NamespaceSource, bundle: Bundle) -> None:
    PushInstaller(bundle).install(source_of(root_machine), identity(), quiet)
    first = agent_pid(root_machine)
    root_machine.exec(f"kill -9 {first}")
    deadline = time.monotonic() + 120
    alive = f'test "$(cat /run/farshore-agent.pid)" != {first} && kill -0 $(cat /run/farshore-agent.pid)'
    while root_machine.exec(alive, check=False).returncode != 0:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_sysv_init_gets_a_script_in_its_runlevels(root_machine: NamespaceSource, bundle: Bundle) -> None:
    root_machine.exec("rm -f /sbin/init; printf '#!/bin/sh\\n' >/sbin/init; chmod 755 /sbin/init")
    installer, source = PushInstaller(bundle), source_of(root_machine)
    installer.install(source, identity(), quiet)
    links = root_machine.exec("cd /etc; ls rc2.d/S*farshore-agent rc6.d/K*farshore-agent").stdout.split()
    assert len(links) == 2
    first = agent_pid(root_machine)
    assert root_machine.exec("/etc/init.d/farshore-agent status").stdout.strip() == "running"
    root_machine.exec("/etc/init.d/farshore-agent stop")
    assert root_machine.exec("/etc/init.d/farshore-agent status", check=False).returncode == 3
    root_machine.exec("/etc/init.d/farshore-agent start")
    assert agent_pid(root_machine) != first
    installer.uninstall(source)
    assert left_over(root_machine) == ""


def test_systemd_accepts_the_unit(bundle: Bundle, tmp_path: Path) -> None:
    with tarfile.open(bundle.path) as archive:
        archive.extractall(tmp_path / "bundle", filter="data")
    unit = tmp_path / "farshore-agent.service"
    unit.write_text(systemd_unit(str(tmp_path / "bundle")) + "\n")
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_shutdown_is_confirmed_by_silence(machine: NamespaceSource) -> None:
    assert PushInstaller(build_bundle()).shutdown(source_of(machine)) is True
    deadline = time.monotonic() + 60
    while (found := machine.machines.inspect(machine.name)) is None or found.state.value != "stopped":
        assert time.monotonic() < deadline, found  # it is silent a moment before its process 1 has ended
        time.sleep(0.05)


def test_a_machine_that_cannot_be_powered_off_is_not_called_off(root_machine: NamespaceSource) -> None:
    root_machine.exec("for t in poweroff shutdown halt; do printf '#!/bin/sh\\nexit 1\\n' >/usr/sbin/$t; done")
    with pytest.raises(StopFault) as caught:
        PushInstaller(build_bundle()).shutdown(source_of(root_machine))
    assert caught.value.reason == "ShutdownFailed"


def test_no_secret_is_in_a_process_list_a_log_or_a_fault(
    bundle: Bundle, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with NamespaceSource(SMALL, user="alice") as machine:
        source, who = source_of(machine), identity()
        seen: set[str] = set()
        ended = threading.Event()

        def watch() -> None:
            while not ended.is_set():
                for entry in os.listdir("/proc"):  # not glob, which fails when a process ends meanwhile
                    try:
                        seen.add(Path("/proc", entry, "cmdline").read_bytes().decode(errors="replace"))
                    except OSError:
                        continue

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            with caplog.at_level("DEBUG"):
                installer = PushInstaller(bundle)
                said = repr((installer.preflight(source, None), installer.install(source, who, print)))
                said += repr((source, who))
                with pytest.raises(StopFault) as caught:
                    wrong = source_of(machine, private_key=machine.key_path.read_text(), sudo_password="wrong-word")
                    installer.install(wrong, who, print)
                said += str(caught.value) + repr(caught.value.__cause__)
        finally:
            ended.set()
            watcher.join()
        everything = "\n".join([*seen, caplog.text, *capfd.readouterr(), said])
        assert any("sudo" in line for line in seen), "the watch saw the work"
        key_body = who.key.splitlines()[1]
        for secret in (machine.password, "wrong-word", key_body, machine.key_path.read_text().splitlines()[2]):
            assert secret not in everything
        assert caught.value.reason == "SudoPasswordRefused"


def test_a_foreign_host_key_stops_the_install(root_machine: NamespaceSource, bundle: Bundle) -> None:
    foreign = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEl2sKcxNkOVoVSoWrOJPsAKr2v/JtVfUMmKmTrLOMqd"
    source: Source = source_of(root_machine).model_copy(update={"host_key": foreign})
    for call in (
        lambda: PushInstaller(bundle).install(source, identity(), quiet),
        lambda: PushInstaller(bundle).uninstall(source),
        lambda: PushInstaller(bundle).shutdown(source),
    ):
        with pytest.raises(StopFault) as caught:
            call()
        assert caught.value.reason == "HostKeyChanged"
