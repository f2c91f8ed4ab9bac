"""An agent as a process of its own, which clones its disks inside every freeze; the soak kills it and starts it again.

    python agent_process.py FILE

FILE is JSON: `machine`, `home` (certificates and the server's address), `state`, `devices`, `backings`, `clones`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

from tests.machines.backing import BackingStore

from farshore_engine.agent.agent import Agent, Variants
from farshore_engine.agent.config import AgentConfig, DiskChoice, Server
from farshore_engine.agent.logs import set_up


def main(file: Path) -> None:
    wanted = json.loads(file.read_text())
    home, state, clones = Path(wanted["home"]), Path(wanted["state"]), Path(wanted["clones"])

    def config() -> AgentConfig:
        host, port = (home / "server").read_text().split()
        return AgentConfig(
            machine_id=wanted["machine"],
            servers=(Server(host, int(port)),),
            ca=home / "ca.pem",
            certificate=home / "agent.pem",
            key=home / "agent.key",
            state_dir=state,
            runtime_dir=state / "run",
            disks=DiskChoice(include=tuple(wanted["devices"])),
            recovery_dir=state / "recovery.d",
        )

    store = BackingStore(clones)

    def on_frozen(point: str) -> None:
        at = time.time_ns()
        for number, backing in enumerate(wanted["backings"]):
            store.clone(Path(backing), clones / f"{at}.{number}.part")
        for number in range(len(wanted["backings"])):
            os.rename(clones / f"{at}.{number}.part", clones / f"{at}.{number}.clone")

    set_up()
    agent = Agent(config(), Variants(on_frozen=on_frozen), config)
    signal.signal(signal.SIGTERM, lambda *_: agent.stop())
    agent.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
