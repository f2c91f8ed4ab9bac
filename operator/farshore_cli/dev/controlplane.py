"""Runs a real Kubernetes control plane in a directory: etcd, kube-apiserver and kube-controller-manager.

There is no kubelet: pods stay Pending, and everything else behaves as in a cluster: RBAC, garbage collection,
namespaces, ServiceAccount tokens, aggregated cluster roles, validating admission policies.

Each control plane has its own directory, ports, keys and processes, so that any number run side by side. Nothing is
lost by killing one of its programs and starting it again.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from farshore_cli.dev import tools
from farshore_cli.dev.cache import Progress, silent
from farshore_cli.dev.credentials import Credentials
from farshore_cli.dev.processes import Lifeline, Process, Service, free_ports, load, save, start, tail
from farshore_cli.dev.programs import APISERVER, CONTROLLER_MANAGER, ETCD, PROGRAMS, Ports, arguments
from farshore_engine.contract.faults import StopFault, WaitFault

READY_WITHIN = 240.0
"""Seconds after which a program that runs but does not serve is given up; on an idle machine it takes 3."""


class ControlPlane(Service):
    """A control plane that lives in one directory.

    As a context manager it is started on entry and stopped on exit. Its programs end with this process, however that
    ends, unless `detached`: then they run until `stop()`, of this or another process.

    Attributes:
        directory: where data, keys, logs and the record of processes are.
        kubeconfig: file for an administrator (group system:masters), with the CA that verifies the server.
    """

    def __init__(self, directory: Path, *, detached: bool = False, progress: Progress = silent) -> None:
        self.directory = directory.absolute()
        self.kubeconfig = self.directory / "kubeconfig"
        self._records = self.directory / "processes.json"
        self._credentials = Credentials(self.directory / "keys")
        self._lifeline = None if detached else Lifeline()
        self._progress = progress

    @property
    def server(self) -> str:
        """URL of the API server."""
        return self.url(APISERVER)

    def url(self, program: str) -> str:
        """URL on which a program answers."""
        return f"https://127.0.0.1:{self._ports().of(program)}"

    def log(self, program: str) -> Path:
        """File with all that a program said, of every start in this directory."""
        return self.directory / f"{program}.log"

    @property
    def processes(self) -> dict[str, Process]:
        """What was started and not stopped, by program, in order of start; it may have died meanwhile."""
        return {process.name: process for process in load(self._records)}

    @property
    def alive(self) -> bool:
        """Tell whether all programs run."""
        running = self.processes
        return all(name in running and running[name].alive for name in PROGRAMS)

    def start(self) -> None:
        """Start what does not run, on the data that is there, and return when all of it serves.

        Raises StopFault with the end of the log if a program ends, WaitFault if it is not ready in time.
        """
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._credentials.create(self.server, self.kubeconfig, dt.datetime.now(dt.UTC))
        for name in PROGRAMS:
            self.restart(name)

    def restart(self, name: str) -> None:
        """Start one program again, on the same data and ports, and return when it serves; leave a running one alone.

        What ran on without it serves again by then, too: the API server takes some seconds to find etcd again.

        Raises as `start` does.
        """
        running = self.processes
        if name not in running or not running[name].alive:
            self._progress(f"starting {name}")
            running[name] = self._launch(name)
            save([running[one] for one in PROGRAMS if one in running], self._records)
        for one in PROGRAMS[PROGRAMS.index(name) :]:
            if one != name and not (one in running and running[one].alive):
                break
            self._await_ready(running[one])

    def kill(self, name: str) -> None:
        """End one program at once, as kill -9 does. Raises KeyError if it was not started."""
        self.processes[name].kill()

    def stop(self) -> None:
        """Stop all programs. The data stays: `start` continues on it."""
        for process in reversed(self.processes.values()):
            # The API server would wait for its watches to end; nothing is lost by not waiting long.
            process.stop(grace=3.0)
        self._records.unlink(missing_ok=True)
        if self._lifeline is not None:
            self._lifeline.close()

    def kubectl(self, *args: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run kubectl as administrator.

        Raises StopFault with what it printed if it fails, unless `check` is false.
        """
        return self._run(tools.kubectl(self._progress), args, stdin, check)

    def helm(self, *args: str, stdin: str = "", check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Helm as administrator, without the user's plugins and repositories; as `kubectl` otherwise."""
        return self._run(tools.helm(self._progress), args, stdin, check)

    def environment(self) -> Mapping[str, str]:
        """Give the variables with which kubectl, Helm and client libraries use this control plane."""
        homes = {f"HELM_{kind}_HOME": str(self.directory / "helm" / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        # What kubectl remembers of a server must not be that of another one which had the same port before.
        return {"KUBECONFIG": str(self.kubeconfig), "KUBECACHEDIR": str(self.directory / "kubectl"), **homes}

    def _run(self, program: Path, args: tuple[str, ...], stdin: str, check: bool) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment()}
        command = [str(program), *args]
        ran = subprocess.run(
            command, env=environment, input=stdin, capture_output=True, text=True, timeout=400, check=False
        )
        if check and ran.returncode:
            raise StopFault(f"`{program.name} {' '.join(args)}` failed: {(ran.stderr or ran.stdout).strip()}")
        return ran

    def _ports(self) -> Ports:
        """Give the ports of this directory, chosen when first asked for."""
        file = self.directory / "ports.json"
        if not file.is_file():
            file.write_text(json.dumps(asdict(Ports(*free_ports(4)))))
        return Ports(**json.loads(file.read_text()))

    def _launch(self, name: str) -> Process:
        program = tools.devcluster(self._progress)
        command = [str(program), name, *arguments(name, self.directory, self._credentials, self._ports())]
        if self._lifeline is None:
            return start(name, command, self.log(name))
        return start(
            name, command, self.log(name), stdin=self._lifeline.end, environment={"DEVCLUSTER_WATCH_STDIN": "1"}
        )

    def _await_ready(self, process: Process) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not self._ready(process.name):
            log = self.log(process.name)
            if not process.alive:
                raise StopFault(
                    f"{process.name} ended while starting; the end of {log}:\n{tail(log)}",
                    f"If another program took a port, remove {self.directory} and start again",
                    reason="ControlPlaneFailed",
                )
            if time.monotonic() > deadline:
                raise WaitFault(
                    f"{process.name} does not serve after {READY_WITHIN:.0f} s; the end of {log}:\n{tail(log)}",
                    "Check that the machine has 1 GiB of free memory and is not overloaded, then start again",
                    reason="ControlPlaneSlow",
                )
            time.sleep(0.05)

    def _ready(self, name: str) -> bool:
        keys = self._credentials
        path = {ETCD: "/readyz", APISERVER: "/readyz", CONTROLLER_MANAGER: "/healthz"}[name]
        if name == ETCD:
            return keys.answers(self._ports().etcd, path, ca=keys.etcd_ca, client=keys.etcd)
        if not keys.answers(self._ports().of(name), path, ca=keys.ca, client=keys.admin):
            return False
        # Pods and tokens need the default ServiceAccount, so a controller manager that has not made it is not ready.
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        return name != CONTROLLER_MANAGER or keys.answers(
            self._ports().apiserver, account, ca=keys.ca, client=keys.admin
        )
