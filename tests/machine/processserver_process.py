"""A process server as a process of its own, so that a test can kill it with -9 at any moment and start it again.

    python processserver_process.py DIRECTORY

The directory holds `wanted.json` (what is assigned, and the port for metrics if they are wanted) and `authority/`,
and takes `reports.jsonl`.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from pydantic import SecretBytes
from tests.machine.memory_controlplane import Authority, MemoryControlPlane, assignment
from tests.machine.replication_rig import FileInstaller, directory_vault

from farshore_engine.contract.assignment import Policy, VaultAccess
from farshore_engine.contract.replication import ReplicationReport
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.service import ProcessServer, Settings
from farshore_operator.report.logs import configure


def main(directory: Path) -> None:
    configure("info", "json")
    wanted = json.loads((directory / "wanted.json").read_text())
    control = MemoryControlPlane(Authority.at(directory / "authority"), spool_bytes=wanted["spool_bytes"])
    vault = (
        directory_vault(Path(wanted["vault"])) if "vault" in wanted else VaultAccess.model_validate(wanted["access"])
    )
    vault = vault.model_copy(update={"key": SecretBytes(b"k" * 32)})
    machine = assignment("vm", vault, Policy.model_validate(wanted["policy"]))
    control.assign(machine)
    output = (directory / "reports.jsonl").open("a", buffering=1)

    def note(name: str, report: ReplicationReport) -> None:
        output.write(report.model_dump_json(by_alias=True) + "\n")

    control.on_machine = note
    settings = Settings(
        state_dir=directory / "ps",
        address="127.0.0.1",
        listen_address="127.0.0.1",
        data_port=wanted["data_port"],
        metrics_port=wanted.get("metrics_port"),
        cadence=Cadence(active=0.1, rest=60),
    )
    ProcessServer(control, FileInstaller(directory / "agent"), settings).run(threading.Event())


if __name__ == "__main__":
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    main(Path(sys.argv[1]))
