"""The demo's whole circle with a guest that boots its own disk, not a namespace machine: the operator moves it."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import pytest
from tests.demo.circle import BACK, FORWARDS, Circle
from tests.demo.scenario import Act
from tests.demo.stage import Stage
from tests.demo.summary import Summary
from tests.demo.watcher import Watcher
from tests.machines.guest_ledger import install_ledger
from tests.machines.namespace_source import SourceDisk
from tests.machines.qemu_source import QemuSource

ROOT = Path(__file__).resolve().parents[2]
DATA_MIB = 256


class GuestCircle(Circle):
    """The story of one guest; it has no drill, which test_guest plays."""

    patience = 6.0
    sizes: ClassVar[Mapping[str, int]] = {"web-01": 1536 + DATA_MIB}

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage, Summary(), lambda _: None, print)
        directory = stage.directory / "source"
        self.guest = QemuSource(data=SourceDisk(size_mib=DATA_MIB), directory=directory, name="web-01")
        self.private = f"10.230.{secrets.randbelow(250)}.40"

    def acts(self) -> list[Act]:
        return [(name, act) for name, act in super().acts() if act not in (self.drill, self.clean_up)]

    def start_source(self) -> None:
        code = "from pathlib import Path; from tests.machines.qemu_source import QemuSource; "
        code += f"QemuSource(directory=Path({str(self.guest.directory)!r}), name='web-01').close()"
        self.stage.environment.clean_with(["/usr/bin/env", "-C", str(ROOT), sys.executable, "-c", code])
        self.guest.open()
        install_ledger(self.guest)
        self.source.address = self.guest.address
        watcher = self.watchers["web-01"] = Watcher(self.guest.address)
        self._until(lambda: watcher.newest > 20, "the ledger does not write", 300)

    def apply_ground(self) -> None:
        super().apply_ground()
        machine = next(one for one in self.objects if one["kind"] == "ProtectedVM")
        machine["spec"]["target"]["privateIP"] = self.private

    def start_process_servers(self) -> None:
        self.stage.start_process_server("stack", "ps-stack", self.guest.gateway, self.guest.machines.run_dir)
        self.stage.start_process_server("shore", "ps-shore", "127.0.0.1")

    def _compare(self, name: str) -> None:
        """They are prepared as soon as they are written; `test_guest_circle` of the machine suite compares them."""


@pytest.mark.soak
@pytest.mark.timeout(5400)
def test_a_guest_goes_the_whole_circle_by_edits_of_its_plan(stage: Stage) -> None:
    circle = GuestCircle(stage)
    try:
        circle.play()
        assert all(step.ok for step in circle.summary.steps), circle.summary
        assert [part["lost_transactions"] for part in (circle.summary.failover, circle.summary.failback)] == [0, 0]
        away, home = (circle._run(circle.moves[where])["status"] for where in (FORWARDS, BACK))
        (there,), (here,) = away["members"], home["members"]
        assert (there["machineKind"], there["address"]) == ("qemu", circle.private)
        assert [one for one in there["changes"] if one.startswith("network (systemd-networkd): every Ethernet")]
        assert "agent: /etc/farshore/agent was removed" in there["changes"]
        assert "network: /etc/systemd/network/05-farshore.network was removed" in here["changes"]
        assert circle.guest.ssh("hostname").stdout.strip() == "web-01"
        print(circle.summary)
    finally:
        circle.close()
