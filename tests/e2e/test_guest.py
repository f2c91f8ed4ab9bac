"""A machine with a bootable disk: a guest with systemd is protected by push, and its copies boot and answer SSH."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from tests.demo.kube import Object, phase
from tests.demo.scenario import RECOVERY_SITE, SOURCE_SITE, Act, Scenario, failure, progress
from tests.demo.stage import Stage
from tests.demo.summary import Summary
from tests.machines.namespace_source import SourceDisk
from tests.machines.qemu_source import QemuSource

ROOT = Path(__file__).resolve().parents[2]
LOOK = "hostname; cat /data/note; cat /proc/sys/kernel/random/boot_id"


class GuestScenario(Scenario):
    """The story with a guest that has a kernel of its own, and no ledger."""

    patience = 3.0
    sizes: ClassVar[Mapping[str, int]] = {"web-01": 256}

    def __init__(self, stage: Stage, summary: Summary, tell: Callable[[str], None]) -> None:
        super().__init__(stage, summary, lambda _: None, tell)
        self.guest = QemuSource(data=SourceDisk(size_mib=256), directory=stage.directory / "source", name="web-01")

    def acts(self) -> list[Act]:
        return [*super().acts(), ("failover to the newest point", self.fail_over)]

    def start_source(self) -> None:
        code = "from pathlib import Path; from tests.machines.qemu_source import QemuSource; "
        code += f"QemuSource(directory=Path({str(self.guest.directory)!r}), name='web-01').close()"
        self.stage.environment.clean_with(["/usr/bin/env", "-C", str(ROOT), sys.executable, "-c", code])
        self.guest.open()
        self.guest.ssh("echo written first > /data/note && sync")
        self.hostname, _, self.boot = self.guest.ssh(LOOK).stdout.splitlines()
        # What the ground needs of a source; the key is at the same path.
        self.source.address = self.guest.address

    def start_process_servers(self) -> None:
        self.stage.start_process_server(SOURCE_SITE, "ps-stack", self.guest.gateway)
        self.stage.start_process_server(RECOVERY_SITE, "ps-shore", "127.0.0.1")

    def drill(self) -> None:
        self.kube.apply(self._write("TestFailover"))
        drilled = self.kube.wait("testfailover", self._name("TestFailover"), lambda one: phase(one) == "Succeeded",
                                 within=1000, say=progress, failed=failure)  # fmt: skip
        self.judge(self._run(drilled["status"]["run"]), "written first")
        assert self.guest.ssh("systemctl is-active ssh").stdout.strip() == "active", "the original was disturbed"

    def fail_over(self) -> None:
        plan = next(one for one in self.objects if one["kind"] == "FailoverPlan")
        plan["spec"] |= {"activeSite": "source"}
        self.kube.apply(self._write("FailoverPlan"))
        name = plan["metadata"]["name"]
        self.kube.wait("failoverplan", name, lambda one: one.get("status", {}).get("activeSite") == "source",
                       within=300)  # fmt: skip
        self.guest.ssh("echo written last > /data/note && sync")
        plan["spec"] |= {"activeSite": "recovery", "recoveryPoint": "Latest"}
        self.kube.apply(self._write("FailoverPlan"))
        self.kube.wait("protectedvm", self.machine, lambda one: phase(one) == "FailedOver", within=1000, say=progress,
                       failed=failure)  # fmt: skip
        found = self.kube.get("failoverplan", name) or {}
        # Latest takes a point while the source still runs: nothing that was synced before is missing.
        self.judge(self._run(found["status"].get("activeRun") or found["status"]["lastRun"]), "written last")

    def judge(self, run: Object, note: str) -> None:
        """Log in to the recovered machine as to the original, and look around."""
        assert run["status"]["disksVerified"] is True
        (member,) = run["status"]["members"]
        assert member["machineKind"] == "qemu"
        assert member["evidence"].startswith("SSH-2.0"), member["evidence"]
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes"]
        there = f"root@{member['address']}"
        ran = subprocess.run(
            ["ssh", "-q", "-i", str(self.guest.key_path), *options, "-p", str(member["port"]), there, LOOK],
            capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
        hostname, found, boot = ran.stdout.splitlines()
        assert (hostname, found) == (self.hostname, note)
        assert boot != self.boot, "this is the original, not a copy"


@pytest.mark.timeout(2400)  # three boots of a guest without hardware acceleration
def test_a_guest_s_copy_boots_and_answers_over_ssh(stage: Stage) -> None:
    summary = Summary()
    scenario = GuestScenario(stage, summary, print)
    scenario.play()
    assert all(step.ok for step in summary.steps), summary
