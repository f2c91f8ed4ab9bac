"""A process server of several machines as a process of its own; the soak kills it and starts it again.

    python server_process.py DIRECTORY

The directory holds `wanted.json` (machines, vault, policy, port) and `authority/`, and takes `reports.jsonl`; what an
installation would bring to a machine goes to `agents/<machine>/`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from pydantic import SecretBytes
from tests.machine.memory_controlplane import Authority, MemoryControlPlane, assignment
from tests.machine.replication_rig import FileInstaller

from farshore_engine.contract.assignment import Policy, Source, VaultAccess
from farshore_engine.contract.replication import ReplicationReport
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.installer import AgentIdentity, InstallOutcome
from farshore_engine.processserver.reporting import Cadence
from farshore_engine.processserver.service import ProcessServer, Settings
from farshore_operator.report.logs import configure


class SeveralMachines(FileInstaller):
    """Puts each machine's identity into a directory of its own."""

    def install(self, source: Source, identity: AgentIdentity, progress: Callable[[str], None]) -> InstallOutcome:
        home = self.directory / identity.machine_id
        home.mkdir(parents=True, exist_ok=True)
        for name, text in (("ca", identity.ca), ("agent", identity.certificate)):
            write_private(home / f"{name}.pem", text.encode())
        write_private(home / "agent.key", identity.key.encode())
        server = identity.servers[0]
        write_private(home / "server", f"{server.host} {server.port}".encode())
        return InstallOutcome(self.version, "ssh-ed25519 AAAA")


def main(directory: Path) -> None:
    configure("info", "json")
    wanted = json.loads((directory / "wanted.json").read_text())
    control = MemoryControlPlane(Authority.at(directory / "authority"), spool_bytes=wanted["spool_bytes"])
    vault = VaultAccess.model_validate(wanted["vault"]).model_copy(update={"key": SecretBytes(b"k" * 32)})
    for name in wanted["machines"]:
        control.assign(assignment(name, vault, Policy.model_validate(wanted["policy"])))
    output = (directory / "reports.jsonl").open("a", buffering=1)

    def note(name: str, report: ReplicationReport) -> None:
        output.write(json.dumps({"name": name, "report": json.loads(report.model_dump_json(by_alias=True))}) + "\n")

    control.on_machine = note
    settings = Settings(
        state_dir=directory / "ps",
        address="127.0.0.1",
        listen_address="127.0.0.1",
        data_port=wanted["data_port"],
        cadence=Cadence(active=1.0, rest=60),
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    ProcessServer(control, SeveralMachines(directory / "agents"), settings).run(stop)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    main(Path(sys.argv[1]))
