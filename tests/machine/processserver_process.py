"""A process server as a process of its own, so that a test can kill it with -9 at any moment and start it again.

    python processserver_process.py DIRECTORY

The directory holds `wanted.json` (what is assigned, and the port for metrics if they are wanted) and `authority/`,
and takes `reports.jsonl`. Where it holds `stall`, the process removes that and stops itself, as by SIGSTOP, between its
last check and the put of the next point.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pydantic import SecretBytes
from tests.machine.memory_controlplane import Authority, MemoryControlPlane, assignment
from tests.machine.replication_rig import FileInstaller, directory_vault

from farshore_engine.contract.assignment import MachineAssignment, Policy, VaultAccess
from farshore_engine.contract.replication import ReplicationReport
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.service import ProcessServer, Settings
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_operator.report.logs import configure


def stall_when_asked(directory: Path) -> None:
    """Stop before the next put of a slot, once there is a file that asks for it."""
    put = DirectoryStore.put

    def stalling(
        self: DirectoryStore, name: str, data: bytes | bytearray | memoryview, *, create_only: bool = False
    ) -> str:
        if "/chain/0" in name and (directory / "stall").exists():
            (directory / "stall").unlink()
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # else this thread may be the last to stop
        return put(self, name, data, create_only=create_only)

    DirectoryStore.put = stalling  # type: ignore[method-assign]


def serve(
    directory: Path,
    wanted: dict[str, Any],
    machines: list[MachineAssignment],
    installer: FileInstaller,
    stop: threading.Event,
    active: float = 0.1,
) -> None:
    """Run the process server of `directory` until `stop` is set; `active` is the cadence of reports in seconds."""
    control = MemoryControlPlane(Authority.at(directory / "authority"), spool_bytes=wanted["spool_bytes"])
    for machine in machines:
        control.assign(machine)
    output = (directory / "reports.jsonl").open("a", buffering=1)

    def note(name: str, report: ReplicationReport) -> None:
        output.write(json.dumps({"name": name, **report.model_dump(mode="json", by_alias=True)}) + "\n")

    control.on_machine = note
    settings = Settings(
        state_dir=directory / "ps",
        address="127.0.0.1",
        listen_address="127.0.0.1",
        data_port=wanted["data_port"],
        metrics_port=wanted.get("metrics_port"),
        cadence=Cadence(active=active, rest=60),
    )
    ProcessServer(control, installer, settings).run(stop)


def main(directory: Path) -> None:
    configure("info", "json")
    stall_when_asked(directory)
    wanted = json.loads((directory / "wanted.json").read_text())
    vault = (
        directory_vault(Path(wanted["vault"])) if "vault" in wanted else VaultAccess.model_validate(wanted["access"])
    )
    vault = vault.model_copy(update={"key": SecretBytes(b"k" * 32)})
    machine = assignment("vm", vault, Policy.model_validate(wanted["policy"]))
    serve(directory, wanted, [machine], FileInstaller(directory / "agent"), threading.Event())


if __name__ == "__main__":
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    main(Path(sys.argv[1]))
