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
from pathlib import Path

from pydantic import SecretBytes
from tests.machine.memory_controlplane import assignment
from tests.machine.processserver_process import serve
from tests.machine.replication_rig import ManyInstaller

from farshore_engine.contract.assignment import Policy, VaultAccess
from farshore_operator.report.logs import configure


def main(directory: Path) -> None:
    configure("info", "json")
    wanted = json.loads((directory / "wanted.json").read_text())
    vault = VaultAccess.model_validate(wanted["vault"]).model_copy(update={"key": SecretBytes(b"k" * 32)})
    policy = Policy.model_validate(wanted["policy"])
    machines = [assignment(name, vault, policy) for name in wanted["machines"]]
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    serve(directory, wanted, machines, ManyInstaller(directory / "agents"), stop, active=1.0)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONFAULTHANDLER", "1")
    main(Path(sys.argv[1]))
