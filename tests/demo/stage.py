"""What the demo and the end-to-end tests play on: a control plane, storage, the installed product, its appliances.

Everything is the product's own: the chart installed by Helm, the operator as the Deployment describes it, process
servers registered with a registration key. Whatever is started is handed to the environment, so that `farshore dev
down` removes it.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from azure.storage.blob import BlobServiceClient
from tests.demo.kube import DemoFailed, Kube, Say

from farshore_cli.dev.checkout import checkout
from farshore_cli.dev.environment import Environment
from farshore_cli.dev.processes import Process, free_ports, start, tail
from farshore_cli.dev.workload import workload

SYSTEM = "farshore-system"
NAMESPACE = "payments"
CONTAINER = "vault"
STOP_MACHINES = """
import sys, pathlib, time
from farshore_engine.contract.faults import WaitFault
from farshore_engine.machines.runtime import MachineRuntime
runtime = MachineRuntime(pathlib.Path(sys.argv[1]))
deadline = time.monotonic() + 120
left = [machine.name for machine in runtime.list()]
while left:
    try:
        runtime.stop(left[0])
        left.pop(0)
    except WaitFault:  # the kernel still holds something of it
        if time.monotonic() > deadline:
            raise
        time.sleep(0.5)
"""


class Stage:
    """An environment in a directory, with the product installed.

    Attributes:
        kube: the namespace in which machines are protected.
        processes: the operator and the process servers by name.
    """

    def __init__(self, directory: Path, say: Say) -> None:
        self.directory = directory
        self.environment = Environment(directory, say)
        self.kube = Kube(self.environment.control_plane, NAMESPACE)
        self.processes: dict[str, Process] = {}
        self._served: dict[str, list[str]] = {}  # words of the command line of each process server
        self._say = say

    def up(self) -> None:
        """Start control plane and storage, and make the vault's container and the namespace."""
        self.environment.up()
        BlobServiceClient.from_connection_string(self.environment.azurite.connection_string).create_container(CONTAINER)
        # Registered first, so that it runs last.
        own = ("manifests", "source", "ps-stack", "ps-shore", "*.log", "farshore-operator.kubeconfig")
        self.environment.clean_with(["/bin/sh", "-c", " ".join(["cd", str(self.directory), "&& rm -rf", *own])])
        self.environment.control_plane.kubectl("create", "namespace", NAMESPACE)

    def install(self) -> None:
        """Install the chart with Helm and run the operator as its Deployment says, with its ServiceAccount."""
        plane = self.environment.control_plane
        chart = checkout() / "charts" / "farshore"
        plane.helm("install", "farshore", str(chart), "--namespace", SYSTEM, "--create-namespace")
        self.start_operator()

    def start_operator(self) -> Process:
        """Start the operator (again) and hand it to the environment."""
        plane = self.environment.control_plane
        # A process on this host cannot be given the pod's own port.
        found = workload(
            plane, SYSTEM, "farshore-operator", self.directory, replace={"--health-port=8080": "--health-port=0"}
        )
        return self._keep("operator", found.start())

    def start_process_server(self, site: str, name: str, advertise: str, machines: Path | None = None) -> Process:
        """Issue a registration key for a site, and start a process server that registers with it.

        Args:
            site: name of the Site.
            name: of the process server.
            advertise: address of this host on which agents reach it.
            machines: run directory of the machines of this host that it may power off and on.
        """
        state = self.directory / name
        state.mkdir(mode=0o700, exist_ok=True)
        # A machine that was failed over outlives everything, as it should; here it goes with the stage.
        self.environment.clean_with([sys.executable, "-c", STOP_MACHINES, str(state / "state" / "runtime")])
        key = state / "registration-key.yaml"
        self.farshore("site", "registration-key", site, "--out", str(key))
        words = ["--advertise", advertise, "--data-port", str(free_ports(1)[0])]
        self._served[name] = [*words, "--machines", str(machines)] if machines is not None else words
        return self._serve(name, "--registration-key", str(key))

    def restart_process_server(self, name: str) -> Process:
        """Start a registered process server on the state that it has."""
        return self._serve(name)

    def farshore(self, *words: str, check: bool = True) -> str:
        """Run the command line as the administrator in the stage's namespace and return what it printed.

        Raises DemoFailed with its error output if it fails, unless `check` is false.
        """
        environment = {**os.environ, "KUBECONFIG": str(self.environment.kubeconfig), "NO_COLOR": "1", "COLUMNS": "160"}
        command = [*_program(), *words, "--namespace", NAMESPACE]
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL, check=False
        )
        if check and ran.returncode:
            raise DemoFailed(f"`farshore {' '.join(words)}` failed: {(ran.stderr or ran.stdout).strip()}")
        return ran.stdout

    def log(self, name: str) -> Path:
        """Return where a process's output goes."""
        return self.directory / f"{name}.log"

    def logs(self) -> str:
        """Return the end of every log, for a failure's message."""
        found = sorted(self.directory.glob("*.log"))
        return "\n".join(f"--- {log.name}\n{tail(log, 20)}" for log in found)

    def down(self) -> None:
        """Remove everything."""
        self.environment.down()

    def _serve(self, name: str, *more: str) -> Process:
        words = ["processserver", "--name", name, "--state", str(self.directory / name / "state"), *more]
        return self._keep(name, start(name, [*_program(), *words, *self._served[name]], self.log(name)))

    def _keep(self, name: str, process: Process) -> Process:
        self.processes[name] = process
        self.environment.keep(process)
        return process


def fresh_directory(parent: Path) -> Path:
    """Return a new directory for a stage below `parent`."""
    directory = parent / f"stage-{secrets.token_hex(3)}"
    directory.mkdir(parents=True)
    return directory


def _program() -> Sequence[str]:
    return (sys.executable, "-m", "farshore_cli.main")
