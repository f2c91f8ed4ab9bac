"""Push into a guest with a kernel and a systemd of its own: the unit, its restart, power-off."""

from __future__ import annotations

import time

import pytest
from pydantic import SecretStr
from tests.machine.push_rig import identity, pushed
from tests.machines.qemu_source import QemuSource

from farshore_engine.bundle import build_bundle
from farshore_engine.contract.assignment import Source, SSHCredentials
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.replication import CheckResult
from farshore_engine.processserver.installer import DataPort, PreflightOutcome
from farshore_engine.processserver.push import PushInstaller

UNIT = "farshore-agent"


@pytest.mark.timeout(2400)  # without hardware acceleration, on busy cores
def test_agent_lives_under_systemd() -> None:
    bundle = build_bundle()
    with QemuSource() as guest:
        credentials = SSHCredentials(private_key=SecretStr(guest.key_path.read_text()))
        source = Source(address=guest.address, credentials=credentials)
        installer = PushInstaller(bundle)

        def looked() -> PreflightOutcome:
            outcome = installer.preflight(source, DataPort(guest.gateway, 1))
            if {c.name for c in outcome.errors} != {"RouteToDataPort"}:  # a busy guest may not even let us log in
                raise WaitFault(str(outcome.errors))
            return outcome

        outcome = pushed(looked)
        found = {c.name: c for c in outcome.checks}
        assert (found["ServiceManager"].result, found["ServiceManager"].message) == (CheckResult.PASSED, "systemd")
        assert found["KernelFeatures"].result is CheckResult.PASSED, found["KernelFeatures"]
        source = source.model_copy(update={"host_key": outcome.host_key})

        def show(name: str) -> str:
            return guest.ssh(f"systemctl show -p {name} --value {UNIT}").stdout.strip()

        pushed(lambda: installer.install(source, identity(), print))
        assert (show("ActiveState"), show("UnitFileState")) == ("active", "enabled")
        assert show("ControlGroup") == f"/system.slice/{UNIT}.service"
        first = show("MainPID")
        assert bundle.id in guest.ssh(f"tr '\\0' ' ' </proc/{first}/cmdline").stdout
        assert guest.ssh(f"cat /proc/{first}/oom_score_adj").stdout.strip() == "-1000"
        said = f"journalctl -u {UNIT} -o cat | grep -m 1 tracking"
        guest.ssh(f"for i in $(seq 200); do {said} && exit; sleep 1; done; exit 1", timeout=400)

        pushed(lambda: installer.install(source, identity(), print))
        assert show("MainPID") == first, "an agent that is current is not restarted"

        new = f"systemctl -q is-active {UNIT} && ! systemctl show -p MainPID --value {UNIT} | grep -qxE '0|{first}'"
        guest.ssh(f"kill -9 {first}; for i in $(seq 200); do sleep 0.5; {new} && exit; done; exit 1", timeout=400)
        assert show("ActiveState") == "active"
        assert show("MainPID") not in ("0", first)

        pushed(lambda: installer.uninstall(source))
        left = guest.ssh("ls -d /opt/farshore /etc/farshore /etc/systemd/system/*farshore* 2>/dev/null; true").stdout
        assert left == ""
        assert show("LoadState") == "not-found"
        traces = guest.ssh("ls /sys/kernel/tracing/instances 2>/dev/null; true").stdout
        assert "farshore" not in traces

        assert pushed(lambda: installer.shutdown(source)) is True
        deadline = time.monotonic() + 300
        while guest.is_running():
            assert time.monotonic() < deadline, guest.console  # it is silent some time before it is off
            time.sleep(0.2)
